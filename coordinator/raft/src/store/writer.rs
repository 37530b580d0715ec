//! The one thread that writes. Each round takes everything that waits, makes one durable transaction of it, in order,
//! and only then tells those who wait.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use openraft::storage::IOFlushed;
use redb::Table;
use tokio::sync::oneshot;

use super::{COMMITTED, LOG, META, PURGED, Shared, VOTE, encode_meta, lock};
use crate::types::{LogId, TypeConfig, Vote};

/// So many jobs at most go into one transaction.
const ROUND_JOBS_MAX: usize = 1024;
/// A commit pointer that found no write to ride along with is written after this time.
const COMMITTED_IDLE: Duration = Duration::from_secs(1);

pub(super) enum Job {
    Append { records: Vec<(u64, Arc<Vec<u8>>)>, done: IOFlushed<TypeConfig> },
    Vote { vote: Vote, record: Vec<u8>, done: oneshot::Sender<io::Result<()>> },
    Committed,
    Truncate { first: u64, done: oneshot::Sender<io::Result<()>> },
    Purge { upto: LogId, record: Vec<u8>, done: oneshot::Sender<io::Result<()>> },
    Close { done: oneshot::Sender<()> },
}

pub(super) fn run(shared: Arc<Shared>, jobs: Receiver<Job>) {
    let mut committed_waits = false;
    loop {
        let first = if committed_waits {
            match jobs.recv_timeout(COMMITTED_IDLE) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            }
        } else {
            match jobs.recv() {
                Ok(job) => Some(job),
                Err(_) => break,
            }
        };
        let idle = first.is_none();
        let mut round: Vec<Job> = first.into_iter().collect();
        while round.len() < ROUND_JOBS_MAX
            && let Ok(job) = jobs.try_recv()
        {
            round.push(job);
        }
        committed_waits |= round.iter().any(|job| matches!(job, Job::Committed));
        let closing = round.iter().any(|job| matches!(job, Job::Close { .. }));
        let only_pointer = round.iter().all(|job| matches!(job, Job::Committed | Job::Close { .. }));
        if only_pointer && !idle && !closing {
            continue;
        }
        let result = write_round(&shared, &round, committed_waits);
        committed_waits &= result.is_err();
        if let Err(error) = &result {
            tracing::error!(file = %shared.file.display(), %error, "the log cannot be written; this node stops");
            lock(&shared.failure).get_or_insert_with(|| error.to_string());
            committed_waits = false;
        } else {
            settle(&shared, &round);
        }
        answer(round, &result);
        if closing {
            return;
        }
    }
    // The last handle is gone; a lost pointer costs the next start some waiting and nothing else.
    if committed_waits && let Err(error) = write_round(&shared, &[], true) {
        tracing::warn!(file = %shared.file.display(), %error, "commit pointer not saved");
    }
}

fn write_round(shared: &Shared, round: &[Job], committed: bool) -> io::Result<()> {
    shared.check_usable()?;
    let nothing = round.iter().all(|job| matches!(job, Job::Committed | Job::Close { .. }));
    if nothing && !committed {
        return Ok(());
    }
    let db = shared.database()?;
    let committed = if committed { Some(*lock(&shared.committed)) } else { None };
    transaction(&db, round, committed).map_err(|source| io::Error::other(shared.database_error(source)))
}

fn transaction(
    db: &redb::Database,
    round: &[Job],
    committed: Option<Option<LogId>>,
) -> Result<(), redb::Error> {
    let mut write = db.begin_write()?;
    // Two fsyncs instead of one. With one, redb takes a page that does not check out after a crash for a torn last
    // write and silently returns to the state before: a rotten byte would undo an acknowledged vote or entry.
    write.set_two_phase_commit(true);
    {
        let mut log: Table<'_, u64, &[u8]> = write.open_table(LOG)?;
        let mut meta: Table<'_, &str, &[u8]> = write.open_table(META)?;
        for job in round {
            match job {
                Job::Append { records, .. } => {
                    for (index, record) in records {
                        log.insert(index, record.as_slice())?;
                    }
                }
                Job::Vote { record, .. } => {
                    meta.insert(VOTE, record.as_slice())?;
                }
                Job::Truncate { first, .. } => log.retain_in(*first.., |_, _| false)?,
                Job::Purge { upto, record, .. } => {
                    log.retain_in(..=upto.index(), |_, _| false)?;
                    // Never backwards: the pointer must stand at the gap, not inside of it.
                    meta.insert(PURGED, record.as_slice())?;
                }
                Job::Committed | Job::Close { .. } => {}
            }
        }
        match committed {
            Some(Some(id)) => {
                let record = encode_meta(COMMITTED, &id)?;
                meta.insert(COMMITTED, record.as_slice())?;
            }
            Some(None) => {
                meta.remove(COMMITTED)?;
            }
            None => {}
        }
    }
    write.commit()?;
    Ok(())
}

/// What was written is now in the database: the memory of it goes, the pointers follow.
fn settle(shared: &Shared, round: &[Job]) {
    for job in round {
        match job {
            Job::Append { records, .. } => {
                let mut tail = lock(&shared.tail);
                for (index, record) in records {
                    if tail.get(index).is_some_and(|held| Arc::ptr_eq(held, record)) {
                        tail.remove(index);
                    }
                }
            }
            Job::Vote { vote, .. } => *lock(&shared.vote) = Some(*vote),
            Job::Truncate { first, .. } => {
                lock(&shared.tail).split_off(first);
            }
            Job::Purge { upto, .. } => {
                let mut tail = lock(&shared.tail);
                let kept = tail.split_off(&(upto.index() + 1));
                *tail = kept;
                *lock(&shared.purged) = Some(*upto);
            }
            Job::Committed | Job::Close { .. } => {}
        }
    }
}

fn answer(round: Vec<Job>, result: &io::Result<()>) {
    let copy = || match result {
        Ok(()) => Ok(()),
        Err(error) => Err(io::Error::other(error.to_string())),
    };
    for job in round {
        match job {
            Job::Append { done, .. } => done.io_completed(copy()),
            // The asker may have been cancelled; what it asked for is done all the same.
            Job::Vote { done, .. } | Job::Truncate { done, .. } | Job::Purge { done, .. } => {
                done.send(copy()).ok();
            }
            Job::Close { done } => {
                done.send(()).ok();
            }
            Job::Committed => {}
        }
    }
}
