//! The second phase: nothing breaks any more, and everything has to end by itself, with an operator who answers what waits
//! for one. In the end there is one primary, every member follows it, the name leads to it, and nothing is pending.

use regent_core::SyncState;

use crate::{clock::S, config, event::Event, invariant::Fact, operator::Wish, world::World};

/// How long the deployment may take.
pub const LIMIT_NS: u64 = 240 * S;

/// Something waits for an operator. A failback that was found at another epoch is void.
fn is_pending(cluster: &regent_core::Cluster) -> bool {
    let failback = cluster.pending_failback.as_ref();
    cluster.pending.is_some() || failback.is_some_and(|failback| failback.epoch == cluster.epoch)
}

impl World {
    /// Looks once a second, and answers what waits for an operator.
    pub fn look(&mut self) {
        match self.unrest() {
            None => {
                self.settled = Some(self.now_ns);
                self.tell_of_the_end();
            }
            Some(why) => {
                self.unsettled = why;
                self.answer_for_operators();
                self.queue.at(self.now_ns + S, Event::Look);
            }
        }
    }

    fn answer_for_operators(&mut self) {
        let leader = self.nodes.iter().find(|node| node.up && node.leadership == self.newest_leadership());
        let Some(cluster) = leader.and_then(|node| node.cluster()) else { return };
        let missing = (0..self.setup.members).find(|at| {
            let name = config::member_name(*at);
            !cluster.config.members.contains_key(&name)
        });
        let wish = if cluster.automation != regent_types::Automation::Automatic {
            if cluster.automation == regent_types::Automation::Paused {
                Wish::Resume
            } else {
                Wish::Automatic
            }
        } else if is_pending(cluster) {
            Wish::Approve
        } else if let Some(member) = missing {
            Wish::Add(member)
        } else if cluster.cooldown.is_some() {
            Wish::Acknowledge
        } else {
            return;
        };
        self.operator_wants(wish);
    }

    fn newest_leadership(&self) -> Option<regent_core::Leadership> {
        self.nodes.iter().filter(|node| node.up).filter_map(|node| node.leadership).max()
    }

    /// What is not well yet.
    fn unrest(&self) -> Option<String> {
        let newest = self.newest_leadership();
        let Some(leader) =
            self.nodes.iter().find(|node| node.up && node.leadership == newest && newest.is_some())
        else {
            return Some("no coordinator leads".into());
        };
        let Some(cluster) = leader.cluster() else { return Some("the cluster is not configured".into()) };
        if let Some(operation) = &cluster.operation {
            return Some(format!(
                "operation {} ({:?}) is in {:?}, waiting: {:?}; {:?}",
                operation.id, operation.kind, operation.step, operation.waiting, operation.verdicts
            ));
        }
        if is_pending(cluster) {
            return Some("something is pending".into());
        }
        if cluster.config.members.len() < self.setup.members {
            return Some("a member is not part of the cluster".into());
        }
        let Some((appointment, _)) = cluster.established() else {
            return Some("no primary is established".into());
        };
        let primary = config::member_index(&appointment.member);
        if self.writers[primary] != Some(appointment.epoch.0) {
            return Some(format!("the primary {} cannot write", appointment.member));
        }
        for member in (0..self.setup.members).filter(|member| *member != primary) {
            let name = config::member_name(member);
            if cluster.sync.get(&name) != Some(&SyncState::Confirmed { epoch: appointment.epoch }) {
                return Some(format!("{name} is {:?}", cluster.sync.get(&name)));
            }
            let streams = self.hosts[member].server.as_ref().is_some_and(|server| server.streaming);
            if !streams || self.upstream_of(member) != Some(primary) {
                return Some(format!("{name} does not stream from {}", appointment.member));
            }
        }
        let address = cluster.config.members[&appointment.member].client_address;
        if self.dns.shown.is_none_or(|(_, shown)| shown != address) {
            return Some(format!("the name leads to {:?}, the primary is at {address}", self.dns.shown));
        }
        None
    }

    /// Every acknowledged write is in the primary, in a salvage, or in a directory that was kept.
    fn tell_of_the_end(&mut self) {
        let Some(primary) = self.writers.iter().position(Option::is_some) else { return };
        let mut found = vec![false; self.writes.len()];
        let mut mark = |id: u32| found[id as usize] = true;
        self.hosts[primary].data.writes_from(0).for_each(&mut mark);
        for host in &self.hosts {
            host.salvaged.iter().copied().for_each(&mut mark);
            host.kept.iter().for_each(|data| data.writes_from(0).for_each(&mut mark));
        }
        let lost: Vec<u32> = (0u32..)
            .zip(&self.writes)
            .zip(&found)
            .filter(|((_, write), found)| write.acknowledged && !**found)
            .map(|((id, _), _)| id)
            .collect();
        self.fact(Fact::Settled { lost });
        // Whoever applied the same entries has the same state.
        let newest = self.nodes.iter().map(|node| node.state.applied_index).max().unwrap_or(0);
        let states: Vec<_> = self.nodes.iter().filter(|node| node.state.applied_index == newest).collect();
        let same = states.windows(2).all(|pair| pair[0].state == pair[1].state);
        self.fact(Fact::Replicas { same });
    }
}
