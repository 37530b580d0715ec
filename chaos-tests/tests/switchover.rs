//! Planned changes of primary on real PostgreSQL: nothing is lost, or everything is as before.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::clock::{monotonic_ns, wait_until};
use regent_chaos::real::deployment::{
    CLUSTER, Deployment, DeploymentOptions, EAST, MEMBERS, NORTH, REGIONS, REJOIN_AT_MOST, WITNESS, Workload,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

fn step_names(report: &Value) -> Vec<&str> {
    report["steps"].as_array().into_iter().flatten().filter_map(|step| step["name"].as_str()).collect()
}

fn other(member: &str) -> &'static str {
    if member == MEMBERS[0] { MEMBERS[1] } else { MEMBERS[0] }
}

/// The rejoin of the old primary after a switchover that went through: nothing diverged, nothing was copied.
async fn repointed(deployment: &Deployment) -> Result<()> {
    let rejoin = deployment.last_operation("rejoin").await?;
    let steps = rejoin["steps"].as_array().context("a rejoin without steps")?;
    let rebuilt = steps.iter().find(|step| step["name"] == "rebuild").context("no rebuild")?;
    let evidence = rebuilt["evidence"].as_str().unwrap_or_default();
    ensure!(evidence.starts_with("Repointed"), "the old primary did not simply follow: {rejoin:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_there_and_a_failback_lose_nothing() -> Result<()> {
    let options = DeploymentOptions::new("switchover").policy("failback_after", "\"1s\"");
    let deployment = Deployment::start(options).await?;
    let mut workload = Workload::start(&deployment).await?;
    let epoch = deployment.status().await?.epoch();
    let said = ["switchover", CLUSTER, "--reason", "to look", "--dry-run"];
    let plan = deployment.ctl(&said).await?;
    ensure!(plan["to_member"] == EAST && plan["blockers"].as_array().is_some_and(Vec::is_empty), "{plan:#}");
    let to_itself = ["switchover", CLUSTER, "--reason", "to look", "--dry-run", "--to", NORTH];
    let answer = deployment.ctl_from(WITNESS, &to_itself).await?;
    ensure!(answer.code == 1 && answer.stderr.contains("guard target"), "{answer:?}");

    let begun_ns = monotonic_ns();
    let report = deployment.ctl(&["switchover", CLUSTER, "--reason", "kernel update", "--yes"]).await?;
    ensure!(report["summary"]["state"] == "done" && report["summary"]["kind"] == "switchover", "{report:#}");
    ensure!(
        report["summary"]["from_member"] == NORTH && report["summary"]["to_member"] == EAST,
        "{report:#}"
    );
    ensure!(report["fence"][0]["rung"] == "acknowledged", "{report:#}");
    ensure!(report["loss_final"]["none"] == true, "{report:#}");
    for step in ["checkpoint", "fence", "promote", "redirect", "validate"] {
        ensure!(step_names(&report).contains(&step), "no {step}: {report:#}");
    }
    workload.wait_write_after(begun_ns, SOON).await?;
    let status = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(status.primary() == Some(EAST) && status.epoch() == epoch + 1, "{status}");
    repointed(&deployment).await?;
    workload.reopen(&deployment, EAST).await?;

    // The preferred region is the initial primary's: in sync there for a second, its failback waits for a word.
    let pending = |status: &regent_chaos::real::deployment::Status| {
        status.json()["clusters"][0]["pending_failback"]["target"] == NORTH
    };
    deployment.wait_status("a failback waits for approval", SOON, pending).await?;
    ensure!(deployment.status().await?.primary() == Some(EAST), "it did not wait");
    let approved = deployment.ctl(&["approve", CLUSTER, "--reason", "quiet hours"]).await?;
    let id = approved["operation"].as_u64().with_context(|| format!("approved what? {approved}"))?;
    deployment
        .wait_status("the failback is done", SOON, |status| {
            status.primary() == Some(NORTH) && status.operation().is_none_or(|(kind, _)| kind != "failback")
        })
        .await?;
    let report = deployment.operation(id).await?;
    ensure!(report["summary"]["kind"] == "failback" && report["summary"]["state"] == "done", "{report:#}");
    ensure!(report["requested_by"] == "regent://operator/alice", "{report:#}");
    deployment.wait_ready(REJOIN_AT_MOST).await?;
    repointed(&deployment).await?;
    workload.finish(&deployment, LossAllowed::Nothing).await?;
    deployment.finish().await
}

/// Asks for a switchover to EAST that is expected to be rolled back; the report.
async fn rolled_back(deployment: &Deployment, reason: &str) -> Result<Value> {
    let epoch = deployment.status().await?.epoch();
    let answer = deployment
        .ctl_from(
            WITNESS,
            &["switchover", CLUSTER, "--to", EAST, "--reason", reason, "--yes", "--output", "json"],
        )
        .await?;
    ensure!(answer.code == 1 && answer.stderr.contains("rolled back"), "{answer:?}");
    let status = deployment.status().await?;
    ensure!(status.primary() == Some(NORTH) && status.epoch() == epoch + 1, "not at a new epoch: {status}");
    deployment.last_operation("switchover").await
}

/// The standby's WAL receiver, as the host numbers it.
async fn receiver(deployment: &Deployment, member: &str) -> Result<i32> {
    let postmaster = deployment.postgres_run(member).await?.postmaster;
    let parent = format!("PPid:\t{postmaster}\n");
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let title = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if status.contains(&parent) && title.contains("walreceiver") {
            return Ok(pid);
        }
    }
    anyhow::bail!("{member} has no WAL receiver")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overdue_shutdown_and_a_stopped_target_are_rolled_back() -> Result<()> {
    let options = DeploymentOptions::new("switch-back").policy("switchover_timeout", "\"2s\"");
    let deployment = Deployment::start(options).await?;
    let mut workload = Workload::start(&deployment).await?;

    // The old primary cannot end: its walsender waits for a receiver that does not answer.
    let stopped = receiver(&deployment, EAST).await?;
    // SAFETY: plain numbers.
    ensure!(unsafe { libc::kill(stopped, libc::SIGSTOP) } == 0, "SIGSTOP to the WAL receiver");
    let report = rolled_back(&deployment, "the shutdown is overdue").await;
    // SAFETY: plain numbers.
    ensure!(unsafe { libc::kill(stopped, libc::SIGCONT) } == 0, "SIGCONT to the WAL receiver");
    let report = report?;
    let why = report["summary"]["reason"].as_str().unwrap_or_default();
    // Its shutdown checkpoint was written before harder means ended the walsender: clean, and the target lacks it.
    ensure!(why.contains(EAST) && why.contains("is not appointed"), "{report:#}");
    deployment.wait_ready(REJOIN_AT_MOST).await?;
    workload.reopen_lost(&deployment).await?;

    // The target's agent is stopped right before: it still counts as heard when the switchover is asked for.
    let agent = deployment.process(&format!("agent-{EAST}"))?;
    agent.stop()?;
    let report = rolled_back(&deployment, "the target is stopped").await;
    agent.cont()?;
    let report = report?;
    let why = report["summary"]["reason"].as_str().unwrap_or_default();
    ensure!(why.contains(EAST) && why.contains("no report"), "{report:#}");
    deployment.wait_ready(REJOIN_AT_MOST).await?;
    workload.finish(&deployment, LossAllowed::Nothing).await?;
    deployment.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scheduled_taken_back_and_stopped() -> Result<()> {
    let options = DeploymentOptions::new("switch-abort").policy("switchover_timeout", "\"10s\"");
    let deployment = Deployment::start(options).await?;
    let workload = Workload::start(&deployment).await?;
    let epoch = deployment.status().await?.epoch();

    let far = ["switchover", CLUSTER, "--reason", "tonight", "--at", "2099-01-01T02:00:00Z", "--yes"];
    let scheduled = deployment.ctl(&far).await?;
    ensure!(scheduled["scheduled_at_wall_ms"].as_u64().is_some(), "{scheduled}");
    let status = deployment.status().await?;
    let shown = &status.json()["clusters"][0]["scheduled"];
    ensure!(shown["reason"] == "tonight" && shown["requested_by"] == "regent://operator/alice", "{status}");
    let aborted = deployment.ctl(&["abort", CLUSTER, "--reason", "not tonight"]).await?;
    ensure!(aborted["what"].as_str().is_some_and(|what| what.contains("scheduled")), "{aborted}");
    ensure!(deployment.status().await?.json()["clusters"][0]["scheduled"].is_null(), "still scheduled");
    let past = ["switchover", CLUSTER, "--reason", "late", "--at", "2020-01-01T02:00:00Z", "--yes"];
    let answer = deployment.ctl_from(WITNESS, &past).await?;
    ensure!(answer.code != 0 && answer.stderr.contains("not after now"), "{answer:?}");
    let nothing = deployment.ctl_from(WITNESS, &["abort", CLUSTER, "--reason", "nothing"]).await?;
    ensure!(nothing.code == 1, "{nothing:?}");

    // The target's agent is stopped, so that there is time to abort between the fence and the appointment.
    let agent = deployment.process(&format!("agent-{EAST}"))?;
    agent.stop()?;
    let args = ["switchover", CLUSTER, "--to", EAST, "--reason", "stop it", "--yes", "--no-wait"];
    deployment.ctl(&args).await?;
    deployment
        .wait_status("the fence", SOON, |status| status.operation() == Some(("switchover", "fence")))
        .await?;
    let aborted = deployment.ctl(&["abort", CLUSTER, "--reason", "second thoughts"]).await;
    agent.cont()?;
    let aborted = aborted?;
    ensure!(aborted["what"].as_str().is_some_and(|what| what.contains("fence")), "{aborted}");
    deployment
        .wait_status("rolled back", SOON, |status| {
            status.epoch() == epoch + 1 && status.operation().is_none_or(|(kind, _)| kind != "switchover")
        })
        .await?;
    let report = deployment.last_operation("switchover").await?;
    ensure!(report["summary"]["state"] == "rolled_back", "{report:#}");
    ensure!(
        report["summary"]["reason"].as_str().is_some_and(|why| why.contains("second thoughts")),
        "{report:#}"
    );
    let status = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(status.primary() == Some(NORTH), "{status}");
    workload.finish(&deployment, LossAllowed::Nothing).await?;
    deployment.finish().await
}

/// A switchover to the other member, whose leader dies when `step` was committed.
async fn die_at(deployment: &Deployment, workload: &Workload, step: &str) -> Result<()> {
    let before = deployment.status().await?;
    let to = other(before.primary().context("no primary")?);
    let hook = format!("switchover:{step}");
    for region in REGIONS {
        deployment.kill(&format!("coordinator-{region}"));
    }
    for region in REGIONS {
        deployment.restart_with_hook(region, Some(&hook))?;
    }
    deployment.wait_leader().await?;
    deployment.wait_ready(REJOIN_AT_MOST).await?;
    let begun_ns = monotonic_ns();
    let reason = format!("the leader dies at {step}");
    let args = ["switchover", CLUSTER, "--to", to, "--reason", &reason, "--yes", "--no-wait"];
    let asked = deployment.ctl_from(WITNESS, &args).await?;
    let dead = || {
        REGIONS.into_iter().find(|region| {
            let coordinator = deployment.process(&format!("coordinator-{region}"));
            coordinator.is_ok_and(|coordinator| coordinator.exit_status().is_some())
        })
    };
    wait_until(&format!("a leader dies at {step}"), SOON, async || dead().is_some())
        .await
        .with_context(|| format!("regentctl: {asked:?}"))?;
    let died = dead().context("nobody died")?;
    let status = deployment
        .wait_status(
            &format!("switched over after {step}"),
            deployment.timing().failover_at_most(),
            |status| {
                status.primary() == Some(to)
                    && status.operation().is_none_or(|(kind, _)| kind != "switchover")
            },
        )
        .await?;
    ensure!(status.epoch() == before.epoch() + 1, "one switchover, one epoch: {status}");
    let report = deployment.last_operation("switchover").await?;
    ensure!(report["summary"]["state"] == "done" && report["why"] == reason, "{report:#}");
    workload.wait_write_after(begun_ns, SOON).await?;
    deployment.restart_with_hook(died, None)?;
    deployment.wait_ready(REJOIN_AT_MOST).await?;
    Ok(())
}

async fn die_at_each(name: &str, major: u32, steps: &[&str]) -> Result<()> {
    let deployment = Deployment::start(DeploymentOptions::new(name).postgres(major)).await?;
    let mut workload = Workload::start(&deployment).await?;
    for step in steps {
        die_at(&deployment, &workload, step).await.with_context(|| format!("at {step}"))?;
        workload.reopen_lost(&deployment).await?;
    }
    workload.finish(&deployment, LossAllowed::Nothing).await?;
    deployment.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_dies_at_checkpoint_fence_and_promote() -> Result<()> {
    die_at_each("switch-early", 18, &["checkpoint", "fence", "promote"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_dies_at_redirect_validate_and_done_of_a_switchover() -> Result<()> {
    die_at_each("switch-late", 15, &["redirect", "validate", "done"]).await
}
