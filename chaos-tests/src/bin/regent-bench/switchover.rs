//! The write downtime of a switchover: 110 ms round trip between regions, clients who follow the DNS name, and how long the
//! old primary takes to follow the new one. Beside it what PostgreSQL itself needs: a fast shutdown, a promotion.

use std::time::Duration;

use anyhow::{Context, Result};
use regent_chaos::real::clock::{monotonic_ns, wait_until};
use regent_chaos::real::deployment::{
    CLUSTER, Deployment, DeploymentOptions, EAST, NORTH, REJOIN_AT_MOST, Status,
};
use regent_chaos::real::workload::Attempt;
use serde::Serialize;

use crate::gap::{LINK_DELAY, first_at, start_clients, wait_streaming};
use crate::stats::Spread;
use crate::{output, promotion, writing};

/// Write downtime with replay caught up.
const GOAL_MS: f64 = 1000.0;
/// The same, divided by what is needed without Regent.
const GOAL_RATIO: f64 = 1.5;
/// From the switchover's first row to the old primary streaming again.
const GOAL_STREAMING_MS: f64 = 5000.0;
/// After a change of leader: agents have gone back to their own region's coordinator.
const SETTLE: Duration = Duration::from_secs(15);
/// Commits between the last write of the old primary and the first of the new one: appointment and record.
const COMMITS: f64 = 2.0;

/// One switchover, ms.
#[derive(Clone, Copy, Serialize)]
struct Run {
    /// Last row at the old primary to first row at the new one, any client.
    downtime_ms: f64,
    /// The same for the client that it cost most.
    slowest_client_ms: f64,
    /// From the new primary's first row to the old one streaming from it.
    streaming_ms: f64,
    /// A bare server's fast shutdown.
    bare_shutdown_ms: f64,
    /// A bare standby's promotion.
    bare_promote_ms: f64,
    /// Both, the round trip in which a walsender waits for its standby, and those of the commits.
    needed_ms: f64,
}

#[derive(Serialize)]
struct Outcome {
    round_trip_ms: f64,
    goal_ms: f64,
    goal_ratio: f64,
    goal_streaming_ms: f64,
    ratio_of_medians: f64,
    runs: Vec<Run>,
}

/// Measures `runs` switchovers, there and back.
pub async fn run(runs: usize) -> Result<()> {
    let round_trip_ms = LINK_DELAY.as_secs_f64() * 2e3;
    output::head(&format!("Switchover: {round_trip_ms:.0} ms round trip, clients by name"));
    let timeout = Duration::from_secs(60);
    let options = DeploymentOptions::new("bench-switch")
        .partition_timeout(timeout)
        .link_delay(LINK_DELAY)
        .policy("failback", "\"manual\"");
    let deployment = Deployment::start(options).await?;
    writing::make_table(&deployment.pg(NORTH).await?).await?;
    // A guard that has just started counts as bound by a promise for as long as one lasts: not what is measured here.
    tokio::time::sleep(timeout).await;
    let (mut from, mut to) = (NORTH, EAST);
    let mut done = Vec::new();
    for number in 1..=runs {
        let run = once(&deployment, from, to, number).await.with_context(|| format!("run {number}"))?;
        eprintln!(
            "run {number}: down {:.0} ms (slowest client {:.0}), streaming again after {:.0} ms; needed {:.0} ms",
            run.downtime_ms, run.slowest_client_ms, run.streaming_ms, run.needed_ms
        );
        done.push(run);
        (from, to) = (to, from);
    }
    deployment.finish().await?;
    let spread = |of: fn(&Run) -> f64| Spread::of(done.iter().map(of));
    let (down, needed) = (spread(|r| r.downtime_ms), spread(|r| r.needed_ms));
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    output::table(
        &["ms, median [min .. max]", &format!("{runs} runs")],
        &[
            row("write downtime, any client (goal 1000)", down.show(0)),
            row("write downtime, slowest client", spread(|r| r.slowest_client_ms).show(0)),
            row("old primary streams again (goal 5000)", spread(|r| r.streaming_ms).show(0)),
            row("bare fast shutdown", spread(|r| r.bare_shutdown_ms).show(0)),
            row("bare promotion", spread(|r| r.bare_promote_ms).show(0)),
            row("needed: both, and three round trips", needed.show(0)),
            row("ratio of medians (goal 1.5)", format!("{:.2}", down.median / needed.median)),
        ],
    );
    let outcome = Outcome {
        round_trip_ms,
        goal_ms: GOAL_MS,
        goal_ratio: GOAL_RATIO,
        goal_streaming_ms: GOAL_STREAMING_MS,
        ratio_of_medians: down.median / needed.median,
        runs: done,
    };
    output::write("switchover", outcome)
}

async fn once(deployment: &Deployment, from: &'static str, to: &'static str, number: usize) -> Result<Run> {
    let (bare_shutdown_ms, bare_promote_ms) =
        promotion::bare_shutdown_and_promote(deployment, from, number).await?;
    deployment.wait_ready(REJOIN_AT_MOST).await?;
    let led_from_target =
        |status: &Status| status.leader_region() == Some(to) && status.operation().is_none();
    deployment.wait_status("the leader is beside the target", SETTLE * 4, led_from_target).await?;
    tokio::time::sleep(SETTLE).await;
    let clients = start_clients(deployment, from, 100 * number as i32).await?;
    let asked_ns = monotonic_ns();
    let args = ["switchover", CLUSTER, "--to", to, "--reason", "benchmark", "--yes", "--no-wait"];
    deployment.ctl(&args).await?;
    let (old, new) = (deployment.server_name(from)?, deployment.server_name(to)?);
    wait_until("every client writes at the new primary", Duration::from_secs(60), async || {
        clients.iter().all(|client| first_at(&client.journal().attempts(), &new, asked_ns).is_some())
    })
    .await?;
    wait_streaming(deployment, to).await?;
    let streaming_ns = monotonic_ns();
    let mut journals = Vec::new();
    for client in clients {
        journals.push(client.stop().await?);
    }
    let last = |attempts: &[Attempt]| {
        let rows = attempts.iter().filter(|a| a.is_acknowledged() && a.server == old);
        rows.map(|a| a.done_ns).max()
    };
    let gap = |attempts: &[Attempt]| {
        let (last, first) = (last(attempts)?, first_at(attempts, &new, asked_ns)?);
        Some(first.saturating_sub(last) as f64 / 1e6)
    };
    let all: Vec<Attempt> = journals.iter().flatten().cloned().collect();
    let first_ns = first_at(&all, &new, asked_ns).context("no row at the new primary")?;
    let round_trip_ms = LINK_DELAY.as_secs_f64() * 2e3;
    Ok(Run {
        downtime_ms: gap(&all).context("no row at the old primary")?,
        slowest_client_ms: journals.iter().filter_map(|one| gap(one)).fold(0.0, f64::max),
        streaming_ms: streaming_ns.saturating_sub(first_ns) as f64 / 1e6,
        bare_shutdown_ms,
        bare_promote_ms,
        needed_ms: bare_shutdown_ms + bare_promote_ms + (COMMITS + 1.0) * round_trip_ms,
    })
}
