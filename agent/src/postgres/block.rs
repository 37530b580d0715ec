//! Refuses writes, and keeps reads: `default_transaction_read_only` in a file that `regent.conf` includes, and the end of the
//! sessions that were there before. A session that overrides the default is ended as soon as it is seen to have written.

use std::{fs, io, path::Path, time::Duration};

use regent_agent_core::exposure::Seen;
use regent_types::{Lsn, MemberName};

use super::connect::{Connection, PgError, as_clients, local};
use crate::{config::Config, durable};

/// The file, in the data directory.
pub const FILE: &str = "regent.limits.conf";
const LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// `pg_stat_replication.reply_time` is the standby's clock: only that it changes says something.
const LOOK: &str = "SELECT NULL, NULL, NULL, pg_current_wal_flush_lsn(), pg_is_in_recovery()
UNION ALL SELECT application_name, flush_lsn::text, reply_time::text, NULL, NULL FROM pg_stat_replication
WHERE state IN ('catchup', 'streaming')";

/// Sessions of clients, but not those of agents: a rejoin reads through them.
const OTHERS: &str = "FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name <> 'regent-agent'";

/// What was seen of a primary.
pub struct Look {
    /// The end of its WAL.
    pub end: Lsn,
    /// Its standbys.
    pub standbys: Vec<Seen>,
}

/// Looks; `None` at a standby.
pub async fn look(connection: &Connection) -> Result<Option<Look>, PgError> {
    let what = "look at the standbys";
    let rows = match connection.rows(what, LOOK_PRIMARY_ONLY, LIMIT).await?.first() {
        Some(row) if row.is_true(0) => connection.rows(what, LOOK, LIMIT).await?,
        _ => return Ok(None),
    };
    let Some(end) = rows.iter().find_map(|row| row.parse::<Lsn>(3)) else { return Ok(None) };
    let standbys = rows.iter().filter_map(|row| {
        Some(Seen {
            member: MemberName::new(row.text(0)?).ok()?,
            flushed: row.parse(1),
            word: row.text(2).unwrap_or_default().to_owned(),
        })
    });
    Ok(Some(Look { end, standbys: standbys.collect() }))
}

/// The end of the WAL being written cannot be asked for during recovery.
const LOOK_PRIMARY_ONLY: &str = "SELECT NOT pg_is_in_recovery()";

pub(crate) fn text(blocked: bool) -> String {
    let head = "# Written by regent-agent: changes here are lost.\n";
    let line = if blocked { "default_transaction_read_only = on\n" } else { "" };
    format!("{head}{line}")
}

/// Writes the file. Whether it has changed.
pub fn write(data_dir: &Path, blocked: bool) -> io::Result<bool> {
    let path = data_dir.join(FILE);
    if !blocked && !path.exists() {
        return Ok(false);
    }
    match fs::metadata(data_dir.join("postgresql.conf")) {
        Ok(_) => durable::replace_if_changed(&path, text(blocked).as_bytes(), 0o600),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Has the server take the file; with `blocked` every session that was begun before it did is ended.
pub async fn carry_out(config: &Config, blocked: bool) -> Result<(), PgError> {
    let connection = local(config, LIMIT).await?;
    connection.row("reload", "SELECT pg_reload_conf()", LIMIT).await?;
    if !blocked {
        return Ok(());
    }
    let began = std::time::Instant::now();
    loop {
        // Begun after the postmaster has read it, or the same is tried again.
        let fresh = as_clients(config, LIMIT).await?;
        let row = fresh.row("look for the limit", "SHOW default_transaction_read_only", LIMIT).await?;
        if row.is_some_and(|row| row.text(0) == Some("on")) || began.elapsed() >= LIMIT {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    let sql = format!("SELECT count(pg_terminate_backend(pid)) {OTHERS}");
    connection.row("end sessions", &sql, LIMIT).await.map(drop)
}

/// Ends every session that has written in spite of it. How many.
pub async fn end_writers(connection: &Connection) -> Result<u64, PgError> {
    let sql = format!("SELECT count(pg_terminate_backend(pid)) {OTHERS} AND backend_xid IS NOT NULL");
    let row = connection.row("end writing sessions", &sql, LIMIT).await?;
    Ok(row.and_then(|row| row.parse(0)).unwrap_or_default())
}
