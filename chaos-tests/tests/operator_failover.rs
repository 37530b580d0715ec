//! What an operator does with `regentctl`: look, pause, resume, fail over, ask twice, wait.

use std::time::Duration;

use anyhow::{Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::deployment::{
    CLUSTER, Deployment, DeploymentOptions, EAST, NORTH, REJOIN_AT_MOST, WITNESS, Workload,
};
use serde_json::Value;

/// Nothing here waits for it, and a busy machine must not make a partition of its own.
const PATIENT: Duration = Duration::from_secs(30);

/// Refused with exit code 1 and a text that names each of `words`.
async fn refused(deployment: &Deployment, args: &[&str], words: &[&str]) -> Result<()> {
    let answer = deployment.ctl_from(WITNESS, args).await?;
    ensure!(answer.code == 1, "{args:?}: exit code {}: {}", answer.code, answer.stderr);
    for word in words {
        ensure!(answer.stderr.contains(word), "{args:?} does not say {word:?}: {}", answer.stderr);
    }
    Ok(())
}

fn step_names(report: &Value) -> Vec<&str> {
    report["steps"].as_array().into_iter().flatten().filter_map(|step| step["name"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_looks_pauses_resumes_and_fails_over_and_back() -> Result<()> {
    let deployment =
        Deployment::start(DeploymentOptions::new("operator").postgres(18).partition_timeout(PATIENT)).await?;
    let mut workload = Workload::start(&deployment).await?;
    let before = deployment.status().await?;
    let epoch = before.epoch().to_string();
    let operations = deployment.history().await?.len();

    // Looking changes nothing.
    let plan = deployment.ctl(&["failover", CLUSTER, "--reason", "to look", "--dry-run"]).await?;
    ensure!(plan["to_member"] == EAST && plan["from_member"] == NORTH, "{plan:#}");
    ensure!(plan["blockers"].as_array().is_some_and(Vec::is_empty), "{plan:#}");
    let planned: Vec<_> =
        plan["steps"].as_array().into_iter().flatten().filter_map(|step| step["name"].as_str()).collect();
    ensure!(planned.contains(&"fence") && planned.contains(&"promote"), "{plan:#}");
    let to_itself = ["failover", CLUSTER, "--reason", "to look", "--dry-run", "--to", NORTH];
    let answer = deployment.ctl_from(WITNESS, &to_itself).await?;
    ensure!(answer.code == 1, "a failover to the primary itself: {answer:?}");
    ensure!(deployment.history().await?.len() == operations, "a dry run has left an operation");

    // A stale epoch is refused with both values, whatever is asked.
    let stale = (before.epoch() + 7).to_string();
    for verb in ["failover", "pause"] {
        let mut args = vec![verb, CLUSTER, "--reason", "stale", "--expected-epoch", &stale];
        if verb == "failover" {
            args.push("--yes");
        }
        refused(&deployment, &args, &[&stale, &epoch]).await?;
    }

    // Paused: leases go on, and an operator may still act.
    let paused = deployment.ctl(&["pause", CLUSTER, "--reason", "maintenance"]).await?;
    ensure!(paused["automation"] == "paused" && paused["changed"] == true, "{paused}");
    let status = deployment.status().await?;
    let cluster = &status.json()["clusters"][0];
    ensure!(cluster["automation"] == "paused", "{status}");
    let why = cluster["automation_reason"].as_str().unwrap_or_default();
    ensure!(why.contains("regent://operator/alice") && why.contains("maintenance"), "{why}");
    let resumed = deployment.ctl(&["resume", CLUSTER, "--reason", "done"]).await?;
    ensure!(resumed["automation"] == "automatic" && resumed["changed"] == true, "{resumed}");
    ensure!(deployment.status().await?.epoch() == before.epoch(), "pausing has raised the epoch");

    // The same request twice is one operation.
    let mut args = vec!["failover", CLUSTER, "--reason", "eu-north-1 is flooded", "--expected-epoch", &epoch];
    args.extend(["--to", EAST, "--request-id", "flood-1", "--yes"]);
    let started = deployment.ctl(&args).await?;
    let again = deployment.ctl(&args).await?;
    ensure!(started["operation"] == again["operation"], "one request, two operations: {started} {again}");
    deployment.wait_failover(EAST).await?;
    let once_more = deployment.ctl(&args).await?;
    ensure!(started["operation"] == once_more["operation"], "after its end: {once_more}");
    ensure!(deployment.count("failover").await? == 1, "more than one failover");
    let report = deployment.last_operation("failover").await?;
    ensure!(report["summary"]["id"] == started["operation"], "{report:#}");
    ensure!(report["summary"]["trigger"] == "operator" && report["summary"]["state"] == "done", "{report:#}");
    ensure!(report["requested_by"] == "regent://operator/alice", "{report:#}");
    ensure!(report["why"].as_str().is_some_and(|why| why.contains("eu-north-1 is flooded")), "{report:#}");
    ensure!(report["request_id"] == "flood-1", "{report:#}");
    for step in ["fence", "choose", "promote", "redirect", "validate"] {
        ensure!(step_names(&report).contains(&step), "no {step}: {report:#}");
    }
    ensure!(
        report["fence"][0]["rung"] == "acknowledged" && report["fence"][0]["certainty"] == "confirmed",
        "{report:#}"
    );
    deployment.wait_ready(REJOIN_AT_MOST).await?;
    workload.reopen(&deployment, EAST).await?;

    // And back, followed to its end; the exit code and the report are of the end.
    let answer = deployment
        .ctl(&["failover", CLUSTER, "--reason", "the flood is over", "--to", NORTH, "--yes", "--wait"])
        .await?;
    ensure!(answer["summary"]["state"] == "done" && answer["summary"]["to_member"] == NORTH, "{answer:#}");
    let status = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(status.primary() == Some(NORTH) && status.epoch() == before.epoch() + 2, "{status}");
    ensure!(deployment.dns().await? == (Some(NORTH), Some(status.epoch())), "DNS is elsewhere");
    // The guard shuts down cleanly, and its standby received everything before that.
    workload.finish(&deployment, LossAllowed::Salvaged).await?;
    deployment.finish().await
}
