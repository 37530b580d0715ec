//! What is seen of a cut while it lasts: each milestone is told once, when it happens.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

use super::narrator::{Narrator, Tone, seconds};
use crate::real::clock::{monotonic_ns, wait_until};
use crate::real::deployment::{Deployment, EAST, NORTH, Workload};

const POLL: Duration = Duration::from_millis(50);
const EMPTY_WITHIN: Duration = Duration::from_secs(2);

/// Instants of the story, `CLOCK_MONOTONIC` ns.
#[derive(Clone, Copy, Debug, Default)]
pub struct Milestones {
    /// The links were cut.
    pub cut_ns: u64,
    /// The last session inside the isolated region had ended.
    pub fenced_ns: Option<u64>,
    /// The name led to the new primary.
    pub redirected_ns: Option<u64>,
    /// The first row was acknowledged by name again.
    pub written_ns: Option<u64>,
}

/// Follows the cut until clients write again and the failover is done.
pub async fn follow(
    narrator: &Narrator,
    deployment: &Deployment,
    workload: &Workload,
    cut_ns: u64,
) -> Result<Milestones> {
    let mut seen = Milestones { cut_ns, ..Milestones::default() };
    let since = |at_ns: u64| seconds(at_ns.saturating_sub(cut_ns));
    let deadline = Instant::now() + deployment.timing().failover_at_most();
    let every_ns = (deployment.timing().partition_timeout.as_nanos() as u64 / 6).max(2_000_000_000);
    let mut next_note_ns = cut_ns + every_ns;
    while seen.fenced_ns.is_none() || seen.written_ns.is_none() {
        if Instant::now() > deadline {
            bail!(
                "{:?} after the cut there is no new primary: {}",
                deployment.timing().failover_at_most(),
                deployment.status().await?
            );
        }
        let now_ns = monotonic_ns();
        if seen.fenced_ns.is_none() && workload.sessions_lost(NORTH) {
            seen.fenced_ns = Some(now_ns);
            let last = workload.looping(NORTH).last_acknowledged().map_or(now_ns, |row| row.done_ns);
            narrator.say(
                Tone::Good,
                format!("{NORTH} has fenced itself: its last commit came {} after the cut", since(last)),
            );
            narrator.say(Tone::Quiet, format!("its guard says: {}", guard_words(deployment).await));
        }
        if seen.redirected_ns.is_none()
            && let Ok((Some(EAST), Some(epoch))) = deployment.dns().await
        {
            seen.redirected_ns = Some(monotonic_ns());
            narrator.say(
                Tone::Client,
                format!(
                    "the name leads to {EAST} now (epoch {epoch} in its TXT record), {} after the cut",
                    since(monotonic_ns())
                ),
            );
        }
        if seen.written_ns.is_none()
            && let Some(row) = workload.named().first_acknowledged_after(cut_ns)
            && row.server == deployment.server_name(EAST)?
        {
            seen.written_ns = Some(row.done_ns);
            narrator.say(
                Tone::Client,
                format!("first row acknowledged by {EAST}, {} after the cut", since(row.done_ns)),
            );
        }
        if now_ns > next_note_ns {
            next_note_ns += every_ns;
            let inside = workload.looping(NORTH).attempts().iter().filter(|row| row.done_ns > cut_ns).count();
            narrator.say(
                Tone::Quiet,
                format!("{} into the cut; rows accepted inside {NORTH} since: {inside}", since(now_ns)),
            );
        }
        sleep(POLL).await;
    }
    Ok(seen)
}

/// The guard's own status, as soon as it has emptied PostgreSQL's namespace.
async fn guard_words(deployment: &Deployment) -> String {
    let mut told = Err(anyhow::anyhow!("its guard was not asked"));
    // What is left is the end of a fast shutdown; whatever it says after that is told as it is.
    let _ = wait_until("the guard's namespace is empty", EMPTY_WITHIN, async || {
        told = deployment.guard(NORTH).await;
        told.as_ref().is_ok_and(|status| status["postgres"] == "stopped")
    })
    .await;
    match told {
        Ok(status) => {
            let text = |key: &str| match &status[key] {
                serde_json::Value::String(text) => text.clone(),
                serde_json::Value::Null => "none".to_owned(),
                other => other.to_string(),
            };
            format!(
                "postgres={} lease_epoch={} last_exit={:?}",
                text("postgres"),
                text("lease_epoch"),
                text("last_exit")
            )
        }
        Err(error) => format!("{error:#}"),
    }
}
