//! Connections: over the local socket as the superuser, or over TCP as the role `regent`. Each with a deadline.

use std::time::Duration;

use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::{Client, Config as PgConfig, NoTls};

use crate::config::{Config, ROLE};

/// A connection or a query failed.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    /// PostgreSQL's words.
    #[error("{what}: {}", words(source))]
    Postgres {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: tokio_postgres::Error,
    },
    /// No answer.
    #[error("{what}: no answer within {limit_ms} ms")]
    Deadline {
        /// What was tried.
        what: String,
        /// The deadline.
        limit_ms: u64,
    },
    /// Something local.
    #[error("{what}: {source}")]
    Local {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

fn words(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => {
            let cause = std::error::Error::source(error).map(|c| format!(": {c}")).unwrap_or_default();
            format!("{error}{cause}")
        }
    }
}

/// A live connection; dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    client: Client,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    /// Whether it can still be used.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs `sql` (several statements are fine) and gives the first row as text.
    pub async fn row(&self, what: &str, sql: &str, limit: Duration) -> Result<Option<Row>, PgError> {
        Ok(self.rows(what, sql, limit).await?.into_iter().next())
    }

    /// Runs `sql` and gives its rows as text.
    pub async fn rows(&self, what: &str, sql: &str, limit: Duration) -> Result<Vec<Row>, PgError> {
        let messages = bounded(what, limit, self.client.simple_query(sql)).await?;
        Ok(messages
            .into_iter()
            .filter_map(|m| match m {
                tokio_postgres::SimpleQueryMessage::Row(row) => {
                    Some(Row((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect()))
                }
                _ => None,
            })
            .collect())
    }
}

/// A row, as text.
#[derive(Debug, Clone)]
pub struct Row(Vec<Option<String>>);

impl Row {
    /// The column as text.
    pub fn text(&self, column: usize) -> Option<&str> {
        self.0.get(column)?.as_deref()
    }
    /// The column, parsed; `None` when null or of another form.
    pub fn parse<T: std::str::FromStr>(&self, column: usize) -> Option<T> {
        self.text(column)?.parse().ok()
    }
    /// The column as boolean; null is false.
    pub fn is_true(&self, column: usize) -> bool {
        self.text(column) == Some("t")
    }
}

async fn bounded<T>(
    what: &str,
    limit: Duration,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, PgError> {
    timeout(limit, work)
        .await
        .map_err(|_| PgError::Deadline { what: what.to_owned(), limit_ms: crate::clock::ms(limit) })?
        .map_err(|source| PgError::Postgres { what: what.to_owned(), source })
}

/// Connects to the local server as the superuser.
pub async fn local(config: &Config, limit: Duration) -> Result<Connection, PgError> {
    let mut pg = superuser(config);
    pg.options(WRITES);
    open("connect to the local server", pg, limit).await
}

/// The same, with the defaults that a client gets.
pub async fn as_clients(config: &Config, limit: Duration) -> Result<Connection, PgError> {
    open("connect to the local server", superuser(config), limit).await
}

/// The agent writes (role, slots, marker) also while clients may not: `block.rs`.
const WRITES: &str = "-c default_transaction_read_only=off";

fn superuser(config: &Config) -> PgConfig {
    let mut pg = PgConfig::new();
    pg.host_path(config.socket_dir()).port(config.port).user(config.superuser()).dbname("postgres");
    pg.application_name("regent-agent");
    pg
}

/// Connects to a server that somebody else runs.
pub async fn observed(dsn: &PgConfig, limit: Duration) -> Result<Connection, PgError> {
    let mut pg = dsn.clone();
    pg.application_name("regent-observer").connect_timeout(limit);
    open("connect to the server", pg, limit).await
}

/// Connects to `host:port` as the role `regent`.
pub async fn remote(config: &Config, host: &str, port: u16, limit: Duration) -> Result<Connection, PgError> {
    remote_database(config, host, port, "postgres", limit).await
}

/// The same, to one database.
pub async fn remote_database(
    config: &Config,
    host: &str,
    port: u16,
    database: &str,
    limit: Duration,
) -> Result<Connection, PgError> {
    let what = format!("connect to {host}:{port}");
    let password =
        super::conf::password(config).map_err(|source| PgError::Local { what: what.clone(), source })?;
    let mut pg = PgConfig::new();
    pg.host(host).port(port).user(ROLE).password(password).dbname(database);
    pg.application_name("regent-agent").connect_timeout(limit).options(WRITES);
    open(&what, pg, limit).await
}

async fn open(what: &str, pg: PgConfig, limit: Duration) -> Result<Connection, PgError> {
    let (client, connection) = bounded(what, limit, pg.connect(NoTls)).await?;
    let task = tokio::spawn(async move {
        // The client's next query reports the same error.
        let _ = connection.await;
    });
    Ok(Connection { client, task })
}
