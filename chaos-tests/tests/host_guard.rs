//! The guard of the primary dies, stops or forgets: it starts fenced, and its member recovers by itself.

use std::time::Duration;

use anyhow::{Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::clock::{monotonic_ns, wait_until};
use regent_chaos::real::deployment::{
    Deployment, DeploymentOptions, EAST, MEMBERS, NORTH, REJOIN_AT_MOST, SpoiltState, Status, Workload,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

fn other(member: &str) -> &'static str {
    if member == NORTH { EAST } else { NORTH }
}

fn primary(status: &Status) -> Result<&'static str> {
    let found = MEMBERS.into_iter().find(|member| status.primary() == Some(member));
    found.ok_or_else(|| anyhow::anyhow!("no primary: {status}"))
}

fn has_rung(report: &Value, rung: &str, certainty: &str) -> bool {
    let rungs = report["fence"].as_array().cloned().unwrap_or_default();
    rungs.iter().any(|found| found["rung"] == rung && found["certainty"] == certainty)
}

/// Waits for a higher epoch and for everything to be in order again.
async fn recovered(
    deployment: &Deployment,
    workload: &Workload,
    since_ns: u64,
    epoch: u64,
) -> Result<Status> {
    let within = deployment.timing().failover_at_most();
    deployment
        .wait_status("a new epoch, and the failover is done", within, |status| {
            status.epoch() > epoch && status.operation().is_none_or(|(kind, _)| kind != "failover")
        })
        .await?;
    let ready = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(ready.epoch() == epoch + 1, "more than one outage after epoch {epoch}: {ready}");
    workload.wait_write_after(since_ns, within).await?;
    Ok(ready)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_guard_is_appointed_again_in_place() -> Result<()> {
    let deployment = Deployment::start(DeploymentOptions::new("host-guard-restart")).await?;
    let mut workload = Workload::start(&deployment).await?;
    let epoch = deployment.status().await?.epoch();
    let before = deployment.postgres_run(NORTH).await?;
    // The looping backend commits while the guard dies: the kernel takes it along.
    deployment.kill(&format!("guard-{NORTH}"));
    let killed_ns = monotonic_ns();
    wait_until("both sessions end with the guard", Duration::from_secs(5), async || {
        workload.sessions_lost(NORTH)
    })
    .await?;
    deployment.restart(&format!("guard-{NORTH}"))?;
    let ready = recovered(&deployment, &workload, killed_ns, epoch).await?;
    ensure!(ready.primary() == Some(NORTH), "nothing had to move: {ready}");
    let guard = deployment.guard(NORTH).await?;
    ensure!(guard["state_file"] == "ok" && guard["succeeds"] == before.instance.as_str(), "{guard:#}");
    let after = deployment.postgres_run(NORTH).await?;
    ensure!(after.instance != before.instance && after.postmaster != before.postmaster, "{after:?}");
    let report = deployment.last_operation("failover").await?;
    let summary = &report["summary"];
    ensure!(summary["trigger"] == "instance_changed" && summary["state"] == "done", "{report:#}");
    ensure!(summary["from_member"] == NORTH && summary["to_member"] == NORTH, "{report:#}");
    ensure!(has_rung(&report, "acknowledged", "confirmed"), "{report:#}");
    let (why, evidence) = (report["why"].to_string(), report["fence"][0]["evidence"].to_string());
    ensure!(why.contains(&before.instance), "the guard that is gone is not named: {report:#}");
    ensure!(evidence.contains(&after.instance), "the guard that speaks for it is not named: {report:#}");
    ensure!(deployment.count("failover").await? == 1, "more than one failover");
    workload.reopen(&deployment, NORTH).await?;
    workload.finish(&deployment, LossAllowed::Nothing).await?;
    deployment.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_guard_dies_at_the_deadline_and_postgres_with_it() -> Result<()> {
    let deployment = Deployment::start(DeploymentOptions::new("host-guard-stop").postgres(18)).await?;
    let workload = Workload::start(&deployment).await?;
    let epoch = deployment.status().await?.epoch();
    let guard = deployment.process(&format!("guard-{NORTH}"))?;
    guard.stop()?;
    let stopped_ns = monotonic_ns();
    // Nobody sends SIGKILL but the kernel's timer; the agent and all links live on.
    let status = guard.wait_exit(deployment.timing().fenced_at_most()).await?;
    ensure!(
        std::os::unix::process::ExitStatusExt::signal(&status) == Some(libc::SIGKILL),
        "the stopped guard ended by {status}"
    );
    wait_until("both sessions end with the guard", SOON, async || workload.sessions_lost(NORTH)).await?;
    let last = workload.looping(NORTH).last_acknowledged().map_or(0, |row| row.done_ns);
    let wrote_for_ns = last.saturating_sub(stopped_ns);
    let lease_ns = deployment.timing().lease_ttl.as_nanos() as u64;
    ensure!(wrote_for_ns <= lease_ns, "a commit {} ms after the stop", wrote_for_ns / 1_000_000);
    let within = deployment.timing().failover_at_most();
    let done = deployment
        .wait_status("the standby is promoted", within, |status| {
            status.primary() == Some(EAST) && status.operation().is_none_or(|(kind, _)| kind != "failover")
        })
        .await?;
    ensure!(done.epoch() > epoch, "{done}");
    let report = deployment.last_operation("failover").await?;
    // Its agent was heard all the time; there was no guard that could have acknowledged.
    ensure!(report["summary"]["trigger"] == "postgres_down", "{report:#}");
    ensure!(has_rung(&report, "lease_expired", "assumed_by_lease"), "{report:#}");
    ensure!(!has_rung(&report, "acknowledged", "confirmed"), "{report:#}");
    deployment.restart(&format!("guard-{NORTH}"))?;
    let ready = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(ready.primary() == Some(EAST) && ready.epoch() == done.epoch(), "a second outage: {ready}");
    workload.finish(&deployment, LossAllowed::Salvaged).await?;
    deployment.finish().await
}

/// The primary's guard comes back with a state file that says nothing of what it had promised.
async fn forget(
    deployment: &Deployment,
    workload: &mut Workload,
    how: SpoiltState,
    found: &str,
) -> Result<()> {
    let status = deployment.status().await?;
    let (member, epoch) = (primary(&status)?, status.epoch());
    let name = format!("guard-{member}");
    deployment.kill(&name);
    let killed_ns = monotonic_ns();
    deployment.spoil_guard_state(member, how)?;
    deployment.restart(&name)?;
    wait_until("the guard answers", SOON, async || deployment.guard(member).await.is_ok()).await?;
    let guard = deployment.guard(member).await?;
    ensure!(guard["state_file"] == found, "{how:?}: {guard:#}");
    ensure!(guard.get("succeeds").is_none(), "it speaks for an instance that it cannot know: {guard:#}");
    ensure!(guard.get("lease_epoch").is_none() && guard["postgres"] != "primary", "not fenced: {guard:#}");
    let ready = recovered(deployment, workload, killed_ns, epoch).await?;
    // Nobody speaks for the old instance: the lease is waited for, and the standby takes over.
    ensure!(ready.primary() == Some(other(member)), "{how:?}: {ready}");
    let report = deployment.last_operation("failover").await?;
    ensure!(report["summary"]["trigger"] == "instance_changed", "{how:?}: {report:#}");
    ensure!(has_rung(&report, "lease_expired", "assumed_by_lease"), "{how:?}: {report:#}");
    ensure!(!has_rung(&report, "acknowledged", "confirmed"), "{how:?}: {report:#}");
    workload.reopen(deployment, other(member)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_that_has_forgotten_starts_fenced_and_nothing_is_lost() -> Result<()> {
    let deployment = Deployment::start(DeploymentOptions::new("host-guard-state").postgres(18)).await?;
    let mut workload = Workload::start(&deployment).await?;
    let cases = [
        (SpoiltState::Damaged, "damaged"),
        (SpoiltState::Missing, "missing"),
        (SpoiltState::OtherBoot, "other-boot"),
    ];
    for (how, found) in cases {
        forget(&deployment, &mut workload, how, found).await?;
    }
    let kept = deployment.files().guard_state(NORTH).join("guard.state.damaged-1");
    ensure!(kept.is_file(), "the damaged file is no evidence any more: {}", kept.display());
    workload.finish(&deployment, LossAllowed::Salvaged).await?;
    deployment.finish().await
}
