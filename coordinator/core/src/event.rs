//! Events: what `apply` says has changed. Each names the rule that made it.

use regent_types::{ClusterName, Epoch, MemberName, OperationId};
use serde::{Deserialize, Serialize};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A cluster was added or changed.
    ClusterConfigured,
    /// An operation began.
    Declared,
    /// FenceDecided: no leader grants this epoch any more.
    FenceDecided,
    /// A fence proof was recorded.
    FenceProven,
    /// No candidate may be promoted yet.
    Waiting,
    /// The epoch rose: a primary was appointed.
    Appointed,
    /// A promotion was verified.
    Promoted,
    /// A promotion failed; the next rung is tried.
    PromotionFailed,
    /// The embedded zone has a new record.
    RecordChanged,
    /// Every DNS provider has the record.
    Redirected,
    /// The marker row came back.
    Validated,
    /// A member became a standby.
    Rejoined,
    /// A member is a confirmed standby.
    SyncConfirmed,
    /// The loss is known.
    LossFinal,
    /// An operation ended.
    Ended,
    /// Automation was paused.
    Paused,
    /// Automation was resumed.
    Resumed,
    /// The mode of automation was changed.
    AutomationChanged,
    /// A failover waits for an operator's approval, or for the acknowledgement of the one before.
    Pending,
    /// The reason of a pending failover is gone.
    Withdrawn,
    /// An operator approved what was pending.
    Approved,
    /// An operator has taken note of the last automatic failover.
    Acknowledged,
    /// The next automatic failover needs no acknowledgement any more.
    CooldownOver,
    /// The operator's command objects to an automatic failover.
    Vetoed,
    /// The policy was changed.
    PolicyChanged,
    /// A member was added.
    MemberAdded,
    /// A member was removed.
    MemberRemoved,
    /// A member acts by a newer member list.
    MembersAcknowledged,
    /// A cluster was taken out of the group.
    ClusterForgotten,
    /// Data that was made without Regent was taken over, or not.
    Adopted,
    /// Something needs an operator's eye.
    AlertRaised,
    /// It does so no more.
    AlertCleared,
    /// A switchover is kept for a wall time.
    Scheduled,
    /// A scheduled switchover will not start.
    Unscheduled,
    /// A failback waits for an operator's word.
    ApprovalWanted,
    /// The primary has written its checkpoint before a switchover.
    Checkpointed,
    /// A planned change of primary is being undone.
    RollingBack,
    /// The primary asks by a newer list of who may be promoted.
    PromotableAcknowledged,
    /// PostgreSQL's parameters were changed.
    ParametersChanged,
    /// What is configured of a member was changed.
    MemberChanged,
    /// A drill has got further. Nothing is fenced for it.
    Drill,
    /// Observed: this member is primary of a cluster that another tool leads.
    PrimarySeen,
    /// Observed: Regent would have failed over.
    WouldFailOver,
    /// A cluster of another group is taken over.
    ClusterImported,
    /// A member of it obeys this group.
    ImportAcknowledged,
    /// Commits are to wait for others than before.
    SynchronousChanged,
    /// The primary waits for whom it should, and nothing acknowledged is outside that.
    SynchronousProven,
}

/// One event, kept in the replicated state for `watch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts up over all clusters, from 1.
    pub sequence: u64,
    /// Log index of the entry.
    pub index: u64,
    /// Wall time of the proposer, ms (display only).
    pub wall_ms: u64,
    /// The cluster.
    pub cluster: ClusterName,
    /// The cluster's epoch after the event.
    pub epoch: Epoch,
    /// What.
    pub kind: EventKind,
    /// The rule that made it, e.g. `5.4 lease expired`.
    pub rule: String,
    /// In words.
    pub text: String,
    /// The operation.
    pub operation: Option<OperationId>,
    /// The member.
    pub member: Option<MemberName>,
}
