//! A coordinator whose log was damaged on disk: it says so and stays out, the others go on, and it comes back with a copy
//! that was made of it while it was stopped.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::deployment::{
    CLUSTER, Deployment, DeploymentOptions, EAST, NORTH, REGIONS, REJOIN_AT_MOST, Workload,
};

const SOON: Duration = Duration::from_secs(30);

/// Flips a bit of the cluster's name wherever it stands in the file; how often it did.
fn flip(file: &Path) -> Result<usize> {
    let mut bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let name = CLUSTER.as_bytes();
    let places: Vec<usize> =
        (0..bytes.len().saturating_sub(name.len())).filter(|at| bytes[*at..].starts_with(name)).collect();
    for at in &places {
        bytes[*at] ^= 1;
    }
    fs::write(file, bytes)?;
    Ok(places.len())
}

/// Starts the coordinator, which must end by itself; its log.
async fn refuses_to_start(deployment: &Deployment, process: &str) -> Result<String> {
    deployment.restart(process)?;
    let coordinator = deployment.process(process)?;
    let status = coordinator.wait_exit(SOON).await?;
    let log = coordinator.log_text();
    ensure!(!status.success(), "it ended with {status}: {log}");
    deployment.kill(process);
    Ok(log)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_is_named_and_the_group_goes_on() -> Result<()> {
    let options = DeploymentOptions::new("raft-log").postgres(18).partition_timeout(Duration::from_secs(30));
    let deployment = Deployment::start(options).await?;
    let mut workload = Workload::start(&deployment).await?;
    let leader = deployment.leader().await?;
    let region = REGIONS.iter().copied().find(|region| *region != leader).context("no follower")?;
    let process = format!("coordinator-{region}");
    let folder = deployment.files().coordinator(region);
    let file = folder.join("log.redb");

    // Stopped in order, and a copy made before it runs again: it holds the vote that the node has cast.
    let stopped = deployment.process(&process)?;
    stopped.term()?;
    stopped.wait_exit(SOON).await?;
    deployment.kill(&process);
    let clean = fs::read(&file)?;
    ensure!(flip(&file)? > 0, "the cluster's name is not in {}", file.display());
    let log = refuses_to_start(&deployment, &process).await?;
    // redb finds a bad page when it has to repair, our own checksum finds a bad record otherwise, and names its table.
    ensure!(log.contains(&file.display().to_string()), "it does not name the file: {log}");
    ensure!(
        log.contains("damaged: table log") || log.contains("DB corrupted"),
        "it does not say what is wrong: {log}"
    );
    // Nor does it start as new with the log gone: it has forgotten its vote.
    fs::remove_file(&file)?;
    let log = refuses_to_start(&deployment, &process).await?;
    ensure!(log.contains("log.redb"), "{log}");

    // The two others decide and execute.
    let args = ["failover", CLUSTER, "--reason", "a coordinator's disk", "--to", EAST, "--yes", "--wait"];
    let report = deployment.ctl(&args).await?;
    ensure!(report["summary"]["state"] == "done" && report["summary"]["to_member"] == EAST, "{report:#}");
    let moved = deployment.wait_ready(REJOIN_AT_MOST).await?;
    workload.reopen(&deployment, EAST).await?;

    // The clean copy serves: the node catches up.
    fs::write(&file, clean)?;
    deployment.chown(&file)?;
    deployment.restart(&process)?;
    let caught_up = |json: &serde_json::Value| {
        let all = json["coordinators"].as_array().cloned().unwrap_or_default();
        let applied = |one: &serde_json::Value| one["applied_index"].as_u64();
        let this = all.iter().find(|one| one["region"] == region);
        let leading = all.iter().find(|one| one["role"] == "leader");
        matches!((this, leading), (Some(this), Some(leading))
            if (this["role"] == "follower" || this["role"] == "leader") && applied(this) >= applied(leading))
    };
    let status = deployment
        .wait_status("the repaired coordinator has caught up", SOON, |status| caught_up(status.json()))
        .await?;
    ensure!(status.epoch() == moved.epoch() && status.primary() == Some(EAST), "{status}");
    ensure!(deployment.count("failover").await? == 1, "more failovers than asked for");
    ensure!(!workload.sessions_lost(EAST) && workload.sessions_lost(NORTH), "sessions of the wrong side");
    workload.finish(&deployment, LossAllowed::Salvaged).await?;
    deployment.finish().await
}
