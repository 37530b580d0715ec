//! The member's side: what a guard and its agent take, and what they refuse.

use crate::{
    rules::{Protocol, Rule},
    seed::{self, Fencing},
    world::{Driven, World},
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
            || deadline_ns <= now_ns;
        if refused {
            return None;
        }
        let held_ns = guard.lease.filter(|(epoch, _)| *epoch == grant.epoch).map_or(0, |(_, held)| held);
        guard.highest = grant.epoch;
        guard.lease = Some((grant.epoch, deadline_ns.max(held_ns)));
        Some(())
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
