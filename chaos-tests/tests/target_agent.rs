//! Death of the agent that is to be promoted, at each committed step of the failover: the leader stops itself after the
//! commit, the agent is killed, the leader goes on.

use std::time::Duration;

use anyhow::{Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::deployment::{
    CLUSTER, Deployment, DeploymentOptions, EAST, NORTH, REGIONS, REJOIN_AT_MOST, Stops, Workload,
};

const SOON: Duration = Duration::from_secs(30);

fn options(name: &str, step: &str) -> DeploymentOptions {
    REGIONS
        .iter()
        .fold(DeploymentOptions::new(name).postgres(18), |options, region| options.stop_hook(region, step))
}

/// Asks for a failover to EAST, and does not wait for the answer: the leader stops before it gives one.
async fn ask(deployment: &Deployment) -> Result<tokio::process::Child> {
    let epoch = deployment.status().await?.epoch().to_string();
    let mut args = vec!["failover", CLUSTER, "--reason", "to see an agent die", "--to", EAST, "--yes"];
    args.extend(["--expected-epoch", &epoch]);
    Ok(deployment.ctl_command(&args).spawn()?)
}

fn agent() -> String {
    format!("agent-{EAST}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_dies_at_every_step_and_returns_is_promoted_once() -> Result<()> {
    let deployment = Deployment::start(options("target-steps", "failover:*")).await?;
    let workload = Workload::start(&deployment).await?;
    let epoch = deployment.status().await?.epoch();
    let mut stops = Stops::default();
    let mut asked = ask(&deployment).await?;
    let mut steps = Vec::new();
    while steps.last().is_none_or(|step| step != "failover:done") {
        let (step, stopped) = stops.next(&deployment, SOON).await?;
        deployment.kill(&agent());
        stopped.cont()?;
        deployment.restart(&agent())?;
        steps.push(step);
    }
    asked.wait().await?;
    let wanted = ["fence", "promote", "redirect", "validate", "done"].map(|step| format!("failover:{step}"));
    let mut once = steps.clone();
    // Without a report of the candidate in time, it is collected in `choose`.
    once.retain(|step| step != "failover:choose");
    ensure!(once == wanted, "the steps were {steps:?}");
    let done = deployment.wait_failover(EAST).await?;
    ensure!(done.epoch() == epoch + 1, "more than one appointment: {done}");
    let report = deployment.last_operation("failover").await?;
    ensure!(report["summary"]["state"] == "done", "{report:#}");
    ensure!(report["fence"][0]["rung"] == "acknowledged", "{report:#}");
    let status = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(status.primary() == Some(EAST) && status.epoch() == epoch + 1, "{status}");
    workload.finish(&deployment, LossAllowed::Salvaged).await?;
    deployment.finish().await
}

/// The target's agent dies after `step` and stays dead: the old primary is appointed again, at a new epoch.
async fn stays_dead(name: &str, step: &str, epochs: u64) -> Result<()> {
    let impatient =
        options(name, step).policy("promote_timeout", "\"15s\"").policy("replay_timeout", "\"4s\"");
    let deployment = Deployment::start(impatient).await?;
    let workload = Workload::start(&deployment).await?;
    let before = deployment.status().await?;
    let mut asked = ask(&deployment).await?;
    let (stopped_at, stopped) = Stops::default().next(&deployment, SOON).await?;
    ensure!(stopped_at == step, "stopped at {stopped_at}");
    deployment.kill(&agent());
    stopped.cont()?;
    asked.wait().await?;
    let back = deployment
        .wait_status("the old primary is back", deployment.timing().failover_at_most() * 2, |status| {
            // A rejoin of the dead agent's member may have begun; it waits for it.
            let failing_over = status.operation().is_some_and(|(kind, _)| kind == "failover");
            status.primary() == Some(NORTH) && !failing_over && status.epoch() > before.epoch()
        })
        .await?;
    ensure!(back.epoch() == before.epoch() + epochs, "{back}");
    let report = deployment.last_operation("failover").await?;
    ensure!(report["summary"]["state"] == "rolled_back", "{report:#}");
    let reason = report["summary"]["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains(&format!("{EAST}: no report")), "why: {reason}");
    let rungs: Vec<_> = report["fence"].as_array().into_iter().flatten().map(|one| &one["rung"]).collect();
    // The second one for the target's own epoch: it might have promoted, and could not be asked.
    let wanted = ["acknowledged", "lease_expired"];
    ensure!(rungs == wanted[..epochs as usize], "{report:#}");
    deployment.restart(&agent())?;
    let status = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(status.primary() == Some(NORTH), "{status}");
    // Every acknowledged row was the old primary's.
    workload.finish(&deployment, LossAllowed::Nothing).await?;
    deployment.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_dies_before_it_is_asked_leaves_the_old_primary() -> Result<()> {
    stays_dead("target-gone-fence", "failover:fence", 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_dies_before_it_promotes_loses_its_appointment() -> Result<()> {
    stays_dead("target-gone-promote", "failover:promote", 2).await
}
