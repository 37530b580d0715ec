//! Deaths of single processes of the primary's host, and of all of them. In each, a procedure commits in a loop.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::clock::{monotonic_ns, wait_until};
use regent_chaos::real::deployment::{Deployment, DeploymentOptions, EAST, NORTH, REJOIN_AT_MOST, Workload};

const MS: u64 = 1_000_000;

async fn start(name: &str) -> Result<(Deployment, Workload)> {
    let deployment = Deployment::start(DeploymentOptions::new(name)).await?;
    let workload = Workload::start(&deployment).await?;
    Ok((deployment, workload))
}

/// SIGKILL to the primary's postmaster alone.
async fn kill_postmaster(deployment: &Deployment) -> Result<u64> {
    let pid = deployment.postmaster(NORTH).await?;
    let at_ns = monotonic_ns();
    // SAFETY: plain numbers.
    let done = unsafe { libc::kill(pid, libc::SIGKILL) };
    ensure!(done == 0, "SIGKILL to postmaster {pid}: {}", std::io::Error::last_os_error());
    Ok(at_ns)
}

/// Sessions of the old primary end within `within` of `at_ns`, and nothing was committed there later.
async fn sessions_end(workload: &Workload, at_ns: u64, within: Duration) -> Result<()> {
    wait_until("the sessions at the primary end", within, async || workload.sessions_lost(NORTH)).await?;
    let last = workload.looping(NORTH).last_acknowledged().context("no commit in the loop")?;
    let late_ms = last.done_ns.saturating_sub(at_ns) / MS;
    ensure!(u128::from(late_ms) <= within.as_millis(), "a backend committed {late_ms} ms after its end");
    Ok(())
}

/// The old primary returns as a standby; every acknowledged row is kept or salvaged.
async fn come_back(deployment: Deployment, workload: Workload) -> Result<()> {
    let status = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(status.primary() == Some(EAST), "{status}");
    workload.finish(&deployment, LossAllowed::Salvaged).await?;
    deployment.finish().await
}

