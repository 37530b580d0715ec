//! Where an entry stands in the log, and which leadership proposed it.

use regent_types::CoordinatorId;
use serde::{Deserialize, Serialize};

/// One uninterrupted leadership: a node that loses and regains the lead has another one, at another term.
///
/// openraft's default leader ids allow several leaders in one term, ordered by node, so both fields count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Leadership {
    /// Raft term.
    pub term: u64,
    /// The leading node.
    pub node: CoordinatorId,
}

impl std::fmt::Display for Leadership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "term {} node {}", self.term, self.node)
    }
}

/// Where an entry stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Log index.
    pub index: u64,
    /// The leadership under which the entry was appended.
    pub leadership: Leadership,
}
