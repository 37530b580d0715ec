//! One step, carried out. Each is safe to repeat: a step that half worked is planned again from what is found.

use std::{sync::atomic::Ordering, time::Duration};

use regent_agent_core::{Promoting, Rejoining, Step, Worked};
use regent_guard::wire::{Request, StopMode};
use regent_types::RejoinMethod;

use crate::{
    app::App,
    bootstrap,
    clock::boottime_ns,
    data,
    guard::GuardError,
    jobs::JobError,
    postgres::{
        conf,
        connect::{PgError, local},
        hba, primary,
    },
    rejoin::{archive, clone, rewind, salvage, waldump},
    state::StateError,
    validate,
};

/// A step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// At the guard.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// At the server.
    #[error(transparent)]
    Postgres(#[from] PgError),
    /// At the state file.
    #[error(transparent)]
    State(#[from] StateError),
    /// In a tool.
    #[error(transparent)]
    Job(#[from] JobError),
    /// In a file.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Something else.
    #[error("{0}")]
    Other(String),
}

impl StepError {
    /// An I/O error with what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

const QUERY: Duration = Duration::from_secs(10);
const START: Duration = Duration::from_secs(60);
const STOP_MS: u64 = 30_000;
/// Longest wait for the end of recovery.
const PROMOTE: Duration = Duration::from_secs(60);
const PROMOTED_POLL: Duration = Duration::from_millis(5);

/// Carries out `step`.
pub async fn perform(app: &App, step: &Step, worked: &mut Worked) -> Result<(), StepError> {
    let config = &app.config;
    match step {
        Step::PersistEpoch(epoch) => {
            app.state.change(|s| s.highest_epoch = s.highest_epoch.max(*epoch))?;
        }
        Step::GuardFence { epoch, grace_ms } => {
            let _fencing = Fencing::begin(app);
            worked.fenced = Some(app.guard.fence(*epoch, *grace_ms).await?);
        }
        Step::ClosePromises { epoch, void } => {
            app.guard.ask(&Request::ClosePromises { epoch: epoch.0, void: *void }, QUERY).await?;
        }
        Step::Detach => {
            let changed = conf::write(config, &config.data_dir, None)
                .map_err(StepError::io("detach from the upstream"))?;
            // Also when the file said so already: an earlier run may have died before the reload.
            reload(app, changed || !worked.detached).await?;
            worked.detached = true;
        }
        Step::Attach(upstream) => {
            attach(app, upstream)?;
            reload(app, true).await?;
        }
        Step::Grant(grant) => {
            worked.granted = true;
            app.guard.grant(grant).await?;
        }
        Step::StartStandby => start_standby(app).await?,
        Step::StartPrimary(epoch) => {
            refresh(app, None)?;
            write_parameters(app, worked.restarting).await?;
            strip_auto(app)?;
            app.guard.ask(&Request::StartPrimary { epoch: epoch.0 }, START).await?;
        }
        Step::StopServer => {
            // Crash recovery is all that a harder stop costs, and a fast stop that hangs has no next rung of its own.
            let mode = if worked.stop_failed { StopMode::Immediate } else { StopMode::Fast };
            worked.stop_failed = true;
            let stop = Request::Stop { mode, timeout_ms: STOP_MS };
            app.guard.ask(&stop, Duration::from_millis(STOP_MS + 5_000)).await?;
            worked.stop_failed = false;
        }
        Step::Reload => {
            let upstream = conf::read_upstream(&config.data_dir);
            refresh(app, upstream.as_ref().map(|(host, port)| (host.as_str(), *port)))?;
            write_parameters(app, false).await?;
            reload(app, true).await?;
            worked.reloaded = true;
        }
        Step::KillJob => crate::jobs::kill(app).await?,
        Step::Initialize(epoch) => bootstrap::initialize(app, *epoch).await?,
        Step::ResumeReplay => {
            let connection = local(config, QUERY).await?;
            connection.row("resume replay", "SELECT pg_wal_replay_resume()", QUERY).await?;
        }
        Step::BeginPromotion { epoch, from_timeline } => {
            let promoting = Promoting { epoch: *epoch, from_timeline: *from_timeline };
            app.state.change(|s| s.promoting = Some(promoting))?;
        }
        Step::PromoteServer => promote(app).await?,
        Step::PersistLineage(epoch) => {
            app.state.change(|s| {
                s.lineage = *epoch;
                s.mark = None;
            })?;
        }
        Step::Disown => {
            app.state.change(|s| {
                s.lineage = regent_types::Epoch::NONE;
                (s.promoting, s.rejoining) = (None, None);
            })?;
        }
        Step::ConfigurePrimary => {
            primary::configure(config).await?;
            if let Some(view) = app.view() {
                primary::slots(config, view.members.iter()).await?;
            }
            worked.configured = true;
        }
        Step::MeasureWalEnd(timeline) => {
            worked.wal_end = Some(waldump::measure_end(app, *timeline).await);
        }
        Step::Salvage { branch, upstream } => {
            let end = worked.wal_end.clone();
            let summary = salvage::salvage(app, branch, end, upstream).await?;
            app.state.change(|s| {
                s.salvage = Some(summary);
                rejoining(s, upstream.epoch).salvaged = true;
            })?;
        }
        Step::ChooseRepoint { epoch, was_primary } => {
            app.state.change(|s| {
                let record = rejoining(s, *epoch);
                record.method = Some(RejoinMethod::Repointed);
                record.was_primary |= was_primary;
            })?;
        }
        Step::AskUpstream(upstream) => {
            let word = archive::oldest(app, upstream).await;
            tracing::info!(?word, "asked the upstream where its WAL begins");
            worked.upstream = Some((word, boottime_ns()));
        }
        Step::UseArchive(upstream) => {
            tracing::warn!("the upstream's WAL is gone: the archive is used");
            conf::use_archive(config, &config.data_dir, (&upstream.host, upstream.port))
                .map_err(StepError::io("write PostgreSQL's configuration"))?;
            reload(app, true).await?;
        }
        Step::ChooseClone { epoch, reason } => {
            tracing::warn!(reason, "a clone is needed");
            app.state.change(|s| {
                let record = rejoining(s, *epoch);
                (record.method, record.clone_reason) = (None, Some(reason.clone()));
            })?;
        }
        Step::Rewind { upstream, budget_ms } => rewind::rewind(app, upstream, *budget_ms).await?,
        Step::Clone { upstream, keep_old } => clone::clone(app, upstream, *keep_old).await?,
        Step::ValidateName { name, address, port, epoch } => {
            worked.validated = Some(validate::validate(config, name, address, *port, *epoch).await?);
        }
        Step::Checkpoint(epoch) => worked.checkpointed = Some(primary::checkpoint(config, *epoch).await?),
        Step::Wait { .. } => unreachable!("waits are the loop's"),
    }
    Ok(())
}

/// Marks a fence as under way for as long as it lives, also when its directive is superseded.
struct Fencing<'a>(&'a App);

impl<'a> Fencing<'a> {
    fn begin(app: &'a App) -> Self {
        app.fencing.store(true, Ordering::SeqCst);
        Self(app)
    }
}

impl Drop for Fencing<'_> {
    fn drop(&mut self) {
        self.0.fencing.store(false, Ordering::SeqCst);
    }
}

/// The record of the rejoin at `epoch`, begun when there is none.
pub fn rejoining(state: &mut regent_agent_core::AgentView, epoch: regent_types::Epoch) -> &mut Rejoining {
    if state.rejoining.as_ref().is_none_or(|r| r.epoch != epoch) {
        // Without a lineage since: nothing but that clone can be there.
        let cloned =
            state.rejoining.as_ref().is_some_and(|r| r.cloned) && state.lineage == regent_types::Epoch::NONE;
        state.rejoining = Some(Rejoining { cloned, ..Rejoining::begin(epoch) });
    }
    state.rejoining.as_mut().expect("made above")
}

/// `regent.conf`, `pg_hba.conf` and the password file as the configuration has them now.
fn refresh(app: &App, upstream: Option<(&str, u16)>) -> Result<(), StepError> {
    let config = &app.config;
    let write = || -> std::io::Result<()> {
        conf::write_passfile(config)?;
        conf::write(config, &config.data_dir, upstream)?;
        hba::write(config, &config.data_dir)?;
        Ok(())
    };
    write().map_err(StepError::io("write PostgreSQL's configuration"))
}

/// The cluster's parameters for the role that the data directory has.
async fn write_parameters(app: &App, restarting: bool) -> Result<(), StepError> {
    let written = crate::parameters::write(app, restarting).await;
    written.map(drop).map_err(StepError::io("write PostgreSQL's parameters"))
}

/// Starts the standby with a fresh configuration and the upstream that it has.
pub async fn start_standby(app: &App) -> Result<(), StepError> {
    let upstream = conf::read_upstream(&app.config.data_dir);
    refresh(app, upstream.as_ref().map(|(h, p)| (h.as_str(), *p)))?;
    write_parameters(app, false).await?;
    strip_auto(app)?;
    app.guard.ask(&Request::StartStandby { create: false }, START).await?;
    Ok(())
}

/// Before a start: nothing that is set elsewhere may win over `regent.conf`.
fn strip_auto(app: &App) -> Result<(), StepError> {
    // A start that is asked for again finds the server running; its file is its own then.
    if !data::is_stopped(app) {
        return Ok(());
    }
    let config = &app.config;
    let names =
        conf::strip_auto(config, &config.data_dir).map_err(StepError::io("read postgresql.auto.conf"))?;
    if !names.is_empty() {
        tracing::warn!(
            settings = names.join(", "),
            "taken out of postgresql.auto.conf, where they would win over regent.conf; the file as it was is kept beside"
        );
    }
    Ok(())
}

/// Stops a standby that is no member any more.
pub async fn stop_standby(app: &App) -> Result<(), StepError> {
    perform(app, &Step::StopServer, &mut Worked::default()).await
}

/// Starts a primary again under its running lease.
pub async fn start_primary(app: &App, epoch: regent_types::Epoch) -> Result<(), StepError> {
    perform(app, &Step::StartPrimary(epoch), &mut Worked::default()).await
}

fn attach(app: &App, upstream: &regent_types::Upstream) -> Result<(), StepError> {
    let dir = &app.config.data_dir;
    refresh(app, Some((&upstream.host, upstream.port)))?;
    let signal = data::standby_signal(dir);
    if !signal.exists() {
        crate::durable::replace(&signal, b"", 0o600).map_err(StepError::io("write standby.signal"))?;
    }
    Ok(())
}

/// Reloads the running server; nothing to do when it is stopped.
async fn reload(app: &App, changed: bool) -> Result<(), StepError> {
    let stopped = app
        .observed()
        .guard
        .as_ref()
        .is_some_and(|(s, _)| s.postgres == regent_guard::wire::PostgresState::Stopped);
    if !changed || stopped {
        return Ok(());
    }
    let connection = local(&app.config, QUERY).await?;
    connection.row("reload", "SELECT pg_reload_conf()", QUERY).await?;
    Ok(())
}

/// `pg_promote`, without its own waiting, which looks only every 100 ms (`WAITS_PER_SECOND` in PostgreSQL's
/// xlogfuncs.c) while nobody can write.
async fn promote(app: &App) -> Result<(), StepError> {
    let connection = local(&app.config, QUERY).await?;
    let signalled = connection.row("pg_promote", "SELECT pg_promote(false)", QUERY).await?;
    if !signalled.is_some_and(|row| row.is_true(0)) {
        return Err(StepError::Other("pg_promote could not signal the postmaster".into()));
    }
    let recovery_ended = async {
        loop {
            let row =
                connection.row("wait for the promotion", "SELECT NOT pg_is_in_recovery()", QUERY).await?;
            if row.is_some_and(|row| row.is_true(0)) {
                return Ok(());
            }
            tokio::time::sleep(PROMOTED_POLL).await;
        }
    };
    let late = || StepError::Other(format!("recovery has not ended within {} s", PROMOTE.as_secs()));
    tokio::time::timeout(PROMOTE, recovery_ended).await.unwrap_or_else(|_| Err(late()))
}
