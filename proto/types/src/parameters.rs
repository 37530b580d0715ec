//! PostgreSQL's own configuration parameters as an operator sets them for a whole cluster, and what a member makes of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The parameters in force, as every member is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParametersView {
    /// Counts their changes; 0 before the first one.
    pub version: u64,
    /// Name and value, as PostgreSQL reads them.
    pub values: BTreeMap<String, String>,
}

/// What a member has made of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterFacts {
    /// The version that its server was told to read.
    pub version: u64,
    /// Parameters whose value in the files takes a restart of the server.
    pub pending_restart: Vec<String>,
    /// Of them, those that a primary must not be restarted with before this member runs with at least as much.
    pub raise_first: Vec<String>,
    /// Parameters that the member's PostgreSQL does not take, each with its words: left out of the file.
    pub refused: BTreeMap<String, String>,
}

/// Parameters that a standby needs at least as high as its primary, or its replay stops (PostgreSQL: hot standby,
/// administrator's overview). All of them take a restart.
pub const STANDBY_NEEDS: [&str; 5] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
];
