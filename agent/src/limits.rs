//! Refuses writes on a primary that could lose too much (`rpo_limit`, `rpo_limit_bytes`) or hears nobody
//! (`isolation_read_only_after`). A local decision of `regent-agent-core`, without a coordinator; it returns by itself. It is
//! policy and no fence: the lease ends writes whatever this does.
//!
//! A file that was left behind by an agent that died is set right by the next one, and on a standby it is always off: a member that
//! is promoted takes writes.

use std::sync::{Arc, Mutex};

use regent_agent_core::exposure::{Bounds, Exposure, Seen};
use regent_types::BlockedWrites;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    app::App,
    clock::{boottime_ns, ms, ms_since},
    postgres::{
        block,
        connect::{Connection, PgError, local},
    },
};

const LOOK: std::time::Duration = std::time::Duration::from_millis(250);
const LIMIT: std::time::Duration = std::time::Duration::from_secs(5);

#[derive(Debug, Clone)]
struct Blocked {
    reason: String,
    since_ns: u64,
    until_ns: Option<u64>,
}

/// Shared with the heartbeats: the last time that writes were refused.
#[derive(Debug, Default)]
pub struct Limits(Mutex<Option<Blocked>>);

impl Limits {
    /// What a heartbeat says.
    pub fn facts(&self) -> Option<BlockedWrites> {
        let last = self.0.lock().expect("no panic while held").clone()?;
        let end_ns = last.until_ns.unwrap_or_else(boottime_ns);
        Some(BlockedWrites {
            reason: last.reason,
            for_ms: end_ns.saturating_sub(last.since_ns) / 1_000_000,
            ended_ms_ago: last.until_ns.map(ms_since),
        })
    }

    fn set(&self, why: Option<&str>) {
        let mut last = self.0.lock().expect("no panic while held");
        match (why, last.as_mut().filter(|last| last.until_ns.is_none())) {
            (Some(reason), None) => {
                *last = Some(Blocked { reason: reason.to_owned(), since_ns: boottime_ns(), until_ns: None });
            }
            (None, Some(open)) => open.until_ns = Some(boottime_ns()),
            _ => {}
        }
    }
}

/// The bounds of the configuration.
fn bounds(app: &App) -> Bounds {
    Bounds {
        isolation_ms: app.config.isolation_read_only_after.map(ms),
        rpo_ms: app.config.rpo_limit.map(ms),
        rpo_bytes: app.config.rpo_limit_bytes,
    }
}

/// Runs for ever.
pub async fn run(app: Arc<App>) {
    let bounds = bounds(&app);
    let began_ns = boottime_ns();
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connection: Option<Connection> = None;
    let mut exposure = Exposure::default();
    // What the server was told; nothing yet.
    let mut told: Option<bool> = None;
    let mut said = String::new();
    loop {
        tick.tick().await;
        if app.progress.lock().expect("no panic while held").is_some() {
            continue;
        }
        let why = match judge(&app, &bounds, &mut connection, &mut exposure, began_ns).await {
            Ok(why) => why,
            Err(error) => {
                connection = None;
                tracing::debug!(%error, "limits: no look at the server");
                continue;
            }
        };
        app.limits.set(why.as_deref());
        let result = act(&app, why.as_deref(), &mut told, connection.as_ref()).await;
        match result {
            Ok(()) => said.clear(),
            Err(problem) if problem != said => {
                tracing::warn!(problem, "limits of writes");
                said = problem;
            }
            Err(_) => {}
        }
    }
}

/// Why writes are to be refused now. Without a running primary: nothing to refuse.
async fn judge(
    app: &App,
    bounds: &Bounds,
    connection: &mut Option<Connection>,
    exposure: &mut Exposure,
    began_ns: u64,
) -> Result<Option<String>, PgError> {
    let primary = {
        let seen = app.observed();
        seen.sample.as_ref().is_some_and(|(sample, _)| !sample.server.in_recovery)
    };
    if bounds.is_off() || !primary {
        *exposure = Exposure::default();
        *connection = None;
        return Ok(None);
    }
    if connection.as_ref().is_none_or(Connection::is_closed) {
        *connection = Some(local(&app.config, LIMIT).await?);
    }
    let open = connection.as_ref().expect("made above");
    let Some(look) = block::look(open).await? else {
        *exposure = Exposure::default();
        return Ok(None);
    };
    let promotable = app.view().and_then(|view| view.promises).map(|promises| promises.promotable);
    let counts = |seen: &Seen| {
        promotable.as_ref().is_none_or(|all| all.iter().any(|member| member.member == seen.member))
    };
    let standbys: Vec<Seen> = look.standbys.into_iter().filter(counts).collect();
    let now_ns = boottime_ns();
    exposure.observe(now_ns, look.end, &standbys);
    Ok(exposure.judge(now_ns, app.promises.coordinator_heard_ns().max(began_ns), bounds))
}

async fn act(
    app: &App,
    why: Option<&str>,
    told: &mut Option<bool>,
    connection: Option<&Connection>,
) -> Result<(), String> {
    let blocked = why.is_some();
    let written =
        block::write(&app.config.data_dir, blocked).map_err(|error| format!("{}: {error}", block::FILE))?;
    let running = {
        let seen = app.observed();
        seen.sample_error.is_none() && seen.sample.is_some()
    };
    if written {
        // For as long as the server has not taken it.
        *told = Some(!blocked);
    }
    if running && told.is_some_and(|told| told != blocked) {
        match why {
            Some(why) => tracing::warn!(why, "writes are refused, sessions are ended"),
            None => tracing::info!("writes are taken again"),
        }
        block::carry_out(&app.config, blocked).await.map_err(|error| error.to_string())?;
    }
    if running {
        *told = Some(blocked);
    }
    if let Some(connection) = connection.filter(|_| blocked) {
        let ended = block::end_writers(connection).await.map_err(|error| error.to_string())?;
        if ended > 0 {
            tracing::warn!(ended, "sessions that wrote although writes are refused are ended");
        }
    }
    Ok(())
}
