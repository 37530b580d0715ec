//! What an unplanned failover lost: an upper bound at first, final once the old primary has been read.

use regent_types::{Lsn, SalvageSummary};
use serde::{Deserialize, Serialize};

/// Known when the new primary is appointed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossUpperBound {
    /// The old primary's WAL at its last report.
    pub primary_lsn: Option<Lsn>,
    /// What the new primary had received.
    pub received_lsn: Option<Lsn>,
    /// Difference, bytes, when both are known.
    pub bytes_at_last_contact: Option<u64>,
    /// From the last report of the old primary until it was proved fenced, ms: what it accepted in that time may be
    /// lost (and is salvaged) as well.
    pub exposed_ms: u64,
}

/// What an operation lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossReport {
    /// The operation changes no primary.
    #[default]
    NotApplicable,
    /// The old primary has not been read yet.
    UpperBound(LossUpperBound),
    /// The old primary was read: nothing diverged.
    None,
    /// The old primary was read: this diverged, and is kept.
    Final(SalvageSummary),
}
