//! Connections to the other coordinators, and what they told of themselves.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use regent_pki::Live;
use regent_raft::{Connector, tuned};
use regent_types::CoordinatorId;
use tonic::transport::{Channel, Endpoint};

use crate::{
    config::{Config, Peer},
    tls,
};

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
        self.dial(address).expect("addresses are checked before they are taken")
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
    dialer: Dialer,
    channels: Mutex<BTreeMap<CoordinatorId, (String, Channel)>>,
    removed: Mutex<BTreeMap<CoordinatorId, (String, Channel)>>,
    news: Mutex<BTreeMap<CoordinatorId, PeerNews>>,
}

type Channels = BTreeMap<CoordinatorId, (String, Channel)>;

fn locked(channels: &Mutex<Channels>) -> MutexGuard<'_, Channels> {
    channels.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Peers {
    /// Channels to everyone else, connecting lazily.
    pub fn new(config: &Config, dialer: &Dialer) -> Result<Self, tonic::transport::Error> {
        let others = config.peers.iter().filter(|(id, _)| **id != config.node_id);
        let channels = others
            .map(|(id, peer)| Ok((*id, (peer.address.clone(), dialer.dial(&peer.address)?))))
            .collect::<Result<_, _>>()?;
        let (channels, dialer) = (Mutex::new(channels), dialer.clone());
        Ok(Self { dialer, channels, removed: Mutex::default(), news: Mutex::default() })
    }

    /// Who there is now, and who is out: those are only told so.
    pub fn set(
        &self,
        own: CoordinatorId,
        known: &BTreeMap<CoordinatorId, Peer>,
        removed: &BTreeMap<CoordinatorId, String>,
        config: &Config,
    ) {
        let known = known.iter().filter(|(id, _)| **id != own).map(|(id, peer)| (*id, peer.address.clone()));
        self.keep(&self.channels, known.collect());
        let of_file = |id: &CoordinatorId| config.peers.get(id).map(|peer| peer.address.clone());
        let removed = removed.iter().filter(|(id, _)| **id != own);
        let removed = removed.map(|(id, address)| (*id, of_file(id).unwrap_or_else(|| address.clone())));
        self.keep(&self.removed, removed.collect());
    }

    fn keep(&self, channels: &Mutex<Channels>, wanted: BTreeMap<CoordinatorId, String>) {
        let mut channels = locked(channels);
        channels.retain(|id, (address, _)| wanted.get(id) == Some(address));
        for (id, address) in wanted {
            if channels.contains_key(&id) {
                continue;
            }
            match self.dialer.dial(&address) {
                Ok(channel) => drop(channels.insert(id, (address, channel))),
                Err(error) => {
                    tracing::error!(%id, address, %error, "the coordinator's address cannot be dialled")
                }
            }
        }
    }

    /// Everyone else.
    pub fn others(&self) -> Vec<(CoordinatorId, Channel)> {
        locked(&self.channels).iter().map(|(id, (_, channel))| (*id, channel.clone())).collect()
    }

    /// Those that were taken out of the group.
    pub fn removed(&self) -> Vec<(CoordinatorId, Channel)> {
        locked(&self.removed).iter().map(|(id, (_, channel))| (*id, channel.clone())).collect()
    }

    /// The channel to one of them.
    pub fn channel(&self, id: CoordinatorId) -> Option<Channel> {
        locked(&self.channels).get(&id).map(|(_, channel)| channel.clone())
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
