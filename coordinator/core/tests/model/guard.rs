//! The member's side: what a guard and its agent take, and what they refuse.

use crate::{
    rules::{Protocol, Rule},
    seed::{self, Fencing},
    world::{Asked, Driven, World},
};

impl Protocol {
    /// As the guard judges a grant.
    pub fn receive(&self, world: &mut World, node: usize, member: usize) -> Option<()> {
        let now_ns = world.member_now_ns(self);
        let grant = world.nodes[node].grants[member].take()?;
        let guard = &mut world.members[member];
        let from_receipt = self.lacks(Rule::DeadlineFromSending);
        let deadline_ns =
            if from_receipt { now_ns + self.clocks.ttl_ms * 1_000_000 } else { grant.deadline_ns };
        let refused = guard.off
            || grant.restarts != guard.restarts
            || grant.epoch <= guard.fenced_through
            || grant.epoch < guard.highest
            || guard.promised.is_some_and(|(of, until_ns)| grant.epoch > of && now_ns <= until_ns)
            || deadline_ns <= now_ns;
        if refused {
            return None;
        }
        let held_ns = guard.lease.filter(|(epoch, _)| *epoch == grant.epoch).map_or(0, |(_, held)| held);
        guard.highest = grant.epoch;
        guard.lease = Some((grant.epoch, deadline_ns.max(held_ns)));
        Some(())
    }

    /// The primary asks everybody. Asking costs nothing, so it is offered whether coordinators are silent or not.
    pub fn ask(&self, world: &mut World, member: usize) -> Option<()> {
        let sent_ns = world.member_now_ns(self);
        let guard = &world.members[member];
        let leased =
            guard.lease.filter(|(epoch, deadline_ns)| *epoch == guard.primary_of && sent_ns < *deadline_ns);
        let (epoch, _) = leased.filter(|_| !guard.off)?;
        let asked = Asked {
            member,
            restarts: guard.restarts,
            epoch,
            sent_ns,
            promised: vec![false; world.members.len()],
        };
        if world.asked.as_ref().is_some_and(|last| last.sent_ns == sent_ns && last.member == member) {
            return None;
        }
        world.asked = Some(asked);
        Some(())
    }

    /// A promise is on the promiser's disk before it is answered.
    pub fn promise(&self, world: &mut World, member: usize) -> Option<()> {
        let (now_ns, hold_ns) = (world.member_now_ns(self), self.hold_ns());
        let asked = world.asked.as_mut()?;
        let guard = &mut world.members[member];
        let epoch = asked.epoch;
        let refused = guard.off
            || asked.promised[member]
            || epoch <= guard.fenced_through.max(guard.promises_closed)
            || epoch < guard.highest.max(guard.promised.map_or(0, |(of, _)| of));
        if refused {
            return None;
        }
        let until_ns = guard.promised.map_or(0, |(_, until_ns)| until_ns).max(now_ns + hold_ns);
        guard.promised = Some((epoch, until_ns));
        asked.promised[member] = true;
        Some(())
    }

    /// Everybody has promised: the running lease gets a later deadline, counted from before the asking.
    pub fn extend(&self, world: &mut World) -> Option<()> {
        let now_ns = world.member_now_ns(self);
        let asked = world.asked.clone()?;
        let last =
            if self.lacks(Rule::PromiseOfEverybody) { world.members.len() - 1 } else { world.members.len() };
        if !(0..last).all(|member| member == asked.member || asked.promised[member]) {
            return None;
        }
        let deadline_ns = asked.sent_ns + self.clocks.ttl_ms * 1_000_000;
        let guard = &mut world.members[asked.member];
        let running = guard.lease.is_some_and(|(epoch, until_ns)| epoch == asked.epoch && now_ns < until_ns);
        let refused = guard.off
            || asked.restarts != guard.restarts
            || asked.epoch <= guard.fenced_through
            || asked.epoch < guard.highest
            || deadline_ns <= now_ns
            || !running;
        if refused || guard.lease.is_some_and(|(epoch, held)| epoch == asked.epoch && held >= deadline_ns) {
            return None;
        }
        guard.lease = Some((asked.epoch, deadline_ns));
        Some(())
    }

    /// What `Prepare` comes to: promises are closed, unless one is outstanding that counts. Ticks are coarse: a promise that
    /// ends within one lasts for all of it.
    pub fn closes(&self, world: &World, member: usize, fenced: u64, void: bool) -> bool {
        let now_ns = world.member_now_ns(self);
        let outstanding = world.members[member].promised.filter(|(_, until_ns)| now_ns <= *until_ns);
        outstanding.is_none_or(|(epoch, _)| void && epoch <= fenced)
    }

    /// The directive may be as late as it likes.
    pub fn promote(&self, world: &mut World, member: usize, epoch: u64) -> Option<()> {
        let now_ns = world.member_now_ns(self);
        let guard = &mut world.members[member];
        if guard.off || guard.fenced_through >= epoch || guard.highest > epoch || guard.primary_of >= epoch {
            return None;
        }
        let leased = guard.lease.is_some_and(|(of, deadline_ns)| of == epoch && now_ns < deadline_ns);
        if !leased {
            if !self.lacks(Rule::LeaseGatedPromotion) {
                return None;
            }
            guard.ungated = true;
        }
        (guard.highest, guard.primary_of) = (epoch, epoch);
        Some(())
    }
}

/// The answer comes when the namespace is empty, so fencing and answering are one step.
pub fn fence(world: &mut World, member: usize, epoch: u64) -> Option<()> {
    let guard = &mut world.members[member];
    if guard.off || guard.fenced_through >= epoch {
        return None;
    }
    guard.fenced_through = epoch;
    // A lease of a higher epoch is another appointment's.
    guard.lease = guard.lease.filter(|(of, _)| *of > epoch);
    guard.ungated = false;
    Some(())
}

/// A driver works on the instance that it was told of. One that is gone already, because its guard has restarted, is as
/// dead as can be; the driver does not touch the next one and still tells the truth.
pub fn drive(world: &mut World, fencing: Fencing) -> Option<()> {
    let instance = fencing.instance?;
    let guard = &mut world.members[fencing.member];
    let driven = Some(Driven { key: fencing.key, instance });
    if guard.driven == driven {
        return None;
    }
    if seed::instance(fencing.member, guard.restarts) == instance {
        (guard.off, guard.lease, guard.ungated) = (true, None, false);
    }
    guard.driven = driven;
    Some(())
}
