//! What can be told about a node at a glance, for people and metrics. Nothing may be decided by it.

use std::{collections::BTreeMap, time::Duration};

use openraft::{Instant, ServerState};
use serde::Serialize;

use crate::{LogPosition, leadership, types::Metrics, types::position};

/// A follower, as its leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FollowerStatus {
    /// Highest index known to be on its disk.
    pub matched_index: Option<u64>,
    /// Age of its last acknowledgement.
    pub heard_age_ms: Option<u64>,
}

/// A node at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// This node.
    pub node: u64,
    /// `leader`, `follower`, `candidate`, `learner` or `stopped`.
    pub role: &'static str,
    /// Present term.
    pub term: u64,
    /// Who leads, as far as this node knows.
    pub leader: Option<u64>,
    /// Every voter.
    pub voters: Vec<u64>,
    /// Highest index in the log.
    pub last_index: Option<u64>,
    /// Highest index known to be committed.
    pub committed_index: Option<u64>,
    /// Highest index that the machine has seen.
    pub applied: Option<LogPosition>,
    /// End of the last snapshot.
    pub snapshot: Option<LogPosition>,
    /// Highest index that is no longer in the log.
    pub purged_index: Option<u64>,
    /// On the leader: age of the last message that a quorum has acknowledged.
    pub quorum_ack_age_ms: Option<u64>,
    /// On the leader: everyone else.
    pub followers: BTreeMap<u64, FollowerStatus>,
    /// The machine has caught up with all that was committed before this node's start.
    pub recovered: bool,
    /// Why the node has stopped, if it has.
    pub stopped: Option<String>,
}

pub(crate) fn of(metrics: &Metrics, recovered: bool) -> Status {
    let replication = metrics.replication.iter().flatten();
    let heard = |node| {
        metrics.heartbeat.as_ref().and_then(|all| *all.get(node)?).map(|at| at.elapsed().as_millis() as u64)
    };
    let followers = replication
        .filter(|(node, _)| **node != metrics.id)
        .map(|(node, matched)| {
            let matched_index = matched.as_ref().map(|id| id.index());
            (*node, FollowerStatus { matched_index, heard_age_ms: heard(node) })
        })
        .collect();
    let stopped = metrics.running_state.as_ref().err().map(|error| error.to_string());
    let role = match metrics.state {
        _ if stopped.is_some() => "stopped",
        ServerState::Leader => "leader",
        ServerState::Follower => "follower",
        ServerState::Candidate => "candidate",
        ServerState::Learner => "learner",
        ServerState::Shutdown => "stopped",
    };
    Status {
        node: metrics.id,
        role,
        term: metrics.current_term,
        leader: leadership::of(metrics).leader,
        voters: metrics.membership_config.membership().voter_ids().collect(),
        last_index: metrics.last_log_index,
        committed_index: metrics.local_committed.as_ref().map(|id| id.index()),
        applied: metrics.last_applied.as_ref().map(position),
        snapshot: metrics.snapshot.as_ref().map(position),
        purged_index: metrics.purged.as_ref().map(|id| id.index()),
        quorum_ack_age_ms: metrics.last_quorum_acked.map(|at| at.elapsed().as_millis() as u64),
        followers,
        recovered,
        stopped,
    }
}

/// Age of the last message acknowledged by `node`, on the leader.
pub(crate) fn heard_age(metrics: &Metrics, node: u64) -> Option<Duration> {
    of(metrics, false).followers.get(&node)?.heard_age_ms.map(Duration::from_millis)
}
