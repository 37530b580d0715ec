//! A rolling upgrade of Regent under load, in the order of docs/upgrade.md. The older build is played by `feature_level_max = 1`:
//! such a coordinator announces, reads and writes no more than a build of level 1 could. What earlier builds *wrote* is read by the
//! tests called `earlier`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::clock::{monotonic_ns, wait_until};
use regent_chaos::real::deployment::{
    CLUSTER, Deployment, DeploymentOptions, EAST, MEMBERS, NORTH, REGIONS, REJOIN_AT_MOST, WITNESS, Workload,
};

/// A busy machine must not make a partition of its own.
const PATIENT: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(60);
const OLDER: &str = "feature_level_max = 1\n";

fn set_build(deployment: &Deployment, region: &str, older: bool) -> Result<()> {
    let path = deployment.files().config(&format!("coordinator-{region}"));
    let text = fs::read_to_string(&path)?;
    let plain = text.strip_prefix(OLDER).unwrap_or(&text);
    let next = if older { format!("{OLDER}{plain}") } else { plain.to_owned() };
    fs::write(&path, next).with_context(|| format!("writing {}", path.display()))
}

async fn level(deployment: &Deployment) -> Result<u64> {
    let status = deployment.status().await?;
    status.json()["feature_level"].as_u64().with_context(|| format!("no level: {status}"))
}

/// Stopped as a service manager stops it, started as the other build.
async fn upgrade(deployment: &Deployment, region: &str) -> Result<()> {
    let name = format!("coordinator-{region}");
    let process = deployment.process(&name)?;
    process.term()?;
    process.wait_exit(SOON).await?;
    set_build(deployment, region, false)?;
    deployment.restart(&name)?;
    deployment
        .wait_status("it is back and knows more", SOON, |status| {
            let all = status.json()["coordinators"].as_array().cloned().unwrap_or_default();
            all.iter().any(|one| {
                one["region"] == region
                    && one["feature_level"].as_u64() >= Some(2)
                    && (one["role"] == "follower" || one["role"] == "leader")
            })
        })
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regent_is_upgraded_one_process_at_a_time_and_the_way_back_is_closed_by_the_level() -> Result<()> {
    let deployment = Deployment::prepare(DeploymentOptions::new("upgrade").partition_timeout(PATIENT))?;
    for region in REGIONS {
        set_build(&deployment, region, true)?;
    }
    deployment.start_coordinators()?;
    deployment.start_members()?;
    deployment.wait_ready(Duration::from_secs(120)).await?;
    deployment.make_application().await?;
    let workload = Workload::start(&deployment).await?;
    let first = deployment.status().await?;
    ensure!(level(&deployment).await? == 1, "{first}");

    // Two of three are new: the leader last. What the last one could not read is refused with both levels.
    let leader = deployment.leader().await?;
    let others: Vec<&str> = REGIONS.into_iter().filter(|region| *region != leader).collect();
    for region in &others {
        upgrade(&deployment, region).await?;
    }
    ensure!(level(&deployment).await? == 1, "raised while one could not read it");
    let args = ["postgres", "set", CLUSTER, "work_mem=7MB", "--reason", "too early"];
    let refused = deployment.ctl_from(WITNESS, &args).await?;
    ensure!(refused.code == 1 && refused.stderr.contains("feature level 2"), "{refused:?}");

    // Mixed, it fails over.
    let begun_ns = monotonic_ns();
    deployment.ctl(&["failover", CLUSTER, "--reason", "mixed", "--to", EAST, "--yes"]).await?;
    deployment.wait_failover(EAST).await?;
    workload.wait_write_after(begun_ns, SOON).await?;
    let mixed = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(mixed.epoch() == first.epoch() + 1, "{mixed}");

    // The last one: the level rises by itself, and what is new works.
    upgrade(&deployment, &leader).await?;
    deployment
        .wait_status("the level is raised", SOON, |status| status.json()["feature_level"].as_u64() >= Some(2))
        .await?;
    let (before, begun_ns) = (deployment.status().await?, monotonic_ns());
    deployment.ctl(&["postgres", "set", CLUSTER, "work_mem=7MB", "--reason", "now"]).await?;

    // Agents, in any order: neither guard nor PostgreSQL notices.
    for member in [NORTH, EAST] {
        let run = deployment.postgres_run(member).await?;
        let agent = deployment.process(&format!("agent-{member}"))?;
        agent.term()?;
        agent.wait_exit(SOON).await?;
        deployment.restart(&format!("agent-{member}"))?;
        deployment.wait_ready(SOON).await?;
        ensure!(deployment.postgres_run(member).await? == run, "{member}: PostgreSQL was restarted");
    }
    workload.wait_write_after(begun_ns, SOON).await?;
    let after = deployment.wait_ready(SOON).await?;
    ensure!(after.epoch() == before.epoch() && after.primary() == Some(EAST), "{after}");

    // No way back: the older build meets what it cannot read, says so and stops; the others go on without it.
    let back = others[0];
    let name = format!("coordinator-{back}");
    deployment.kill(&name);
    set_build(&deployment, back, true)?;
    deployment.restart(&name)?;
    let log = deployment.process(&name)?;
    wait_until("it says what it has met", SOON, async || {
        log.log_text().contains("this node understands levels up to 1")
    })
    .await
    .with_context(|| log.log_tail())?;
    let again_ns = monotonic_ns();
    workload.wait_write_after(again_ns, SOON).await?;
    deployment.kill(&name);
    set_build(&deployment, back, false)?;
    deployment.restart(&name)?;
    for member in MEMBERS {
        let session = deployment.pg(member).await?;
        let shown: String = session.client().query_one("SHOW work_mem", &[]).await?.get(0);
        ensure!(shown == "7MB", "{member}: {shown}");
    }
    deployment.wait_ready(SOON).await?;
    workload.finish(&deployment, LossAllowed::Salvaged).await?;
    deployment.finish().await
}
