//! What can happen next, and what comes of it. Every decision is the core's: `State::apply` accepts or rejects what the
//! shells put to it, `LeaseTable` grants and says when the bound has passed. A shell keeps the rules that are its own,
//! unless the search takes one out.

use regent_core::{Confirmed, Leadership};
use regent_types::{CoordinatorId, LeaseDecision};
use stateright::{Model, Property};

use crate::{
    guard,
    rules::{Protocol, Rule, Without},
    seed,
    world::{Beat, Grant, Round, Table, World},
};

/// What a leader proposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// The primary is silent: declare a failover, `FenceDecided` with it.
    Declare,
    /// The primary's guard has restarted.
    DeclareRestarted,
    /// The bound has passed on this node's table.
    Expired { node: usize },
    /// It had passed before `FenceDecided`.
    ExpiredEarly { node: usize },
    /// The guard has acknowledged the fence, and these report.
    Acknowledged(Reporters),
    /// A driver has said that the instance is dead.
    Driven,
    /// The candidates report again.
    Reported(Reporters),
    /// The promotion is given up.
    Overdue,
    /// The promotion was verified.
    Promoted,
}

/// Who answers to `Prepare`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reporters {
    Everybody,
    FencedMember,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Time passes.
    Tick,
    /// A node becomes leader of the next term; what the last one had appended survives or not.
    Elect { node: usize, keep_tail: bool },
    /// The leader appends an entry.
    Append(Wish),
    /// A quorum has it.
    Commit,
    /// A node applies the next committed entry.
    Apply { node: usize },
    /// A heartbeat arrives.
    Beat { member: usize, node: usize },
    /// A round ends; it answers for every heartbeat that had arrived before.
    Round { node: usize },
    /// A node grants a lease; the acknowledgement is under way.
    Grant { node: usize, member: usize },
    /// It arrives.
    Receive { node: usize, member: usize },
    /// `Promote` is obeyed.
    Promote { member: usize, epoch: u64 },
    /// `Fence` is obeyed: the namespace is empty.
    Fence { member: usize, epoch: u64 },
    /// The primary asks everybody for promises.
    Ask { member: usize },
    /// One promises.
    Vow { member: usize },
    /// All promises have come back.
    Extend,
    /// An external driver, started for the fence in the log at this index, has done its work.
    Drive { entry: usize },
    /// The guard restarts, and PostgreSQL dies with it.
    Restart { member: usize },
    /// A leader looks at its bound before it declares.
    LookEarly { node: usize },
}

