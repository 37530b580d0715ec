//! A failover that the detector has declared and that waits for an operator. Nothing is fenced for it and nothing moves:
//! the primary keeps its lease if it can renew it.

use regent_types::{Epoch, MemberName, OperationId};
use serde::{Deserialize, Serialize};

use crate::{Trigger, proposal::Evidence};

/// Why it waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PendingWhy {
    /// Automation is `approve`.
    Approve,
    /// An automatic failover was made within the cooldown.
    Cooldown {
        /// That failover.
        after: OperationId,
    },
}

impl std::fmt::Display for PendingWhy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PendingWhy::Approve => f.write_str("automation is approve: `regentctl approve` starts it"),
            PendingWhy::Cooldown { after } => write!(
                f,
                "operation {after} was an automatic failover within the cooldown: `regentctl acknowledge` lets the next one begin"
            ),
        }
    }
}

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The primary that it is about.
    pub member: MemberName,
    /// That primary's epoch.
    pub epoch: Epoch,
    /// What was found.
    pub trigger: Trigger,
    /// What the leader knew then.
    pub evidence: Evidence,
    /// Why it waits.
    pub why: PendingWhy,
    /// Since when, wall ms (display only).
    pub since_wall_ms: u64,
}
