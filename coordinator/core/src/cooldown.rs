//! Flap damping (DESIGN section 7): after an automatic failover the next one waits for an operator's acknowledgement, until
//! the cooldown is over.
//!
//! The core has no clock, and wall time decides nothing. So the state only says *that* a cooldown runs and after which
//! failover; how long it has run is counted by each node on its own monotonic clock from the moment at which that node
//! first saw the failover ended. The leader proposes the end when *its* count is full.
//!
//! Which way a mistake falls: every count begins after the failover ended, so it can only be too short, and a node that was
//! restarted begins anew. Each mistake is a cooldown that lasts longer: a failover that waits for an operator, never a
//! needless one. Interleaving: a cooldown ends, the proposal is delayed, and a second automatic failover begins a new one
//! before it commits: the end names the operation that began its cooldown, so it is refused.

use std::collections::BTreeMap;

use regent_types::{ClusterName, OperationId};
use serde::{Deserialize, Serialize};

use crate::{Body, Cluster, State};

/// An automatic failover after which the next one waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cooldown {
    /// The failover.
    pub operation: OperationId,
    /// When it was declared, wall ms (display only).
    pub wall_ms: u64,
}

/// A node's count of every running cooldown. Kept by followers too, so that a new leader counts on from what it saw.
#[derive(Debug, Clone, Default)]
pub struct Cooldowns {
    since_ns: BTreeMap<ClusterName, (OperationId, u64)>,
}

impl Cooldowns {
    /// Looks at the state: begins, forgets, and goes on counting.
    pub fn observe(&mut self, now_ns: u64, state: &State) {
        self.since_ns.retain(|name, (operation, _)| {
            let cooldown = state.clusters.get(name).and_then(|cluster| cluster.cooldown.as_ref());
            cooldown.is_some_and(|cooldown| cooldown.operation == *operation)
        });
        for (name, cluster) in &state.clusters {
            let Some(cooldown) = &cluster.cooldown else { continue };
            let runs = cluster.operation.as_ref().is_some_and(|running| running.id == cooldown.operation);
            if !runs {
                self.since_ns.entry(name.clone()).or_insert((cooldown.operation, now_ns));
            }
        }
    }

    /// What is left of the cluster's cooldown by this node's count, ms; `None` without one.
    pub fn remaining_ms(&self, now_ns: u64, cluster: &Cluster) -> Option<u64> {
        let cooldown = cluster.cooldown.as_ref()?;
        let counted = self.since_ns.get(&cluster.config.name).filter(|(id, _)| *id == cooldown.operation);
        let counted_ms = counted.map_or(0, |(_, since_ns)| now_ns.saturating_sub(*since_ns) / 1_000_000);
        Some(cluster.config.policy.cooldown_ms.saturating_sub(counted_ms))
    }

    /// The cooldowns that are over, to be proposed by the leader.
    pub fn over(&self, now_ns: u64, state: &State) -> Vec<Body> {
        let ended = self.since_ns.iter().filter_map(|(name, (operation, since_ns))| {
            let counted_ms = now_ns.saturating_sub(*since_ns) / 1_000_000;
            let cluster = state.clusters.get(name)?;
            (counted_ms >= cluster.config.policy.cooldown_ms).then(|| Body::CooldownOver {
                cluster: name.clone(),
                operation: *operation,
                counted_ms,
            })
        });
        ended.collect()
    }
}
