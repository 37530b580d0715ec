//! The quorum is lost for good (DESIGN section 11): all coordinators and their disks are gone while the primary writes on by
//! promises; a new group takes the cluster over without an outage, and the old coordinators, should they come back after
//! all, move nobody.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::clock::{monotonic_ns, wait_until};
use regent_chaos::real::deployment::{
    CLUSTER, Deployment, DeploymentOptions, EAST, NORTH, REGIONS, REJOIN_AT_MOST, WITNESS, Workload,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

async fn health(deployment: &Deployment, member: &str) -> Result<Value> {
    let (_, body) = deployment.agent_http(member, "/health").await?;
    serde_json::from_str(&body).with_context(|| body.clone())
}

/// Until the primary writes by its standby's promise.
async fn by_promise(deployment: &Deployment, workload: &Workload, primary: &str, by: &str) -> Result<()> {
    wait_until("the primary runs on by its standby's promise", SOON, async || {
        health(deployment, primary)
            .await
            .is_ok_and(|health| health["report"]["promise"]["extended"]["by"][0] == by)
    })
    .await?;
    writes(workload, primary).await
}

/// The session that is held open to the member commits: without coordinators there is no name to write by.
async fn writes(workload: &Workload, member: &str) -> Result<()> {
    let from_ns = monotonic_ns();
    let journal = workload.held(member);
    wait_until("a row acknowledged in the open session", SOON, async || {
        journal.first_acknowledged_after(from_ns).is_some()
    })
    .await
    .with_context(|| format!("{member}: {:?}", journal.last_trouble()))
}

async fn past_leases(deployment: &Deployment, count: u32) -> Result<()> {
    let (lease, from_ns) = (deployment.timing().lease_ttl, monotonic_ns());
    let then_ns = from_ns + (lease * count).as_nanos() as u64;
    wait_until("leases that would have ended", lease * (count + 1), async || monotonic_ns() > then_ns).await
}

fn kill_coordinators(deployment: &Deployment) {
    for region in REGIONS {
        deployment.kill(&format!("coordinator-{region}"));
    }
}

/// Every coordinator's directory becomes `aside`; what was in `back` takes its place, or an empty one.
fn swap(deployment: &Deployment, aside: &str, back: Option<&str>) -> Result<()> {
    for region in REGIONS {
        let own = deployment.files().coordinator(region);
        let named = |name: &str| own.with_file_name(format!("coordinator-{region}-{name}"));
        fs::rename(&own, named(aside))?;
        match back {
            Some(back) => fs::rename(named(back), &own)?,
            None => {
                fs::create_dir(&own)?;
                deployment.chown(&own)?;
            }
        }
    }
    deployment.start_coordinators()
}

async fn import(deployment: &Deployment, more: &[&str]) -> Result<Value> {
    let mut last = String::new();
    let args = ["import", CLUSTER, "--reason", "all coordinators are lost", "--output", "json"];
    let args = [&args[..], more].concat();
    let mut answer = None;
    wait_until("the import is accepted", SOON, async || match deployment.ctl_from(WITNESS, &args).await {
        Ok(done) if done.code == 0 => {
            answer = Some(done);
            true
        }
        Ok(refused) => {
            last = format!("{refused:?}");
            false
        }
        Err(error) => {
            last = format!("{error:#}");
            false
        }
    })
    .await
    .with_context(|| last.clone())?;
    let answer = answer.context("no answer")?;
    serde_json::from_str(&answer.stdout).with_context(|| format!("{answer:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_lost_for_good_is_replaced_while_the_primary_writes_on() -> Result<()> {
    let deployment = Deployment::start(DeploymentOptions::new("import")).await?;
    let epoch = deployment.status().await?.epoch();
    wait_until("the members obey the group", SOON, async || {
        fs::read_to_string(deployment.files().agent_state(NORTH).join("agent.state"))
            .is_ok_and(|text| text.contains("\"group\":\""))
    })
    .await?;
    let workload = Workload::start(&deployment).await?;
    kill_coordinators(&deployment);
    by_promise(&deployment, &workload, NORTH, EAST).await?;
    // Without a coordinator the member itself says by whose promise it writes.
    let said = deployment.agent_status(NORTH).await?;
    ensure!(said.contains(&format!("writes continue by promise of {EAST} until")), "{said}");

    swap(&deployment, "old", None)?;
    deployment.wait_leader().await?;
    // A group that has not taken the cluster over is no answer: promises go on.
    past_leases(&deployment, 2).await?;
    by_promise(&deployment, &workload, NORTH, EAST).await?;
    let plan = import(&deployment, &["--dry-run"]).await?.to_string();
    ensure!(plan.contains(&format!("{NORTH} is to be primary")), "{plan}");
    let refused = deployment
        .ctl_from(WITNESS, &["import", CLUSTER, "--reason", "x", "--dry-run", "--expected-epoch", "77"])
        .await?;
    ensure!(refused.code != 0 && format!("{refused:?}").contains("epoch 77 was expected"), "{refused:?}");
    import(&deployment, &[]).await?;
    let back = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(back.primary() == Some(NORTH) && back.epoch() == epoch + 1, "not above the old epoch: {back}");
    ensure!(!workload.sessions_lost(NORTH), "a session of the healthy primary was lost");
    writes(&workload, NORTH).await?;

    // The new group can do everything.
    let args = ["failover", CLUSTER, "--reason", "to see", "--to", EAST, "--yes"];
    let answer = deployment.ctl_from(WITNESS, &args).await?;
    ensure!(answer.code == 0, "{answer:?}");
    deployment.wait_failover(EAST).await?;
    deployment.wait_ready(REJOIN_AT_MOST).await?;

    // The old coordinators come back with their disks, and the new ones are away: nobody heeds the old ones.
    kill_coordinators(&deployment);
    swap(&deployment, "new", Some("old"))?;
    deployment.wait_leader().await?;
    by_promise(&deployment, &workload, EAST, NORTH).await?;
    past_leases(&deployment, 3).await?;
    by_promise(&deployment, &workload, EAST, NORTH).await?;
    let north = health(&deployment, NORTH).await?;
    ensure!(
        north["report"]["postgres"]["state"] == "standby"
            && north["report"]["guard"]["lease_epoch"].is_null(),
        "BROKEN PROMISE: the old coordinators have moved {NORTH}: {north:#}"
    );
    kill_coordinators(&deployment);
    swap(&deployment, "old-again", Some("new"))?;
    let back = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(back.primary() == Some(EAST) && back.epoch() == epoch + 2, "{back}");
    workload.finish(&deployment, LossAllowed::Salvaged).await?;
    deployment.finish().await
}