/// Never two writers.
pub const ONE_WRITER: &str = "at most one member is writable";
/// Not vacuous: the second epoch is established and writes.
pub const FAILS_OVER: &str = "a failover completes";
/// Not vacuous: a lease outlives its leader.
pub const NEW_LEADER_GRANTS: &str = "a new leader grants a lease";

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let bounds = &self.bounds;
        let (nodes, members) = (bounds.nodes, bounds.members);
        if world.tick < bounds.ticks {
            actions.push(Action::Tick);
        }
        if world.leading.term < bounds.terms {
            for node in 0..nodes {
                actions.push(Action::Elect { node, keep_tail: false });
                if world.tail.is_some() {
                    actions.push(Action::Elect { node, keep_tail: true });
                }
            }
        }
        match &world.tail {
            Some(_) => actions.push(Action::Commit),
            None => self.wishes(world, |wish| actions.push(Action::Append(wish))),
        }
        for node in 0..nodes {
            if world.nodes[node].table.leases.leadership().is_none() {
                continue;
            }
            if world.nodes[node].applied + 1 < world.log.len() {
                actions.push(Action::Apply { node });
            }
            let unconfirmed = world.nodes[node].beats.iter().flatten().any(|beat| beat.round.is_none());
            if unconfirmed || self.lacks(Rule::RoundAfterHeartbeat) {
                actions.push(Action::Round { node });
            }
            // A heartbeat of anyone else is refused, and one that is sent after the appointment is worth more.
            if !world.applied(node).is_fenced {
                actions.push(Action::Beat { member: world.applied(node).appointed.0, node });
            }
            for member in 0..members {
                if world.nodes[node].beats[member].is_some_and(|beat| beat.round.is_some()) {
                    actions.push(Action::Grant { node, member });
                }
                if world.nodes[node].grants[member].is_some() {
                    actions.push(Action::Receive { node, member });
                }
            }
            if self.lacks(Rule::FenceBeforeProof) {
                actions.push(Action::LookEarly { node });
            }
        }
        let mut directives = Vec::new();
        for replica in world.seen().skip(1) {
            let directive = match &replica.fencing {
                Some(_) if bounds.without.contains(&Without::Acknowledgement) => continue,
                Some(fencing) if world.members[fencing.member].fenced_through >= fencing.epoch => continue,
                Some(fencing) => Action::Fence { member: fencing.member, epoch: fencing.epoch },
                None => {
                    let (member, epoch) = replica.appointed;
                    if world.members[member].primary_of >= epoch {
                        continue;
                    }
                    Action::Promote { member, epoch }
                }
            };
            if !directives.contains(&directive) {
                directives.push(directive);
            }
        }
        actions.append(&mut directives);
        if !bounds.without.contains(&Without::Drivers) {
            let seen = world.seen().count();
            let drives = (1..seen).filter(|entry| {
                let fencing = world.log[*entry].fencing.as_ref();
                // Once for each effect: later entries of the same wait name it again.
                fencing.is_some_and(|fencing| {
                    fencing.is_proof_wanted && world.log[entry - 1].fencing.as_ref() != Some(fencing)
                })
            });
            actions.extend(drives.map(|entry| Action::Drive { entry }));
        }
        if bounds.promises {
            for member in 0..members {
                if world.members[member].primary_of > 0 {
                    actions.push(Action::Ask { member });
                }
                if world.asked.as_ref().is_some_and(|asked| asked.member != member && !asked.promised[member])
                {
                    actions.push(Action::Vow { member });
                }
            }
            if world.asked.is_some() {
                actions.push(Action::Extend);
            }
        }
        for member in 0..members {
            if world.members[member].restarts < bounds.restarts {
                actions.push(Action::Restart { member });
            }
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let appended = match action {
            Action::Append(wish) => Some(self.append(last, wish)?),
            _ => None,
        };
        let mut world = last.clone();
        let changed = match action {
            Action::Tick => self.tick(&mut world),
            Action::Elect { node, keep_tail } => self.elect(&mut world, node, keep_tail),
            Action::Append(wish) => appended.map(|replica| {
                self.close_promises(&mut world, wish);
                if world.leading.term < self.bounds.terms {
                    world.tail = Some(replica);
                } else {
                    // No later leader can lose it: to commit it later is to append it later.
                    world.log.push(replica);
                }
            }),
            Action::Commit => world.tail.take().map(|replica| world.log.push(replica)),
            Action::Apply { node } => {
                world.nodes[node].applied += 1;
                Some(())
            }
            Action::Beat { member, node } => self.beat(&mut world, member, node),
            Action::Round { node } => self.round(&mut world, node),
            Action::Grant { node, member } => self.grant(&mut world, node, member),
            Action::Receive { node, member } => self.receive(&mut world, node, member),
            Action::Promote { member, epoch } => self.promote(&mut world, member, epoch),
            Action::Fence { member, epoch } => guard::fence(&mut world, member, epoch),
            Action::Drive { entry } => {
                let fencing = world.log[entry].fencing.clone().expect("offered only with a fence");
                guard::drive(&mut world, fencing)
            }
            Action::Restart { member } => {
                let guard = &mut world.members[member];
                guard.restarts += 1;
                (guard.lease, guard.ungated, guard.off) = (None, false, false);
                if self.lacks(Rule::PromiseOnDisk) {
                    guard.promised = None;
                }
                Some(())
            }
            Action::LookEarly { node } => self.look_early(&mut world, node),
            Action::Ask { member } => self.ask(&mut world, member),
            Action::Vow { member } => self.promise(&mut world, member),
            Action::Extend => self.extend(&mut world),
        };
        changed.map(|()| world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_WRITER, |protocol: &Self, world: &World| {
                (0..world.members.len()).filter(|member| world.is_writable(protocol, *member)).count() <= 1
            }),
            Property::sometimes(FAILS_OVER, |protocol: &Self, world: &World| {
                let (member, epoch) = world.committed().appointed;
                epoch > 1
                    && world.committed().cluster().established().is_some()
                    && world.is_writable(protocol, member)
            }),
            Property::sometimes(NEW_LEADER_GRANTS, |_, world: &World| {
                world.nodes.iter().any(|node| {
                    let new = node.table.leases.leadership().is_some_and(|led| led.term > 1);
                    new && node.grants.iter().any(Option::is_some)
                })
            }),
        ]
    }
}

