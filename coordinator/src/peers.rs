//! Connections to the other coordinators, and what they told of themselves.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use regent_pki::Live;
use regent_raft::{Connector, tuned};
use regent_types::CoordinatorId;
use tonic::transport::{Channel, Endpoint};

use crate::{config::Config, tls};

/// Makes channels with this node's certificate.
#[derive(Clone)]
pub struct Dialer {
    tls: Option<Arc<Live>>,
}

impl Dialer {
    /// With the node's TLS material, or in plain text.
    pub fn new(tls: Option<Arc<Live>>) -> Self {
        Self { tls }
    }

    /// A channel that connects when it is used, and again after a loss.
    pub fn dial(&self, address: &str) -> Result<Channel, tonic::transport::Error> {
        // `http` in both cases: the connector speaks TLS by itself.
        let endpoint = tuned(Endpoint::from_shared(format!("http://{address}"))?);
        Ok(match &self.tls {
            Some(live) => tls::channel(&endpoint, address, live),
            None => endpoint.connect_lazy(),
        })
    }
}

impl Connector for Dialer {
    fn channel(&self, _node: u64, address: &str) -> Channel {
        self.dial(address).expect("addresses were dialled once at start")
    }
}

/// What is known of another coordinator.
#[derive(Debug, Clone, Default)]
pub struct PeerNews {
    /// When it last answered, monotonic ns.
    pub answered_ns: Option<u64>,
    /// Its term then.
    pub term: Option<u64>,
    /// The highest feature level that it understands.
    pub level: Option<u8>,
    /// Whole days until its certificate expires.
    pub certificate_days_left: Option<i64>,
    /// Its build.
    pub version: Option<String>,
}

/// The other coordinators.
pub struct Peers {
    channels: BTreeMap<CoordinatorId, Channel>,
    news: Mutex<BTreeMap<CoordinatorId, PeerNews>>,
}

impl Peers {
    /// Channels to everyone else, connecting lazily.
    pub fn new(config: &Config, dialer: &Dialer) -> Result<Self, tonic::transport::Error> {
        let others = config.peers.iter().filter(|(id, _)| **id != config.node_id);
        let channels =
            others.map(|(id, peer)| Ok((*id, dialer.dial(&peer.address)?))).collect::<Result<_, _>>()?;
        Ok(Self { channels, news: Mutex::default() })
    }

    /// Everyone else.
    pub fn others(&self) -> impl Iterator<Item = (CoordinatorId, Channel)> + '_ {
        self.channels.iter().map(|(id, channel)| (*id, channel.clone()))
    }

    /// The channel to one of them.
    pub fn channel(&self, id: CoordinatorId) -> Option<Channel> {
        self.channels.get(&id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<CoordinatorId, PeerNews>> {
        self.news.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// It answered.
    pub fn answered(&self, id: CoordinatorId, news: PeerNews) {
        self.lock().insert(id, news);
    }

    /// What is known of it.
    pub fn news(&self, id: CoordinatorId) -> PeerNews {
        self.lock().get(&id).cloned().unwrap_or_default()
    }
}
