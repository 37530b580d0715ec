//! Drills on a live deployment: seen, reported, and nothing is worse afterwards.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::clock::{monotonic_ns, wait_until};
use regent_chaos::real::deployment::{
    CLUSTER, Deployment, DeploymentOptions, EAST, NORTH, REJOIN_AT_MOST, WITNESS, Workload,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);
const FULL_AT_MOST: Duration = Duration::from_secs(170);

/// Starts a drill; its number.
async fn begin(deployment: &Deployment, more: &[&str]) -> Result<u64> {
    let mut args = vec!["drill", CLUSTER, "--reason", "monthly drill", "--no-wait"];
    args.extend(more);
    let started = deployment.ctl(&args).await?;
    started["operation"].as_u64().with_context(|| format!("no drill was started: {started}"))
}

/// Waits for the end of the operation; its report.
async fn ended(deployment: &Deployment, id: u64, within: Duration) -> Result<Value> {
    let mut report = Value::Null;
    let done = wait_until("the drill's end", within, async || {
        if let Ok(now) = deployment.operation(id).await {
            report = now;
        }
        ["done", "aborted"].iter().any(|state| report["summary"]["state"] == *state)
    });
    done.await.with_context(|| format!("{report:#}"))?;
    Ok(report)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_sees_the_detection_and_touches_nothing() -> Result<()> {
    let deployment = Deployment::start(DeploymentOptions::new("drill")).await?;
    let workload = Workload::start(&deployment).await?;
    let before = deployment.status().await?;

    let plan = deployment.ctl(&["drill", CLUSTER, "--reason", "to look", "--dry-run"]).await?;
    ensure!(plan["from_member"] == NORTH && plan["to_member"] == EAST, "{plan:#}");
    ensure!(plan["blockers"].as_array().is_some_and(Vec::is_empty), "{plan:#}");
    deployment.ctl(&["pause", CLUSTER, "--reason", "maintenance"]).await?;
    let refused = deployment.ctl_from(WITNESS, &["drill", CLUSTER, "--reason", "now"]).await?;
    ensure!(refused.code == 1 && refused.stderr.contains("paused"), "{refused:?}");
    deployment.ctl(&["resume", CLUSTER, "--reason", "done"]).await?;

    let id = begin(&deployment, &[]).await?;
    let running = deployment.status().await?;
    ensure!(running.operation() == Some(("drill", "detect")), "{running}");
    let other = deployment.ctl_from(WITNESS, &["drill", CLUSTER, "--reason", "another"]).await?;
    ensure!(other.code == 1 && other.stderr.contains(&format!("operation {id}")), "{other:?}");
    let report = ended(&deployment, id, deployment.timing().partition_timeout + SOON).await?;
    ensure!(report["summary"]["kind"] == "drill" && report["summary"]["state"] == "done", "{report:#}");
    ensure!(report["requested_by"] == "regent://operator/alice", "{report:#}");
    let drill = &report["drill"];
    ensure!(drill["verdict"] == "a failover would begin" && drill["candidate"] == EAST, "{report:#}");
    let partition_ms = deployment.timing().partition_timeout.as_millis() as u64;
    ensure!(drill["silent_ms"].as_u64().is_some_and(|ms| ms >= partition_ms), "{report:#}");
    ensure!(report["phases"][0]["name"] == "detection", "{report:#}");
    // The evidence is of the moment: nobody of the second detector's coordinators had heard the primary for so long.
    let evidence = &report["evidence"];
    ensure!(evidence["triggers"][0]["holds"] == true, "{report:#}");
    ensure!(evidence["heard"].as_array().is_some_and(|heard| !heard.is_empty()), "{report:#}");

    // The leader dies in the middle: the next one goes on, and the drill ends by itself.
    let id = begin(&deployment, &[]).await?;
    let leader = deployment.leader().await?;
    deployment.restart(&format!("coordinator-{leader}"))?;
    let within = deployment.timing().partition_timeout * 2 + SOON;
    let report = ended(&deployment, id, within).await?;
    ensure!(report["summary"]["state"] == "done", "{report:#}");

    // And one is aborted.
    let id = begin(&deployment, &[]).await?;
    let aborted = deployment.ctl(&["abort", CLUSTER, "--reason", "enough"]).await?;
    ensure!(aborted["operation"] == id, "{aborted}");
    ensure!(ended(&deployment, id, SOON).await?["summary"]["state"] == "aborted", "not aborted");

    let after = deployment.wait_ready(SOON).await?;
    ensure!(after.epoch() == before.epoch() && after.primary() == Some(NORTH), "{after}");
    ensure!(after.fenced_through() == before.fenced_through(), "a drill has fenced: {after}");
    ensure!(!workload.sessions_lost(NORTH), "a drill has cost the sessions of its region");
    workload.finish(&deployment, LossAllowed::Nothing).await?;
    deployment.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_drill_goes_there_and_back_and_loses_nothing() -> Result<()> {
    let deployment = Deployment::start(DeploymentOptions::new("drill-full")).await?;
    let workload = Workload::start(&deployment).await?;
    let before = deployment.status().await?;
    let id = begin(&deployment, &["--full", "--yes"]).await?;
    let away =
        deployment.wait_status("the primary is away", deployment.timing().failover_at_most(), |status| {
            status.primary() == Some(EAST) && status.json()["clusters"][0]["drill"]["id"] == id
        });
    away.await?;
    let report = ended(&deployment, id, FULL_AT_MOST).await?;
    ensure!(report["summary"]["state"] == "done", "{report:#}");
    let steps = report["steps"].as_array().into_iter().flatten();
    let steps: Vec<_> = steps.filter_map(|step| step["name"].as_str()).collect();
    ensure!(steps == ["declare", "detect", "away", "confirm", "back", "confirm"], "{report:#}");
    let after = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(after.primary() == Some(NORTH) && after.epoch() == before.epoch() + 2, "{after}");
    ensure!(
        deployment.count("switchover").await? == 2 && deployment.count("failover").await? == 0,
        "{after}"
    );
    workload.wait_write_after(monotonic_ns(), SOON).await?;
    workload.finish(&deployment, LossAllowed::Nothing).await?;
    deployment.finish().await
}
