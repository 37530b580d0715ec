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
    /// The relations that it touches most, most changes first; not more than [`SalvageSummary::RELATIONS_MAX`].
    #[serde(default)]
    pub relations: Vec<SalvagedRelation>,
    /// How many relations it touches.
    #[serde(default)]
    pub relations_total: u64,
    /// Folder of a copy of the whole data directory as it was: rows can be read from it. `None` when only WAL is kept.
    #[serde(default)]
    pub data: Option<String>,
}

/// What the divergent WAL did to one relation; changes of transactions that never committed are counted too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SalvagedRelation {
    /// `database.schema.name` where the surviving primary knows the file, else `database/tablespace/file` in numbers.
    pub name: String,
    /// Rows inserted.
    pub inserts: u64,
    /// Rows updated.
    pub updates: u64,
    /// Rows deleted.
    pub deletes: u64,
}

impl SalvageSummary {
    /// Relations named in a summary, which travels with heartbeats; the manifest on the host names all.
    pub const RELATIONS_MAX: usize = 10;

    /// Divergent WAL, bytes.
    pub fn bytes(&self) -> u64 {
        self.to_lsn.bytes_since(self.from_lsn)
    }
}