impl Protocol {
    fn tick(&self, world: &mut World) -> Option<()> {
        world.tick += 1;
        let member_ns = world.member_now_ns(self);
        let kill_ns = self.clocks.kill_ms * 1_000_000;
        let ttl_ns = self.clocks.ttl_ms * 1_000_000;
        for guard in &mut world.members {
            guard.lease = guard.lease.filter(|(_, deadline_ns)| member_ns <= deadline_ns + kill_ns);
        }
        if self.lacks(Rule::DeadlineFromSending) {
            return Some(());
        }
        // What the guard would refuse as too late need not be carried along.
        for node in &mut world.nodes {
            for beat in &mut node.beats {
                *beat = beat.filter(|beat| member_ns < beat.stamp_ns + ttl_ns);
            }
            for grant in &mut node.grants {
                *grant = grant.filter(|grant| member_ns < grant.deadline_ns);
            }
        }
        Some(())
    }

    fn elect(&self, world: &mut World, node: usize, keep_tail: bool) -> Option<()> {
        let id = CoordinatorId(node as u64);
        world.leading = Leadership { term: world.leading.term + 1, node: id };
        if let Some(replica) = world.tail.take()
            && keep_tail
        {
            world.log.push(replica);
        }
        let since_ns = if self.lacks(Rule::BoundFromElection) { 0 } else { world.node_now_ns(self) };
        let elected = &mut world.nodes[node];
        let mut leases = elected.table.leases.clone();
        leases.begin(world.leading, since_ns);
        elected.table = Table::new(leases);
        (elected.round, elected.early) = (None, None);
        Some(())
    }

    fn beat(&self, world: &mut World, member: usize, node: usize) -> Option<()> {
        if world.members[member].off {
            return None;
        }
        let stamp_ns = world.member_now_ns(self);
        let restarts = world.members[member].restarts;
        let round = if self.lacks(Rule::RoundAfterHeartbeat) { world.nodes[node].round } else { None };
        let beat = Beat { stamp_ns, restarts, round };
        let waiting = &mut world.nodes[node].beats[member];
        let same = waiting.is_some_and(|last| last.stamp_ns == stamp_ns && last.restarts == restarts);
        if same {
            return None;
        }
        world.nodes[node].beats[member] = Some(beat);
        Some(())
    }

    fn round(&self, world: &mut World, node: usize) -> Option<()> {
        let leadership = world.nodes[node].table.leases.leadership()?;
        let read_index = if self.lacks(Rule::AppliedIndex) {
            0
        } else if leadership != world.leading {
            // All that a deposed leader can say by itself.
            world.applied(node).state.applied_index
        } else {
            world.committed().state.applied_index
        };
        if leadership != world.leading && !self.lacks(Rule::QuorumConfirmation) {
            return None;
        }
        let round = Some(Round { leadership, read_index });
        let asked = &mut world.nodes[node];
        if self.lacks(Rule::RoundAfterHeartbeat) {
            let new = asked.round != round;
            asked.round = round;
            return new.then_some(());
        }
        let mut answered = false;
        for beat in asked.beats.iter_mut().flatten().filter(|beat| beat.round.is_none()) {
            beat.round = round;
            answered = true;
        }
        answered.then_some(())
    }

    fn grant(&self, world: &mut World, node: usize, member: usize) -> Option<()> {
        let beat = world.nodes[node].beats[member]?;
        let round = beat.round?;
        let confirmed = Confirmed { leadership: round.leadership, read_index: round.read_index };
        let heartbeat = seed::heartbeat(member, beat.restarts, beat.stamp_ns);
        let now_ns = world.node_now_ns(self);
        let state = &world.log[world.nodes[node].applied].state;
        let mut leases = world.nodes[node].table.leases.clone();
        let acknowledgement = leases.grant(now_ns, &confirmed, state, &heartbeat).ok()?;
        // A refusal would fence the member; that it is lost on the way is the worse case.
        let LeaseDecision::Granted(granted) = acknowledgement.lease else { return None };
        let granting = &mut world.nodes[node];
        granting.table = Table::new(leases);
        granting.beats[member] = None;
        granting.grants[member] = Some(Grant {
            epoch: granted.epoch.0,
            restarts: beat.restarts,
            deadline_ns: granted.deadline_ns(),
        });
        Some(())
    }
}
