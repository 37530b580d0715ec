//! What a leader proposes, and from which knowledge. Whether it is accepted is for `State::apply` to say.

use std::sync::Arc;

use regent_core::{Body, Confinement, ExternalEvidence, FenceProof};
use regent_types::{CandidateReport, Epoch};

use crate::{
    rules::{Protocol, Rule, Without},
    seed::{self, Fencing},
    step::{Reporters, Wish},
    world::{Driven, Replica, World},
};

/// Effects of one operation.
const EFFECTS_MAX: u32 = 6;

impl Protocol {
    pub fn wishes(&self, world: &World, mut wish: impl FnMut(Wish)) {
        let replica = world.committed();
        let (member, epoch) = replica.appointed;
        let Some(fencing) = &replica.fencing else {
            if epoch < self.bounds.epochs {
                wish(Wish::Declare);
                if world.members[member].restarts > 0 {
                    wish(Wish::DeclareRestarted);
                }
            }
            if replica.cluster().established().is_none() {
                if !self.bounds.without.contains(&Without::Overdue) && epoch < self.bounds.epochs {
                    wish(Wish::Overdue);
                }
                if world.members[member].primary_of >= epoch {
                    wish(Wish::Promoted);
                }
            }
            return;
        };
        for reporters in [Reporters::Everybody, Reporters::FencedMember] {
            if !fencing.is_proof_wanted {
                wish(Wish::Reported(reporters));
            } else if world.members[fencing.member].fenced_through >= fencing.epoch {
                wish(Wish::Acknowledged(reporters));
            }
        }
        if fencing.is_proof_wanted && self.word(world, fencing).is_some() {
            wish(Wish::Driven);
        }
        if self.bounds.without.contains(&Without::Expiry) {
            return;
        }
        for node in 0..world.nodes.len() {
            wish(Wish::Expired { node });
            if self.lacks(Rule::FenceBeforeProof) {
                wish(Wish::ExpiredEarly { node });
            }
        }
    }

    /// The state after the entry, if the core accepts it.
    pub fn append(&self, world: &World, wish: Wish) -> Option<Arc<Replica>> {
        let body = self.body(world, wish)?;
        let proposal = seed::proposal(world.leading.node, body);
        let replica = world.committed().after(world.leading, &proposal)?;
        let (_, epoch) = replica.appointed;
        // A report that leaves the operation waiting repeats itself for ever: a few are enough for everybody's turn.
        let operation = replica.cluster().operation.as_ref();
        if epoch > self.bounds.epochs || operation.is_some_and(|o| o.next_effect > EFFECTS_MAX) {
            return None;
        }
        Some(replica)
    }

    fn body(&self, world: &World, wish: Wish) -> Option<Body> {
        let replica = world.committed();
        let (member, epoch) = replica.appointed;
        let (cluster, restarts) = (seed::cluster(), world.members[member].restarts);
        let waiting = replica.fencing.clone();
        let acknowledged = waiting.as_ref().and_then(|fencing| {
            let guard = &world.members[fencing.member];
            (guard.fenced_through >= fencing.epoch).then(|| seed::fenced(fencing.member, guard))
        });
        match wish {
            Wish::Declare => Some(seed::declare_failover(Epoch(epoch), member, world.members.len(), None)),
            Wish::DeclareRestarted => {
                Some(seed::declare_failover(Epoch(epoch), member, world.members.len(), Some(restarts)))
            }
            Wish::Expired { node } => self.expired(world, node),
            Wish::ExpiredEarly { node } => {
                let fencing =
                    world.applied(node).fencing.clone().filter(|fencing| fencing.is_proof_wanted)?;
                let (leadership, _) = world.nodes[node].early.filter(|(_, of)| *of == fencing.epoch)?;
                let proof = FenceProof::LeaseExpired { leadership, led_for_ms: 0, passed_for_ms: 0 };
                Some(self.proven(world, fencing, proof, Reporters::Everybody))
            }
            Wish::Acknowledged(reporters) => {
                let fencing = waiting.filter(|fencing| fencing.is_proof_wanted)?;
                Some(self.proven(world, fencing, FenceProof::Acknowledged(acknowledged?), reporters))
            }
            // Honest, however old: whether it is good for the fence that waits is the core's to judge.
            Wish::Driven => {
                let fencing = waiting.filter(|fencing| fencing.is_proof_wanted)?;
                let driven = self.word(world, &fencing)?;
                let proof = FenceProof::External(ExternalEvidence {
                    driver: String::new(),
                    begun_for: driven.key,
                    instance: driven.instance,
                    confinement: Confinement::Dead,
                    detail: String::new(),
                    elapsed_ms: 0,
                });
                Some(self.proven(world, fencing, proof, Reporters::Everybody))
            }
            Wish::Reported(reporters) => {
                let fencing = waiting.filter(|fencing| !fencing.is_proof_wanted)?;
                let candidates = self.reports(world, &fencing, reporters);
                Some(Body::CandidatesReported { key: fencing.key, acknowledged, candidates })
            }
            Wish::Overdue => {
                let operation = replica.cluster().operation.as_ref()?;
                let (operation, step) = (operation.id, operation.step);
                Some(Body::StepOverdue { cluster, operation, step, epoch: Epoch(epoch), after_ms: 0 })
            }
            Wish::Promoted => {
                let key = replica.cluster().effects().first()?.key.clone();
                Some(seed::promoted(key, Epoch(epoch)))
            }
        }
    }

