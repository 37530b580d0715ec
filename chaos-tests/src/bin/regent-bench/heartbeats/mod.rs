//! Heartbeat capacity: three real coordinators with mutual TLS, and simulated agents in processes of their own, one
//! heartbeat a second each, every agent with a connection and a certificate of its own.
//!
//! The clusters are bootstrapped first (appointment, validation, standby), so that primaries are granted leases and
//! standbys are refused as in production. Agents connect to the coordinator of their own region, hence most sessions
//! are relayed to the leader. Latency is from the agent's sending to its receipt of the acknowledgement.

mod agent;
pub mod child;
mod group;
mod simulators;

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use self::{group::Group, simulators::Simulators};
use crate::{
    output, proc,
    proc::Memory,
    stats::{Spread, percentile},
};

/// Between two heartbeats of an agent.
const INTERVAL: Duration = Duration::from_secs(1);

/// What to measure.
pub struct Options {
    /// Sizes.
    pub members: Vec<usize>,
    /// Of one run.
    pub length: Duration,
    /// At each size.
    pub runs: usize,
    /// That the agents are spread over.
    pub processes: usize,
}

/// One size.
#[derive(Serialize)]
struct Size {
    members: usize,
    seconds_per_run: u64,
    /// Sessions that a follower relays.
    relayed: usize,
    bootstrap_seconds: f64,
    acknowledged: u64,
    unacknowledged: u64,
    sessions_lost: u64,
    direct_p50_ms: Spread,
    direct_p99_ms: Spread,
    relayed_p50_ms: Spread,
    relayed_p99_ms: Spread,
    worst_ms: f64,
    leader_cpu_percent: Spread,
    followers_cpu_percent: Spread,
    simulators_cpu_percent: Spread,
    leader_memory: Memory,
    followers_memory: Vec<Memory>,
    load_average_after: String,
}

/// One run's figures.
struct Run {
    direct_ms: (f64, f64),
    relayed_ms: (f64, f64),
    worst_ms: f64,
    leader_cpu: f64,
    followers_cpu: f64,
    simulators_cpu: f64,
}

/// Measures every size and prints.
pub async fn run(options: Options) -> Result<()> {
    output::head("Heartbeats over gRPC with mutual TLS, one a second from each member");
    let mut sizes = Vec::new();
    for members in &options.members {
        sizes.push(size(&options, *members).await?);
    }
    print(&sizes);
    output::write("heartbeats", sizes)
}

async fn size(options: &Options, members: usize) -> Result<Size> {
    let group = Group::start(members).await?;
    let begun = std::time::Instant::now();
    let mut simulators = Simulators::start(&group, members, options.processes).await?;
    let bootstrap_seconds = begun.elapsed().as_secs_f64();
    eprintln!("{members} members: {} clusters bootstrapped in {bootstrap_seconds:.1} s", members / 2);
    let (mut runs, mut acknowledged, mut unacknowledged, mut sessions_lost) = (Vec::new(), 0, 0, 0);
    // The first run is a warm-up, in which the leadership leaves the primaries' region and sync is confirmed.
    let mut leader = 0;
    for number in 0..=options.runs {
        let cpu_before = (group.cpu_ms()?, simulators.cpu_ms()?);
        let begun = std::time::Instant::now();
        let samples = simulators.measure(options.length).await?;
        let wall_ms = begun.elapsed().as_secs_f64() * 1000.0;
        let cpu_after = (group.cpu_ms()?, simulators.cpu_ms()?);
        if number == 0 {
            leader = group.leader().await?;
            continue;
        }
        acknowledged += samples.count();
        unacknowledged += samples.unacknowledged;
        sessions_lost += samples.sessions_lost;
        let share = |before: u64, after: u64| (after - before) as f64 / wall_ms * 100.0;
        let each: Vec<(u64, f64)> =
            group.ids().map(|id| (id, share(cpu_before.0[&id], cpu_after.0[&id]))).collect();
        let (direct, relayed) = samples.split(leader);
        let run = Run {
            direct_ms: middle_and_tail(&direct),
            relayed_ms: middle_and_tail(&relayed),
            worst_ms: direct.last().max(relayed.last()).map_or(f64::NAN, |us| *us as f64 / 1000.0),
            leader_cpu: each.iter().filter(|(id, _)| *id == leader).map(|(_, cpu)| cpu).sum(),
            followers_cpu: each.iter().filter(|(id, _)| *id != leader).map(|(_, cpu)| cpu).sum(),
            simulators_cpu: share(cpu_before.1, cpu_after.1),
        };
        eprintln!(
            "{members} members, run {number}: p50 {:.1} / {:.1} ms, p99 {:.1} / {:.1} ms (direct / relayed), leader {:.1} % CPU",
            run.direct_ms.0, run.relayed_ms.0, run.direct_ms.1, run.relayed_ms.1, run.leader_cpu
        );
        runs.push(run);
    }
    let memory = group.memory()?;
    let spread = |of: &dyn Fn(&Run) -> f64| Spread::of(runs.iter().map(of));
    let size = Size {
        members,
        seconds_per_run: options.length.as_secs(),
        relayed: simulators.relayed(leader),
        bootstrap_seconds,
        acknowledged,
        unacknowledged,
        sessions_lost,
        direct_p50_ms: spread(&|run| run.direct_ms.0),
        direct_p99_ms: spread(&|run| run.direct_ms.1),
        relayed_p50_ms: spread(&|run| run.relayed_ms.0),
        relayed_p99_ms: spread(&|run| run.relayed_ms.1),
        worst_ms: runs.iter().map(|run| run.worst_ms).fold(0.0, f64::max),
        leader_cpu_percent: spread(&|run| run.leader_cpu),
        followers_cpu_percent: spread(&|run| run.followers_cpu),
        simulators_cpu_percent: spread(&|run| run.simulators_cpu),
        leader_memory: memory[&leader],
        followers_memory: memory.iter().filter(|(id, _)| **id != leader).map(|(_, memory)| *memory).collect(),
        load_average_after: proc::load(),
    };
    simulators.stop().await?;
    group.stop().await?;
    Ok(size)
}

