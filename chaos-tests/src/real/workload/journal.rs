//! What writers were told, row by row.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What became of a row, as its writer knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The commit was confirmed.
    Acknowledged,
    /// It certainly was not committed; why.
    Failed(String),
    /// It may have been committed or not; why.
    Unknown(String),
}

/// How close the stamps of an attempt are to the server's commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionKind {
    /// Straight to the server: `[sent_ns, done_ns]` holds the commit tightly.
    Direct,
    /// Over a faulty link, where an acknowledgement may be held back for long.
    Linked,
}

/// One row and what its writer knows about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Which writer.
    pub writer_id: i32,
    /// Which row of it.
    pub number: i64,
    /// The server that was asked, as it names itself (`address:port`).
    pub server: String,
    /// How it was reached.
    pub kind: SessionKind,
    /// Before this instant the row was not committed.
    pub sent_ns: u64,
    /// When the outcome was known; an acknowledged row was committed by then.
    pub done_ns: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// The transaction that an acknowledged row was committed by, as the server's WAL numbers it.
    pub xid: Option<u32>,
}

impl Attempt {
    /// Whether the commit was confirmed.
    pub fn is_acknowledged(&self) -> bool {
        self.outcome == Outcome::Acknowledged
    }
}

#[derive(Debug, Default)]
struct Pages {
    attempts: Vec<Attempt>,
    last_trouble: Option<String>,
}

/// A record that a writer fills and a scenario reads meanwhile. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    pages: Arc<Mutex<Pages>>,
}

impl Journal {
    pub(super) fn push(&self, attempt: Attempt) {
        self.pages().attempts.push(attempt);
    }

    pub(super) fn trouble(&self, what: String) {
        self.pages().last_trouble = Some(what);
    }

    /// All attempts so far, in order.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.pages().attempts.clone()
    }

    /// The last connection that could not be made or was lost, for messages.
    pub fn last_trouble(&self) -> Option<String> {
        self.pages().last_trouble.clone()
    }

    /// How many rows were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.pages().attempts.iter().filter(|attempt| attempt.is_acknowledged()).count()
    }

    /// The first acknowledged row that was sent after `instant_ns`.
    pub fn first_acknowledged_after(&self, instant_ns: u64) -> Option<Attempt> {
        let pages = self.pages();
        pages.attempts.iter().find(|a| a.is_acknowledged() && a.sent_ns > instant_ns).cloned()
    }

    /// The last acknowledged row.
    pub fn last_acknowledged(&self) -> Option<Attempt> {
        self.pages().attempts.iter().rev().find(|attempt| attempt.is_acknowledged()).cloned()
    }

    /// The longest time between two acknowledgements, and when it began: the outage this writer saw.
    pub fn longest_gap_ns(&self) -> Option<(u64, u64)> {
        let pages = self.pages();
        let mut done: Vec<_> =
            pages.attempts.iter().filter(|a| a.is_acknowledged()).map(|a| a.done_ns).collect();
        done.sort_unstable();
        done.windows(2).map(|pair| (pair[1] - pair[0], pair[0])).max()
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
