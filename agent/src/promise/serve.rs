//! The promiser's side: a gRPC listener for the agents of the same cluster. A promise leaves after the guard has it on disk.
//! Each handshake uses the certificate of that moment: a renewed one needs no restart of the agent.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use anyhow::Context;
use regent_agent_core::promise::{Promiser, Refusal, Request as Asked, promise};
use regent_guard::wire::Request;
use regent_pki::{Identity, Patience, identity_of};
use regent_proto::v1::{
    PromiseReply, PromiseRequest,
    agent_peer_service_server::{AgentPeerService, AgentPeerServiceServer},
    promise_reply::{Answer, Promised, Refused},
};
use regent_types::{ClusterName, Epoch, LeaseTerms, MemberName};
use tokio::net::TcpListener;
use tonic::{Response, Status, transport::server::TcpIncoming};

use crate::{app::App, guard::GuardError, transport};

const GUARD_LIMIT: Duration = Duration::from_secs(3);

/// A bound listener.
pub struct Listener(TcpListener);

/// Binds `[peer] listen`, when there is one.
pub async fn bind(app: &App) -> anyhow::Result<Option<Listener>> {
    let Some(peer) = &app.config.peer else { return Ok(None) };
    let listener = TcpListener::bind(peer.listen).await;
    Ok(Some(Listener(listener.with_context(|| format!("peer.listen = {}", peer.listen))?)))
}

impl Listener {
    /// Serves for ever; an error is one of certificates or of the listener.
    pub async fn serve(self, app: Arc<App>) -> anyhow::Result<()> {
        let mut server = tonic::transport::Server::builder().timeout(Duration::from_secs(10));
        let router = server.add_service(AgentPeerServiceServer::new(Peers { app: app.clone() }));
        if app.config.tls.is_none() {
            let incoming = TcpIncoming::from(self.0).with_nodelay(Some(true));
            return Ok(router.serve_with_incoming(incoming).await?);
        }
        let config = move || transport::peer_acceptor(&app);
        // Said at once: the first who asks may come when no coordinator answers any more.
        if let Err(error) = config() {
            tracing::error!(%error, "promises cannot be given until the certificate is a good one");
        }
        Ok(router.serve_with_incoming(regent_pki::incoming(self.0, config, TokioTime)).await?)
    }
}

#[derive(Clone)]
struct TokioTime;

impl Patience for TokioTime {
    async fn wait(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

struct Peers {
    app: Arc<App>,
}

impl Peers {
    /// Who calls, by its certificate: an agent of this cluster. `None` in plain text, which is for loopback only.
    fn caller<T>(&self, request: &tonic::Request<T>) -> Result<Option<MemberName>, Status> {
        if self.app.config.plaintext {
            return Ok(None);
        }
        let certificates = request.peer_certs();
        let certificate = certificates.as_ref().and_then(|all| all.first());
        let certificate =
            certificate.ok_or_else(|| Status::unauthenticated("a client certificate is required"))?;
        let identity = identity_of(certificate.as_ref())
            .map_err(|error| Status::unauthenticated(format!("the certificate: {error}")))?;
        match identity {
            Identity::Agent { cluster, member } if cluster == self.app.config.cluster => Ok(Some(member)),
            other => Err(Status::permission_denied(format!(
                "{other} may not ask for promises: that needs the certificate of an agent of cluster {}",
                self.app.config.cluster
            ))),
        }
    }
}

#[tonic::async_trait]
impl AgentPeerService for Peers {
    async fn promise(
        &self,
        request: tonic::Request<PromiseRequest>,
    ) -> Result<Response<PromiseReply>, Status> {
        let caller = self.caller(&request)?;
        let asked = read(request.into_inner())?;
        let answer = match give(&self.app, &asked, caller.as_ref()).await {
            Ok(held_ms) => Answer::Promised(Promised { held_ms }),
            Err(refusal) => {
                let reason = &refusal.reason;
                tracing::info!(member = %asked.member, epoch = %asked.epoch, reason, "no promise given");
                Answer::Refused(Refused { reason: refusal.reason, epoch_ended: refusal.epoch_ended })
            }
        };
        Ok(Response::new(PromiseReply { answer: Some(answer) }))
    }
}

fn read(message: PromiseRequest) -> Result<Asked, Status> {
    let bad =
        |field: &str, error: regent_types::IdError| Status::invalid_argument(format!("{field}: {error}"));
    Ok(Asked {
        cluster: ClusterName::new(message.cluster).map_err(|error| bad("cluster", error))?,
        member: MemberName::new(message.member).map_err(|error| bad("member", error))?,
        epoch: Epoch(message.epoch),
        promiser: MemberName::new(message.promiser).map_err(|error| bad("promiser", error))?,
        terms: LeaseTerms { ttl_ms: message.duration_ms, rho_ppm: message.rho_ppm, kill_ms: message.kill_ms },
    })
}

async fn give(app: &App, asked: &Asked, caller: Option<&MemberName>) -> Result<u64, Refusal> {
    let no = |reason: String| Refusal { reason, epoch_ended: false };
    let status = app.guard.status().await.map_err(|error| no(error.to_string()))?;
    let view = app.view();
    let held_ms = promise(
        asked,
        &Promiser {
            cluster: &app.config.cluster,
            member: &app.config.member,
            caller,
            view: view.as_ref(),
            unknown: app.promises.unknown.load(SeqCst),
            seen: app.state.get().highest_epoch.max(Epoch(status.highest_epoch)),
            fenced_through: Epoch(status.fenced_through),
            promises_closed: Epoch(status.promises_closed),
        },
    )?;
    let request = Request::Promise { epoch: asked.epoch.0, hold_ms: held_ms };
    match app.guard.ask(&request, GUARD_LIMIT).await {
        Ok(_) => {
            app.counters.promises_given.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(held_ms)
        }
        Err(GuardError::Refused { reason, .. }) => Err(no(reason)),
        Err(error) => Err(no(error.to_string())),
    }
}
