//! Raises the group's feature level when everyone in it announces a higher one. Decides nothing about what belongs to a
//! level (`regent_core::Body::level`).
//!
//! Invariant: silence is never consent. A member that has not answered within the last seconds keeps the group where it
//! is.

use std::sync::Arc;

use regent_core::{Body, FEATURE_LEVEL_FIRST};
use regent_proto::v1::AgesReply;
use regent_types::CoordinatorId;

use crate::{node::Node, peers::PeerNews};

/// An announcement older than this does not count.
const FRESH_NS: u64 = 3_000_000_000;

/// What a follower tells of itself. One that names no level was built before levels were announced.
pub fn news(now_ns: u64, reply: &AgesReply) -> PeerNews {
    PeerNews {
        answered_ns: Some(now_ns),
        term: Some(reply.term),
        level: Some(u8::try_from(reply.feature_level).unwrap_or(u8::MAX).max(FEATURE_LEVEL_FIRST)),
        certificate_days_left: reply.certificate_days_left,
        version: Some(reply.version.clone()).filter(|version| !version.is_empty()),
    }
}

/// Proposes the level that every member of the group understands, if it is above the group's.
pub async fn raise(node: &Arc<Node>) {
    let Some(level) = common(node) else { return };
    if level <= node.shared.lock().state.level() {
        return;
    }
    match node.proposer.propose(Body::RaiseLevel { level }).await {
        Ok(_) => {
            tracing::info!(level, "every coordinator understands it: the group's feature level is raised")
        }
        Err(error) => tracing::debug!(%error, level, "the feature level was not raised"),
    }
}

fn common(node: &Node) -> Option<u8> {
    let now_ns = node.clock.now_ns();
    let status = node.raft.status();
    // Learners apply entries too.
    let members = status.voters.iter().chain(status.followers.keys());
    let mut lowest = node.shared.level_max;
    for id in members.filter(|id| **id != node.config.node_id.0) {
        let news = node.peers.news(CoordinatorId(*id));
        let fresh = news.answered_ns.is_some_and(|at| now_ns.saturating_sub(at) <= FRESH_NS);
        lowest = lowest.min(news.level.filter(|_| fresh)?);
    }
    Some(lowest)
}
