//! One coordinator: starts every part, hands each what it needs, and ends them in order. Decides nothing.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use regent_core::Leadership;
use regent_pki::{Live, TlsFiles};
use regent_raft::{NodeAddress, Options, RaftNode};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    callout,
    clock::Clock,
    config::{Config, Security},
    confirm,
    dns::{self, Providers},
    executor, gaps,
    heard::Heard,
    hooks::StepHook,
    http, leadership,
    metrics::Metrics,
    peers::{Dialer, Peers},
    proposer::Proposer,
    service,
    sessions::Sessions,
    shared::Shared,
    tls,
};

/// Longest wait for what was committed before the start.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// What every task of a node shares.
pub struct Node {
    /// As loaded.
    pub config: Config,
    /// The only clock.
    pub clock: Clock,
    /// State and the leader's memory.
    pub shared: Arc<Shared>,
    /// The replicated log.
    pub raft: RaftNode,
    /// Into the log.
    pub proposer: Proposer,
    /// The other coordinators.
    pub peers: Peers,
    /// The agents' sessions, on the leader.
    pub sessions: Sessions,
    /// What was heard here, and told by the last leader.
    pub heard: Heard,
    /// Heartbeats that wait for a round.
    pub queue: confirm::Queue,
    /// This node's leadership, once its memory has begun.
    pub led: watch::Sender<Option<Leadership>>,
    /// DNS providers by name.
    pub providers: Providers,
    /// What the veto hook said, on the leader.
    pub vetoes: callout::veto::Vetoes,
    /// Counters.
    pub metrics: Metrics,
    /// The certificates in use; `None` in plain text.
    pub tls: Option<Arc<Live>>,
    /// Why this node may not vote any more, once the leader has said so.
    pub removed: watch::Sender<Option<String>>,
    /// Cancelled at the end.
    pub stop: CancellationToken,
}

impl Node {
    /// Whole days until this node's certificate expires.
    pub fn certificate_days_left(&self) -> Option<i64> {
        self.tls.as_ref().map(|live| tls::days_left(self, &live.current()))
    }

    /// Who leads, as far as this node knows.
    pub fn leader(&self) -> Option<u64> {
        self.raft.leadership().borrow().leader
    }
}

