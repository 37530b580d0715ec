//! The types that openraft is instantiated with, and their way to and from this crate's own.
//!
//! Leader ids are openraft's *adv* kind: ordered by (term, node), so several leaders may follow one another within one
//! term. Nothing here or outside may therefore take a term alone for a leadership.

use std::fmt;

use openraft::BasicNode;
use serde::{Deserialize, Serialize};

use crate::{LeadershipId, LogPosition};

/// A command as it stands in the log. Opaque to this crate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Command(pub Vec<u8>);

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What the machine answered to a command. Never stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reply(pub Vec<u8>);

openraft::declare_raft_types!(
    pub(crate) TypeConfig:
        D = Command,
        R = Reply,
        NodeId = u64,
        Node = BasicNode,
        AsyncRuntime = openraft_rt_tokio::TokioRuntime,
);

pub(crate) type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;
pub(crate) type LogId = openraft::LogId<LeaderId>;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type Membership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, Vec<u8>>;
pub(crate) type Metrics = openraft::RaftMetrics<TypeConfig>;
pub(crate) type Raft = openraft::Raft<TypeConfig, crate::state_machine::StateMachine>;

pub(crate) fn position(id: &LogId) -> LogPosition {
    let leader = id.committed_leader_id();
    LogPosition { index: id.index(), term: leader.term, leader: leader.node_id }
}

pub(crate) fn leadership(id: &LeaderId) -> LeadershipId {
    LeadershipId { term: id.term, node: id.node_id }
}