    /// What a driver has said of the member that is to be fenced. Without the rule any driver's word, about anybody, is
    /// passed off as one for the fence that waits.
    fn word(&self, world: &World, fencing: &Fencing) -> Option<Driven> {
        if self.lacks(Rule::DriverBegunForThisFence) {
            world.members.iter().find_map(|member| member.driven.as_ref())?;
            return Some(Driven { key: fencing.key.clone(), instance: fencing.instance? });
        }
        world.members[fencing.member].driven.clone()
    }

    /// The node's table says that the bound has passed. A node that was deposed meanwhile forwards it to the leader.
    fn expired(&self, world: &World, node: usize) -> Option<Body> {
        let replica = world.applied(node);
        let fencing = replica.fencing.clone().filter(|fencing| fencing.is_proof_wanted)?;
        let leases = &world.nodes[node].table.leases;
        let leadership = leases.leadership()?;
        let proof = leases
            .bound_passed(world.node_now_ns(self), leadership, &replica.state, &seed::cluster())
            .ok()?;
        let FenceProof::LeaseExpired { mut leadership, .. } = proof else { return None };
        if self.lacks(Rule::ProofOfThisLeadership) {
            leadership = world.leading;
        }
        // For how long is for display: it would only tell equal states apart.
        let proof = FenceProof::LeaseExpired { leadership, led_for_ms: 0, passed_for_ms: 0 };
        Some(self.proven(world, fencing, proof, Reporters::Everybody))
    }

    pub fn look_early(&self, world: &mut World, node: usize) -> Option<()> {
        let replica = world.applied(node);
        let (member, epoch) = replica.appointed;
        let (leases, early) = (&world.nodes[node].table.leases, world.nodes[node].early);
        let leadership = leases.leadership()?;
        if replica.is_fenced || early.is_some() {
            return None;
        }
        let declare = seed::declare_failover(Epoch(epoch), member, world.members.len(), None);
        let declared = replica.after(leadership, &seed::proposal(leadership.node, declare))?;
        leases.bound_passed(world.node_now_ns(self), leadership, &declared.state, &seed::cluster()).ok()?;
        world.nodes[node].early = Some((leadership, epoch));
        Some(())
    }
}

/// Whether what was promised to the fenced epoch protects nobody, by this proof or by one that is recorded.
fn is_void(world: &World, proof: Option<&FenceProof>) -> bool {
    proof.is_some_and(FenceProof::voids_promises) || world.committed().cluster().promises_void()
}

fn reporting(world: &World, fencing: &Fencing, reporters: Reporters) -> Vec<usize> {
    let asked = |member: &usize| reporters == Reporters::Everybody || *member == fencing.member;
    (0..world.members.len()).filter(asked).filter(|member| !world.members[*member].off).collect()
}

impl Protocol {
    fn proven(&self, world: &World, fencing: Fencing, proof: FenceProof, reporters: Reporters) -> Body {
        let candidates = self.reports_after(world, &fencing, reporters, Some(&proof));
        Body::FenceProven { key: fencing.key, proof, candidates }
    }

    fn reports(&self, world: &World, fencing: &Fencing, reporters: Reporters) -> Vec<CandidateReport> {
        self.reports_after(world, fencing, reporters, None)
    }

    fn reports_after(
        &self,
        world: &World,
        fencing: &Fencing,
        reporters: Reporters,
        proof: Option<&FenceProof>,
    ) -> Vec<CandidateReport> {
        let void = is_void(world, proof);
        let report = |member: usize| {
            let guard = &world.members[member];
            let closes = self.closes(world, member, fencing.epoch, void);
            let closed = if closes { fencing.epoch } else { guard.promises_closed };
            CandidateReport {
                promises_closed: Epoch(closed),
                ..seed::report(member, guard, Epoch(fencing.epoch))
            }
        };
        reporting(world, fencing, reporters).into_iter().map(report).collect()
    }

    /// Whoever reported with closed promises has them closed, on its disk.
    pub fn close_promises(&self, world: &mut World, wish: Wish) {
        if !self.bounds.promises {
            return;
        }
        let Some(fencing) = world.committed().fencing.clone() else { return };
        let (reporters, void) = match wish {
            Wish::Expired { .. } | Wish::ExpiredEarly { .. } => (Reporters::Everybody, false),
            Wish::Driven => (Reporters::Everybody, true),
            Wish::Acknowledged(reporters) => (reporters, true),
            Wish::Reported(reporters) => (reporters, is_void(world, None)),
            _ => return,
        };
        let void = void || is_void(world, None);
        for member in reporting(world, &fencing, reporters) {
            if self.closes(world, member, fencing.epoch, void) {
                let guard = &mut world.members[member];
                guard.promises_closed = guard.promises_closed.max(fencing.epoch);
                guard.promised = None;
            }
        }
    }
}
