//! Promises between members (DESIGN section 6): no coordinator answers, and the primary runs on while its standby has promised not
//! to be promoted; the standby keeps its promise against a quorum that wants to promote it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::clock::{monotonic_ns, wait_until};
use regent_chaos::real::deployment::{
    Deployment, DeploymentOptions, EAST, NORTH, REJOIN_AT_MOST, SpoiltState, WITNESS, Workload,
};
use regent_chaos::real::link::CutDirection;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

/// The promise by which the member runs on, as its agent tells.
async fn extended(deployment: &Deployment, member: &str) -> Result<Value> {
    let (_, body) = deployment.agent_http(member, "/health").await?;
    let health: Value = serde_json::from_str(&body).with_context(|| body.clone())?;
    Ok(health["report"]["promise"]["extended"].clone())
}

async fn runs_on_by_promise(deployment: &Deployment, workload: &Workload) -> Result<()> {
    wait_until("the primary runs on by its standby's promise", SOON, async || {
        extended(deployment, NORTH).await.is_ok_and(|extended| extended["by"][0] == EAST)
    })
    .await?;
    workload.wait_write_after(monotonic_ns(), SOON).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_quorum_harms_no_primary_whose_standby_consents() -> Result<()> {
    let deployment = Deployment::start(DeploymentOptions::new("promise-kept")).await?;
    let epoch = deployment.status().await?.epoch();
    let workload = Workload::start(&deployment).await?;
    for region in [WITNESS, EAST] {
        deployment.kill(&format!("coordinator-{region}"));
    }
    let lost_ns = monotonic_ns();
    let past = |leases: u32| {
        let lease = deployment.timing().lease_ttl;
        let then_ns = lost_ns + (lease * leases).as_nanos() as u64;
        wait_until("leases that would have ended", lease * (leases + 1), async move || {
            monotonic_ns() > then_ns
        })
    };
    past(2).await?;
    runs_on_by_promise(&deployment, &workload).await?;
    // The list of whom to ask survives the agent, the promise survives the guard that gave it.
    deployment.restart(&format!("agent-{NORTH}"))?;
    past(4).await?;
    runs_on_by_promise(&deployment, &workload).await?;
    let promised = deployment.guard(EAST).await?;
    deployment.restart(&format!("guard-{EAST}"))?;
    wait_until("the guard that promised is back", SOON, async || {
        deployment.guard(EAST).await.is_ok_and(|status| status["instance"] != promised["instance"])
    })
    .await?;
    let after = deployment.guard(EAST).await?;
    ensure!(
        after["promised_epoch"].as_str() == Some(&*epoch.to_string()),
        "the promise is forgotten: {after:#}"
    );
    past(6).await?;
    runs_on_by_promise(&deployment, &workload).await?;
    ensure!(!workload.sessions_lost(NORTH), "a session of the healthy primary was lost");
    for region in [WITNESS, EAST] {
        deployment.restart(&format!("coordinator-{region}"))?;
    }
    let back = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(back.epoch() == epoch && back.primary() == Some(NORTH), "an outage after all: {back}");
    ensure!(deployment.count("failover").await? == 0, "a failover for nothing");
    ensure!(!workload.sessions_lost(NORTH), "a session of the healthy primary was lost");
    workload.finish(&deployment, LossAllowed::Nothing).await?;
    deployment.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_quorum_fences_a_primary_whose_standby_is_silent() -> Result<()> {
    let deployment = Deployment::start(DeploymentOptions::new("promise-silent")).await?;
    let epoch = deployment.status().await?.epoch();
    let workload = Workload::start(&deployment).await?;
    for region in [WITNESS, EAST] {
        deployment.kill(&format!("coordinator-{region}"));
    }
    runs_on_by_promise(&deployment, &workload).await?;
    deployment.net().cut(NORTH, EAST, CutDirection::Both)?;
    let cut_ns = monotonic_ns();
    let timing = *deployment.timing();
    // The last promise is no longer than a lease.
    wait_until("the primary is fenced", timing.fenced_at_most() + SOON, async || {
        workload.sessions_lost(NORTH)
    })
    .await?;
    let last = workload.looping(NORTH).last_acknowledged().context("no commit in the loop")?;
    let after_ms = last.done_ns.saturating_sub(cut_ns) / 1_000_000;
    ensure!(
        u128::from(after_ms) <= timing.lease_ttl.as_millis() + 500,
        "BROKEN PROMISE: it wrote for {after_ms} ms after the cut, a promise lasts {:?}",
        timing.lease_ttl
    );
    deployment.net().heal();
    for region in [WITNESS, EAST] {
        deployment.restart(&format!("coordinator-{region}"))?;
    }
    let back = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(back.epoch() == epoch && back.primary() == Some(NORTH), "it did not come back by itself: {back}");
    workload.finish(&deployment, LossAllowed::Nothing).await?;
    deployment.finish().await
}

/// The primary is cut from every coordinator, and not from its standby: it runs on by promises until the quorum has decided to
/// fence it, and the standby is promoted when its last promise has ended, not before, and by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quorum_waits_for_the_last_promise_and_goes_on_by_itself() -> Result<()> {
    let deployment = Deployment::start(DeploymentOptions::new("promise-waits")).await?;
    let workload = Workload::start(&deployment).await?;
    // Its agent knows its own region's coordinator only, and that one dies.
    let config = deployment.files().config(&format!("agent-{NORTH}"));
    let text = fs::read_to_string(&config)?;
    let line = text.lines().find(|line| line.starts_with("coordinators = ")).context("no coordinators")?;
    let first = line.split('"').nth(1).context("no address")?;
    fs::write(&config, text.replace(line, &format!("coordinators = [{first:?}]")))?;
    deployment.kill(&format!("coordinator-{NORTH}"));
    deployment.restart(&format!("agent-{NORTH}"))?;
    runs_on_by_promise(&deployment, &workload).await?;
    let waiting = |status: &regent_chaos::real::deployment::Status| {
        let text =
            status.json()["clusters"][0]["operation"]["reason"].as_str().unwrap_or_default().to_owned();
        text.contains("it has promised not to be promoted for another")
    };
    deployment
        .wait_status("the failover waits for the promise", deployment.timing().failover_at_most(), waiting)
        .await?;
    let refused_ns = monotonic_ns();
    deployment
        .wait_status("promoted by itself", deployment.timing().failover_at_most(), |status| {
            status.primary() == Some(EAST) && status.idle()
        })
        .await?;
    let report = deployment.last_operation("failover").await?;
    ensure!(report["fence"][0]["rung"] == "lease_expired", "{report:#}");
    let last = workload.looping(NORTH).last_acknowledged().context("no commit in the loop")?;
    let more_ms = last.done_ns.saturating_sub(refused_ns) / 1_000_000;
    ensure!(
        u128::from(more_ms) <= deployment.timing().lease_ttl.as_millis(),
        "BROKEN PROMISE: it wrote for {more_ms} ms after the quorum had decided to fence it"
    );
    fs::write(&config, text)?;
    deployment.restart(&format!("agent-{NORTH}"))?;
    deployment.restart(&format!("coordinator-{NORTH}"))?;
    deployment.wait_ready(REJOIN_AT_MOST).await?;
    // The reigns do not overlap: the checker looks.
    workload.finish(&deployment, LossAllowed::Salvaged).await?;
    deployment.finish().await
}

/// The promiser's guard comes back without its file, with a damaged one, and with one of another boot: it may have promised, so
/// it holds for as long as it could have; the primary's next requests are answered, and nothing moves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promiser_that_has_forgotten_holds_as_long_as_it_could_have_promised() -> Result<()> {
    let deployment = Deployment::start(DeploymentOptions::new("promise-forgotten")).await?;
    let epoch = deployment.status().await?.epoch();
    let workload = Workload::start(&deployment).await?;
    for region in [WITNESS, EAST] {
        deployment.kill(&format!("coordinator-{region}"));
    }
    runs_on_by_promise(&deployment, &workload).await?;
    let name = format!("guard-{EAST}");
    for (how, found) in [
        (SpoiltState::Damaged, "damaged"),
        (SpoiltState::Missing, "missing"),
        (SpoiltState::OtherBoot, "other-boot"),
    ] {
        deployment.kill(&name);
        deployment.spoil_guard_state(EAST, how)?;
        let before_ns = monotonic_ns();
        deployment.restart(&name)?;
        let mut after = Value::Null;
        wait_until("the guard that has forgotten is back", SOON, async || {
            after = deployment.guard(EAST).await.unwrap_or_default();
            after["state_file"] == found
        })
        .await?;
        let until_ns: u64 = after["promised_until_ns"].as_str().unwrap_or("0").parse()?;
        ensure!(until_ns > before_ns, "{how:?}: it takes itself for free: {after:#}");
        runs_on_by_promise(&deployment, &workload).await?;
        // The agents forget nothing either, whichever of them restarts.
        deployment.restart(&format!("agent-{EAST}"))?;
        deployment.restart(&format!("agent-{NORTH}"))?;
        let kept = deployment.files().agent_state(NORTH).join("promised.until");
        ensure!(kept.is_file(), "until when promises last is not on disk: {}", kept.display());
        runs_on_by_promise(&deployment, &workload).await?;
    }
    for region in [WITNESS, EAST] {
        deployment.restart(&format!("coordinator-{region}"))?;
    }
    let back = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(back.epoch() == epoch && back.primary() == Some(NORTH), "an outage after all: {back}");
    ensure!(!workload.sessions_lost(NORTH), "a session of the healthy primary was lost");
    workload.finish(&deployment, LossAllowed::Nothing).await?;
    deployment.finish().await
}
