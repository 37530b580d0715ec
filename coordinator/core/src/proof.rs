//! Fence proofs (DESIGN section 5.4): why the instance bound to an epoch cannot write any more.

use regent_types::{Epoch, FencedEvidence, MemberName};
use serde::{Deserialize, Serialize};

use crate::Leadership;

/// A proof, begun after `FenceDecided` of its epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FenceProof {
    /// The guard answered `fence` after it had emptied the namespace.
    Acknowledged(FencedEvidence),
    /// The leader's bound passed on its monotonic clock. Only good in an entry of the very leadership that computed
    /// it: a node that was deposed and elected again knows nothing of the leases granted in between.
    LeaseExpired {
        /// The leadership whose bound it was.
        leadership: Leadership,
        /// How long that leadership had lasted, ms.
        led_for_ms: u64,
        /// How long ago the bound had passed, ms.
        passed_for_ms: u64,
    },
    /// An operator took the risk by name: an exception to promise 1, recorded as such.
    Operator {
        /// Who.
        actor: String,
        /// Why.
        reason: String,
    },
}

/// How sure a rung is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// Answered by the guard.
    Confirmed,
    /// Follows from the lease protocol.
    AssumedByLease,
    /// An operator's word.
    Unknown,
}

/// One rung of fencing, for the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceRecord {
    /// The fenced epoch.
    pub epoch: Epoch,
    /// The member that held it.
    pub member: MemberName,
    /// Its proof.
    pub proof: FenceProof,
    /// How sure it is.
    pub certainty: Certainty,
    /// When it was recorded, wall ms.
    pub wall_ms: u64,
}

impl FenceProof {
    /// How sure this proof is.
    pub fn certainty(&self) -> Certainty {
        match self {
            FenceProof::Acknowledged(_) => Certainty::Confirmed,
            FenceProof::LeaseExpired { .. } => Certainty::AssumedByLease,
            FenceProof::Operator { .. } => Certainty::Unknown,
        }
    }

    /// Its name in events and reports.
    pub fn name(&self) -> &'static str {
        match self {
            FenceProof::Acknowledged(_) => "acknowledged",
            FenceProof::LeaseExpired { .. } => "lease expired",
            FenceProof::Operator { .. } => "operator",
        }
    }
}
