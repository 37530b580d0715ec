//! Tools that write to a data directory run as jobs of the guard: its death is theirs. This module starts one, follows it,
//! and ends it when its time is over.

use std::{
    io::{Read, Seek, SeekFrom},
    path::Path,
    time::{Duration, Instant},
};

use regent_guard::wire::{Fields, JobTool, Request};

use crate::{
    app::App,
    clock::ms,
    guard::{Guard, GuardError},
};

/// How a job ended badly.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The guard.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The tool failed.
    #[error("{tool} ended with {end}: {log}")]
    Failed {
        /// The tool.
        tool: &'static str,
        /// Exit code or signal.
        end: String,
        /// The end of its output.
        log: String,
    },
    /// Its time was over; it is dead.
    #[error("{tool} was ended after its budget of {budget_ms} ms")]
    Budget {
        /// The tool.
        tool: &'static str,
        /// The budget.
        budget_ms: u64,
    },
}

const QUICK: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(100);

/// Kills the job on drop: a directive that is superseded leaves no tool behind that writes.
struct Watch<'a> {
    guard: &'a Guard,
    armed: bool,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if self.armed {
            let guard = self.guard.clone();
            tokio::spawn(async move { guard.ask(&Request::JobKill, QUICK).await });
        }
    }
}

/// Runs a tool to its end; `tick` is called while it runs. Gives the end of its output.
pub async fn run(
    app: &App,
    tool: JobTool,
    args: Vec<String>,
    budget: Duration,
    mut tick: impl FnMut(),
) -> Result<String, JobError> {
    let begun = Instant::now();
    tracing::info!(tool = tool.name(), "job starts");
    app.guard.ask(&Request::JobStart { tool, args, env: vec![] }, QUICK).await?;
    let mut watch = Watch { guard: &app.guard, armed: true };
    let end = loop {
        tokio::time::sleep(POLL).await;
        let status = app.guard.ask(&Request::JobStatus, QUICK).await?;
        if status.get("state") != Some("running") {
            break status;
        }
        tick();
        if begun.elapsed() >= budget {
            kill(app).await?;
            return Err(JobError::Budget { tool: tool.name(), budget_ms: ms(budget) });
        }
    };
    watch.armed = false;
    let log = end.get("log").map(|path| tail(Path::new(path))).unwrap_or_default();
    tracing::info!(tool = tool.name(), end = describe(&end), "job ended");
    if end.get("state") == Some("exited") && end.get("code") == Some("0") {
        return Ok(log);
    }
    Err(JobError::Failed { tool: tool.name(), end: describe(&end), log })
}

/// Kills a job and waits until it is gone.
pub async fn kill(app: &App) -> Result<(), GuardError> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let status = app.guard.status().await?;
        if !status.job.starts_with("running") {
            return Ok(());
        }
        app.guard.ask(&Request::JobKill, QUICK).await?;
        if Instant::now() > deadline {
            return Err(GuardError::Deadline { verb: "job-kill", limit_ms: 30_000 });
        }
        tokio::time::sleep(POLL).await;
    }
}

fn describe(status: &Fields) -> String {
    let part = |key: &str| status.get(key).map(|v| format!(" {key} {v}")).unwrap_or_default();
    let state = status.get("state").unwrap_or("unknown");
    format!("{state}{}{}{}", part("code"), part("signal"), part("problem"))
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    const TAIL_BYTES: u64 = 1500;
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = vec![];
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().replace('\r', "\n"))
    };
    read().unwrap_or_else(|error| format!("(log {} cannot be read: {error})", path.display()))
}
