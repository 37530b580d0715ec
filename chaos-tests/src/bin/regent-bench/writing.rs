//! The tightest writer there is: one open session that tries again at once while the server is read-only.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use regent_chaos::real::clock::monotonic_ns;
use regent_chaos::real::workload::{Login, Session};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(1);
const READ_ONLY: &str = "25006";

/// Makes the table.
pub async fn make_table(session: &Session) -> Result<()> {
    session
        .client()
        .batch_execute("CREATE TABLE IF NOT EXISTS bench_writes (at timestamptz NOT NULL)")
        .await
        .context("making the table")
}

/// One committed row.
pub async fn write(session: &Session) -> Result<(), tokio_postgres::Error> {
    session.client().batch_execute("INSERT INTO bench_writes VALUES (clock_timestamp())").await
}

/// A writer at work.
pub struct Trying {
    task: JoinHandle<Result<u64>>,
}

impl Trying {
    /// Opens a session to a standby and begins to try; returns when the first try was refused.
    pub async fn start(login: &Login, standby: SocketAddr) -> Result<Self> {
        let session = Session::open(login, standby, Duration::from_secs(5)).await?;
        let begun = Arc::new(Notify::new());
        let told = begun.clone();
        let task = tokio::spawn(async move {
            loop {
                match write(&session).await {
                    Ok(()) => return Ok(monotonic_ns()),
                    Err(error) if error.code().is_some_and(|code| code.code() == READ_ONLY) => {
                        told.notify_one()
                    }
                    Err(error) => return Err(error).context("the writer's session broke"),
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        let mut trying = Self { task };
        tokio::select! {
            () = begun.notified() => Ok(trying),
            ended = &mut trying.task => bail!("{standby} is no standby: {:?}", ended?),
        }
    }

    /// When the first row was acknowledged, on the monotonic clock.
    pub async fn first_ns(self, within: Duration) -> Result<u64> {
        let mut task = self.task;
        match tokio::time::timeout(within, &mut task).await {
            Ok(done) => done?,
            Err(_) => {
                task.abort();
                bail!("no row was accepted within {within:?}")
            }
        }
    }
}
