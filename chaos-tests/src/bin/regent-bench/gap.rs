//! The write gap that clients see when the primary's region is lost: 110 ms round trip between regions, clients in the
//! standby's region and in the third one who follow the DNS name. Measured from the cut (or the crash) to the first acknowledged row; then the
//! region comes back, and the longest gap after that is measured too.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use regent_chaos::real::clock::{WallOffset, monotonic_ns, wait_until};
use regent_chaos::real::deployment::{
    Deployment, DeploymentOptions, EAST, MEMBERS, NORTH, REJOIN_AT_MOST, Service, WITNESS,
};
use regent_chaos::real::workload::{Attempt, Endpoint, RunningWriter, WriterSpec, install_schema};
use serde::Serialize;

use crate::output;
use crate::stats::Spread;

/// One way.
pub(crate) const LINK_DELAY: Duration = Duration::from_millis(55);
/// The goal: the partition timeout and this.
const ALLOWANCE: Duration = Duration::from_millis(800);
/// Clients beside each other in each region, so that the gap does not depend on one's luck with its time-outs.
const CLIENTS: i32 = 6;
/// Where they are: beside the standby, and a round trip away from every member.
const CLIENT_REGIONS: [&str; 2] = [EAST, WITNESS];
/// How long a client waits for a connection; what it waits for a lost region adds to its own gap.
const CONNECT_WITHIN: Duration = Duration::from_millis(500);
/// Each client's wait is this much longer than the one's before it: stalled by the same cut they would try in step for ever.
const CONNECT_STAGGER: Duration = Duration::from_millis(30);
/// Between the beginnings of deployments that run beside each other: they must not all fail over in the same second.
const APART: Duration = Duration::from_secs(4);
/// How long clients are watched after the old region is in sync again.
const AFTER_HEAL: Duration = Duration::from_secs(10);

/// How the region is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// All links of the region are cut.
    Cut,
    /// The whole host: links cut, coordinator, guard, agent and PostgreSQL killed.
    Crash,
    /// All links are cut, and the coordinators' leader is inside.
    Leader,
}

/// What to measure.
pub struct Options {
    /// Partition timeout.
    pub timeout: Duration,
    /// At each kind of loss.
    pub runs: usize,
    /// Deployments at a time.
    pub parallel: usize,
    /// Kinds.
    pub losses: Vec<Loss>,
}

/// One run; times in ms since the loss.
#[derive(Clone, Copy, Serialize)]
struct Run {
    /// To the first acknowledged row of any client in the standby's region.
    gap_ms: f64,
    /// The same in the third region, where a connection costs several round trips.
    far_gap_ms: f64,
    /// To the first row of the slowest client.
    slowest_client_ms: f64,
    /// To the failover's declaration.
    declared_ms: f64,
    /// To the entry with the fence proof and the appointment.
    appointed_ms: f64,
    /// To the entry with the verified promotion, which changes DNS.
    promoted_ms: f64,
    /// Longest time without any acknowledged row after the region came back.
    gap_after_heal_ms: f64,
    /// The same for one client on its own.
    client_gap_after_heal_ms: f64,
    /// From the heal to the old primary streaming from the new one, its divergence salvaged and rewound.
    streaming_after_heal_ms: f64,
}

#[derive(Serialize)]
struct Outcome {
    loss: Loss,
    timeout_ms: u64,
    goal_ms: u64,
    round_trip_ms: u64,
    runs: Vec<Run>,
}

/// Measures every kind.
pub async fn run(options: Options) -> Result<()> {
    output::head(&format!(
        "Write gap: partition timeout {} s, {} ms round trip, {} clients by name a region, {} deployments at a time",
        options.timeout.as_secs(),
        LINK_DELAY.as_millis() * 2,
        CLIENTS,
        options.parallel
    ));
    let mut jobs: Vec<(Loss, usize)> = Vec::new();
    for number in 1..=options.runs {
        jobs.extend(options.losses.iter().map(|loss| (*loss, number)));
    }
    let mut done: Vec<(Loss, Run)> = Vec::new();
    for group in jobs.chunks(options.parallel) {
        let timeout = options.timeout;
        let runs = group.iter().enumerate().map(|(place, (loss, _))| async move {
            tokio::time::sleep(APART * place as u32).await;
            once(*loss, timeout).await
        });
        let runs = futures::future::join_all(runs).await;
        for ((loss, number), run) in group.iter().zip(runs) {
            let run = run.with_context(|| format!("{loss:?}, run {number}"))?;
            eprintln!(
                "{loss:?} run {number}: gap {:.3} s, declared {:.3}, appointed {:.3}, promoted {:.3}; after the heal {:.0} ms",
                run.gap_ms / 1e3,
                run.declared_ms / 1e3,
                run.appointed_ms / 1e3,
                run.promoted_ms / 1e3,
                run.gap_after_heal_ms
            );
            done.push((*loss, run));
        }
    }
    let results: Vec<Outcome> = options
        .losses
        .iter()
        .map(|loss| Outcome {
            loss: *loss,
            timeout_ms: options.timeout.as_millis() as u64,
            goal_ms: (options.timeout + ALLOWANCE).as_millis() as u64,
            round_trip_ms: LINK_DELAY.as_millis() as u64 * 2,
            runs: done.iter().filter(|(of, _)| of == loss).map(|(_, run)| *run).collect(),
        })
        .collect();
    print(&results);
    output::write("gap", results)
}

