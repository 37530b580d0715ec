//! What is replicated. This crate decides the order of commands and never looks into one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where an entry stands in the log; `term` and `leader` together identify the leadership that proposed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogPosition {
    /// Index in the log, from 0, without holes.
    pub index: u64,
    /// Term of the proposing leadership.
    pub term: u64,
    /// Node of the proposing leadership.
    pub leader: u64,
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "index {} (term {}, leader {})", self.index, self.term, self.leader)
    }
}

/// One leadership. Both fields are needed: a term can see more than one leader, one node leads in many terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeadershipId {
    /// Raft term.
    pub term: u64,
    /// The node that leads.
    pub node: u64,
}

impl fmt::Display for LeadershipId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} in term {}", self.node, self.term)
    }
}

/// The replicated state. Every node applies the same commands in the same order, so an implementation must be
/// deterministic; it is called from one task at a time and uses interior locking for its readers.
///
/// The state lives in memory: after a restart it is rebuilt by `restore` with the last snapshot (if there is one) and
/// by `apply` with the entries that follow. An implementation therefore starts out empty.
pub trait Machine: Send + Sync + 'static {
    /// Applies one command and returns the reply for its proposer. A refusal is a reply too. An error (a command that this
    /// build cannot read) stops this node: to pass over what others apply would be another state.
    fn apply(&self, at: LogPosition, command: &[u8]) -> Result<Vec<u8>, String>;

    /// An entry of Raft itself (a leader's blank one, a membership) was passed: `at` is applied, and no command. A machine
    /// that compares its position with a read index must count these.
    fn passed(&self, at: LogPosition);

    /// The whole state, in a layout that the implementor versions.
    fn snapshot(&self) -> Vec<u8>;

    /// Replaces the whole state. An error stops this node: to go on with half a state would be worse.
    fn restore(&self, at: Option<LogPosition>, snapshot: &[u8]) -> Result<(), String>;
}
