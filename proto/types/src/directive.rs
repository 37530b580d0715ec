//! What the coordinator tells an agent to do. Each directive is idempotent under its [`EffectKey`] and carries the
//! epoch that it belongs to: an agent persists a higher epoch before it obeys and refuses a lower one.

use serde::{Deserialize, Serialize};

use crate::{ClusterName, Epoch, InstanceId, Lsn, MemberName, OperationId, SystemId, Timeline};

/// Idempotency key of an effect: a second execution under the same key returns the first outcome.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EffectKey {
    /// The cluster.
    pub cluster: ClusterName,
    /// The operation.
    pub operation: OperationId,
    /// Number of the effect within the operation.
    pub step: u32,
    /// The epoch it acts for.
    pub epoch: Epoch,
}

/// Where a standby streams from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// The primary.
    pub member: MemberName,
    /// Its epoch.
    pub epoch: Epoch,
    /// Address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The timeline that it writes.
    pub timeline: Timeline,
}

/// Where the current history left another one: WAL of `epoch`'s timeline after `switch_lsn` is divergent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// The epoch that ended.
    pub epoch: Epoch,
    /// Its timeline.
    pub timeline: Timeline,
    /// Where the next epoch's timeline left it.
    pub switch_lsn: Lsn,
}

/// An instruction to one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Directive {
    /// Fence `epoch` and below: the guard persists it, drops the lease, stops PostgreSQL if it could write, and only
    /// then is it answered with [`crate::Evidence::Fenced`].
    Fence {
        /// Refused for ever from now on, with everything below.
        epoch: Epoch,
        /// Time for a fast shutdown before harder means, ms.
        grace_ms: u64,
    },
    /// To a candidate, after the old primary was proved fenced: stop the WAL receiver, persist *no promise
    /// outstanding for `fenced`*, and report what was received ([`crate::Evidence::Prepared`]).
    Prepare {
        /// The epoch being fenced.
        fenced: Epoch,
        /// The proof is more than the lease's expiry: what was promised to `fenced` and below protects nobody any more.
        #[serde(default)]
        promises_void: bool,
    },
    /// Become primary at `epoch` under a lease: promote the running standby, or start a data directory of primary
    /// form in place. Answered with [`crate::Evidence::Promoted`] when `pg_is_in_recovery()` is false.
    Promote {
        /// The new epoch.
        epoch: Epoch,
        /// The instance that the epoch is bound to.
        instance: InstanceId,
        /// The directory is empty and may be initialised (first epoch only).
        initialize: bool,
        /// How long replay of what was received may take, ms.
        replay_timeout_ms: u64,
    },
    /// Become a standby of `upstream`: do nothing if it streams from there already; re-point; or salvage, then
    /// rewind, or clone. Answered with [`crate::Evidence::Rejoined`] when the standby has started.
    Rejoin {
        /// Whom to follow.
        upstream: Upstream,
        /// The history since the member's lineage, oldest first.
        branches: Vec<Branch>,
        /// Time budget of a rewind before a clone is made instead, ms.
        rewind_timeout_ms: u64,
    },
    /// Write and read back a marker row through the DNS name, as a client would
    /// ([`crate::Evidence::Validated`]).
    Validate {
        /// The name that clients use.
        name: String,
        /// The address that the name must lead to.
        address: String,
        /// The port that clients use.
        port: u16,
        /// The epoch written into the marker row.
        epoch: Epoch,
    },
    /// To the primary, before a switchover fences it: write a checkpoint, so that its shutdown is short, and say which
    /// standbys stream ([`crate::Evidence::Checkpointed`]). It goes on writing.
    Checkpoint {
        /// The primary's epoch.
        epoch: Epoch,
    },
    /// To a switchover's target, while the old primary shuts down: stream on until the shutdown has ended the stream,
    /// replay everything, then stop the receiver and report as after a `Prepare` ([`crate::Evidence::Prepared`]).
    Drain {
        /// The epoch being fenced.
        fenced: Epoch,
        /// Longest wait for the stream's end and for replay; over it the report says what is there, ms.
        timeout_ms: u64,
    },
    /// Take over data that was made without Regent: check what it is and write down that it belongs to `epoch`'s history.
    /// Starts nothing. Answered with [`crate::Evidence::Claimed`].
    Adopt {
        /// The epoch whose history the data is part of from now on.
        epoch: Epoch,
        /// The cluster's system identifier: any other data is refused.
        system_id: SystemId,
        /// For a standby: the history that it must be part of. `None` for the primary itself.
        standby_of: Option<AdoptedHistory>,
    },
    /// Write down that nothing is known of the local data: the member comes back after a removal, and whatever was done to
    /// its data meanwhile, only a clone may follow. Answered with [`crate::Evidence::Claimed`].
    Disown {
        /// The current epoch.
        epoch: Epoch,
    },
    /// Restart PostgreSQL, or have it read its configuration again, in its present role; the primary under its running
    /// lease. Answered with [`crate::Evidence::Restarted`] when it accepts connections in that role.
    Restart {
        /// The current epoch.
        epoch: Epoch,
        /// The role that it must have, before and after.
        primary: bool,
        /// Only reload: no connection is closed.
        reload_only: bool,
    },
}

/// The primary's history, for a standby that is adopted without a clone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptedHistory {
    /// The timeline that the primary writes.
    pub timeline: Timeline,
    /// Where that timeline left the one before; `None` on the first one.
    pub switch_lsn: Option<Lsn>,
    /// The end of the primary's WAL at its last report: a standby that has more is of another history.
    pub end_lsn: Lsn,
}

impl Directive {
    /// The highest epoch this directive asks the agent to respect.
    pub fn epoch(&self) -> Epoch {
        match self {
            Directive::Fence { epoch, .. }
            | Directive::Promote { epoch, .. }
            | Directive::Validate { epoch, .. }
            | Directive::Checkpoint { epoch }
            | Directive::Adopt { epoch, .. }
            | Directive::Restart { epoch, .. }
            | Directive::Disown { epoch } => *epoch,
            Directive::Prepare { fenced, .. } | Directive::Drain { fenced, .. } => *fenced,
            Directive::Rejoin { upstream, .. } => upstream.epoch,
        }
    }

    /// Its name in logs and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Directive::Fence { .. } => "fence",
            Directive::Prepare { .. } => "prepare",
            Directive::Promote { .. } => "promote",
            Directive::Rejoin { .. } => "rejoin",
            Directive::Validate { .. } => "validate",
            Directive::Adopt { .. } => "adopt",
            Directive::Disown { .. } => "disown",
            Directive::Checkpoint { .. } => "checkpoint",
            Directive::Drain { .. } => "drain",
            Directive::Restart { reload_only: true, .. } => "reload",
            Directive::Restart { .. } => "restart",
        }
    }
}
