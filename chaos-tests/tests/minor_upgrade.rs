//! A minor upgrade of the servers one by one, as docs/everyday.md says it: a link that is switched, restarts, one switchover.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::clock::{monotonic_ns, wait_until};
use regent_chaos::real::deployment::{
    CLUSTER, Deployment, DeploymentOptions, EAST, NORTH, REJOIN_AT_MOST, WITNESS, Workload,
};

/// A busy machine must not make a partition of its own.
const PATIENT: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(60);

async fn ctl(deployment: &Deployment, args: &[&str]) -> Result<()> {
    let mut command = deployment.ctl_command(args);
    let done = tokio::time::timeout(Duration::from_secs(180), command.output()).await.context("no end")??;
    ensure!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

async fn version(deployment: &Deployment, member: &str) -> Result<String> {
    let session = deployment.pg(member).await?;
    Ok(session.client().query_one("SHOW server_version", &[]).await?.get(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_are_upgraded_one_by_one_and_nothing_is_lost() -> Result<()> {
    let options =
        DeploymentOptions::new("minor").postgres(15).partition_timeout(PATIENT).switchable_postgres();
    let deployment = Deployment::start(options).await?;
    let (older, newer) = deployment.minors()?;
    let workload = Workload::start(&deployment).await?;
    deployment
        .wait_status("the feature level is raised", SOON, |status| {
            status.json()["feature_level"].as_u64() >= Some(2)
        })
        .await?;
    let epoch = deployment.status().await?.epoch();
    for member in [NORTH, EAST] {
        let runs = version(&deployment, member).await?;
        ensure!(older.version.contains(runs.split(' ').next().unwrap_or("?")), "{runs}: {older:?}");
    }
    let is_newer = |runs: String| newer.version.contains(runs.split(' ').next().unwrap_or("?"));

    // The standby.
    deployment.switch_postgres(EAST, &newer)?;
    ctl(&deployment, &["restart", CLUSTER, EAST, "--reason", "minor upgrade", "--wait"]).await?;
    ensure!(is_newer(version(&deployment, EAST).await?), "the standby runs as before");
    deployment.wait_ready(SOON).await?;

    // The primary is moved away first.
    // In sync it still counts as; whether its stream is back after the restart is for the switchover's own look.
    let look = ["switchover", CLUSTER, "--to", EAST, "--reason", "minor upgrade", "--dry-run"];
    wait_until("the standby streams again", SOON, async || {
        deployment.ctl_from(WITNESS, &look).await.is_ok_and(|answer| answer.code == 0)
    })
    .await?;
    ctl(&deployment, &["switchover", CLUSTER, "--to", EAST, "--reason", "minor upgrade", "--yes"]).await?;
    let status = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(status.primary() == Some(EAST) && status.epoch() == epoch + 1, "{status}");
    let moved_ns = monotonic_ns();
    workload.wait_write_after(moved_ns, SOON).await?;

    // And the old one.
    deployment.switch_postgres(NORTH, &newer)?;
    ctl(&deployment, &["restart", CLUSTER, NORTH, "--reason", "minor upgrade", "--wait"]).await?;
    ensure!(is_newer(version(&deployment, NORTH).await?), "the old primary runs as before");
    deployment.wait_ready(SOON).await?;
    ensure!(deployment.count("failover").await? == 0, "there was a failover");
    workload.finish(&deployment, LossAllowed::Nothing).await?;
    deployment.finish().await
}
