//! The coordinators themselves, as replicated: who votes, who joins, who leaves, and every id that was ever used.
//!
//! Raft's own membership decides who votes; these records say what an operator wants, and the leader brings the two
//! together, one coordinator at a time. Invariant: an id is used once. A coordinator that lost its directory, or was restored
//! from an image, has forgotten its vote: under the old id it could vote twice in one term, and two leaders would be elected.

use std::collections::{BTreeMap, VecDeque};

use regent_types::{CoordinatorId, GroupId, Region, RequestId};
use serde::{Deserialize, Serialize};

/// All coordinators that ever were.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// By id; removed ones stay, so that no id is used twice.
    pub coordinators: BTreeMap<CoordinatorId, Coordinator>,
    /// Counts the changes, for `expected_version`.
    pub version: u64,
    /// Request ids answered before, oldest first.
    #[serde(default)]
    pub requests: VecDeque<RequestId>,
    /// What was changed, by whom and why, oldest first.
    #[serde(default)]
    pub log: VecDeque<GroupRecord>,
    /// Random, made once: a group that is formed anew after a loss has another one.
    #[serde(default)]
    pub id: Option<GroupId>,
}

/// One coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coordinator {
    /// `host:port` of its gRPC listener.
    pub address: String,
    /// Its failure domain.
    pub region: Region,
    /// Where it stands.
    pub standing: Standing,
}

/// Where a coordinator stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It is fed the log and does not vote yet.
    Joining,
    /// It votes.
    Voter,
    /// It is being taken out.
    Leaving,
    /// It votes no more, and its id is never used again.
    Removed,
}

/// One change of the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// When, wall ms (display only).
    pub wall_ms: u64,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// What.
    pub text: String,
}

impl Group {
    /// Those that vote, or will when what is asked for is done.
    pub fn voters_wanted(&self) -> BTreeMap<CoordinatorId, &Coordinator> {
        let wanted = |one: &&Coordinator| matches!(one.standing, Standing::Joining | Standing::Voter);
        self.coordinators.iter().filter(|(_, one)| wanted(one)).map(|(id, one)| (*id, one)).collect()
    }
}
