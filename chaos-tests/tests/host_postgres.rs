//! PostgreSQL and the agent of the primary's host die: what restarts in place and what fails over.

use std::time::Duration;

use anyhow::{Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::clock::{WallOffset, monotonic_ns, wait_until};
use regent_chaos::real::deployment::{Deployment, DeploymentOptions, EAST, NORTH, REJOIN_AT_MOST, Workload};
use regent_chaos::real::workload::read_rows;

const SOON: Duration = Duration::from_secs(30);

/// The agent is gone for half a lease: nobody who uses the database notices.
async fn the_agent_dies(deployment: &Deployment, workload: &Workload) -> Result<()> {
    let before = (deployment.postgres_run(NORTH).await?, deployment.status().await?.epoch());
    let refused = |workload: &Workload| {
        let told = [workload.named().attempts(), workload.held(NORTH).attempts()].concat();
        told.into_iter().find(|attempt| !attempt.is_acknowledged())
    };
    ensure!(refused(workload).is_none(), "before anything happened: {:?}", refused(workload));
    deployment.kill(&format!("agent-{NORTH}"));
    let killed_ns = monotonic_ns();
    // That nothing happens is what is tested, so the time itself is the condition.
    let span = deployment.timing().lease_ttl / 2;
    wait_until("half a lease has passed", span * 2, async || {
        monotonic_ns() - killed_ns > span.as_nanos() as u64
    })
    .await?;
    let deadline = |status: &serde_json::Value| {
        status["lease_deadline_ns"].as_str().and_then(|text| text.parse::<u64>().ok())
    };
    let left = deadline(&deployment.guard(NORTH).await?);
    ensure!(left.is_some(), "the lease ended with the agent");
    deployment.restart(&format!("agent-{NORTH}"))?;
    wait_until("the lease is extended again", SOON, async || {
        deployment.guard(NORTH).await.is_ok_and(|status| deadline(&status) > left)
    })
    .await?;
    wait_until("the new agent knows that its member is primary", SOON, async || {
        deployment.agent_http(NORTH, "/primary").await.is_ok_and(|(code, _)| code == 200)
    })
    .await?;
    let again_ns = monotonic_ns();
    workload.wait_write_after(again_ns, SOON).await?;
    let after = (deployment.postgres_run(NORTH).await?, deployment.status().await?.epoch());
    ensure!(after == before, "PostgreSQL was touched: {before:?}, then {after:?}");
    ensure!(refused(workload).is_none(), "a write failed: {:?}", refused(workload));
    ensure!(!workload.sessions_lost(NORTH), "a session was lost");
    Ok(())
}

/// The postmaster is killed while a backend commits in a loop: all backends go with it, and its guard starts it again.
async fn the_postmaster_dies(deployment: &Deployment, workload: &Workload) -> Result<()> {
    let epoch = deployment.status().await?.epoch();
    let killed = deployment.kill_postmaster(NORTH).await?;
    let killed_ns = monotonic_ns();
    wait_until("both sessions end", SOON, async || workload.sessions_lost(NORTH)).await?;
    let first = workload.wait_write_after(killed_ns, SOON).await?;
    ensure!(first.server == deployment.server_name(NORTH)?, "the first write went to {}", first.server);
    let run = deployment.postgres_run(NORTH).await?;
    ensure!(
        run.postmaster != killed.postmaster && run.restarts == killed.restarts + 1,
        "{killed:?}, {run:?}"
    );
    ensure!(run.instance == killed.instance, "the guard restarted: {killed:?}, {run:?}");
    // Every row counts here, not only those that the client heard of: a backend that outlives its postmaster commits on.
    let offset = WallOffset::sample();
    let rows = read_rows(&deployment.app(NORTH).await?).await?;
    let looping: Vec<i32> = workload.looping(NORTH).attempts().iter().map(|row| row.writer_id).collect();
    let last = rows.iter().filter(|row| looping.contains(&row.writer_id)).map(|row| row.begun_us).max();
    let outlived_ns = offset.to_monotonic_ns(last.unwrap_or(0)).saturating_sub(killed_ns);
    ensure!(outlived_ns < 1_000_000_000, "a backend committed {} ms after the kill", outlived_ns / 1_000_000);
    let status = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(status.primary() == Some(NORTH) && status.epoch() == epoch, "a failover for one crash: {status}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_agent_and_a_single_crash_cost_no_failover() -> Result<()> {
    let deployment = Deployment::start(DeploymentOptions::new("host-restarts")).await?;
    let mut workload = Workload::start(&deployment).await?;
    the_agent_dies(&deployment, &workload).await?;
    the_postmaster_dies(&deployment, &workload).await?;
    workload.reopen(&deployment, NORTH).await?;
    let history = deployment.history().await?;
    ensure!(history.iter().all(|operation| operation["kind"] != "failover"), "a failover: {history:?}");
    workload.finish(&deployment, LossAllowed::Nothing).await?;
    deployment.finish().await
}

/// Kills the postmaster of NORTH whenever its agent has seen it accept connections again, until its epoch is fenced.
async fn crash_on_and_on(deployment: &Deployment, epoch: u64) -> Result<usize> {
    let (mut crashes, mut killed) = (0, 0);
    wait_until("the crashing primary is fenced", SOON * 3, async || {
        let Ok(guard) = deployment.guard(NORTH).await else { return false };
        let number = |key: &str| guard[key].as_str().and_then(|text| text.parse::<u64>().ok());
        let runs = number("postmaster_pid").is_some_and(|pid| pid != killed);
        let seen = deployment.agent_http(NORTH, "/primary").await.is_ok_and(|(code, _)| code == 200);
        if runs
            && seen
            && deployment.app(NORTH).await.is_ok()
            && let Ok(run) = deployment.kill_postmaster(NORTH).await
        {
            (crashes, killed) = (crashes + 1, run.postmaster as u64);
        }
        number("fenced_through") >= Some(epoch)
    })
    .await?;
    Ok(crashes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_loop_fails_over_though_each_restart_accepts_connections() -> Result<()> {
    // Longer than the longest pause between two local restarts: no single one of them lasts that long.
    let options =
        DeploymentOptions::new("host-crash-loop").postgres(18).policy("postgres_down_timeout", "\"12s\"");
    let deployment = Deployment::start(options).await?;
    let workload = Workload::start(&deployment).await?;
    let epoch = deployment.status().await?.epoch();
    let began_ns = monotonic_ns();
    let crashes = crash_on_and_on(&deployment, epoch).await?;
    ensure!(crashes > 3, "it was no loop: {crashes} crashes");
    let first = wait_for_east(&deployment, &workload, began_ns).await?;
    ensure!(first > epoch, "no new epoch: {first}");
    let report = deployment.last_operation("failover").await?;
    ensure!(report["summary"]["trigger"] == "postgres_down", "{report:#}");
    let rungs = report["fence"].as_array().cloned().unwrap_or_default();
    ensure!(
        rungs.iter().any(|rung| rung["rung"] == "acknowledged" && rung["certainty"] == "confirmed"),
        "its guard could acknowledge: {report:#}"
    );
    let ready = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(ready.primary() == Some(EAST) && ready.epoch() == first, "a second outage: {ready}");
    ensure!(deployment.count("failover").await? == 1, "more than one failover");
    workload.finish(&deployment, LossAllowed::Salvaged).await?;
    deployment.finish().await
}

/// Waits until EAST is primary and takes a write by name; its epoch.
async fn wait_for_east(deployment: &Deployment, workload: &Workload, began_ns: u64) -> Result<u64> {
    let within = deployment.timing().failover_at_most();
    let done = deployment
        .wait_status("the failover is done", within, |status| {
            status.primary() == Some(EAST) && status.operation().is_none_or(|(kind, _)| kind != "failover")
        })
        .await?;
    let east = deployment.server_name(EAST)?;
    wait_until("a write by name reaches the new primary", within, async || {
        let rows = workload.named().attempts();
        rows.iter().any(|row| row.is_acknowledged() && row.sent_ns > began_ns && row.server == east)
    })
    .await?;
    Ok(done.epoch())
}
