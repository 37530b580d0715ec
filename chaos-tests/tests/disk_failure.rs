//! The primary's disk stalls, fails or becomes read-only.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::clock::{monotonic_ns, wait_until};
use regent_chaos::real::deployment::{
    CLUSTER, Deployment, DeploymentOptions, EAST, NORTH, REJOIN_AT_MOST, Workload,
};
use regent_chaos::real::shim::Disk;
use serde_json::Value;

/// Nothing here waits for it, and a busy machine must not make a partition of its own.
const PATIENT: Duration = Duration::from_secs(30);

fn on_failing_disk(name: &str) -> DeploymentOptions {
    DeploymentOptions::new(name).partition_timeout(PATIENT).failing_disk(NORTH)
}

async fn start(options: DeploymentOptions) -> Result<(Deployment, Workload)> {
    let deployment = Deployment::start(options).await?;
    let workload = Workload::start(&deployment).await?;
    Ok((deployment, workload))
}

/// The failover's report: it was the disk, and the fence had this rung.
async fn failed_over(deployment: &Deployment, rung: &str, finding: &str) -> Result<Value> {
    deployment.wait_failover(EAST).await?;
    let report = deployment.last_operation("failover").await?;
    ensure!(report["summary"]["trigger"] == "disk_failure", "not the disk: {report:#}");
    ensure!(report["summary"]["state"] == "done", "{report:#}");
    let why = report["why"].as_str().context("no reason")?.to_lowercase();
    ensure!(why.contains(finding), "{why:?} does not name {finding}");
    let rungs = report["fence"].as_array().context("no rungs")?;
    ensure!(rungs.len() == 1 && rungs[0]["rung"] == rung, "not {rung}: {report:#}");
    Ok(report)
}

/// The disk is repaired; the old primary comes back and everything acknowledged is found.
async fn repaired(deployment: Deployment, workload: Workload) -> Result<()> {
    deployment.set_disk(NORTH, Disk::Ok)?;
    deployment.start_region(NORTH)?;
    let status = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(status.primary() == Some(EAST), "{status}");
    ensure!(deployment.count("failover").await? == 1, "more than one failover");
    workload.finish(&deployment, LossAllowed::Salvaged).await?;
    deployment.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_fsync_of_the_data_directory_fails_over() -> Result<()> {
    let (deployment, workload) = start(on_failing_disk("disk-stall").postgres(18)).await?;
    deployment.set_disk(NORTH, Disk::StallFsync)?;
    let stalled_ns = monotonic_ns();
    // The guard's own state is on another disk, so it can promise and answer.
    failed_over(&deployment, "acknowledged", "not come back").await?;
    let first = workload.wait_write_after(stalled_ns, Duration::from_secs(20)).await?;
    ensure!(first.server == deployment.server_name(EAST)?, "the write went to {}", first.server);
    ensure!(workload.sessions_lost(NORTH), "a session of the old primary lives on");
    repaired(deployment, workload).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_that_cannot_write_its_answer_is_fenced_by_its_lease() -> Result<()> {
    let options = DeploymentOptions::new("disk-host").postgres(18).failing_host_disk(NORTH);
    let (deployment, workload) = start(options).await?;
    deployment.set_disk(NORTH, Disk::StallFsync)?;
    let stalled_ns = monotonic_ns();
    failed_over(&deployment, "lease_expired", "not come back").await?;
    let first = workload.wait_write_after(stalled_ns, Duration::from_secs(20)).await?;
    ensure!(first.server == deployment.server_name(EAST)?, "the write went to {}", first.server);
    // Told to fence, it emptied the namespace though it could not write that down, and so could not say so.
    ensure!(workload.sessions_lost(NORTH), "a session of the old primary lives on");
    let guard = deployment.guard(NORTH).await?;
    ensure!(guard["postgres"] == "stopped", "{guard}");
    repaired(deployment, workload).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_output_errors_fail_over_at_once_on_postgres_15() -> Result<()> {
    let (deployment, workload) = start(on_failing_disk("disk-eio")).await?;
    let failed_ns = monotonic_ns();
    deployment.set_disk(NORTH, Disk::Eio)?;
    failed_over(&deployment, "acknowledged", "eio").await?;
    workload.wait_write_after(failed_ns, Duration::from_secs(20)).await?;
    repaired(deployment, workload).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_disk_waits_while_paused_and_fails_over_when_resumed() -> Result<()> {
    let (deployment, workload) = start(on_failing_disk("disk-erofs").postgres(18)).await?;
    let epoch = deployment.status().await?.epoch();
    deployment.ctl(&["pause", CLUSTER, "--reason", "the operator wants to look first"]).await?;
    deployment.set_disk(NORTH, Disk::ReadOnly)?;
    let failed = deployment
        .wait_status("the read-only disk is reported", Duration::from_secs(20), |status| {
            status.member(NORTH)["disk"].to_string().contains("EROFS")
        })
        .await?;
    ensure!(failed.epoch() == epoch, "{failed}");
    // At once when automatic, so a second of nothing is what the pause does.
    let since_ns = monotonic_ns();
    wait_until("two seconds have passed", Duration::from_secs(4), async || {
        monotonic_ns() - since_ns > 2_000_000_000
    })
    .await?;
    ensure!(deployment.count("failover").await? == 0, "a failover while paused");
    let resumed_ns = monotonic_ns();
    deployment.ctl(&["resume", CLUSTER, "--reason", "seen"]).await?;
    failed_over(&deployment, "acknowledged", "erofs").await?;
    workload.wait_write_after(resumed_ns, Duration::from_secs(20)).await?;
    repaired(deployment, workload).await
}
