//! The last steps of a failover are disturbed: the answer to *Promote* is lost, or nobody can see the DNS change.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::clock::{monotonic_ns, wait_until};
use regent_chaos::real::deployment::{
    CLUSTER, DNS_CHECKS, Deployment, DeploymentOptions, EAST, NORTH, REGIONS, REJOIN_AT_MOST, WITNESS,
    Workload,
};

const SOON: Duration = Duration::from_secs(30);

/// Asks for a failover to `to`, and does not wait for it.
async fn ask(deployment: &Deployment, to: &str, reason: &str) -> Result<u64> {
    let asked_ns = monotonic_ns();
    deployment.ctl(&["failover", CLUSTER, "--to", to, "--reason", reason, "--yes"]).await?;
    Ok(asked_ns)
}

/// How often the member's agent has logged `text`.
fn logged(deployment: &Deployment, member: &str, text: &str) -> usize {
    let log = std::fs::read_to_string(deployment.files().log(&format!("agent-{member}"))).unwrap_or_default();
    log.matches(text).count()
}

const BEGINS: &str = "directive begins directive=\"promote\"";
const DONE: &str = "directive done directive=\"promote\"";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_to_promote_is_asked_for_again() -> Result<()> {
    let deployment = Deployment::start(DeploymentOptions::new("lost-answer").postgres(15)).await?;
    let mut workload = Workload::start(&deployment).await?;
    let epoch = deployment.status().await?.epoch();

    // The one who asked is dead when the answer comes.
    let asked_ns = ask(&deployment, EAST, "the leader dies while the target promotes").await?;
    wait_until("the target begins", SOON, async || logged(&deployment, EAST, BEGINS) > 0).await?;
    let leader = deployment.leader().await?;
    let name = format!("coordinator-{leader}");
    deployment.kill(&name);
    let status = deployment.wait_failover(EAST).await?;
    ensure!(status.epoch() == epoch + 1, "one epoch: {status}");
    let report = deployment.last_operation("failover").await?;
    ensure!(report["summary"]["state"] == "done", "{report:#}");
    ensure!(logged(&deployment, EAST, DONE) == 1, "it was promoted once");
    workload.wait_write_after(asked_ns, SOON).await?;
    deployment.restart(&name)?;
    deployment.wait_ready(REJOIN_AT_MOST).await?;
    workload.reopen_lost(&deployment).await?;

    // The one who answers dies between the promotion and its answer.
    let session = deployment.pg(NORTH).await?;
    let (begun, done) = (logged(&deployment, NORTH, BEGINS), logged(&deployment, NORTH, DONE));
    let asked_ns =
        ask(&deployment, NORTH, "the target's agent dies when PostgreSQL has left recovery").await?;
    wait_until("the target begins", SOON, async || logged(&deployment, NORTH, BEGINS) > begun).await?;
    let deadline_ns = monotonic_ns() + SOON.as_nanos() as u64;
    // Polled without a pause: the agent's next step is near.
    while session.client().query_one("SELECT pg_is_in_recovery()", &[]).await?.get::<_, bool>(0) {
        ensure!(monotonic_ns() < deadline_ns, "no promotion within {SOON:?}");
    }
    let agent = format!("agent-{NORTH}");
    deployment.kill(&agent);
    let answered = logged(&deployment, NORTH, DONE) > done;
    ensure!(!answered, "the agent was too quick: it had answered before it was killed");
    deployment.restart(&agent)?;
    let status = deployment.wait_failover(NORTH).await?;
    ensure!(status.epoch() == epoch + 2, "the same appointment, not another: {status}");
    let report = deployment.last_operation("failover").await?;
    ensure!(report["summary"]["state"] == "done", "{report:#}");
    workload.wait_write_after(asked_ns, SOON).await?;
    deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(deployment.count("failover").await? == 2, "more failovers than asked for");
    workload.finish(&deployment, LossAllowed::Salvaged).await?;
    deployment.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dns_provider_that_is_down_never_undoes_a_promotion() -> Result<()> {
    let deployment = Deployment::start(DeploymentOptions::new("dns-down")).await?;
    let workload = Workload::start(&deployment).await?;
    let epoch = deployment.status().await?.epoch();
    deployment.net().isolate(DNS_CHECKS)?;
    ask(&deployment, EAST, "while nobody can see the zone").await?;
    // It says why it goes on trying.
    let stuck = deployment
        .wait_status("redirect waits", deployment.timing().failover_at_most(), |status| {
            status.operation() == Some(("failover", "redirect"))
                && status.json()["clusters"][0]["operation"]["reason"].is_string()
        })
        .await?;
    ensure!(stuck.primary() == Some(EAST) && stuck.epoch() == epoch + 1, "{stuck}");
    let reason = stuck.json()["clusters"][0]["operation"]["reason"].as_str().unwrap_or_default().to_owned();
    ensure!(reason.contains("no answer"), "the reason names what the servers said: {reason}");
    let leader = deployment.leader().await?;
    let failures = deployment.coordinator_metric(&leader, "regent_redirect_failures_total").await?;
    ensure!(failures >= 1.0, "an alert has nothing to go by: {failures}");
    // The new primary takes writes meanwhile.
    let promoted_ns = monotonic_ns();
    wait_until("writes at the new primary", SOON, async || {
        workload.held(EAST).first_acknowledged_after(promoted_ns).is_some()
    })
    .await?;
    let still = deployment.status().await?;
    ensure!(still.operation() == Some(("failover", "redirect")), "{still}");

    deployment.net().heal();
    let done = deployment.wait_failover(EAST).await?;
    ensure!(done.epoch() == epoch + 1 && done.dns_epoch() == Some(epoch + 1), "{done}");
    let report = deployment.last_operation("failover").await?;
    ensure!(report["summary"]["state"] == "done", "{report:#}");
    let steps: Vec<_> =
        report["steps"].as_array().context("no steps")?.iter().map(|s| s["name"].clone()).collect();
    ensure!(steps.iter().filter(|name| **name == "promote").count() == 1, "promoted once: {steps:?}");
    let (member, published) = deployment.dns().await?;
    ensure!(member == Some(EAST) && published == Some(epoch + 1), "DNS: {member:?} {published:?}");
    // Every coordinator shows it, not only the one that was asked.
    for region in REGIONS {
        let server = deployment.address(WITNESS, region, regent_chaos::real::deployment::Service::Dns)?;
        let resolver = deployment.resolver(WITNESS)?;
        wait_until(&format!("{region} shows the record"), SOON, async || {
            resolver
                .ask(server, regent_chaos::real::deployment::NAME)
                .await
                .is_ok_and(|answer| answer.epoch == Some(epoch + 1) && answer.authoritative)
        })
        .await?;
    }
    deployment.wait_ready(REJOIN_AT_MOST).await?;
    workload.finish(&deployment, LossAllowed::Salvaged).await?;
    deployment.finish().await
}
