//! An operation: replicated steps with their times, evidence and result.

use std::collections::BTreeSet;

use regent_types::{InstanceId, MemberName, OperationId, Region};
use serde::{Deserialize, Serialize};

use crate::{Appointment, DrillFindings, Effect, FenceRecord, LossReport, Verdict, proposal::Evidence};

/// What an operation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// First appointment of a new cluster.
    Bootstrap,
    /// Unplanned change of primary, or re-appointment of the old one.
    Failover,
    /// A member becomes a standby of the primary.
    Rejoin {
        /// Which member.
        member: MemberName,
    },
    /// Planned change of primary: nothing is lost.
    Switchover,
    /// A switchover back to the preferred region.
    Failback,
    /// An operator restarts PostgreSQL on a member, in its present role.
    Restart {
        /// Which member.
        member: MemberName,
        /// Only its configuration is read again.
        reload_only: bool,
    },
    /// A rehearsal of the loss of the primary's region.
    Drill {
        /// The region that counts as lost.
        region: Region,
        /// There and back by switchovers; without it, it stops before anything is touched.
        full: bool,
    },
    /// A failover that would have begun, of a cluster that is only observed: nothing was done.
    Observed {
        /// The primary that it was about.
        member: MemberName,
    },
}

impl Kind {
    /// A planned change of primary.
    pub fn is_planned(&self) -> bool {
        matches!(self, Kind::Switchover | Kind::Failback)
    }
}

/// What started an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// A new cluster.
    Bootstrap,
    /// The primary's agent was silent.
    Partition {
        /// For how long, ms.
        silent_ms: u64,
    },
    /// PostgreSQL did not accept connections.
    PostgresDown {
        /// For how long, ms.
        down_ms: u64,
    },
    /// The data directory's disk failed or stalled.
    DiskFailure {
        /// What the probe said.
        probe: String,
    },
    /// The primary's guard restarted: its epoch is bound to an instance that is gone.
    InstanceChanged {
        /// The bound instance.
        bound: InstanceId,
        /// The one that lives.
        found: InstanceId,
    },
    /// An operator asked.
    Operator,
    /// A member is not a confirmed standby of the current primary.
    NotInSync {
        /// Why.
        why: String,
    },
    /// A scheduled switchover was due.
    Schedule {
        /// When, wall ms.
        at_wall_ms: u64,
    },
    /// The preferred region has been in sync for long enough.
    PreferredRegion {
        /// Which region.
        region: Region,
    },
}

/// The steps of an operation, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Detected and declared; takes no time of its own.
    Declare,
    /// Waiting for a fence proof.
    Fence,
    /// No candidate may be promoted yet.
    Choose,
    /// Appointed; waiting for the verified promotion.
    Promote,
    /// DNS is being changed.
    Redirect,
    /// A marker row is written through the new name.
    Validate,
    /// Rejoin: salvage, rewind or clone, start.
    Rebuild,
    /// Rejoin: waiting for sync confirmed.
    Confirm,
    /// Ended.
    Done,
    /// Switchover: the primary writes a checkpoint; nothing is fenced yet.
    Checkpoint,
    /// Restart: waiting for the server to accept connections in its role again.
    Restart,
    /// Drill: the primary's region counts as silent, in a detector beside the one that decides.
    Detect,
    /// Full drill: a switchover to another region.
    Away,
    /// Full drill: a switchover back.
    Back,
}

/// One finished or running step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Which.
    pub step: Step,
    /// When it began, wall ms (display only).
    pub began_wall_ms: u64,
    /// When it ended, wall ms.
    pub ended_wall_ms: Option<u64>,
    /// What it found.
    pub evidence: String,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationResult {
    /// Done.
    Done {
        /// Something an operator should look at.
        warning: Option<String>,
    },
    /// Gave way to another operation, or could not go on.
    Aborted {
        /// Why.
        reason: String,
    },
}

/// One operation of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its number.
    pub id: OperationId,
    /// What it is.
    pub kind: Kind,
    /// What started it.
    pub trigger: Trigger,
    /// Who: `regent`, or an operator's identity.
    pub actor: String,
    /// Why, in words.
    pub reason: String,
    /// The appointment that it ends, if any.
    pub from: Option<Appointment>,
    /// What the leader knew when it was declared.
    pub evidence: Evidence,
    /// Where it is.
    pub step: Step,
    /// All steps so far.
    pub steps: Vec<StepRecord>,
    /// Effects that no outcome has retired.
    pub effects: Vec<Effect>,
    /// Number of the next effect.
    pub next_effect: u32,
    /// Fence rungs.
    pub fences: Vec<FenceRecord>,
    /// How each candidate fared, newest choice.
    pub verdicts: Vec<Verdict>,
    /// Targets whose promotion failed: the same instance is not tried again.
    pub excluded: BTreeSet<(MemberName, InstanceId)>,
    /// The target asked for by an operator.
    pub wanted: Option<MemberName>,
    /// An operator consented to lose what this member lacks.
    pub consent: Option<MemberName>,
    /// The chosen target.
    pub target: Option<MemberName>,
    /// What was, or may be, lost.
    pub loss: LossReport,
    /// Why it waits, if it does.
    pub waiting: Option<String>,
    /// How it ended.
    pub result: Option<OperationResult>,
    /// When it was declared, wall ms.
    pub began_wall_ms: u64,
    /// When it ended, wall ms.
    pub ended_wall_ms: Option<u64>,
    /// Why a planned change of primary is to be undone, once it is.
    #[serde(default)]
    pub rollback: Option<String>,
    /// From the start of the validation until a connection through the name was open, ms.
    #[serde(default)]
    pub reconnected_ms: Option<u64>,
    /// What a drill has found out.
    #[serde(default)]
    pub drill: Option<Box<DrillFindings>>,
    /// What a failover lost of acknowledged writes by the synchronous rules, when these could prove it.
    #[serde(default)]
    pub acknowledged_loss: Option<String>,
}