async fn failover(deployment: &Deployment, trigger: &str, rung: &str) -> Result<()> {
    deployment.wait_failover(EAST).await?;
    let report = deployment.last_operation("failover").await?;
    ensure!(report["summary"]["trigger"] == trigger, "not {trigger}: {report:#}");
    let rungs = report["fence"].as_array().context("no rungs")?;
    ensure!(rungs.iter().any(|one| one["rung"] == rung), "not {rung}: {report:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_postmaster_takes_its_backends_along_and_is_restarted_locally() -> Result<()> {
    let (deployment, workload) = start("postmaster").await?;
    let epoch = deployment.status().await?.epoch();
    let killed_ns = kill_postmaster(&deployment).await?;
    sessions_end(&workload, killed_ns, Duration::from_secs(1)).await?;
    let first = workload.wait_write_after(killed_ns, Duration::from_secs(20)).await?;
    ensure!(first.server == deployment.server_name(NORTH)?, "the write went to {}", first.server);
    let status = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(status.epoch() == epoch && status.primary() == Some(NORTH), "{status}");
    ensure!(deployment.count("failover").await? == 0, "a crash that the guard repairs is no failover");
    workload.finish(&deployment, LossAllowed::Nothing).await?;
    deployment.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_cannot_start_again_fails_over() -> Result<()> {
    let (deployment, workload) = start("postgres-down").await?;
    let conf = deployment.files().data(NORTH).join("postgresql.conf");
    writeln!(OpenOptions::new().append(true).open(conf)?, "no_such_setting = 1")?;
    let killed_ns = kill_postmaster(&deployment).await?;
    sessions_end(&workload, killed_ns, Duration::from_secs(1)).await?;
    failover(&deployment, "postgres_down", "acknowledged").await?;
    let first = workload.wait_write_after(killed_ns, Duration::from_secs(20)).await?;
    ensure!(first.server == deployment.server_name(EAST)?, "the write went to {}", first.server);
    come_back(deployment, workload).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_dies_and_returns_is_no_outage() -> Result<()> {
    let (deployment, workload) = start("agent").await?;
    let epoch = deployment.status().await?.epoch();
    for member in [NORTH, EAST] {
        let agent = format!("agent-{member}");
        deployment.kill(&agent);
        let killed_ns = monotonic_ns();
        let before = workload.looping(NORTH).acknowledged();
        wait_until("writes without the agent", Duration::from_secs(5), async || {
            workload.looping(NORTH).acknowledged() > before + 20
        })
        .await?;
        deployment.restart(&agent)?;
        wait_until("the agent is back", Duration::from_secs(20), async || {
            deployment
                .agent_http(member, if member == NORTH { "/primary" } else { "/replica" })
                .await
                .is_ok_and(|(code, _)| code == 200)
        })
        .await?;
        workload.wait_write_after(killed_ns, Duration::from_secs(5)).await?;
    }
    ensure!(!workload.sessions_lost(NORTH) && !workload.sessions_lost(EAST), "a session was lost");
    let status = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(status.epoch() == epoch && deployment.count("failover").await? == 0, "{status}");
    let (gap_ns, _) = workload.named().longest_gap_ns().context("no writes")?;
    ensure!(gap_ns < 1500 * MS, "clients saw {} ms without writes", gap_ns / MS);
    workload.finish(&deployment, LossAllowed::Nothing).await?;
    deployment.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_guard_takes_postgres_along_and_its_successor_needs_a_new_epoch() -> Result<()> {
    let (deployment, workload) = start("guard-killed").await?;
    let epoch = deployment.status().await?.epoch();
    let guard = format!("guard-{NORTH}");
    let killed_ns = monotonic_ns();
    deployment.kill(&guard);
    sessions_end(&workload, killed_ns, Duration::from_millis(1500)).await?;
    deployment.restart(&guard)?;
    let first = workload.wait_write_after(killed_ns, deployment.timing().failover_at_most()).await?;
    let status = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(status.epoch() > epoch, "the epoch is bound to a guard that is gone: {status}");
    let primary = status.primary().context("no primary")?;
    ensure!(first.server == deployment.server_name(primary)?, "{} is not {primary}", first.server);
    workload.finish(&deployment, LossAllowed::Salvaged).await?;
    deployment.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_guard_is_killed_by_the_kernel_at_the_deadline() -> Result<()> {
    let (deployment, workload) = start("guard-stopped").await?;
    let guard = deployment.process(&format!("guard-{NORTH}"))?;
    guard.stop()?;
    let stopped_ns = monotonic_ns();
    let timing = *deployment.timing();
    sessions_end(&workload, stopped_ns, timing.fenced_at_most()).await?;
    // It was not continued: only the timer can have ended it.
    guard.wait_exit(Duration::from_secs(5)).await?;
    deployment.wait_failover(EAST).await?;
    let report = deployment.last_operation("failover").await?;
    let rungs = report["fence"].as_array().context("no rungs")?;
    ensure!(rungs.iter().any(|one| one["rung"] == "lease_expired"), "nobody could answer: {report:#}");
    workload.wait_write_after(stopped_ns, Duration::from_secs(20)).await?;
    deployment.restart(&format!("guard-{NORTH}"))?;
    come_back(deployment, workload).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_host_is_lost_at_once() -> Result<()> {
    let (deployment, workload) = start("host").await?;
    let lost_ns = monotonic_ns();
    deployment.lose_host(NORTH)?;
    failover(&deployment, "partition", "lease_expired").await?;
    let first = workload.wait_write_after(lost_ns, Duration::from_secs(20)).await?;
    ensure!(first.server == deployment.server_name(EAST)?, "the write went to {}", first.server);
    deployment.start_region(NORTH)?;
    deployment.net().heal();
    come_back(deployment, workload).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guard_agent_and_postgres_die_together_while_their_coordinator_lives() -> Result<()> {
    let (deployment, workload) = start("member").await?;
    let killed_ns = monotonic_ns();
    deployment.crash_member(NORTH);
    sessions_end(&workload, killed_ns, Duration::from_millis(1500)).await?;
    failover(&deployment, "partition", "lease_expired").await?;
    workload.wait_write_after(killed_ns, Duration::from_secs(20)).await?;
    deployment.start_region(NORTH)?;
    come_back(deployment, workload).await
}
