//! Coordinators die, restart, or lead from the wrong side of a partition.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::clock::{monotonic_ns, wait_until};
use regent_chaos::real::deployment::{
    CLUSTER, Deployment, DeploymentOptions, EAST, MEMBERS, NORTH, REGIONS, REJOIN_AT_MOST, Workload,
};

const SOON: Duration = Duration::from_secs(30);

/// Kills all coordinators, and starts them with a hook for `step` or none. The primary must not notice.
async fn restart_all(deployment: &Deployment, workload: &Workload, step: Option<&str>) -> Result<()> {
    for region in REGIONS {
        deployment.kill(&format!("coordinator-{region}"));
    }
    let down_ns = monotonic_ns();
    for region in REGIONS {
        deployment.restart_with_hook(region, step)?;
    }
    deployment.wait_leader().await?;
    workload.wait_write_after(down_ns, SOON).await.context("writes while all coordinators restart")?;
    deployment.wait_ready(REJOIN_AT_MOST).await.context("after the restart of all coordinators")?;
    Ok(())
}

/// The coordinator that its hook has killed, if any has been.
fn hooked(deployment: &Deployment) -> Option<&'static str> {
    REGIONS.into_iter().find(|region| {
        deployment
            .process(&format!("coordinator-{region}"))
            .is_ok_and(|coordinator| coordinator.exit_status().is_some())
    })
}

/// An operator's failover to the other member, whose leader dies when `step` was committed.
async fn die_at(deployment: &Deployment, workload: &Workload, step: &str) -> Result<()> {
    let before = deployment.status().await?;
    let from = before.primary().context("no primary")?;
    let to = if from == MEMBERS[0] { MEMBERS[1] } else { MEMBERS[0] };
    let hook = format!("failover:{step}");
    restart_all(deployment, workload, Some(&hook)).await?;
    let epoch = deployment.status().await?.epoch();
    ensure!(epoch == before.epoch(), "the restart of all coordinators cost an epoch");
    let begun_ns = monotonic_ns();
    // Its answer may be lost with the leader.
    let reason = format!("the leader dies at {step}");
    let asked = deployment
        .ctl_from(REGIONS[1], &["failover", CLUSTER, "--to", to, "--reason", &reason, "--yes"])
        .await?;
    wait_until(&format!("a leader dies at {step}"), SOON, async || hooked(deployment).is_some())
        .await
        .with_context(|| format!("regentctl: {asked:?}"))?;
    let dead = hooked(deployment).context("nobody died")?;
    let log = deployment.process(&format!("coordinator-{dead}"))?.log_text();
    ensure!(log.contains(&format!("killing this process after {hook}")), "{dead} died otherwise: {log}");
    // The hooks of the others stay on: they fire only where the step is entered, and it has been.
    let status = deployment.wait_failover(to).await.with_context(|| format!("after the death at {step}"))?;
    ensure!(status.epoch() == epoch + 1, "one failover, one epoch: {status}");
    let report = deployment.last_operation("failover").await?;
    ensure!(report["summary"]["state"] == "done" && report["why"] == reason, "{report:#}");
    ensure!(report["fence"][0]["rung"] == "acknowledged", "the old primary answers: {report:#}");
    workload.wait_write_after(begun_ns, SOON).await?;
    deployment.restart_with_hook(dead, None)?;
    deployment.wait_ready(REJOIN_AT_MOST).await.with_context(|| format!("the rejoin after {step}"))?;
    Ok(())
}

async fn die_at_each(name: &str, major: u32, steps: &[&str]) -> Result<()> {
    let deployment = Deployment::start(DeploymentOptions::new(name).postgres(major)).await?;
    let mut workload = Workload::start(&deployment).await?;
    for step in steps {
        die_at(&deployment, &workload, step).await?;
        workload.reopen_lost(&deployment).await?;
    }
    ensure!(deployment.count("failover").await? == steps.len(), "more failovers than asked for");
    workload.finish(&deployment, LossAllowed::Salvaged).await?;
    deployment.finish().await
}

// *Declare* and *Choose* are no committed steps of their own when a candidate is at hand: the entry that declares has
// decided to fence, and the one that proves the fence has chosen and appointed.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_dies_at_fence_and_promote() -> Result<()> {
    die_at_each("leader-early", 18, &["fence", "promote"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_dies_at_redirect_validate_and_done() -> Result<()> {
    die_at_each("leader-late", 15, &["redirect", "validate", "done"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposed_leader_beside_the_primary_extends_no_lease() -> Result<()> {
    let deployment = Deployment::start(DeploymentOptions::new("deposed").leader_anywhere()).await?;
    deployment.lead_from(NORTH).await?;
    deployment.wait_ready(REJOIN_AT_MOST).await?;
    let workload = Workload::start(&deployment).await?;
    ensure!(deployment.leader().await? == NORTH, "the leader has moved");
    deployment.net().isolate(NORTH)?;
    let cut_ns = monotonic_ns();
    let timing = *deployment.timing();
    // The agent goes on asking the leader beside it, straight; that one finds no quorum for any of its answers.
    let failed = |metric: f64| metric > 3.0;
    wait_until("the isolated leader's rounds fail", SOON, async || {
        deployment.coordinator_metric(NORTH, "regent_rounds_failed_total").await.is_ok_and(failed)
    })
    .await?;
    let granted = deployment.coordinator_metric(NORTH, "regent_leases_granted_total").await?;
    let left = timing.fenced_at_most().saturating_sub(Duration::from_nanos(monotonic_ns() - cut_ns));
    wait_until("the isolated sessions end", left, async || workload.sessions_lost(NORTH)).await?;
    let later = deployment.coordinator_metric(NORTH, "regent_leases_granted_total").await?;
    ensure!(later == granted, "{} leases granted without a quorum", later - granted);
    let last = workload.looping(NORTH).last_acknowledged().context("no commit in the loop")?;
    let after_ms = last.done_ns.saturating_sub(cut_ns) / 1_000_000;
    ensure!(
        u128::from(after_ms) <= timing.lease_ttl.as_millis(),
        "it wrote for {after_ms} ms after the cut, its lease was {:?}",
        timing.lease_ttl
    );
    deployment.wait_failover(EAST).await?;
    let report = deployment.last_operation("failover").await?;
    ensure!(report["summary"]["trigger"] == "partition", "{report:#}");
    ensure!(report["fence"][0]["rung"] == "lease_expired", "{report:#}");
    let leader = deployment.leader().await?;
    ensure!(leader != NORTH, "the isolated coordinator leads");
    let done = deployment.status().await?;
    deployment.net().heal();
    let healed = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(healed.epoch() == done.epoch() && healed.primary() == Some(EAST), "a second outage: {healed}");
    workload.finish(&deployment, LossAllowed::Salvaged).await?;
    deployment.finish().await
}
