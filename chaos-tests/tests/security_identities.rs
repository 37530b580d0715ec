//! Callers that are not who they ought to be: each is refused with a reason, and nothing has happened.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::clock::wait_until;
use regent_chaos::real::deployment::{
    CLUSTER, Deployment, DeploymentOptions, EAST, NORTH, REJOIN_AT_MOST, Service, WITNESS, Workload,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Nothing here waits for it, and a busy machine must not make a partition of its own.
const PATIENT: Duration = Duration::from_secs(30);

const SOON: Duration = Duration::from_secs(30);

/// `regentctl` with another certificate.
async fn refused_as(
    deployment: &Deployment,
    (ca, folder, stem): (&Path, &Path, &str),
    args: &[&str],
    (code, words): (i32, &[&str]),
) -> Result<()> {
    let file = |folder: &Path, name: String| folder.join(name).display().to_string();
    let (ca, cert) = (file(ca, "ca.crt".into()), file(folder, format!("{stem}.crt")));
    let key = file(folder, format!("{stem}.key"));
    let all: Vec<&str> = args.iter().copied().chain(["--ca", &ca, "--cert", &cert, "--key", &key]).collect();
    let answer = deployment.ctl_from(WITNESS, &all).await?;
    ensure!(answer.code == code, "{stem}, {args:?}: exit code {}: {}", answer.code, answer.stderr);
    for word in words {
        ensure!(answer.stderr.contains(word), "{stem}, {args:?}: no {word:?} in {}", answer.stderr);
    }
    Ok(())
}

/// The agent of the standby with an edited configuration: its log says each of `words`, and it is not heard.
async fn agent_is_refused(deployment: &Deployment, from: &str, to: &str, words: &[&str]) -> Result<()> {
    let agent = format!("agent-{EAST}");
    let before = deployment.edit_config(&agent, from, to)?;
    deployment.restart(&agent)?;
    let process = deployment.process(&agent)?;
    let said = wait_until("the agent says why it is refused", SOON, async || {
        let log = process.log_text();
        words.iter().all(|word| log.contains(word))
    });
    said.await.with_context(|| format!("{words:?} in {}", process.log_tail()))?;
    deployment.kill(&agent);
    deployment.write_config(&agent, &before)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_certificates_are_refused_and_nothing_happens() -> Result<()> {
    let deployment =
        Deployment::start(DeploymentOptions::new("security").postgres(18).partition_timeout(PATIENT)).await?;
    let workload = Workload::start(&deployment).await?;
    let before = deployment.status().await?;
    let (operations, epoch) = (deployment.history().await?.len(), before.epoch().to_string());
    let pki = deployment.files().pki();
    let other = deployment.other_authority(&["operator/alice", &format!("agent/{CLUSTER}/{EAST}")])?;
    let failover =
        ["failover", CLUSTER, "--reason", "a coup", "--expected-epoch", &epoch, "--to", EAST, "--yes"];
    let pause = ["pause", CLUSTER, "--reason", "a coup", "--expected-epoch", &epoch];

    // Somebody who may look, and no more; somebody who may not even look.
    let viewer = (pki.as_path(), pki.as_path(), "viewer-grafana");
    refused_as(&deployment, viewer, &["status", CLUSTER], (0, &[])).await?;
    for args in [&failover[..], &pause[..]] {
        let words = ["regent://viewer/grafana", "an operator's certificate"];
        refused_as(&deployment, viewer, args, (1, &words)).await?;
    }
    let stem = format!("agent-{CLUSTER}-{NORTH}");
    let agent = (pki.as_path(), pki.as_path(), stem.as_str());
    let name = format!("regent://agent/{CLUSTER}/{NORTH}");
    refused_as(&deployment, agent, &["status", CLUSTER], (1, &[&name])).await?;
    refused_as(&deployment, agent, &failover, (1, &[&name, "an operator's certificate"])).await?;

    // Another CA: its operator's files do not fit together, its word counts for nobody, nor ours for it.
    let mixed = (pki.as_path(), other.as_path(), "operator-alice");
    refused_as(&deployment, mixed, &failover, (2, &["operator-alice.crt", "ca.crt"])).await?;
    let foreign = (other.as_path(), other.as_path(), "operator-alice");
    refused_as(&deployment, foreign, &failover, (3, &["certificate"])).await?;

    // Plain text: the client refuses it, and so does the server of a client that does not.
    let address = deployment.address(WITNESS, WITNESS, Service::Coordinator)?.to_string();
    let mut plain = failover.to_vec();
    plain.extend(["--plaintext", "--endpoint", &address]);
    let answer = deployment.ctl_from(WITNESS, &plain).await?;
    ensure!(answer.code == 2 || answer.code == 3, "plain text: {answer:?}");
    let mut raw = TcpStream::connect(&address).await?;
    raw.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    let mut said = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(10), raw.read_to_end(&mut said)).await;
    ensure!(closed.is_ok(), "a plain-text connection stays open");
    // A TLS alert at the most, never HTTP/2.
    ensure!(said.first().is_none_or(|byte| *byte == 21), "plain text is answered: {said:?}");

    // The standby's agent with the primary's certificate, and with one of another CA.
    let (own, primarys) = (format!("agent-{CLUSTER}-{EAST}."), format!("agent-{CLUSTER}-{NORTH}."));
    let words = [name.as_str(), "may not speak for", EAST];
    agent_is_refused(&deployment, &own, &primarys, &words).await?;
    let (ours, theirs) = (pki.display().to_string() + "/", other.display().to_string() + "/");
    agent_is_refused(&deployment, &ours, &theirs, &["certificate"]).await?;

    // A coordinator with the certificate of another does not start.
    let process = format!("coordinator-{EAST}");
    let text = deployment.edit_config(&process, "coordinator-3.", "coordinator-2.")?;
    deployment.restart(&process)?;
    let coordinator = deployment.process(&process)?;
    let status = coordinator.wait_exit(SOON).await?;
    let log = coordinator.log_text();
    ensure!(!status.success() && log.contains("regent://coordinator/2"), "{status}: {log}");
    deployment.write_config(&process, &text)?;
    deployment.restart(&process)?;

    // All is as it was.
    deployment.restart(&format!("agent-{EAST}"))?;
    let after = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(after.epoch() == before.epoch() && after.primary() == Some(NORTH), "{after}");
    ensure!(after.json()["clusters"][0]["automation"] == "automatic", "{after}");
    let history = deployment.history().await?;
    let failovers = history[..history.len() - operations].iter().filter(|one| one["kind"] == "failover");
    ensure!(failovers.count() == 0, "{history:?}");
    ensure!(!workload.sessions_lost(NORTH), "a session of the primary was lost");
    workload.finish(&deployment, LossAllowed::Nothing).await?;
    deployment.finish().await
}
