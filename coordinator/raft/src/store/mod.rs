//! The durable log: entries, vote, commit and purge pointers of one node in one redb file.
//!
//! It decides nothing of Raft. It promises that
//!
//! - writes reach the disk in the order in which they were asked for (one writer thread, whose every transaction takes
//!   all that is waiting), and that an answer or a flush notice is given only after the fsync;
//! - an entry can be read as soon as `append` has returned, durable or not;
//! - what was damaged on disk is refused and named, at opening or at reading, never skipped or rolled back;
//! - after one failed write nothing is written any more: the fsync of a later one would prove nothing.

mod identity;
mod open;
pub(crate) use self::identity::write_durably;
mod reader;
mod record;
mod writer;

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, Weak, mpsc},
    time::Duration,
};

use openraft::{
    LogState, OptionalSend,
    entry::RaftEntry,
    storage::{IOFlushed, RaftLogStorage},
};
use redb::{Database, TableDefinition};
use thiserror::Error;
use tokio::sync::oneshot;

pub(crate) use self::record::{seal, unseal};
use self::writer::Job;
pub(crate) use self::{open::open, reader::LogReader};
use crate::types::{Entry, LogId, TypeConfig, Vote};

const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";

/// Why a data directory cannot be used. Each is for an operator to look into: nothing here is repaired by itself.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A record does not check out.
    #[error("{file} is damaged: table {table}, {key}: {what}")]
    Damaged {
        /// The database or snapshot file.
        file: PathBuf,
        /// Table within it.
        table: &'static str,
        /// Index or name of the record.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// The database itself cannot be opened or read.
    #[error("{file} cannot be used as a log: {source}")]
    Database {
        /// The database file.
        file: PathBuf,
        /// redb's reason.
        #[source]
        source: Box<redb::Error>,
    },
    /// A file operation failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The directory belongs to another node or group.
    #[error("{file} belongs to node {found_node} of group {found_group:?}, this is node {node} of {group:?}")]
    Foreign {
        /// Where that is written.
        file: PathBuf,
        /// Its node.
        found_node: u64,
        /// Its group.
        found_group: String,
        /// This node.
        node: u64,
        /// Its group.
        group: String,
    },
    /// The directory is empty though the node is known to have run before.
    #[error(
        "{dir} holds no log, but node {node} ran before: it has forgotten its vote, and must join under a new id"
    )]
    Forgotten {
        /// The directory.
        dir: PathBuf,
        /// This node.
        node: u64,
    },
}

/// What the writer thread, the log and its readers share.
pub(crate) struct Shared {
    file: PathBuf,
    db: Mutex<Option<Arc<Database>>>,
    /// Records accepted but not yet durable. A reader looks here first, then into the database: entries move from here
    /// to there, so in this order it misses none.
    tail: Mutex<BTreeMap<u64, Arc<Vec<u8>>>>,
    vote: Mutex<Option<Vote>>,
    committed: Mutex<Option<LogId>>,
    purged: Mutex<Option<LogId>>,
    failure: Mutex<Option<String>>,
}

/// A poisoned lock means a panic in a few lines that only move values, none of them left half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Shared {
    fn database(&self) -> io::Result<Arc<Database>> {
        lock(&self.db).clone().ok_or_else(|| io::Error::other(format!("{} is closed", self.file.display())))
    }

    fn check_usable(&self) -> io::Result<()> {
        match &*lock(&self.failure) {
            Some(reason) => Err(io::Error::other(format!("no more writes after a failed one: {reason}"))),
            None => Ok(()),
        }
    }

    fn database_error(&self, source: impl Into<redb::Error>) -> StoreError {
        StoreError::Database { file: self.file.clone(), source: Box::new(source.into()) }
    }

    fn decode_entry(&self, index: u64, record: &[u8]) -> Result<Entry, StoreError> {
        let damaged = |what| StoreError::Damaged {
            file: self.file.clone(),
            table: "log",
            key: format!("index {index}"),
            what,
        };
        let body = unseal("log", &index.to_le_bytes(), record).map_err(damaged)?;
        let entry: Entry = postcard::from_bytes(body).map_err(|e| damaged(e.to_string()))?;
        if entry.log_id.index() != index {
            return Err(damaged(format!("holds the entry of index {}", entry.log_id.index())));
        }
        Ok(entry)
    }

    fn decode_meta<T: serde::de::DeserializeOwned>(
        &self,
        key: &'static str,
        record: &[u8],
    ) -> Result<T, StoreError> {
        let damaged =
            |what| StoreError::Damaged { file: self.file.clone(), table: "meta", key: key.to_string(), what };
        let body = unseal("meta", key.as_bytes(), record).map_err(damaged)?;
        postcard::from_bytes(body).map_err(|e| damaged(e.to_string()))
    }
}

fn encode_meta<T: serde::Serialize>(key: &str, value: &T) -> io::Result<Vec<u8>> {
    Ok(seal("meta", key.as_bytes(), &postcard::to_allocvec(value).map_err(io::Error::other)?))
}

/// The log as openraft writes it. Clones share one writer thread, which ends with the last of them.
#[derive(Clone)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
}

impl LogStore {
    /// Writes what is waiting, the commit pointer too, and lets go of the file.
    pub(crate) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.jobs.send(Job::Close { done }).is_ok() {
            closed.await.ok();
        }
        let db: Option<Weak<Database>> = lock(&self.shared.db).take().map(|db| Arc::downgrade(&db));
        // A reader may be in the middle of a read.
        for _ in 0..1000 {
            if db.as_ref().is_none_or(|db| db.strong_count() == 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tracing::warn!(file = %self.shared.file.display(), "a reader still holds the log");
    }

    async fn write(&self, job: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Job) -> io::Result<()> {
        self.shared.check_usable()?;
        let (done, written) = oneshot::channel();
        let gone = || io::Error::other(format!("the writer of {} has ended", self.shared.file.display()));
        self.jobs.send(job(done)).map_err(|_| gone())?;
        written.await.map_err(|_| gone())?
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let purged = *lock(&self.shared.purged);
        let last = self.get_log_reader().await.last_entry()?.map(|entry| entry.log_id());
        Ok(LogState { last_purged_log_id: purged, last_log_id: last.or(purged) })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader { shared: self.shared.clone() }
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let record = encode_meta(VOTE, vote)?;
        let vote = *vote;
        self.write(|done| Job::Vote { vote, record, done }).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        // Only spares a restart some waiting, so it rides along with the next write and costs no fsync of its own.
        self.shared.check_usable()?;
        *lock(&self.shared.committed) = committed;
        self.jobs.send(Job::Committed).map_err(|_| io::Error::other("the writer has ended"))
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(*lock(&self.shared.committed))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.shared.check_usable()?;
        let mut records = Vec::new();
        for entry in entries {
            let index = entry.log_id.index();
            let body = postcard::to_allocvec(&entry).map_err(io::Error::other)?;
            records.push((index, Arc::new(seal("log", &index.to_le_bytes(), &body))));
        }
        lock(&self.shared.tail).extend(records.iter().cloned());
        self.jobs
            .send(Job::Append { records, done: callback })
            .map_err(|_| io::Error::other(format!("the writer of {} has ended", self.shared.file.display())))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let first = last.map_or(0, |id| id.index() + 1);
        self.write(|done| Job::Truncate { first, done }).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let record = encode_meta(PURGED, &upto)?;
        self.write(|done| Job::Purge { upto, record, done }).await
    }
}

#[cfg(test)]
mod tests;
