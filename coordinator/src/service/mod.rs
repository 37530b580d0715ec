//! gRPC on one port: agents, operators, the other coordinators, Raft, reflection and health. Services decide nothing;
//! who may call what is in [`auth`] alone.

mod agent;
pub mod auth;
mod coordinators;
mod drill;
mod everyday;
pub mod explain;
mod import;
mod judge;
mod membership;
mod operator;
mod parameters;
mod peer;
mod policy;
mod relay;
mod switch;
pub mod view;

use std::{sync::Arc, time::Duration};

use regent_pki::Live;
use regent_proto::v1::{
    agent_service_server::AgentServiceServer, operator_service_server::OperatorServiceServer,
    peer_service_server::PeerServiceServer,
};
use tokio::net::TcpListener;
use tonic::{
    service::interceptor::InterceptedService,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::ServingStatus;

use crate::{node::Node, tls};

/// A client that has gone dark is given up after these.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves until the node ends.
pub async fn serve(
    node: Arc<Node>,
    listener: TcpListener,
    tls: Option<Arc<Live>>,
) -> Result<(), tonic::transport::Error> {
    let plaintext = node.config.security == crate::config::Security::Plaintext;
    let known = node.clone();
    let gate =
        auth::Gate::new(plaintext, move |identity| auth::removed(&known.shared.lock().state, identity));
    let (health, health_service) = tonic_health::server::health_reporter();
    let watched = tokio::spawn(follow_health(node.clone(), health));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(regent_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptor sets are built in");
    let raft_gate = gate.clone();
    let raft = InterceptedService::new(node.raft.service(), move |request| raft_gate.raft(request));
    let router = Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_service(raft)
        .add_service(AgentServiceServer::new(agent::Agents { node: node.clone(), gate: gate.clone() }))
        .add_service(PeerServiceServer::new(peer::PeersOf { node: node.clone(), gate: gate.clone() }))
        .add_service(OperatorServiceServer::new(operator::Operators { node: node.clone(), gate }))
        .add_service(health_service)
        .add_service(reflection);
    let stop = node.stop.clone().cancelled_owned();
    let result = match tls {
        Some(live) => router.serve_with_incoming_shutdown(tls::incoming(&node, listener, live), stop).await,
        None => {
            // The server's own `tcp_nodelay` is ignored for a listener that was bound before: without this, small answers
            // wait for the acknowledgement of the last ones.
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            router.serve_with_incoming_shutdown(incoming, stop).await
        }
    };
    watched.abort();
    result
}

/// SERVING while a leader is known.
async fn follow_health(node: Arc<Node>, health: tonic_health::server::HealthReporter) {
    let mut changes = node.raft.leadership();
    loop {
        let leader = changes.borrow_and_update().leader;
        let status = if leader.is_some() { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in ["", "regent.v1.AgentService", "regent.v1.OperatorService"] {
            health.set_service_status(service, status).await;
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}