fn print(results: &[Outcome]) {
    let columns: Vec<String> =
        results.iter().map(|r| format!("{:?} ({} runs)", r.loss, r.runs.len())).collect();
    let heads: Vec<&str> =
        std::iter::once("s, median [min .. max]").chain(columns.iter().map(String::as_str)).collect();
    let row = |name: &str, of: fn(&Run) -> f64| {
        let cells = results.iter().map(|r| Spread::of(r.runs.iter().map(|run| of(run) / 1e3)).show(3));
        std::iter::once(name.to_owned()).chain(cells).collect::<Vec<_>>()
    };
    let goals = results.iter().map(|r| format!("{:.3}", r.goal_ms as f64 / 1e3));
    output::table(
        &heads,
        &[
            row("gap, clients in the standby's region", |r| r.gap_ms),
            std::iter::once("goal".to_owned()).chain(goals).collect(),
            row("gap, clients in the third region", |r| r.far_gap_ms),
            row("gap, slowest client of all", |r| r.slowest_client_ms),
            row("failover declared", |r| r.declared_ms),
            row("appointed (fence proof)", |r| r.appointed_ms),
            row("promoted (DNS changes)", |r| r.promoted_ms),
            row("old primary streams after the heal (goal 5)", |r| r.streaming_after_heal_ms),
            row("longest gap after the heal, any client", |r| r.gap_after_heal_ms),
            row("longest gap after the heal, one client", |r| r.client_gap_after_heal_ms),
        ],
    );
}

async fn once(loss: Loss, timeout: Duration) -> Result<Run> {
    let mut options = DeploymentOptions::new("bench-gap").partition_timeout(timeout).link_delay(LINK_DELAY);
    if loss == Loss::Leader {
        options = options.leader_anywhere();
    }
    let deployment = Deployment::start(options).await?;
    match loss {
        Loss::Leader => lead_in(&deployment, NORTH).await?,
        Loss::Cut | Loss::Crash => lead_elsewhere(&deployment).await?,
    }
    deployment.wait_ready(Duration::from_secs(60)).await?;
    let clients = start_clients(&deployment, NORTH, 0).await?;
    let offset = WallOffset::sample();
    // The cut is somewhere within the heartbeats' interval, as in life.
    tokio::time::sleep(deployment.timing().heartbeat.mul_f64(rand::random())).await;
    let lost_ns = monotonic_ns();
    match loss {
        Loss::Cut | Loss::Leader => deployment.net().isolate(NORTH)?,
        Loss::Crash => deployment.lose_host(NORTH)?,
    }
    let east = deployment.server_name(EAST)?;
    wait_until("every client writes again", timeout + Duration::from_secs(60), async || {
        clients.iter().all(|client| first_at(&client.journal().attempts(), &east, lost_ns).is_some())
    })
    .await?;
    let firsts: Vec<u64> =
        clients.iter().filter_map(|client| first_at(&client.journal().attempts(), &east, lost_ns)).collect();
    let (near, far) = firsts.split_at(CLIENTS as usize);
    let (near, far) = (near.iter().min(), far.iter().min());
    deployment
        .wait_status("the failover is done", Duration::from_secs(60), |status| {
            status.operation().is_none_or(|(kind, _)| kind != "failover")
        })
        .await?;
    let report = deployment.last_operation("failover").await?;
    let started = |name: &str| -> Result<f64> {
        let steps = report["steps"].as_array().context("a report without steps")?;
        let step = steps.iter().rev().find(|step| step["name"] == name);
        let ms = step.and_then(|step| step["started_wall_ms"].as_u64());
        let at_ns =
            offset.to_monotonic_ns(ms.with_context(|| format!("no step {name}: {report:#}"))? as i64 * 1000);
        Ok((at_ns as f64 - lost_ns as f64) / 1e6)
    };
    let (declared_ms, appointed_ms, promoted_ms) =
        (started("fence")?, started("promote")?, started("redirect")?);
    offset.ensure_steady(Duration::from_millis(10))?;
    let healed_ns = monotonic_ns();
    deployment.net().heal();
    if loss == Loss::Crash {
        deployment.start_region(NORTH)?;
    }
    wait_streaming(&deployment, EAST).await?;
    let streaming_ns = monotonic_ns();
    deployment.wait_ready(REJOIN_AT_MOST).await?;
    tokio::time::sleep(AFTER_HEAL).await;
    ensure!(deployment.status().await?.primary() == Some(EAST), "the heal moved the primary");
    let mut journals = Vec::new();
    for client in clients {
        journals.push(client.stop().await?);
    }
    deployment.finish().await?;
    let since = |ns: u64| (ns as f64 - lost_ns as f64) / 1e6;
    let all: Vec<Attempt> = journals.iter().flatten().cloned().collect();
    Ok(Run {
        gap_ms: since(*near.context("no client")?),
        far_gap_ms: since(*far.context("no client")?),
        slowest_client_ms: since(*firsts.iter().max().context("no client")?),
        declared_ms,
        appointed_ms,
        promoted_ms,
        gap_after_heal_ms: longest_gap_ms(&all, healed_ns),
        client_gap_after_heal_ms: journals
            .iter()
            .map(|one| longest_gap_ms(one, healed_ns))
            .fold(0.0, f64::max),
        streaming_after_heal_ms: (streaming_ns - healed_ns) as f64 / 1e6,
    })
}

