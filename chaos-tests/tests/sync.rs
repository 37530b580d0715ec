//! Synchronous replication: what was acknowledged survives the loss of a region, and a lost standby blocks or is left, as
//! the policy says.

use std::time::Duration;

use anyhow::{Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::clock::{monotonic_ns, wait_until};
use regent_chaos::real::deployment::{
    CLUSTER, Deployment, DeploymentOptions, EAST, NORTH, REJOIN_AT_MOST, Service, Status, Workload,
};
use regent_chaos::real::link::CutDirection;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(40);

fn synchronous(status: &Status) -> &Value {
    &status.json()["clusters"][0]["synchronous"]
}

async fn wait_proven(deployment: &Deployment, what: &str) -> Result<()> {
    let proven = deployment.wait_status(what, SOON, |status| synchronous(status)["proven"] == true).await?;
    ensure!(synchronous(&proven)["set"]["number"] == 1, "{proven}");
    Ok(())
}

async fn set_policy(deployment: &Deployment, pair: &str) -> Result<Value> {
    deployment.ctl(&["policy", "set", CLUSTER, pair, "--reason", "a test"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_region_loses_no_acknowledged_row() -> Result<()> {
    let options = DeploymentOptions::new("sync-partition")
        .policy("synchronous", "\"on\"")
        .policy("synchronous_timeout", "\"5s\"");
    let deployment = Deployment::start(options).await?;
    wait_proven(&deployment, "commits wait for the standby").await?;
    let workload = Workload::start(&deployment).await?;
    let shown: String =
        deployment.pg(NORTH).await?.client().query_one("SHOW synchronous_standby_names", &[]).await?.get(0);
    ensure!(shown == format!("ANY 1 (\"{EAST}\")"), "{shown}");
    let coordinator = deployment.address(EAST, EAST, Service::CoordinatorHttp)?;
    let (status, metrics) = deployment.http(coordinator, "/metrics").await?;
    ensure!(status == 200 && metrics.contains("regent_synchronous_proven{cluster=\"gravl\"} 1"), "{metrics}");
    deployment.net().isolate(NORTH)?;
    let cut_ns = monotonic_ns();
    let timing = *deployment.timing();
    workload.wait_write_after(cut_ns, timing.failover_at_most()).await?;
    deployment.wait_failover(EAST).await?;
    let report = deployment.last_operation("failover").await?;
    let proven = report["acknowledged_loss"].as_str().unwrap_or_default();
    ensure!(proven.starts_with("none: received") && proven.contains("1 of 1 answered"), "{report:#}");
    deployment.net().heal();
    deployment.wait_ready(REJOIN_AT_MOST).await?;
    // Back in sync by itself, towards the other side.
    wait_proven(&deployment, "the new primary's commits wait for the old one").await?;
    let verdict = workload.finish(&deployment, LossAllowed::Nothing).await?;
    ensure!(verdict.salvaged.is_empty() && verdict.lost.is_empty(), "{verdict}");
    deployment.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_standby_is_left_after_it_was_logged_or_blocks_strictly() -> Result<()> {
    // The members lose each other, both reach the coordinators: no failover, a standby left behind.
    let options = DeploymentOptions::new("sync-standby").policy("synchronous_timeout", "\"3s\"");
    let deployment = Deployment::start(options).await?;
    ensure!(synchronous(&deployment.status().await?).is_null(), "off by default");
    let workload = Workload::start(&deployment).await?;
    let refused = deployment
        .ctl_from(
            NORTH,
            &["policy", "set", CLUSTER, "synchronous=on", "synchronous_standbys=2", "--reason", "a test"],
        )
        .await?;
    ensure!(refused.stderr.contains("synchronous_standbys"), "{refused:?}");
    set_policy(&deployment, "synchronous=on").await?;
    wait_proven(&deployment, "entered while running").await?;
    let epoch = deployment.status().await?.epoch();

    deployment.net().cut(NORTH, EAST, CutDirection::Both)?;
    let cut_ns = monotonic_ns();
    let left = deployment
        .wait_event("leaving sync is logged", SOON, |event| {
            let text = event["text"].as_str().unwrap_or_default();
            event["kind"] == "synchronous_changed" && text.contains("wait for nobody, for ANY 1")
        })
        .await?;
    ensure!(left["epoch"] == epoch, "{left:#}");
    let written = workload.wait_write_after(cut_ns, SOON).await?;
    ensure!(written.server == deployment.server_name(NORTH)?, "{written:?}");
    let alerted = deployment
        .wait_status("an alert says so", SOON, |status| {
            status.member(NORTH)["alerts"].to_string().contains("commits of")
        })
        .await?;
    ensure!(synchronous(&alerted)["proven"] == false, "{alerted}");
    deployment.net().heal();
    wait_proven(&deployment, "back by itself").await?;

    set_policy(&deployment, "synchronous_shortage=strict").await?;
    deployment.net().cut(NORTH, EAST, CutDirection::Both)?;
    let alerted = deployment
        .wait_status("commits wait, and an alert says so", SOON, |status| {
            status.member(NORTH)["alerts"].to_string().contains("is asked for, 0 of them stream")
        })
        .await?;
    ensure!(synchronous(&alerted)["logged"][0] == format!("ANY 1 ({EAST})"), "{alerted}");
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let watcher = deployment.pg(NORTH).await?;
    wait_until("a commit waits", SOON, async || {
        watcher.client().query_one(waits, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) > 0)
    })
    .await?;
    let since_ns = monotonic_ns();
    deployment.net().heal();
    workload.wait_write_after(since_ns, SOON).await?;
    ensure!(deployment.status().await?.epoch() == epoch, "a failover");
    deployment.wait_ready(REJOIN_AT_MOST).await?;
    workload.finish(&deployment, LossAllowed::Nothing).await?;
    deployment.finish().await
}
