//! What operators ask of the whole group rather than of one cluster.

use std::collections::{BTreeMap, BTreeSet};

use regent_types::{ClusterName, CoordinatorId, Epoch, GroupId, MemberName, Region, RequestId, SystemId};
use serde::{Deserialize, Serialize};

use crate::{ClusterConfig, ImportedMember};

/// A mutating call about the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRequest {
    /// Who, e.g. `regent://operator/alice`.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// The same id a second time changes nothing.
    pub request_id: RequestId,
    /// What.
    pub kind: GroupRequestKind,
}

/// What an operator wants of the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupRequestKind {
    /// Add a cluster.
    CreateCluster {
        /// Its configuration.
        config: Box<ClusterConfig>,
        /// The worst re-election by the leader's time-outs, ms.
        election_worst_ms: u64,
        /// Take over running servers with this system identifier instead of beginning with empty directories.
        adopt: Option<SystemId>,
    },
    /// Take a cluster out of the group.
    ForgetCluster {
        /// Which.
        cluster: ClusterName,
        /// The epoch that the operator saw.
        expected_epoch: Epoch,
        /// For how long nobody has heard its primary, ms; absent when it has none.
        primary_silent_ms: Option<u64>,
        /// The operator accepts that a live primary loses its lease.
        consent: bool,
    },
    /// A coordinator is to join.
    AddCoordinator {
        /// Its id, never used before.
        id: CoordinatorId,
        /// `host:port` of its gRPC listener, as the others reach it.
        address: String,
        /// Its failure domain.
        region: Region,
        /// The group's version that the operator saw.
        expected_version: u64,
        /// The operator accepts that one region holds a majority.
        consent: bool,
    },
    /// A coordinator is to leave, alive or dead.
    RemoveCoordinator {
        /// Which.
        id: CoordinatorId,
        /// The group's version that the operator saw.
        expected_version: u64,
        /// The operator accepts that one region holds a majority.
        consent: bool,
    },
    /// Take a cluster over from another group that is lost for good.
    ImportCluster {
        /// Its configuration.
        config: Box<ClusterConfig>,
        /// The worst re-election by the leader's time-outs, ms.
        election_worst_ms: u64,
        /// What its agents say.
        members: BTreeMap<MemberName, ImportedMember>,
        /// Members that are taken over without their word: an exception to promise 1.
        unheard: BTreeSet<MemberName>,
        /// Who is to be primary; absent: who holds the lease, else the configured one.
        primary: Option<MemberName>,
        /// The highest epoch that the operator saw.
        expected_epoch: Option<Epoch>,
    },
}

/// What the leader's shell found out about the coordinators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupNews {
    /// The founders, from the leader's configuration; the first word about the group.
    Founded {
        /// Id, address and region of each.
        founders: Vec<(CoordinatorId, String, Region)>,
    },
    /// Raft counts its vote.
    Joined {
        /// Which.
        id: CoordinatorId,
    },
    /// Raft counts its vote no more.
    Left {
        /// Which.
        id: CoordinatorId,
    },
    /// The group gets its id.
    Named {
        /// Random.
        id: GroupId,
    },
}
