//! What came of a directive. A timeout is [`Outcome::Unknown`], never "did not happen".

use serde::{Deserialize, Serialize};

use crate::{BootId, DataForm, Epoch, InstanceId, Lsn, MemberName, SalvageSummary, SystemId, Timeline};

/// What came of an effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is done, with the evidence.
    Done(Evidence),
    /// The receiver refuses; it did nothing and will not do it later.
    Refused {
        /// Why, with both sides' values.
        reason: String,
    },
    /// It may have happened, may happen still, or not.
    Unknown {
        /// What is known.
        reason: String,
    },
}

/// Evidence for a done effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The guard has fenced.
    Fenced(FencedEvidence),
    /// The candidate's receiver is stopped.
    Prepared(CandidateReport),
    /// The member is primary.
    Promoted(PromotedEvidence),
    /// The member is a standby of the upstream.
    Rejoined(RejoinedEvidence),
    /// The marker row was written and read back through the name.
    Validated {
        /// Address that the name resolved to.
        address: String,
        /// How long it took, ms.
        elapsed_ms: u64,
        /// Until a connection through the name was open, ms; `None` from an agent that does not say.
        #[serde(default)]
        connected_ms: Option<u64>,
    },
    /// The DNS provider has the record.
    Redirected {
        /// Name of the provider.
        provider: String,
        /// Whether it had to be changed.
        changed: bool,
    },
    /// The data directory's standing was written down.
    Claimed {
        /// What was found and written.
        text: String,
    },
    /// The primary has written a checkpoint.
    Checkpointed(CheckpointedEvidence),
    /// PostgreSQL runs again in its role, or has read its configuration again.
    Restarted {
        /// From the directive on, ms.
        elapsed_ms: u64,
    },
}

/// A primary's checkpoint before a switchover, and whom it sends its WAL to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointedEvidence {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its WAL after the checkpoint.
    pub write_lsn: Lsn,
    /// Its standbys, seen after the checkpoint.
    pub standbys: Vec<crate::StandbyFacts>,
    /// How long the checkpoint took, ms.
    pub elapsed_ms: u64,
}

/// A guard's answer to `fence`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FencedEvidence {
    /// Refused for ever, with everything below.
    pub epoch: Epoch,
    /// The guard that answered.
    pub instance: InstanceId,
    /// Its boot.
    pub boot: BootId,
    /// Earlier instances that it has emptied and may speak for.
    pub succeeds: Vec<InstanceId>,
    /// `pg_control`'s latest checkpoint.
    pub checkpoint_lsn: Option<Lsn>,
    /// Its timeline.
    pub timeline: Option<Timeline>,
    /// PostgreSQL was shut down cleanly.
    pub clean: bool,
}

/// What a candidate has, with its WAL receiver stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateReport {
    /// Who.
    pub member: MemberName,
    /// The guard's instance id: the new epoch will be bound to it.
    pub instance: InstanceId,
    /// Its boot.
    pub boot: BootId,
    /// Highest LSN received and flushed, or the end of WAL of a stopped primary when known.
    pub received_lsn: Option<Lsn>,
    /// Replayed.
    pub replayed_lsn: Option<Lsn>,
    /// Timeline.
    pub timeline: Option<Timeline>,
    /// `pg_control`'s system identifier.
    pub system_id: Option<SystemId>,
    /// What the data directory is.
    pub form: DataForm,
    /// The newest epoch whose history the data descends from.
    pub lineage: Epoch,
    /// Persisted: no promise is outstanding for this epoch and below.
    pub promises_closed: Epoch,
    /// Why this member cannot be promoted automatically, if so.
    pub refused: Option<String>,
    /// CLOCK_BOOTTIME when this report was made, ns: it counts as a heartbeat's stamp.
    pub stamp_ns: u64,
    /// A promise not to be promoted is outstanding for this much longer, ms: the WAL receiver was left running.
    #[serde(default)]
    pub promise_left_ms: Option<u64>,
}

/// A verified promotion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromotedEvidence {
    /// The epoch.
    pub epoch: Epoch,
    /// `pg_control`'s system identifier.
    pub system_id: SystemId,
    /// The timeline that it writes now.
    pub timeline: Timeline,
    /// Where that timeline left the one before (its own first LSN for a new cluster; the same timeline's position
    /// when a primary was re-appointed in place).
    pub switch_lsn: Lsn,
    /// From the directive to a verified primary, ms.
    pub elapsed_ms: u64,
    /// Of which waiting for replay, ms.
    pub replay_ms: u64,
}

/// How a member became a standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejoinMethod {
    /// It streamed from there already.
    Unchanged,
    /// Its history did not diverge; only the upstream was changed.
    Repointed,
    /// `pg_rewind`.
    Rewound,
    /// `pg_basebackup`.
    Cloned,
}

/// A finished rejoin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejoinedEvidence {
    /// How.
    pub method: RejoinMethod,
    /// Why not the cheaper way, if not.
    pub reason: Option<String>,
    /// What was kept of a divergent history.
    pub salvage: Option<SalvageSummary>,
    /// Bytes copied.
    pub copied_bytes: u64,
    /// How long it took, ms.
    pub elapsed_ms: u64,
}