/// Waits until a standby streams from `primary`.
pub(crate) async fn wait_streaming(deployment: &Deployment, primary: &str) -> Result<()> {
    let session = deployment.pg(primary).await?;
    let streams = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    wait_until("the old primary streams", REJOIN_AT_MOST, async || {
        let row = session.client().query_one(streams, &[]).await;
        row.and_then(|row| row.try_get::<_, i64>(0)).is_ok_and(|count| count > 0)
    })
    .await
}

/// When the first row that was sent to `server` after `since_ns` was acknowledged.
pub(crate) fn first_at(attempts: &[Attempt], server: &str, since_ns: u64) -> Option<u64> {
    let found = attempts.iter().filter(|a| a.is_acknowledged() && a.sent_ns > since_ns && a.server == server);
    found.map(|attempt| attempt.done_ns).min()
}

fn longest_gap_ms(attempts: &[Attempt], since_ns: u64) -> f64 {
    let mut done: Vec<u64> =
        attempts.iter().filter(|a| a.is_acknowledged() && a.done_ns >= since_ns).map(|a| a.done_ns).collect();
    done.push(since_ns);
    done.sort_unstable();
    done.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 1e6).fold(0.0, f64::max)
}

/// Starts the clients of every region, and waits until each has written.
///
/// `first` keeps the clients of a later run on the same deployment apart: rows are unique per client.
pub(crate) async fn start_clients(
    deployment: &Deployment,
    primary: &str,
    first: i32,
) -> Result<Vec<RunningWriter>> {
    install_schema(&deployment.app(primary).await?).await?;
    let mut clients = Vec::new();
    for (place, region) in CLIENT_REGIONS.into_iter().enumerate() {
        for number in 1..=CLIENTS {
            let spec = WriterSpec {
                login: deployment.login(),
                pause: Duration::from_millis(10),
                statement_within: Duration::from_secs(2),
                connect_within: CONNECT_WITHIN + CONNECT_STAGGER * number as u32,
                ..WriterSpec::new(first + 10 * place as i32 + number, by_name(deployment, region)?)
            };
            clients.push(spec.start());
        }
    }
    wait_until("every client writes", Duration::from_secs(30), async || {
        clients.iter().all(|client| client.journal().acknowledged() > 2)
    })
    .await?;
    Ok(clients)
}

/// By name from `region`: the name's addresses are what the third region sees, and lead elsewhere from another.
fn by_name(deployment: &Deployment, region: &str) -> Result<Endpoint> {
    let mut endpoint = deployment.by_name()?;
    if let Endpoint::Name { resolver, routes, .. } = &mut endpoint {
        *resolver = deployment.resolver(region)?;
        for member in MEMBERS {
            let published = deployment.address(WITNESS, member, Service::Postgres)?.ip();
            routes.insert(published, deployment.address(region, member, Service::Postgres)?);
        }
    }
    Ok(endpoint)
}

/// Restarts leaders until the wanted region has the leader.
async fn lead_in(deployment: &Deployment, wanted: &str) -> Result<()> {
    for _ in 0..20 {
        let leader = leader(deployment, None).await?;
        if leader == wanted {
            return Ok(());
        }
        let name = format!("coordinator-{leader}");
        deployment.kill(&name);
        let next = self::leader(deployment, Some(&leader)).await?;
        deployment.restart(&name)?;
        if next == wanted {
            return Ok(());
        }
    }
    anyhow::bail!("the leadership never came to {wanted}")
}

/// Placement takes the leader away from the primary's region by itself.
async fn lead_elsewhere(deployment: &Deployment) -> Result<()> {
    deployment
        .wait_status("the leader is outside the primary's region", Duration::from_secs(60), |status| {
            status.leader_region().is_some_and(|region| region != NORTH)
        })
        .await?;
    Ok(())
}

async fn leader(deployment: &Deployment, except: Option<&str>) -> Result<String> {
    let status = deployment
        .wait_status("a leader", Duration::from_secs(60), |status| {
            status.leader_region().is_some_and(|region| Some(region) != except)
        })
        .await?;
    Ok(status.leader_region().context("no leader")?.to_owned())
}
