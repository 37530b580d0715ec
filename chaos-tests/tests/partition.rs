//! A region cut off from the others: it fences itself, its standby is promoted, and it comes back.

use std::time::Duration;

use anyhow::{Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::clock::{monotonic_ns, wait_until};
use regent_chaos::real::deployment::{Deployment, DeploymentOptions, EAST, NORTH, REJOIN_AT_MOST, Workload};

const SOON: Duration = Duration::from_secs(10);

/// Cuts the primary's region off, waits for the failover, heals, waits for the rejoin, and judges.
async fn cut_and_heal(options: DeploymentOptions) -> Result<()> {
    let deployment = Deployment::start(options).await?;
    let workload = Workload::start(&deployment).await?;
    let epoch = deployment.status().await?.epoch();
    deployment.net().isolate(NORTH)?;
    let cut_ns = monotonic_ns();
    let timing = *deployment.timing();
    wait_until("the isolated sessions end", timing.fenced_at_most(), async || workload.sessions_lost(NORTH))
        .await?;
    let first = workload.wait_write_after(cut_ns, timing.failover_at_most()).await?;
    ensure!(first.server == deployment.server_name(EAST)?, "the first write went to {}", first.server);
    let done = deployment.wait_failover(EAST).await?;
    ensure!(done.epoch() > epoch && done.fenced_through() >= epoch, "{done}");
    let (member, published) = deployment.dns().await?;
    ensure!(member == Some(EAST) && published == Some(done.epoch()), "DNS: {member:?} {published:?}");
    // By lease, and not because somebody answered.
    let report = deployment.last_operation("failover").await?;
    ensure!(report["summary"]["trigger"] == "partition", "{report:#}");
    ensure!(report["summary"]["state"] == "done", "{report:#}");
    let rungs = report["fence"].as_array().cloned().unwrap_or_default();
    ensure!(
        rungs.iter().any(|rung| rung["rung"] == "lease_expired" && rung["certainty"] == "assumed_by_lease"),
        "{report:#}"
    );
    deployment.net().heal();
    let healed = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(healed.primary() == Some(EAST) && healed.epoch() == done.epoch(), "a second outage: {healed}");
    // By rewind, also where PostgreSQL needs a checkpoint on the new primary first.
    let rejoins = deployment.wait_event("the old primary has rejoined", SOON, |event| {
        event["kind"] == "rejoined" && event["member"] == NORTH && event["epoch"] == done.epoch()
    });
    let rejoined = rejoins.await?["text"].as_str().unwrap_or_default().to_lowercase();
    ensure!(rejoined.contains("rewound"), "not by rewind: {rejoined}");
    // The procedure went on inside the isolated region: these rows are in salvage.
    let verdict = workload.finish(&deployment, LossAllowed::Salvaged).await?;
    ensure!(!verdict.salvaged.is_empty(), "nothing was written on the isolated side: {verdict}");
    deployment.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_region_fails_over_and_comes_back_on_postgres_15() -> Result<()> {
    cut_and_heal(DeploymentOptions::new("partition-15").postgres(15)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_region_fails_over_and_comes_back_on_postgres_18() -> Result<()> {
    cut_and_heal(DeploymentOptions::new("partition-18")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_shorter_than_the_lease_costs_nothing() -> Result<()> {
    let deployment = Deployment::start(DeploymentOptions::new("short-cut")).await?;
    let workload = Workload::start(&deployment).await?;
    let before = deployment.status().await?;
    deployment.net().isolate(NORTH)?;
    let cut_ns = monotonic_ns();
    // Well below the lease: what is tested is that nothing happens, so the time itself is the condition.
    let span = deployment.timing().lease_ttl / 2;
    wait_until("half a lease has passed", span * 2, async || {
        monotonic_ns() - cut_ns > span.as_nanos() as u64
    })
    .await?;
    ensure!(deployment.status().await?.epoch() == before.epoch(), "a failover during a short cut");
    deployment.net().heal();
    let healed_ns = monotonic_ns();
    let first = workload.wait_write_after(healed_ns, span).await?;
    ensure!(first.server == deployment.server_name(NORTH)?, "the write went to {}", first.server);
    let after = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(after.epoch() == before.epoch() && after.primary() == Some(NORTH), "{after}");
    ensure!(deployment.count("failover").await? == 0, "there was a failover");
    ensure!(!workload.sessions_lost(NORTH), "the sessions inside the region were lost");
    workload.finish(&deployment, LossAllowed::Nothing).await?;
    deployment.finish().await
}
