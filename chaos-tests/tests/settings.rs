//! A PostgreSQL that cannot start again: the guard's restarts are given up, and a person's mistake stays a person's.

use std::fs::{self, OpenOptions};
use std::io::Write as _;

use anyhow::{Context, Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::clock::{monotonic_ns, wait_until};
use regent_chaos::real::deployment::{Deployment, DeploymentOptions, EAST, NORTH, REJOIN_AT_MOST, Workload};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_cannot_start_again_fails_over_and_returns_when_repaired() -> Result<()> {
    let deployment = Deployment::start(DeploymentOptions::new("settings").postgres(15)).await?;
    let workload = Workload::start(&deployment).await?;
    let conf = deployment.files().data(NORTH).join("postgresql.conf");
    let good = fs::read(&conf)?;
    writeln!(OpenOptions::new().append(true).open(&conf)?, "no_such_setting = 1")?;
    let killed_ns = monotonic_ns();
    let postmaster = deployment.postmaster(NORTH).await?;
    // SAFETY: plain numbers.
    let done = unsafe { libc::kill(postmaster, libc::SIGKILL) };
    ensure!(done == 0, "SIGKILL to {postmaster}: {}", std::io::Error::last_os_error());

    deployment.wait_failover(EAST).await?;
    let report = deployment.last_operation("failover").await?;
    ensure!(report["summary"]["trigger"] == "postgres_down", "{report:#}");
    let rungs = report["fence"].as_array().context("no rungs")?;
    ensure!(
        rungs.iter().any(|one| one["rung"] == "acknowledged" && one["certainty"] == "confirmed"),
        "its guard lives and answers: {report:#}"
    );
    workload.wait_write_after(killed_ns, deployment.timing().failover_at_most()).await?;

    // A member keeps its own settings through rewind and clone, so it does not come up; and it is not started in a spin.
    wait_until("the old primary is in its standby form", REJOIN_AT_MOST, async || {
        deployment.files().data(NORTH).join("standby.signal").exists()
    })
    .await?;
    let starts = || {
        let text = fs::read_to_string(deployment.files().log(&format!("guard-{NORTH}"))).unwrap_or_default();
        text.matches("starting PostgreSQL").count()
    };
    wait_until("it was tried again", REJOIN_AT_MOST, async || {
        // As a standby, after the restarts as primary.
        fs::read_to_string(deployment.files().log(&format!("guard-{NORTH}")))
            .is_ok_and(|text| text.matches("kind=Standby").count() > 3)
    })
    .await?;
    let (before, begun_ns) = (starts(), monotonic_ns());
    wait_until("three seconds of trying", REJOIN_AT_MOST, async || monotonic_ns() - begun_ns > 3_000_000_000)
        .await?;
    ensure!(starts() - before < 15, "{} starts within three seconds", starts() - before);

    fs::write(&conf, good)?;
    let status = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(status.primary() == Some(EAST), "{status}");
    workload.finish(&deployment, LossAllowed::Salvaged).await?;
    deployment.finish().await
}
