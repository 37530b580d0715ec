//! Servers that were made without Regent are taken over: one restart of each, no clone, nothing lost; then they fail over.

use std::time::Duration;

use anyhow::{Result, ensure};
use regent_chaos::real::clock::wait_until;
use regent_chaos::real::deployment::{
    CLUSTER, Deployment, DeploymentOptions, EAST, NORTH, REJOIN_AT_MOST, WITNESS,
};

const PATIENT: Duration = Duration::from_secs(30);

async fn rows(deployment: &Deployment, member: &str) -> Result<i64> {
    let session = deployment.pg(member).await?;
    Ok(session.client().query_one("SELECT count(*) FROM before_regent", &[]).await?.get(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_primary_and_its_standby_are_adopted_and_fail_over() -> Result<()> {
    let options = DeploymentOptions::new("adopt").postgres(18).partition_timeout(PATIENT).without_cluster();
    let deployment = Deployment::prepare(options)?;
    deployment.make_servers_by_hand()?;
    deployment.start_coordinators()?;
    deployment.wait_leader().await?;
    let file = deployment.cluster_file()?.display().to_string();
    let id = deployment.system_id(NORTH)?;

    // What it costs is said before.
    let args = ["adopt", "--file", &file, "--system-id", &id, "--reason", "moving in"];
    let plan = deployment.ctl(&[&args[..], &["--dry-run"]].concat()).await?.to_string();
    for word in ["one restart of each server", "wal_log_hints", "include_if_exists", "pg_hba.conf"] {
        ensure!(plan.contains(word), "the dry run does not say {word}: {plan}");
    }
    // A guard kills nothing that it has not started.
    deployment.restart(&format!("guard-{NORTH}"))?;
    let guard = deployment.process(&format!("guard-{NORTH}"))?;
    wait_until("the guard's refusal", PATIENT, async || guard.exit_status().is_some()).await?;
    ensure!(guard.log_text().contains("runs without a guard"), "{}", guard.log_text());
    deployment.kill(&format!("guard-{NORTH}"));
    ensure!(
        rows(&deployment, NORTH).await? == 1000 && rows(&deployment, EAST).await? == 1000,
        "rows by hand"
    );

    deployment.ctl(&args).await?;
    let conf_before = std::fs::read_to_string(deployment.files().data(NORTH).join("postgresql.conf"))?;
    for member in [EAST, NORTH] {
        deployment.stop_by_hand(member)?;
        deployment.restart(&format!("guard-{member}"))?;
        deployment.restart(&format!("agent-{member}"))?;
    }
    let status = deployment.wait_ready(Duration::from_secs(120)).await?;
    ensure!(status.primary() == Some(NORTH) && status.epoch() == 1, "{status}");
    ensure!(
        rows(&deployment, NORTH).await? == 1000 && rows(&deployment, EAST).await? == 1000,
        "rows are gone"
    );
    let conf = std::fs::read_to_string(deployment.files().data(NORTH).join("postgresql.conf"))?;
    let added = conf.strip_prefix(&conf_before);
    ensure!(
        added.is_some_and(|added| added.contains("include_if_exists")),
        "postgresql.conf was rewritten: {conf}"
    );
    let rejoin = deployment.last_operation("rejoin").await?.to_string();
    ensure!(!rejoin.contains("Cloned"), "the standby was cloned: {rejoin}");
    ensure!(deployment.system_id(EAST)? == id, "another database");

    let args = ["failover", CLUSTER, "--reason", "to see", "--to", EAST, "--yes"];
    let answer = deployment.ctl_from(WITNESS, &args).await?;
    ensure!(answer.code == 0, "{answer:?}");
    deployment.wait_failover(EAST).await?;
    deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(
        rows(&deployment, EAST).await? == 1000 && rows(&deployment, NORTH).await? == 1000,
        "rows after it"
    );
    deployment.finish().await
}
