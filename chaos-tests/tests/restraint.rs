//! What holds an automatic failover back on real processes: the mode `approve`, and flap damping; and what `explain` says
//! meanwhile.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::deployment::{
    CLUSTER, Deployment, DeploymentOptions, EAST, NORTH, REJOIN_AT_MOST, Status, Workload,
};

const SOON: Duration = Duration::from_secs(30);

fn pending(status: &Status) -> bool {
    status.json()["clusters"][0]["restraint"]["pending"].is_object()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_approve_a_lost_region_waits_prepared_until_an_operator_says_go() -> Result<()> {
    let deployment = Deployment::start(DeploymentOptions::new("approve")).await?;
    deployment.ctl(&["automation", CLUSTER, "approve", "--reason", "the first weeks"]).await?;
    let workload = Workload::start(&deployment).await?;
    let before = deployment.status().await?;
    let explained = deployment.ctl(&["explain", CLUSTER]).await?;
    ensure!(explained["would_if_silent"] == false, "{explained:#}");
    ensure!(explained["if_silent"].as_str().is_some_and(|text| text.contains("approve")), "{explained:#}");

    deployment.net().isolate(NORTH)?;
    let waits = deployment.wait_status("a failover waits", deployment.timing().failover_at_most(), pending);
    let status = waits.await?;
    ensure!(status.epoch() == before.epoch() && status.fenced_through() < status.epoch(), "fenced: {status}");
    // During the cut the explanation names the silence and who can take over.
    let explained = deployment.ctl(&["explain", CLUSTER]).await?;
    ensure!(explained["triggers"][0]["holds"] == true, "{explained:#}");
    let able = explained["candidates"].as_array().into_iter().flatten();
    let able: Vec<_> = able.filter(|one| one["able"] == true).map(|one| one["member"].clone()).collect();
    ensure!(able == [EAST], "{explained:#}");

    let approved = deployment.ctl(&["approve", CLUSTER, "--reason", "seen by bob"]).await?;
    let id = approved["operation"].as_u64().with_context(|| format!("approved what? {approved}"))?;
    deployment.wait_failover(EAST).await?;
    let report = deployment.operation(id).await?;
    ensure!(report["requested_by"] == "regent://operator/alice", "{report:#}");
    ensure!(report["why"].as_str().is_some_and(|why| why.contains("seen by bob")), "{report:#}");
    ensure!(report["evidence"]["triggers"][0]["holds"] == true, "no evidence of the silence: {report:#}");
    deployment.net().heal();
    deployment.wait_ready(REJOIN_AT_MOST).await?;
    workload.finish(&deployment, LossAllowed::Salvaged).await?;
    deployment.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_failover_within_the_cooldown_waits_for_an_acknowledgement() -> Result<()> {
    let options = DeploymentOptions::new("damping").policy("cooldown", "\"1h\"");
    let deployment = Deployment::start(options).await?;
    deployment.lose_host(NORTH)?;
    deployment.wait_failover(EAST).await?;
    let report = deployment.last_operation("failover").await?;
    let heard = report["evidence"]["heard"].as_array().cloned().unwrap_or_default();
    ensure!(heard.iter().any(|one| one["member"] == NORTH && one["coordinator"].is_u64()), "{report:#}");
    deployment.net().heal();
    deployment.start_region(NORTH)?;
    let ready = deployment.wait_ready(REJOIN_AT_MOST).await?;

    deployment.lose_host(EAST)?;
    let waits =
        deployment.wait_status("the second one waits", deployment.timing().failover_at_most(), pending);
    let status = waits.await?;
    ensure!(status.epoch() == ready.epoch() && status.primary() == Some(EAST), "{status}");
    let explained = deployment.ctl(&["explain", CLUSTER]).await?;
    let guards = explained["guards"].as_array().cloned().unwrap_or_default();
    ensure!(
        guards.iter().any(|guard| guard["name"] == "cooldown" && guard["holds"] == false),
        "{explained:#}"
    );
    deployment.ctl(&["acknowledge", CLUSTER, "--reason", "the switch is replaced"]).await?;
    deployment.wait_failover(NORTH).await?;
    deployment.net().heal();
    deployment.start_region(EAST)?;
    deployment.wait_ready(REJOIN_AT_MOST + SOON).await?;
    deployment.finish().await
}
