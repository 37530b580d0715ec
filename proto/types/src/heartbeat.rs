//! Heartbeats and what a leader answers (DESIGN section 5, rules 1 and 2).

use serde::{Deserialize, Serialize};

use crate::{
    BootId, ClusterName, Epoch, GroupId, InstanceId, MemberName, ParametersView, PromiseView, Region, Report,
    SynchronousView,
};

/// One heartbeat of one member. `stamp_ns` and `nonce` come back with the acknowledgement: a lease is counted from
/// the sending of exactly that heartbeat, so it can only end early.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The cluster.
    pub cluster: ClusterName,
    /// The sender.
    pub member: MemberName,
    /// Its guard's instance id.
    pub instance: InstanceId,
    /// The boot that `stamp_ns` belongs to.
    pub boot: BootId,
    /// CLOCK_BOOTTIME at sending, ns.
    pub stamp_ns: u64,
    /// Unique per heartbeat of a session.
    pub nonce: u64,
    /// What the agent observes.
    pub report: Report,
    /// The member list that this agent acts by ([`ClusterView::members_version`]). Echoed only once every promise that may
    /// still extend its lease was asked of everybody in that list or a newer one, and the agent never goes back to an older
    /// list: from then on a member of that list may be promoted after this one's lease. Echoed too early, a promotion could
    /// overtake a lease that a promise extends.
    #[serde(default)]
    pub members_version: u64,
    /// The group that this agent obeys, as it is on its disk; `None` before it has heard of one.
    #[serde(default)]
    pub group: Option<GroupId>,
}

/// A lease: valid until `stamp_ns + ttl` of the named heartbeat, on the member's own CLOCK_BOOTTIME.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The epoch that may write.
    pub epoch: Epoch,
    /// The instance it is bound to.
    pub instance: InstanceId,
    /// The stamp of the heartbeat that it counts from.
    pub stamp_ns: u64,
    /// Lease time, ms.
    pub ttl_ms: u64,
}

impl Grant {
    /// The deadline on the member's CLOCK_BOOTTIME, ns.
    pub fn deadline_ns(&self) -> u64 {
        self.stamp_ns.saturating_add(self.ttl_ms.saturating_mul(1_000_000))
    }
}

/// Why a leader did not grant. A refusal is an answer: the member fences what is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum LeaseRefusal {
    /// Another member, or none, holds the current epoch.
    #[error("not the appointed primary: epoch {epoch} belongs to {holder:?}")]
    NotAppointed {
        /// The current epoch.
        epoch: Epoch,
        /// Who holds it.
        holder: Option<MemberName>,
    },
    /// FenceDecided is committed for the current epoch.
    #[error("epoch {epoch} is fenced (fenced through {fenced_through})")]
    Fenced {
        /// The current epoch.
        epoch: Epoch,
        /// Every epoch up to this one is fenced.
        fenced_through: Epoch,
    },
    /// The epoch is bound to another instance id of this member.
    #[error("epoch {epoch} is bound to instance {bound}, not to {presented}")]
    OtherInstance {
        /// The current epoch.
        epoch: Epoch,
        /// The bound instance.
        bound: InstanceId,
        /// The one that asked.
        presented: InstanceId,
    },
    /// The cluster or member is not in the replicated state.
    #[error("cluster {cluster} has no member {member}")]
    Unknown {
        /// The cluster named.
        cluster: ClusterName,
        /// The member named.
        member: MemberName,
    },
    /// An operator has removed this member: PostgreSQL is to stop here.
    #[error("member {member} was removed from cluster {cluster} (member list version {version})")]
    Removed {
        /// The cluster named.
        cluster: ClusterName,
        /// The member named.
        member: MemberName,
        /// The first list without it.
        version: u64,
    },
    /// The cluster is being taken over from another group and has no primary here yet. Nothing is closed by it: the primary
    /// of the other group runs on meanwhile.
    #[error("cluster {cluster} is being taken over from another group, which waits for {waiting:?}")]
    Importing {
        /// The cluster named.
        cluster: ClusterName,
        /// Members that do not obey this group yet.
        waiting: Vec<MemberName>,
    },
}

/// The lease part of an acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseDecision {
    /// The member holds the lease.
    Granted(Grant),
    /// It does not, and why.
    Refused(LeaseRefusal),
}

/// The answer of a confirmed leader to one heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// The heartbeat's nonce.
    pub nonce: u64,
    /// Lease or refusal.
    pub lease: LeaseDecision,
    /// The cluster as of this answer; absent when the cluster is unknown.
    pub view: Option<ClusterView>,
    /// The group that answers; `None` from one that has no id yet.
    #[serde(default)]
    pub group: Option<GroupId>,
}

/// The primary, as a standby must know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrimaryView {
    /// Its name.
    pub member: MemberName,
    /// Its region.
    pub region: Region,
    /// Its epoch.
    pub epoch: Epoch,
    /// Address for replication.
    pub host: String,
    /// Port for replication.
    pub port: u16,
    /// Its promotion was verified.
    pub established: bool,
}

/// What every member may know of its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterView {
    /// The current epoch.
    pub epoch: Epoch,
    /// Every epoch up to this one is fenced.
    pub fenced_through: Epoch,
    /// The appointed primary.
    pub primary: Option<PrimaryView>,
    /// All members, for slots and `pg_hba`.
    pub members: Vec<MemberName>,
    /// Counts the changes of the member list; the agent echoes it ([`Heartbeat::members_version`]).
    #[serde(default)]
    pub members_version: u64,
    /// How often an agent is to send a heartbeat, ms: the policy in force, which may differ from its own file.
    #[serde(default)]
    pub heartbeat_interval_ms: Option<u64>,
    /// Whom the primary of `epoch` asks for promises; absent from a coordinator that knows nothing of them.
    #[serde(default)]
    pub promises: Option<PromiseView>,
    /// PostgreSQL's parameters as an operator set them for the cluster; absent before the first change.
    #[serde(default)]
    pub parameters: Option<ParametersView>,
    /// The groups from which an operator has taken this cluster over: a member that obeys one of them is to obey this one.
    #[serde(default)]
    pub supersedes: Vec<GroupId>,
    /// Whom commits wait for; absent from a coordinator that knows nothing of it.
    #[serde(default)]
    pub synchronous: Option<SynchronousView>,
}
