//! Fence proofs (DESIGN section 5.4): why the instance bound to an epoch cannot write any more.

use regent_types::{EffectKey, Epoch, FencedEvidence, InstanceId, MemberName};
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
    /// A configured driver says that the instance is dead, or cut off from its clients and its storage.
    External(ExternalEvidence),
}

/// What a driver says that it has made of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confinement {
    /// None of its processes is alive, and none comes back: its host is off, or was started anew.
    Dead,
    /// It can reach neither its clients nor its storage until somebody lets it.
    CutOff,
}

/// A driver's word. It is given for one effect: that effect exists only once `FenceDecided` of its epoch was applied, so
/// a run that began before can never name it. Under which leadership the driver ran does not matter, unlike for a
/// bound: an instance that was dead stays dead, whoever leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalEvidence {
    /// The driver's name in the coordinator's configuration.
    pub driver: String,
    /// The `Fence` effect for which it was started.
    pub begun_for: EffectKey,
    /// The instance that it was told to fence, and named in its answer.
    pub instance: InstanceId,
    /// What has become of it.
    pub confinement: Confinement,
    /// What the driver says about how it knows.
    pub detail: String,
    /// How long the run took, ms.
    pub elapsed_ms: u64,
}

impl std::fmt::Display for Confinement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Confinement::Dead => "dead",
            Confinement::CutOff => "cut off from its clients and its storage",
        })
    }
}

/// How sure a rung is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// Answered by the guard, or by an external fencing driver.
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
            FenceProof::Acknowledged(_) | FenceProof::External(_) => Certainty::Confirmed,
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
            FenceProof::External(_) => "external",
        }
    }
}