/// Why a node does not start, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// TLS files.
    #[error("tls")]
    Tls(#[from] regent_pki::PkiError),
    /// The certificate is another's.
    #[error("tls.cert belongs to {found}, node_id = {node} needs regent://coordinator/{node}")]
    Certificate {
        /// In the certificate.
        found: String,
        /// In the configuration.
        node: u64,
    },
    /// An address in the peers list.
    #[error("peers: an address cannot be dialled")]
    Dial(#[source] tonic::transport::Error),
    /// A listener.
    #[error("cannot listen on {what} = {address}")]
    Listen {
        /// The key.
        what: &'static str,
        /// Its value.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The replicated log.
    #[error(transparent)]
    Raft(#[from] regent_raft::StartError),
    /// gRPC.
    #[error("the gRPC server has ended")]
    Serve(#[source] tonic::transport::Error),
    /// An operator has taken this node out of the group.
    #[error(
        "coordinator {node} was removed from the group ({reason}): its id is never used again; join under a new id with an empty data_dir"
    )]
    Removed {
        /// This node.
        node: u64,
        /// As the leader said.
        reason: String,
    },
    /// The log stopped.
    #[error("the replicated log has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

/// A running node.
pub struct Running {
    /// Its parts.
    pub node: Arc<Node>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
    tasks: Vec<JoinHandle<()>>,
}

async fn listen(what: &'static str, address: SocketAddr) -> Result<TcpListener, NodeError> {
    TcpListener::bind(address).await.map_err(|source| NodeError::Listen { what, address, source })
}

fn load_tls(config: &Config) -> Result<Option<Arc<Live>>, NodeError> {
    let Security::Tls { ca, cert, key } = &config.security else { return Ok(None) };
    let files = TlsFiles { ca: ca.clone(), cert: cert.clone(), key: key.clone() };
    let live = Live::open(files)?;
    let material = live.current();
    for warning in &material.warnings {
        tracing::warn!("{warning}");
    }
    if material.identity != regent_pki::Identity::Coordinator(config.node_id) {
        let found = material.identity.to_string();
        return Err(NodeError::Certificate { found, node: config.node_id.0 });
    }
    // Only a coordinator's certificate serves; better found out here than at the first handshake.
    material.acceptor()?;
    Ok(Some(Arc::new(live)))
}

impl Running {
    /// Starts everything. When this returns, the listeners answer.
    pub async fn start(config: Config, clock: Clock) -> Result<Self, NodeError> {
        if let Some(reason) = crate::coordinators::removal(&config.data_dir) {
            return Err(NodeError::Removed { node: config.node_id.0, reason });
        }
        let tls = load_tls(&config)?;
        let dialer = Dialer::new(tls.clone());
        let peers = Peers::new(&config, &dialer).map_err(NodeError::Dial)?;
        // Every listener first: a port in use must not be found out after the log was opened.
        let grpc = listen("listen", config.listen).await?;
        let web = match config.http_listen {
            Some(address) => Some(listen("http_listen", address).await?),
            None => None,
        };
        let dns_sockets = match &config.dns {
            Some(dns) => Some(dns::bind(dns.listen).await?),
            None => None,
        };

        let hook = config.test_hooks.clone().map(StepHook::new);
        let shared = Arc::new(Shared::new(hook, config.feature_level_max));
        let members = config
            .peers
            .iter()
            .map(|(id, peer)| (id.0, NodeAddress { raft_addr: peer.address.clone() }))
            .collect();
        let mut options =
            Options::new(config.node_id.0, config.group.clone(), members, &config.data_dir, Arc::new(dialer));
        options.expect_existing = config.expect_existing;
        options.join = config.join;
        options.heartbeat_interval = config.raft.heartbeat_interval;
        options.election_timeout_min = config.raft.election_timeout_min;
        options.election_timeout_max = config.raft.election_timeout_max;
        let raft = RaftNode::start(options, shared.clone()).await?;

        let node = Arc::new(Node {
            proposer: Proposer::new(raft.clone(), clock.clone(), config.node_id, shared.clone()),
            providers: dns::providers(&config, &clock),
            clock,
            shared,
            raft,
            peers,
            sessions: Sessions::default(),
            heard: Heard::default(),
            queue: confirm::Queue::default(),
            led: watch::Sender::new(None),
            vetoes: callout::veto::Vetoes::default(),
            metrics: Metrics::default(),
            tls: tls.clone(),
            removed: watch::Sender::new(None),
            stop: CancellationToken::new(),
            config,
        });
        let server = tokio::spawn(service::serve(node.clone(), grpc, tls.clone()));
        let mut tasks = Vec::new();
        if let Some(live) = tls {
            tasks.push(tokio::spawn(tls::watch(node.clone(), live)));
        }
        tasks.push(tokio::spawn(begin(node.clone())));
        if let Some(web) = web {
            tasks.push(tokio::spawn(http::serve(node.clone(), web)));
        }
        if let Some(sockets) = dns_sockets {
            tasks.push(tokio::spawn(dns::embedded::serve(node.clone(), sockets)));
        }
        tracing::info!(node = %node.config.node_id, listen = %node.config.listen, "coordinator started");
        Ok(Self { node, server, tasks })
    }

    /// Waits until `stop` resolves or something ends by itself.
    pub async fn until(mut self, stop: impl Future<Output = ()>) -> Result<(), NodeError> {
        let result = tokio::select! {
            () = stop => {
                leadership::hand_over(&self.node).await;
                Ok(())
            }
            reason = self.node.raft.stopped() => Err(NodeError::Stopped { reason }),
            reason = crate::coordinators::removed(&self.node) => {
                Err(NodeError::Removed { node: self.node.config.node_id.0, reason })
            }
            ended = &mut self.server => match ended {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(NodeError::Serve(error)),
                Err(error) => Err(NodeError::Stopped { reason: error.to_string() }),
            },
        };
        self.shutdown().await;
        result
    }

    /// Ends every part.
    pub async fn shutdown(self) {
        self.node.stop.cancel();
        for task in &self.tasks {
            task.abort();
        }
        self.node.raft.shutdown().await;
        let clock = self.node.clock.clone();
        clock.within(Duration::from_secs(2), self.server).await;
        for task in self.tasks {
            task.await.ok();
        }
    }
}

/// The tasks that need the state as it was before the start.
async fn begin(node: Arc<Node>) {
    if !node.raft.recovered(node.clock.deadline(RECOVERY_TIMEOUT)).await {
        tracing::warn!("what was committed before the start has not been applied yet");
    }
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(leadership::follow(node.clone()));
    tasks.spawn(leadership::tick(node.clone()));
    tasks.spawn(leadership::exchange(node.clone()));
    tasks.spawn(leadership::place(node.clone()));
    tasks.spawn(crate::coordinators::follow(node.clone()));
    tasks.spawn(crate::coordinators::reconcile(node.clone()));
    tasks.spawn(confirm::run(node.clone()));
    tasks.spawn(executor::run(node.clone()));
    tasks.spawn(gaps::run(node.clone()));
    tasks.spawn(callout::events::follow(node.clone()));
    tasks.spawn(dns::look::run(node.clone()));
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            tracing::error!(%error, "bug: a task of this node panicked; the process ends");
            std::process::abort();
        }
    }
}
