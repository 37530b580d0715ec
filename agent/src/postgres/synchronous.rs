//! What a server waits for: `synchronous_standby_names`, and the proof that all of its processes act by it.
//!
//! A reload is not done when it has been asked for. Whether commits wait at all is a flag in shared memory that the
//! *checkpointer* sets when it has read the new value (`SyncRepUpdateSyncStandbysDefined`), which may be after a checkpoint's
//! last fsync; and whom they wait for is known to each *walsender*, which may release commits by the old rule until it
//! has read the new one. A `SHOW` in a session says nothing of either. So, after the reload:
//!
//! 1. a session that was begun later shows the new value: the postmaster has signalled all its children;
//! 2. a `CHECKPOINT`, and every walsender concerned has sent the WAL up to its end;
//! 3. a second one: between the two the checkpointer has passed the top of its loop, where it reads the configuration, and
//!    once they have sent the end of the second one, which the coordinator checks by what the standbys have received, so have
//!    the walsenders. The position after it is the answer: whatever was acknowledged by the earlier rule lies before it.

use std::time::{Duration, Instant};

use regent_types::{Lsn, MemberName, SyncSet};

use super::connect::{Connection, PgError, Row, local};
use crate::config::Config;

const LIMIT: Duration = Duration::from_secs(5);
/// A checkpoint writes everything that is dirty.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(3600);
/// Until every child has been signalled, and until walsenders have sent what is there.
const SOON: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

const SENDERS: &str = "SELECT application_name, sync_priority, sent_lsn, state FROM pg_stat_replication
WHERE state IN ('catchup', 'streaming')";
const END: &str = "SELECT pg_current_wal_flush_lsn()";
const SHOW: &str =
    "SELECT current_setting('synchronous_standby_names'), pg_is_in_recovery(), pg_postmaster_start_time()";

/// What a server runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// `SHOW synchronous_standby_names`.
    pub names: String,
    /// It is a standby.
    pub in_recovery: bool,
    /// When it was started: which run this is.
    pub run: String,
}

fn unclear(what: &str, problem: String) -> PgError {
    PgError::Local { what: what.to_owned(), source: std::io::Error::other(problem) }
}

/// Looks, in a session of its own: an older one may have been left behind by a reload.
pub async fn show(config: &Config) -> Result<Shown, PgError> {
    shown(&local(config, LIMIT).await?).await
}

async fn shown(connection: &Connection) -> Result<Shown, PgError> {
    let what = "look at synchronous_standby_names";
    let row = connection.row(what, SHOW, LIMIT).await?;
    let text = |row: &Row, column| row.text(column).map(str::to_owned);
    let shown = row.as_ref().and_then(|row| {
        Some(Shown { names: text(row, 0)?, in_recovery: row.is_true(1), run: text(row, 2)? })
    });
    shown.ok_or_else(|| unclear(what, "the server answered no row".to_owned()))
}

/// Has the server read its configuration again.
pub async fn reload(config: &Config) -> Result<(), PgError> {
    let connection = local(config, LIMIT).await?;
    connection.row("reload", "SELECT pg_reload_conf()", LIMIT).await.map(drop)
}

/// Takes a value of `ALTER SYSTEM` away, which wins over every file of ours.
pub async fn reset_override(config: &Config) -> Result<(), PgError> {
    let connection = local(config, LIMIT).await?;
    connection.row("reset", "ALTER SYSTEM RESET synchronous_standby_names", LIMIT).await?;
    connection.row("reload", "SELECT pg_reload_conf()", LIMIT).await.map(drop)
}

/// See the module's documentation. The position since which commits wait by `set`.
pub async fn prove(config: &Config, set: &SyncSet) -> Result<Lsn, PgError> {
    reload(config).await?;
    let connection = current(config, &set.names()).await?;
    let first = checkpoint(&connection).await?;
    sent(&connection, set, first).await?;
    checkpoint(&connection).await
}

/// A session that was begun after the postmaster had read `names`.
async fn current(config: &Config, names: &str) -> Result<Connection, PgError> {
    let began = Instant::now();
    loop {
        let connection = local(config, LIMIT).await?;
        let found = shown(&connection).await?.names;
        if found == names {
            return Ok(connection);
        }
        if began.elapsed() >= SOON {
            let problem = format!("it is '{found}' after a reload, '{names}' was written");
            return Err(unclear("wait for synchronous_standby_names", problem));
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn checkpoint(connection: &Connection) -> Result<Lsn, PgError> {
    let what = "checkpoint for synchronous_standby_names";
    connection.row(what, "CHECKPOINT", CHECKPOINT_LIMIT).await?;
    let row = connection.row(what, END, LIMIT).await?;
    row.and_then(|row| row.parse(0))
        .ok_or_else(|| unclear(what, "the server did not say where its WAL ends".into()))
}

/// Waits until every walsender of a member of `set` has sent `until`, and every other one has taken note that it is none.
async fn sent(connection: &Connection, set: &SyncSet, until: Lsn) -> Result<(), PgError> {
    let what = "wait for the walsenders";
    let began = Instant::now();
    loop {
        let rows = connection.rows(what, SENDERS, LIMIT).await?;
        let late = rows.iter().find(|row| {
            let member = row.text(0).and_then(|name| MemberName::new(name).ok());
            if member.is_some_and(|member| set.members.contains(&member)) {
                // One that catches up releases nobody, and reads the configuration before it may.
                row.text(3) == Some("streaming") && row.parse::<Lsn>(2).is_none_or(|sent| sent < until)
            } else {
                row.parse::<u32>(1) != Some(0)
            }
        });
        let Some(late) = late else { return Ok(()) };
        if began.elapsed() >= SOON {
            let name = late.text(0).unwrap_or_default();
            return Err(unclear(what, format!("{name:?} has not sent {until}, or goes by the rule before")));
        }
        tokio::time::sleep(POLL).await;
    }
}
