//! The whole host of the primary is lost at once, and comes back.

use anyhow::{Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::clock::monotonic_ns;
use regent_chaos::real::deployment::{Deployment, DeploymentOptions, EAST, NORTH, REJOIN_AT_MOST, Workload};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_lost_at_once_rejoins_when_it_is_back() -> Result<()> {
    let deployment = Deployment::start(DeploymentOptions::new("host-lost")).await?;
    let workload = Workload::start(&deployment).await?;
    let epoch = deployment.status().await?.epoch();
    let instance = deployment.postgres_run(NORTH).await?.instance;
    let lost_ns = monotonic_ns();
    deployment.lose_host(NORTH)?;
    let within = deployment.timing().failover_at_most();
    let first = workload.wait_write_after(lost_ns, within).await?;
    ensure!(first.server == deployment.server_name(EAST)?, "the first write went to {}", first.server);
    let done = deployment
        .wait_status("the failover is done", within, |status| {
            status.primary() == Some(EAST) && status.operation().is_none_or(|(kind, _)| kind != "failover")
        })
        .await?;
    ensure!(done.epoch() == epoch + 1 && done.fenced_through() >= epoch, "{done}");
    let report = deployment.last_operation("failover").await?;
    ensure!(
        report["summary"]["trigger"] == "partition" && report["summary"]["state"] == "done",
        "{report:#}"
    );
    let rungs = report["fence"].as_array().cloned().unwrap_or_default();
    ensure!(rungs.len() == 1 && rungs[0]["rung"] == "lease_expired", "nobody could answer: {report:#}");
    // Its processes first: they find an old state and nobody to ask, and must not write.
    deployment.start_region(NORTH)?;
    let returned_ns = monotonic_ns();
    deployment.net().heal();
    let ready = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(ready.primary() == Some(EAST) && ready.epoch() == done.epoch(), "a second outage: {ready}");
    let guard = deployment.guard(NORTH).await?;
    ensure!(guard["postgres"] == "standby" && guard.get("lease_epoch").is_none(), "{guard:#}");
    ensure!(guard["succeeds"] == instance.as_str(), "the same boot, a whole state file: {guard:#}");
    let rejoin = deployment.last_operation("rejoin").await?;
    ensure!(rejoin["summary"]["state"] == "done", "{rejoin:#}");
    ensure!(rejoin["steps"].to_string().contains(&format!("streams epoch {}", done.epoch())), "{rejoin:#}");
    workload.wait_write_after(returned_ns, within).await?;
    workload.finish(&deployment, LossAllowed::Salvaged).await?;
    deployment.finish().await
}
