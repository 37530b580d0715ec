//! What goes on by itself while no directive runs: a stopped standby is started again, a primary keeps its role, schema and
//! slots, a standby drops slots that are left from a time as primary.

use std::{sync::Arc, time::Duration};

use regent_agent_core::{Steady, Worked, steady};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    app::App,
    executor::{facts::gather, steps},
    postgres::{primary, probe::Prober},
};

/// Time between two looks while something has to be started.
const LOOK: Duration = Duration::from_millis(500);
/// Slots are looked after once in this many looks.
const SLOTS_EVERY: u32 = 6;

/// Runs for ever.
pub async fn run(app: Arc<App>) {
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut prober = Prober::default();
    let mut configured = false;
    let mut said = String::new();
    let mut looks = 0u32;
    let mut failures = 0u32;
    loop {
        tick.tick().await;
        looks = looks.wrapping_add(1);
        if app.is_busy() || app.fencing.load(std::sync::atomic::Ordering::SeqCst) {
            continue;
        }
        remember_removal(&app);
        // A standby that does not start is tried less and less often, at most every 32 looks.
        if failures > 0 && !looks.is_multiple_of(1 << failures.min(5)) {
            continue;
        }
        let Ok(facts) = gather(&app, &mut prober, &mut Worked::default()).await else { continue };
        if app.is_busy() {
            continue;
        }
        let result = match steady(&facts) {
            Steady::Nothing => {
                failures = 0;
                Ok(())
            }
            Steady::StartStandby => {
                tracing::info!("starting the standby");
                failures += 1;
                steps::start_standby(&app).await
            }
            Steady::StartPrimary(epoch) => {
                tracing::info!(%epoch, "starting the primary under its lease");
                failures += 1;
                steps::start_primary(&app, epoch).await
            }
            Steady::StopStandby(why) => {
                tracing::warn!(why, "stopping the standby");
                steps::stop_standby(&app).await
            }
            Steady::StaysStopped(why) => {
                if said != why {
                    tracing::info!(why, "PostgreSQL stays stopped");
                    said = why;
                }
                Ok(())
            }
        };
        if let Err(error) = result {
            tracing::warn!(%error, "start failed");
        }
        let Some(server) = &facts.server else {
            configured = false;
            continue;
        };
        if server.in_recovery {
            configured = false;
        }
        if !looks.is_multiple_of(SLOTS_EVERY) && (configured || server.in_recovery) {
            continue;
        }
        if let Err(error) = look_after(&app, server.in_recovery, &mut configured).await {
            tracing::warn!(%error, "roles and slots");
        }
    }
}

/// What the leader said of this member's place in the cluster, on disk: after a restart of the agent nothing is started before
/// it is asked again.
fn remember_removal(app: &App) {
    let Some(told) = *app.removed.lock().expect("no panic while held") else { return };
    if app.state.get().removed == told {
        return;
    }
    match told {
        Some(version) => tracing::warn!(version, "an operator has removed this member from its cluster"),
        None => tracing::info!("this member is part of its cluster again"),
    }
    if let Err(error) = app.state.change(|state| state.removed = told) {
        tracing::warn!(%error, "the removal is not written down");
    }
}

async fn look_after(
    app: &App,
    in_recovery: bool,
    configured: &mut bool,
) -> Result<(), crate::postgres::connect::PgError> {
    if in_recovery {
        return primary::drop_slots(&app.config).await;
    }
    // Slots first: they hold the WAL that a standby needs.
    if let Some(view) = app.view() {
        primary::slots(&app.config, view.members.iter()).await?;
    }
    if !*configured {
        primary::configure(&app.config).await?;
        *configured = true;
    }
    Ok(())
}
