//! Keeps a leader that hears no quorum from being heard.
//!
//! A follower stays with a leader that it hears. One whose messages arrive while no answer comes back (a link broken in
//! one direction) would thus keep its followers from electing another and could itself commit nothing, for ever
//! (openraft #2080). openraft silences *heartbeats* by its `quorum_loss_probe_interval`, but not entries and snapshots,
//! which followers take for a sign of life as well. This gate silences those, in the same rhythm: after a lease without
//! a quorum quiet for one period, then one period of tries, and so on. A mistake falls to the quiet side: at worst a
//! needless election.

use std::{
    sync::{Mutex, OnceLock},
    time::Duration,
};

use openraft::{
    Instant as _, ServerState, async_runtime::watch::WatchReceiver, type_config::alias::WatchReceiverOf,
};
use tokio::time::Instant;

use crate::types::{LeaderId, Metrics, TypeConfig};

/// Length of a quiet period, in leases (a lease is `election_timeout_max`). Two are what openraft asks for: one until the
/// followers are free, one until the slower of them stands. The third is for ticks, Pre-Vote and round trips.
pub(crate) const QUIET_LEASES: u32 = 3;

pub(crate) struct QuorumGate {
    lease: Duration,
    metrics: OnceLock<WatchReceiverOf<TypeConfig, Metrics>>,
    /// Since when this node has seen itself as that leader; stands in until the first quorum has answered.
    since: Mutex<Option<(LeaderId, Instant)>>,
}

impl QuorumGate {
    pub(crate) fn new(lease: Duration) -> Self {
        Self { lease, metrics: OnceLock::new(), since: Mutex::new(None) }
    }

    pub(crate) fn watch(&self, metrics: WatchReceiverOf<TypeConfig, Metrics>) {
        self.metrics.set(metrics).ok();
    }

    pub(crate) fn is_open(&self, now: Instant) -> bool {
        let Some(metrics) = self.metrics.get() else { return true };
        let metrics = metrics.borrow_watched();
        if metrics.state != ServerState::Leader {
            return true;
        }
        let leader = metrics.vote.leader_id;
        let elected = {
            let mut since = self.since.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            match *since {
                Some((known, at)) if known == leader => at,
                _ => {
                    *since = Some((leader, now));
                    now
                }
            }
        };
        let since_election = now.saturating_duration_since(elected);
        let silence = metrics.last_quorum_acked.map_or(since_election, |acked| acked.elapsed());
        is_open(silence, self.lease)
    }
}

fn is_open(silence: Duration, lease: Duration) -> bool {
    let Some(over) = silence.checked_sub(lease) else { return true };
    (over.as_nanos() / (QUIET_LEASES * lease).as_nanos()) % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_after_a_lease_then_tries_by_turns() {
        let lease = Duration::from_secs(1);
        let at = |ms| is_open(Duration::from_millis(ms), lease);
        assert!(at(0) && at(999));
        assert!(!at(1000) && !at(3999));
        assert!(at(4000) && at(6999));
        assert!(!at(7000));
    }
}
