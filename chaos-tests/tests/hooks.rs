//! The operator's own commands, run by real coordinators: a veto holds an automatic failover back and nothing else, one that
//! hangs is killed and counts as configured, and events are told at least once, also by the next leader.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::clock::wait_until;
use regent_chaos::real::deployment::{
    CLUSTER, Deployment, DeploymentOptions, EAST, NORTH, REJOIN_AT_MOST, WITNESS, Workload,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

const HOOKS: &str = r#"[hooks]
veto = ["{root}/veto"]
veto_timeout = "2s"
veto_retry = "500ms"
veto_on_failure = "deny"
event = ["{root}/event"]"#;

const VETO: &str = r#"cd "$(dirname "$0")" || exit 9
cat >> asked
case "$(cat answer)" in
allow) exit 0 ;;
hang) sleep 600 & echo $! >> sleepers; wait ;;
*) echo the market is open; exit 1 ;;
esac"#;

/// What explains why nothing happens, as `regentctl explain` and `regentctl status` say it.
async fn held_back(deployment: &Deployment, words: &str) -> Result<()> {
    let what = format!("explain says {words:?}");
    wait_until(&what, SOON, async || {
        let said = deployment.ctl(&["explain", CLUSTER]).await;
        said.is_ok_and(|said| said["verdict"].as_str().is_some_and(|text| text.contains(words)))
    })
    .await?;
    let says = |status: &regent_chaos::real::deployment::Status| {
        let veto = &status.json()["clusters"][0]["restraint"]["veto"];
        veto.as_str().is_some_and(|veto| veto.contains(words))
    };
    deployment.wait_status(&format!("the status says {words:?}"), SOON, says).await?;
    Ok(())
}

fn told(deployment: &Deployment) -> Vec<Value> {
    let text = fs::read_to_string(deployment.files().root().join("told")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

async fn until_told(deployment: &Deployment, kind: &str) -> Result<()> {
    wait_until(&format!("the event hook is told {kind}"), SOON, async || {
        told(deployment).iter().any(|event| event["kind"] == kind)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_veto_holds_a_failover_back_and_every_event_is_told() -> Result<()> {
    let deployment = Deployment::prepare(DeploymentOptions::new("hooks").coordinator_table(HOOKS))?;
    let root = deployment.files().root().to_path_buf();
    let answer = deployment.script("answer", "")?;
    deployment.script("veto", VETO)?;
    deployment.script("event", "cat >> \"$(dirname \"$0\")/told\"")?;
    fs::write(&answer, "deny")?;
    // The user that runs them makes the files beside them.
    for file in ["asked", "told", "sleepers"] {
        fs::write(deployment.script(file, "")?, "")?;
    }
    deployment.begin().await?;
    let workload = Workload::start(&deployment).await?;
    let epoch = deployment.status().await?.epoch();

    deployment.net().isolate(NORTH)?;
    held_back(&deployment, "the market is open").await?;
    let asked = fs::read_to_string(root.join("asked"))?;
    let question: Value = serde_json::from_str(asked.lines().next().context("nothing was asked")?)?;
    ensure!(question["cluster"] == CLUSTER && question["primary"] == NORTH, "{question}");
    ensure!(question["trigger"]["partition"]["silent_ms"].is_u64(), "{question}");
    fs::write(&answer, "hang")?;
    held_back(&deployment, "has not answered").await?;
    held_back(&deployment, "no answer within 2s").await?;
    let status = deployment.status().await?;
    ensure!(status.epoch() == epoch && status.fenced_through() < epoch, "fenced against the veto: {status}");

    fs::write(&answer, "allow")?;
    deployment.wait_failover(EAST).await?;
    until_told(&deployment, "vetoed").await?;
    until_told(&deployment, "appointed").await?;
    // Nothing of a run outlives it.
    for pid in fs::read_to_string(root.join("sleepers"))?.lines() {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        ensure!(!line.contains("sleep"), "process {pid} of a killed hook lives on: {line}");
    }
    deployment.net().heal();
    deployment.wait_ready(REJOIN_AT_MOST).await?;

    // Another leader goes on where the last one was.
    let leader = deployment.leader().await?;
    deployment.kill(&format!("coordinator-{leader}"));
    let from = if leader == WITNESS { EAST } else { WITNESS };
    let pause = ["pause", CLUSTER, "--reason", "the leader is gone"];
    wait_until("automation is paused under another leader", SOON, async || {
        deployment
            .ctl_from(from, &pause)
            .await
            .is_ok_and(|answer| answer.code == 0 || answer.stderr.contains("already paused"))
    })
    .await?;
    until_told(&deployment, "paused").await?;
    let sequences: BTreeSet<u64> =
        told(&deployment).iter().filter_map(|event| event["sequence"].as_u64()).collect();
    let newest = sequences.last().copied().unwrap_or_default();
    ensure!(sequences.len() as u64 == newest, "an event was told to nobody: {sequences:?}");
    deployment.restart(&format!("coordinator-{leader}"))?;
    workload.finish(&deployment, LossAllowed::Salvaged).await?;
    deployment.finish().await
}
