//! Looks at guard, data directory and server every interval. Two tasks, so that a server that hangs delays no guard
//! status, and neither delays a heartbeat: heartbeats carry the last figures with their age.

use std::sync::Arc;

use regent_agent_core::outlook::Rate;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    app::App,
    clock::{boottime_ns, ms},
    data, disk,
    postgres::probe::Prober,
    rejoin::kept,
};

/// Probe intervals that a server must hold out after a crash: 10 s, the guard's longest pause between two restarts.
const HOLD_INTERVALS: u64 = 10;

/// The folder of salvages is read once in this many looks.
const SALVAGES_EVERY: u32 = 5;

/// Watches the guard and the data directory.
pub async fn watch_guard(app: Arc<App>) {
    let mut tick = interval(app.config.probe_interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = 0u32;
    loop {
        tick.tick().await;
        look_at_guard(&app).await;
        let seen = app.clone();
        let wanted = looks.is_multiple_of(SALVAGES_EVERY);
        looks = looks.wrapping_add(1);
        // A dead disk blocks the thread that looks, not the heartbeats.
        let look = tokio::task::spawn_blocking(move || {
            let dir = &seen.config.data_dir;
            let salvages = wanted.then(|| kept::newest(&seen.config.salvage_dir));
            (data::look(dir, &seen.state.get()), data::major(dir), disk::space(dir), salvages)
        });
        if let Ok((view, major, space, salvages)) = look.await {
            let mut seen = app.observed();
            (seen.data, seen.major, seen.space) = (Some(view), major, space);
            if let Some(salvages) = salvages {
                seen.salvages = salvages;
            }
        }
    }
}

/// One status.
pub async fn look_at_guard(app: &App) {
    match app.guard.status().await {
        Ok(status) => {
            let mut seen = app.observed();
            seen.guard = Some((status, boottime_ns()));
            seen.guard_error = None;
        }
        Err(error) => {
            app.counters.guard_errors.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let mut seen = app.observed();
            let text = error.to_string();
            if seen.guard_error.as_ref() != Some(&text) {
                tracing::warn!(%error, "guard");
            }
            seen.guard_error = Some(text);
        }
    }
}

/// Watches the server.
pub async fn watch_server(app: Arc<App>) {
    let mut tick = interval(app.config.probe_interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut prober = Prober::default();
    loop {
        tick.tick().await;
        let mut result = prober.look(&app.config, app.config.probe_timeout).await;
        if let Ok(sample) = &mut result {
            app.recall_timeline(&mut sample.server);
        }
        let mut seen = app.observed();
        match result {
            Ok(sample) => {
                if seen.sample_error.take().is_some() {
                    tracing::info!("PostgreSQL accepts connections");
                }
                let now_ns = boottime_ns();
                let hold_ns = HOLD_INTERVALS * ms(app.config.probe_interval) * 1_000_000;
                if seen.runs.answered(app.state.get().highest_epoch, sample.started_us, now_ns, hold_ns) {
                    seen.answered_ns = now_ns;
                }
                match sample.server.lsn.filter(|_| !sample.server.in_recovery) {
                    Some(lsn) => seen.rate.observe(now_ns, lsn),
                    None => seen.rate = Rate::default(),
                }
                seen.sample = Some((sample, now_ns));
            }
            Err(error) => {
                if seen.sample_error.is_none() {
                    tracing::info!(%error, "PostgreSQL does not accept connections");
                }
                seen.sample_error = Some(error.to_string());
            }
        }
    }
}
