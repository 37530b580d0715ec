//! PostgreSQL of the standby is told, behind its guard's back, to become writable.

use std::time::Duration;

use anyhow::{Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::clock::{monotonic_ns, wait_until};
use regent_chaos::real::deployment::{
    Deployment, DeploymentOptions, EAST, NORTH, PostgresRun, REJOIN_AT_MOST, Workload,
};

const SOON: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Sql,
    PgCtl,
}

async fn rogues(deployment: &Deployment) -> Result<u64> {
    let guard = deployment.guard(EAST).await?;
    Ok(guard["rogue_promotions"].as_str().unwrap_or_default().parse()?)
}

/// Promotes the standby by hand; it is killed at the gate, and comes back as a standby.
async fn promote(deployment: &Deployment, workload: &Workload, by: By) -> Result<()> {
    let (primary, epoch) = (deployment.postgres_run(NORTH).await?, deployment.status().await?.epoch());
    let (standby, earlier) = (deployment.postgres_run(EAST).await?, rogues(deployment).await?);
    match by {
        By::PgCtl => deployment.pg_ctl_promote(EAST).await?,
        By::Sql => {
            // Whatever it answers: the connection is lost with the server.
            let session = deployment.pg(EAST).await?;
            let promoted = session.client().query_one("SELECT pg_promote(true, 20)", &[]).await;
            ensure!(promoted.is_err(), "pg_promote came back: {promoted:?}");
        }
    }
    wait_until("the promotion is stopped", SOON, async || {
        rogues(deployment).await.is_ok_and(|count| count > earlier)
    })
    .await?;
    let stopped_ns = monotonic_ns();
    let guard = deployment.guard(EAST).await?;
    ensure!(guard["last_rogue"] == "promotion without a lease", "{by:?}: {guard:#}");
    wait_until("the standby runs again", REJOIN_AT_MOST, async || {
        deployment.postgres_run(EAST).await.is_ok_and(|run| run.postmaster != standby.postmaster)
    })
    .await?;
    streams(deployment, stopped_ns, workload).await?;
    let ready = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(ready.primary() == Some(NORTH) && ready.epoch() == epoch, "{by:?}: the primary changed: {ready}");
    ensure!(deployment.postgres_run(NORTH).await? == primary, "{by:?}: the primary was touched");
    Ok(())
}

/// A row that was written after `since_ns` arrives at the standby.
async fn streams(deployment: &Deployment, since_ns: u64, workload: &Workload) -> Result<()> {
    let row = workload.wait_write_after(since_ns, SOON).await?;
    let (writer_id, number) = (row.writer_id, row.number);
    wait_until("a new row arrives at the standby", REJOIN_AT_MOST, async || {
        let Ok(session) = deployment.app(EAST).await else { return false };
        let text = "SELECT pg_is_in_recovery() FROM chaos_rows WHERE writer_id = $1 AND number = $2";
        let found = session.client().query_opt(text, &[&writer_id, &number]).await;
        found.is_ok_and(|row| row.is_some_and(|row| row.get(0)))
    })
    .await
}

/// A file that a restore has left makes the next start a point-in-time recovery, which ends by itself.
async fn recovery_signal(deployment: &Deployment, workload: &Workload) -> Result<()> {
    let before = deployment.postgres_run(EAST).await?;
    let left = deployment.files().data(EAST).join("recovery.signal");
    deployment.put_in_data(EAST, "recovery.signal", "")?;
    let rogues_before = rogues(deployment).await?;
    deployment.kill_postmaster(EAST).await?;
    let killed_ns = monotonic_ns();
    let mut after: Option<PostgresRun> = None;
    wait_until("the standby runs again", SOON, async || {
        after = deployment.postgres_run(EAST).await.ok().filter(|run| run.postmaster != before.postmaster);
        after.is_some()
    })
    .await?;
    ensure!(!left.exists(), "recovery.signal is still there: {after:?}");
    streams(deployment, killed_ns, workload).await?;
    ensure!(rogues(deployment).await? == rogues_before, "it tried to leave recovery");
    let log = deployment.process(&format!("guard-{EAST}"))?.log_text();
    ensure!(log.contains("recovery.signal removed"), "the guard did not say so");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_is_promoted_by_hand_commits_nothing_and_comes_back() -> Result<()> {
    let deployment = Deployment::start(DeploymentOptions::new("host-standby").postgres(18)).await?;
    let workload = Workload::start(&deployment).await?;
    recovery_signal(&deployment, &workload).await?;
    for by in [By::Sql, By::PgCtl] {
        promote(&deployment, &workload, by).await?;
    }
    // The sessions held open to it have tried to write all the time.
    ensure!(
        workload.held(EAST).acknowledged() == 0,
        "a write was accepted: {:?}",
        workload.held(EAST).attempts()
    );
    ensure!(workload.looping(EAST).acknowledged() == 0, "the procedure committed at the standby");
    ensure!(!workload.sessions_lost(NORTH), "the primary's sessions were lost");
    ensure!(deployment.count("failover").await? == 0, "there was a failover");
    // It can still take over: the promotion that was stopped has left nothing in the way.
    workload.finish(&deployment, LossAllowed::Nothing).await?;
    deployment.finish().await
}
