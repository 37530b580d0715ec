//! Old words, spoken by whoever may speak: a coordinator with a true certificate that is an epoch behind, and an agent
//! that believes in its old reign. Each is answered with both values, and nothing changes.

use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::deployment::{
    CLUSTER, Deployment, DeploymentOptions, EAST, NORTH, REJOIN_AT_MOST, Service, WITNESS, Workload,
};
use regent_pki::TlsFiles;
use regent_proto::v1::agent_service_client::AgentServiceClient;
use regent_proto::v1::agent_service_server::{AgentService, AgentServiceServer};
use regent_proto::v1::{AgentMessage, CoordinatorMessage};
use regent_proto::{FromAgent, FromCoordinator, Hello};
use regent_types::{
    Acknowledgement, Directive, EffectKey, Epoch, Grant, Heartbeat, LeaseDecision, LeaseRefusal, OperationId,
    Outcome,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};

const SOON: Duration = Duration::from_secs(30);
const STALE: Epoch = Epoch(1);

/// What the agent said to the old coordinator.
struct Said {
    hello: Hello,
    heartbeat: Heartbeat,
    outcome: Outcome,
}

/// A coordinator that lives in epoch 1: it grants that epoch to whoever calls, and asks him to become its primary.
struct OldCoordinator {
    said: mpsc::Sender<Said>,
}

impl OldCoordinator {
    async fn talk(
        mut inbound: Streaming<AgentMessage>,
        outbound: mpsc::Sender<Result<CoordinatorMessage, Status>>,
    ) -> Result<Said> {
        let mut next = async || -> Result<FromAgent> {
            Ok(FromAgent::try_from(inbound.message().await?.context("the agent has left")?)?)
        };
        let FromAgent::Hello(hello) = next().await? else { anyhow::bail!("no hello") };
        let heartbeat = loop {
            if let FromAgent::Heartbeat(heartbeat) = next().await? {
                break *heartbeat;
            }
        };
        let grant =
            Grant { epoch: STALE, instance: hello.instance, stamp_ns: heartbeat.stamp_ns, ttl_ms: 5_000 };
        let granted = Acknowledgement {
            nonce: heartbeat.nonce,
            lease: LeaseDecision::Granted(grant.clone()),
            view: None,
            group: heartbeat.group,
        };
        outbound.send(Ok(FromCoordinator::Acknowledgement(Box::new(granted)).into())).await?;
        let key =
            EffectKey { cluster: hello.cluster.clone(), operation: OperationId(1), step: 1, epoch: STALE };
        let directive = Directive::Promote {
            epoch: STALE,
            instance: hello.instance,
            initialize: false,
            replay_timeout_ms: 1_000,
        };
        let directive = FromCoordinator::Directive {
            key: key.clone(),
            directive: Box::new(directive),
            grant: Some(grant),
        };
        outbound.send(Ok(directive.into())).await?;
        loop {
            if let FromAgent::Outcome { key: of, outcome } = next().await?
                && of == key
            {
                return Ok(Said { hello, heartbeat, outcome: *outcome });
            }
        }
    }
}

