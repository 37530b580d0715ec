//! Effects: what the leader's executor is to do outside. They stay in the state until an outcome retires them.

use regent_types::{BootId, Directive, EffectKey, Epoch, InstanceId, MemberName};
use serde::{Deserialize, Serialize};

use crate::DnsRecord;

/// One effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Idempotency key; outcomes name it.
    pub key: EffectKey,
    /// What to do.
    pub kind: EffectKind,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectKind {
    /// Get a fence proof for `instance` and then, with it in hand, the candidates' reports; propose both as one
    /// `FenceProven`, so that only two commits stand between detection and promotion. Ask the guard (`Fence`
    /// directive) and wait for the leader's bound at the same time; whichever comes first is the proof. Send `Prepare`
    /// to the candidates only after it: until then the old primary's last WAL may still arrive.
    Fence {
        /// The epoch to prove fenced.
        epoch: Epoch,
        /// Its member.
        member: MemberName,
        /// The instance that it is bound to.
        instance: InstanceId,
        /// That instance's boot.
        boot: BootId,
        /// Time for a fast shutdown, ms.
        grace_ms: u64,
        /// Whom to prepare. The old primary is prepared too when its guard acknowledged.
        candidates: Vec<MemberName>,
    },
    /// No candidate could be promoted: prepare them again, ask the old primary's guard again, and propose
    /// `CandidatesReported`, about once a second.
    Collect {
        /// The fenced epoch.
        epoch: Epoch,
        /// Its member.
        member: MemberName,
        /// Whom to prepare.
        candidates: Vec<MemberName>,
    },
    /// Send a directive to a member's agent and propose its outcome.
    Agent {
        /// Whose agent.
        member: MemberName,
        /// What.
        directive: Directive,
    },
    /// Make this provider publish the record; retried until done.
    Redirect {
        /// The provider's name.
        provider: String,
        /// The name.
        name: String,
        /// The desired record.
        record: DnsRecord,
    },
    /// A switchover's fence. Ask the guard and the target (`Drain`) at the same time: the target streams on while the old
    /// primary shuts down, and its report travels beside the proof. Propose both as one `FenceProven`, without the target's
    /// report when it has not come `timeout_ms` after the proof. When the bound passes first, prepare all candidates.
    Handover {
        /// The epoch to prove fenced.
        epoch: Epoch,
        /// Its member.
        member: MemberName,
        /// The instance that it is bound to.
        instance: InstanceId,
        /// That instance's boot.
        boot: BootId,
        /// Time for a fast shutdown, ms.
        grace_ms: u64,
        /// The target.
        target: MemberName,
        /// Longest wait for the target's report after the proof, ms.
        timeout_ms: u64,
        /// Whom to prepare when there is no acknowledgement.
        candidates: Vec<MemberName>,
    },
}
