//! Everyday work on PostgreSQL through Regent: restart and reload, in place.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::clock::monotonic_ns;
use regent_chaos::real::deployment::{CLUSTER, Deployment, DeploymentOptions, EAST, NORTH, Workload};

/// Nothing here waits for it, and a busy machine must not make a partition of its own.
const PATIENT: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(60);

async fn operation_of(deployment: &Deployment, args: &[&str]) -> Result<u64> {
    let started = deployment.ctl(args).await?;
    started["operation"].as_u64().with_context(|| format!("no operation: {started}"))
}

async fn ended_well(deployment: &Deployment, id: u64) -> Result<()> {
    deployment.wait_status("no operation runs", SOON, |status| status.idle()).await?;
    let report = deployment.operation(id).await?;
    ensure!(report["summary"]["state"] == "done", "{report:#}");
    ensure!(report["summary"]["kind"] == "restart", "{report:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_restarted_one_by_one_without_a_failover() -> Result<()> {
    let options = DeploymentOptions::new("everyday-restart").postgres(18).partition_timeout(PATIENT);
    let deployment = Deployment::start(options).await?;
    let workload = Workload::start(&deployment).await?;
    deployment
        .wait_status("the feature level is raised", SOON, |status| {
            status.json()["feature_level"].as_u64() >= Some(2)
        })
        .await?;
    let before = deployment.status().await?;
    let runs = (deployment.postgres_run(NORTH).await?, deployment.postgres_run(EAST).await?);

    // Looking changes nothing; a stale epoch and an unknown member are refused.
    let look = ["restart", CLUSTER, NORTH, "--reason", "to look", "--dry-run"];
    let plan = deployment.ctl(&look).await?;
    ensure!(plan["primary"] == true, "{plan}");
    ensure!(deployment.postgres_run(NORTH).await? == runs.0, "a dry run has restarted it");
    for (args, word) in [
        (["restart", CLUSTER, NORTH, "--reason", "x", "--expected-epoch", "77"], "77"),
        (["restart", CLUSTER, "nobody", "--reason", "x", "--expected-epoch", "1"], "nobody"),
    ] {
        let answer = deployment.ctl(&args).await;
        let error = format!("{:#}", answer.err().context("it was not refused")?);
        ensure!(error.contains(word), "{error}");
    }

    // A reload restarts nothing; then the standby, then the primary.
    let id = operation_of(&deployment, &["reload", CLUSTER, NORTH, "--reason", "work_mem"]).await?;
    ended_well(&deployment, id).await?;
    ensure!(deployment.postgres_run(NORTH).await? == runs.0, "a reload has restarted it");
    let id = operation_of(&deployment, &["restart", CLUSTER, EAST, "--reason", "minor upgrade"]).await?;
    ended_well(&deployment, id).await?;
    ensure!(deployment.postgres_run(EAST).await? != runs.1, "the standby was not restarted");
    let id = operation_of(&deployment, &["restart", CLUSTER, NORTH, "--reason", "minor upgrade"]).await?;
    ended_well(&deployment, id).await?;
    let restarted_ns = monotonic_ns();
    ensure!(deployment.postgres_run(NORTH).await? != runs.0, "the primary was not restarted");

    // It is the same primary at the same epoch, and clients write again.
    workload.wait_write_after(restarted_ns, SOON).await?;
    let after = deployment.wait_ready(SOON).await?;
    ensure!(after.epoch() == before.epoch() && after.primary() == Some(NORTH), "{after}");
    ensure!(deployment.count("failover").await? == 0, "a restart was taken for a failure");
    workload.finish(&deployment, LossAllowed::Nothing).await?;
    deployment.finish().await
}
