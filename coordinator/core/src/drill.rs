//! Nouns of drills: what a rehearsal has found, and where the way there and back is. The rules are in `procedure/drill.rs`.

use regent_types::{MemberName, OperationId};
use serde::{Deserialize, Serialize};

use crate::{Declare, LossUpperBound, Operation, Readiness};

/// What a drill has found out; part of its report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillFindings {
    /// What a failover would have done at that moment, in a sentence.
    pub verdict: String,
    /// How long the primary had counted as silent when it was found, ms.
    pub silent_ms: u64,
    /// Who would have been promoted, as far as can be told before it is prepared.
    pub candidate: Option<MemberName>,
    /// What a failover would have lost, at most. The drill itself loses nothing.
    pub loss: Option<LossUpperBound>,
}

/// Where the way there and back is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrillStage {
    /// The guards are asked, then the primary moves away.
    Leaving,
    /// The switchover away runs.
    Away {
        /// Its number.
        operation: OperationId,
    },
    /// The old primary becomes a confirmed standby, then the primary moves back.
    Returning,
    /// The switchover back runs.
    Back {
        /// Its number.
        operation: OperationId,
    },
    /// The other one becomes a confirmed standby again.
    Settling,
}

/// A full drill between detection and its end: its switchovers and rejoins are operations of their own, so it is kept
/// beside them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// The drill itself; it comes to the history at the end.
    pub drill: Box<Operation>,
    /// The primary to come back to.
    pub origin: MemberName,
    /// To whom it moves.
    pub away: MemberName,
    /// Where it is.
    pub stage: DrillStage,
}

/// What the leader has to say about a drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrillNews {
    /// With the region's members unheard, the detector would declare this now.
    WouldDeclare(Box<Declare>),
    /// Nothing more came of it for too long.
    Overdue {
        /// For how long the leader has waited, ms.
        after_ms: u64,
        /// What it waited for.
        why: String,
    },
    /// The next stage may be possible.
    Next {
        /// What the leader knows.
        readiness: Box<Readiness>,
    },
}
