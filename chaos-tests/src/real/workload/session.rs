//! One connection to PostgreSQL with everything it says stamped on arrival, and the table the rows go to.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Statement};

use super::journal::Outcome;
use crate::real::clock::monotonic_ns;

/// Says who the server is, as all evidence names it.
const SERVER: &str = "host(inet_server_addr()) || ':' || inet_server_port()";

/// Who connects to what.
#[derive(Clone, Debug)]
pub struct Login {
    /// Role.
    pub user: String,
    /// Database.
    pub database: String,
    /// Password, when one is wanted.
    pub password: Option<String>,
}

impl Default for Login {
    fn default() -> Self {
        Self { user: "postgres".into(), database: "postgres".into(), password: None }
    }
}

/// A notice or warning, and when it came.
#[derive(Clone, Debug)]
pub(super) struct Notice {
    pub(super) arrived_ns: u64,
    pub(super) text: String,
}

/// An open connection.
#[derive(Debug)]
pub struct Session {
    client: Client,
    notices: Arc<Mutex<VecDeque<Notice>>>,
    driver: JoinHandle<()>,
    insert: Option<Statement>,
    server: String,
}

/// Opens a session as the default [`Login`].
pub async fn connect(address: SocketAddr, within: Duration) -> Result<Session> {
    Session::open(&Login::default(), address, within).await
}

impl Session {
    /// Opens a session; the deadline covers everything up to the first answered query.
    pub async fn open(login: &Login, address: SocketAddr, within: Duration) -> Result<Self> {
        tokio::time::timeout(within, Self::open_unbounded(login, address))
            .await
            .with_context(|| format!("connecting to {address}: not within {within:?}"))?
            .with_context(|| format!("connecting to {address}"))
    }

    async fn open_unbounded(login: &Login, address: SocketAddr) -> Result<Self> {
        let mut config = Config::new();
        config.host(address.ip().to_string()).port(address.port());
        config.user(&login.user).dbname(&login.database).application_name("regent-chaos");
        if let Some(password) = &login.password {
            config.password(password);
        }
        let (client, mut connection) = config.connect(NoTls).await?;
        let notices = Arc::new(Mutex::new(VecDeque::new()));
        let heard = notices.clone();
        let driver = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notice(notice) = message {
                    let notice = Notice { arrived_ns: monotonic_ns(), text: notice.message().to_owned() };
                    heard.lock().unwrap_or_else(PoisonError::into_inner).push_back(notice);
                }
            }
        });
        let mut session = Self { client, notices, driver, insert: None, server: String::new() };
        session.server = session.client.query_one(&format!("SELECT {SERVER}"), &[]).await?.try_get(0)?;
        Ok(session)
    }

    /// The server's own name for its address.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The client, for other queries.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    pub(super) fn take_notices(&self) -> Vec<Notice> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }

    /// Inserts one row in a transaction of its own, and judges what came of it.
    /// With the transaction's number when the server answered.
    pub(super) async fn insert(
        &mut self,
        writer_id: i32,
        number: i64,
        within: Duration,
    ) -> (Outcome, Option<u32>) {
        self.take_notices();
        match tokio::time::timeout(within, self.insert_unbounded(writer_id, number)).await {
            Err(_) => (Outcome::Unknown(format!("no answer within {within:?}")), None),
            Ok(Err(error)) => (judge(&error), None),
            Ok(Ok(xid)) => (judge_success(&self.take_notices()), Some(xid)),
        }
    }

    async fn insert_unbounded(&mut self, writer_id: i32, number: i64) -> Result<u32, tokio_postgres::Error> {
        let insert = match &self.insert {
            Some(insert) => insert,
            None => {
                let text = format!(
                    "INSERT INTO chaos_rows VALUES ($1, $2, {SERVER}, clock_timestamp()) \
                     RETURNING pg_current_xact_id()::text::bigint % 4294967296"
                );
                self.insert.insert(self.client.prepare(&text).await?)
            }
        };
        let xid: i64 = self.client.query_one(insert, &[&writer_id, &number]).await?.try_get(0)?;
        Ok(xid as u32)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A statement in flight is given up with the connection.
        self.driver.abort();
    }
}

/// A success may carry a warning that the commit is local only: that counts as unacknowledged.
pub(super) fn judge_success(notices: &[Notice]) -> Outcome {
    match notices.iter().find(|notice| is_sync_warning(&notice.text)) {
        Some(warning) => Outcome::Unknown(warning.text.clone()),
        None => Outcome::Acknowledged,
    }
}

pub(super) fn is_sync_warning(text: &str) -> bool {
    text.contains("wait for synchronous replication")
}

/// Only errors that PostgreSQL raises before a commit are failures; all others leave it open.
pub(super) fn judge(error: &tokio_postgres::Error) -> Outcome {
    let Some(told) = error.as_db_error() else { return Outcome::Unknown(error.to_string()) };
    let text = format!("{}: {}", told.code().code(), told.message());
    let before_commit = *told.code() == SqlState::READ_ONLY_SQL_TRANSACTION
        || *told.code() == SqlState::QUERY_CANCELED
        || ["22", "23", "40", "42", "53"].iter().any(|class| told.code().code().starts_with(class));
    // 40003 says in its name that the completion is unknown.
    if before_commit && *told.code() != SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN {
        Outcome::Failed(text)
    } else {
        Outcome::Unknown(text)
    }
}

/// Makes the table and the looping procedure.
pub async fn install_schema(session: &Session) -> Result<()> {
    let text = format!(
        "CREATE TABLE IF NOT EXISTS chaos_rows (writer_id int, number bigint, server text NOT NULL, \
           begun_at timestamptz NOT NULL, PRIMARY KEY (writer_id, number)); \
         CREATE OR REPLACE PROCEDURE chaos_loop(writer int, pause_s float8) LANGUAGE plpgsql AS $$ \
         DECLARE n bigint; begun timestamptz; xid bigint; \
         BEGIN \
           SELECT coalesce(max(number), 0) INTO n FROM chaos_rows WHERE writer_id = writer; \
           LOOP \
             n := n + 1; \
             begun := clock_timestamp(); \
             INSERT INTO chaos_rows VALUES (writer, n, {SERVER}, begun); \
             xid := pg_current_xact_id()::text::bigint % 4294967296; \
             COMMIT; \
             RAISE NOTICE 'committed % % % %', n, (extract(epoch FROM begun) * 1000000)::bigint, \
               (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, xid; \
             PERFORM pg_sleep(pause_s); \
           END LOOP; \
         END $$;"
    );
    session.client.batch_execute(&text).await.context("making the table and the procedure of the workload")
}

/// A row that was found in a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRow {
    /// Which writer.
    pub writer_id: i32,
    /// Which row of it.
    pub number: i64,
    /// The server that took it.
    pub server: String,
    /// That server's wall clock at the insert, in microseconds since 1970.
    pub begun_us: i64,
}

/// Reads every row of the workload.
pub async fn read_rows(session: &Session) -> Result<Vec<FoundRow>> {
    let rows = session
        .client
        .query(
            "SELECT writer_id, number, server, (extract(epoch FROM begun_at) * 1000000)::bigint \
             FROM chaos_rows ORDER BY writer_id, number",
            &[],
        )
        .await
        .context("reading the rows of the workload")?;
    rows.iter()
        .map(|row| {
            Ok(FoundRow {
                writer_id: row.try_get(0)?,
                number: row.try_get(1)?,
                server: row.try_get(2)?,
                begun_us: row.try_get(3)?,
            })
        })
        .collect()
}
