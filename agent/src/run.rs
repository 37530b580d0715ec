//! Starts the tasks and ends with the first of SIGTERM, SIGINT, or a task that must not end.

use std::sync::Arc;

use anyhow::{Context, bail};
use tokio::{
    net::TcpListener,
    runtime::{Handle, Runtime},
    signal::unix,
};

use crate::{
    app::App, config::Config, executor::Executor, http, keeper, limits, observer, parameters, promise,
    session, synchronous, transport,
};

/// A thread of its own for what writes and fsyncs, so that a disk that hangs stops neither heartbeats nor fences.
struct Work(Option<Runtime>);

impl Work {
    fn start() -> anyhow::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name("work").enable_all().build();
        Ok(Self(Some(runtime.context("work thread")?)))
    }

    fn handle(&self) -> Handle {
        self.0.as_ref().expect("taken at drop only").handle().clone()
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Runs the agent until it is told to end.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let mut terminate = unix::signal(unix::SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = unix::signal(unix::SignalKind::interrupt()).context("SIGINT")?;
    let app = Arc::new(App::open(config)?);
    let listener = TcpListener::bind(app.config.http_listen)
        .await
        .with_context(|| format!("http_listen = {}", app.config.http_listen))?;
    let peers = promise::bind(&app).await?;
    tracing::info!(
        cluster = %app.config.cluster, member = %app.config.member, region = %app.config.region,
        state_file = app.state.found(), version = env!("CARGO_PKG_VERSION"), "agent starts"
    );
    app.disk.start(app.config.data_dir.clone(), app.config.disk_interval).context("disk probe")?;
    observer::look_at_guard(&app).await;
    let work = Work::start()?;
    let executor = Arc::new(Executor::new(app.clone(), work.handle()));
    let served = axum::serve(listener, http::router(app.clone()));
    // Tasks of their own: one that is busy delays no heartbeat. None of them ends.
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(observer::watch_guard(app.clone()));
    tasks.spawn(observer::watch_server(app.clone()));
    tasks.spawn_on(keeper::run(app.clone()), &work.handle());
    tasks.spawn_on(parameters::run(app.clone()), &work.handle());
    tasks.spawn_on(limits::run(app.clone()), &work.handle());
    tasks.spawn_on(synchronous::run(app.clone()), &work.handle());
    tasks.spawn(session::run(app.clone(), executor));
    tasks.spawn(transport::watch(app.clone()));
    tasks.spawn(promise::ask(app.clone()));
    if let Some(peers) = peers {
        let app = app.clone();
        tasks.spawn(async move {
            if let Err(error) = peers.serve(app).await {
                tracing::error!("promises cannot be given: {error:#}");
            }
        });
    }
    tasks.spawn(async move {
        if let Err(error) = served.await {
            tracing::error!(%error, "HTTP server");
        }
    });
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: the agent ends, PostgreSQL and its guard run on"),
        _ = interrupt.recv() => tracing::info!("SIGINT: the agent ends, PostgreSQL and its guard run on"),
        ended = tasks.join_next() => bail!("a task has ended: {ended:?}"),
    }
    Ok(())
}
