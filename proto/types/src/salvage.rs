//! What was kept of a divergent history before anything was started on it.

use serde::{Deserialize, Serialize};

use crate::{Epoch, Lsn, Timeline};

/// Whether the divergent WAL was kept whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SalvageCompleteness {
    /// Every segment from the switch to the end.
    Complete,
    /// Something is missing.
    Partial {
        /// What.
        reason: String,
    },
}

/// Summary of one salvage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SalvageSummary {
    /// The folder, on the member's host.
    pub folder: String,
    /// The epoch whose WAL diverged.
    pub epoch: Epoch,
    /// Its timeline.
    pub timeline: Timeline,
    /// Where the surviving history left it.
    pub from_lsn: Lsn,
    /// End of its valid WAL.
    pub to_lsn: Lsn,
    /// Committed transactions in between.
    pub transactions: u64,
    /// Time between the first and the last of those commits, ms.
    pub span_ms: u64,
    /// Whether it is whole.
    pub completeness: SalvageCompleteness,
}

impl SalvageSummary {
    /// Divergent WAL, bytes.
    pub fn bytes(&self) -> u64 {
        self.to_lsn.bytes_since(self.from_lsn)
    }
}