fn middle_and_tail(sorted_us: &[u64]) -> (f64, f64) {
    let ms = |q| percentile(sorted_us, q).map_or(f64::NAN, |us| us as f64 / 1000.0);
    (ms(0.5), ms(0.99))
}

fn print(sizes: &[Size]) {
    let columns: Vec<String> = sizes.iter().map(|size| format!("{} members", size.members)).collect();
    let heads: Vec<&str> = std::iter::once("median [min .. max] of the runs")
        .chain(columns.iter().map(String::as_str))
        .collect();
    let row = |name: &str, cell: &dyn Fn(&Size) -> String| {
        std::iter::once(name.to_owned()).chain(sizes.iter().map(cell)).collect::<Vec<_>>()
    };
    let mb = |kb: u64| format!("{:.1}", kb as f64 / 1024.0);
    output::table(
        &heads,
        &[
            row("runs x seconds", &|s| format!("{} x {}", s.direct_p50_ms.runs, s.seconds_per_run)),
            row("sessions relayed by a follower", &|s| s.relayed.to_string()),
            row("bootstrap of all clusters, s", &|s| format!("{:.1}", s.bootstrap_seconds)),
            row("acknowledged", &|s| s.acknowledged.to_string()),
            row("not acknowledged / sessions lost", &|s| {
                format!("{} / {}", s.unacknowledged, s.sessions_lost)
            }),
            row("p50 at the leader, ms", &|s| s.direct_p50_ms.show(1)),
            row("p99 at the leader, ms", &|s| s.direct_p99_ms.show(1)),
            row("p50 relayed, ms", &|s| s.relayed_p50_ms.show(1)),
            row("p99 relayed, ms", &|s| s.relayed_p99_ms.show(1)),
            row("worst of all, ms", &|s| format!("{:.1}", s.worst_ms)),
            row("leader CPU, % of one core", &|s| s.leader_cpu_percent.show(1)),
            row("both followers' CPU, %", &|s| s.followers_cpu_percent.show(1)),
            row("simulated agents' CPU, %", &|s| s.simulators_cpu_percent.show(1)),
            row("leader RSS (anonymous), MB", &|s| {
                format!("{} ({})", mb(s.leader_memory.rss_kb), mb(s.leader_memory.anonymous_kb))
            }),
            row("followers RSS, MB", &|s| {
                s.followers_memory.iter().map(|m| mb(m.rss_kb)).collect::<Vec<_>>().join(", ")
            }),
            row("load average after", &|s| s.load_average_after.clone()),
        ],
    );
}