#[tonic::async_trait]
impl AgentService for OldCoordinator {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<CoordinatorMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (outbound, stream) = mpsc::channel(8);
        let said = self.said.clone();
        tokio::spawn(async move {
            // A session that breaks is opened anew by the agent.
            if let Ok(one) = Self::talk(request.into_inner(), outbound).await {
                said.send(one).await.ok();
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

fn tls(deployment: &Deployment, stem: &str) -> Result<regent_pki::TlsMaterial> {
    let pki = deployment.files().pki();
    let file = |ending: &str| pki.join(format!("{stem}.{ending}"));
    Ok(TlsFiles { ca: pki.join("ca.crt"), cert: file("crt"), key: file("key") }.load()?)
}

/// The agent of NORTH meets the old coordinator only; what it said.
async fn meet_the_past(deployment: &Deployment) -> Result<Said> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("https://{}", listener.local_addr()?);
    let (said, mut heard) = mpsc::channel(1);
    let server = Server::builder()
        .tls_config(tls(deployment, "coordinator-1")?.server()?)?
        .add_service(AgentServiceServer::new(OldCoordinator { said }))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(server);
    let agent = format!("agent-{NORTH}");
    let before =
        deployment.edit_config(&agent, "coordinators = ", &format!("coordinators = [{url:?}]\n#"))?;
    deployment.restart(&agent)?;
    let one = tokio::time::timeout(SOON, heard.recv()).await.context("no outcome")?.context("no session")?;
    deployment.kill(&agent);
    deployment.write_config(&agent, &before)?;
    server.abort();
    Ok(one)
}

/// Says the heartbeat to the real coordinators, as the agent of NORTH; the answer.
async fn answer_to(deployment: &Deployment, said: &Said) -> Result<Acknowledgement> {
    let address = deployment.address(WITNESS, WITNESS, Service::Coordinator)?;
    let tls = tls(deployment, &format!("agent-{CLUSTER}-{NORTH}"))?.client();
    let channel = Channel::from_shared(format!("https://{address}"))?.tls_config(tls)?.connect().await?;
    let mut heartbeat = said.heartbeat.clone();
    heartbeat.report.guard.lease_epoch = Some(STALE);
    heartbeat.report.guard.lease_remaining_ms = Some(5_000);
    let messages: [AgentMessage; 2] =
        [FromAgent::Hello(said.hello.clone()).into(), FromAgent::Heartbeat(Box::new(heartbeat)).into()];
    // Open until the answer is there.
    let outbound = tokio_stream::iter(messages).chain(tokio_stream::pending());
    let mut answers = AgentServiceClient::new(channel).session(outbound).await?.into_inner();
    let answer = async {
        loop {
            let message = answers.message().await?.context("the session has ended")?;
            match FromCoordinator::try_from(message)? {
                FromCoordinator::Acknowledgement(one) => return Ok(*one),
                FromCoordinator::Goodbye { reason } => anyhow::bail!("goodbye: {reason}"),
                FromCoordinator::Directive { .. }
                | FromCoordinator::Unreadable { .. }
                | FromCoordinator::Newer => {}
            }
        }
    };
    tokio::time::timeout(SOON, answer).await.context("no answer to the heartbeat")?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_words_of_an_older_epoch_change_nothing() -> Result<()> {
    let options = DeploymentOptions::new("stale").postgres(18).partition_timeout(Duration::from_secs(30));
    let deployment = Deployment::start(options).await?;
    let mut workload = Workload::start(&deployment).await?;
    ensure!(deployment.status().await?.epoch() == STALE.0, "the first epoch is not {STALE}");
    let args = ["failover", CLUSTER, "--reason", "to make an older epoch", "--yes", "--wait"];
    deployment.ctl(&args).await?;
    let before = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(before.primary() == Some(EAST) && before.epoch() == STALE.0 + 1, "{before}");
    workload.reopen(&deployment, EAST).await?;
    let postgres = deployment.postgres_run(NORTH).await?;

    let said = meet_the_past(&deployment).await?;
    let Outcome::Refused { reason } = &said.outcome else {
        anyhow::bail!("a stale promotion was answered with {:?}", said.outcome)
    };
    ensure!(reason.contains("epoch 1") && reason.contains("epoch 2"), "both values: {reason}");
    let guard = deployment.guard(NORTH).await?;
    ensure!(guard["postgres"] == "standby", "{guard}");
    ensure!(deployment.postgres_run(NORTH).await? == postgres, "its PostgreSQL was touched");
    let session = deployment.pg(NORTH).await?;
    let in_recovery: bool = session.client().query_one("SELECT pg_is_in_recovery()", &[]).await?.get(0);
    ensure!(in_recovery, "it has left recovery");

    let answer = answer_to(&deployment, &said).await?;
    let LeaseDecision::Refused(LeaseRefusal::NotAppointed { epoch, holder }) = &answer.lease else {
        anyhow::bail!("a heartbeat of the old reign was answered with {:?}", answer.lease)
    };
    ensure!(epoch.0 == before.epoch(), "{answer:?}");
    ensure!(holder.as_ref().is_some_and(|holder| holder.as_str() == EAST), "{answer:?}");

    deployment.restart(&format!("agent-{NORTH}"))?;
    let after = deployment.wait_ready(REJOIN_AT_MOST).await?;
    ensure!(after.epoch() == before.epoch() && after.primary() == Some(EAST), "{after}");
    ensure!(deployment.count("failover").await? == 1, "another failover");
    ensure!(!workload.sessions_lost(EAST), "a session of the primary was lost");
    workload.finish(&deployment, LossAllowed::Salvaged).await?;
    deployment.finish().await
}
