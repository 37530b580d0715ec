//! `coordinator.toml`: what a node is told, and which of it cannot work.
//!
//! Decides only whether a configuration is acceptable. Every refusal names the key and the value. Invariant: a
//! [`Config`] that exists has passed every check, the relation of DESIGN section 5.8 included.

mod check;
mod cluster;
mod fencing;
mod file;
mod route53;
#[cfg(test)]
mod tests;
mod window;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use regent_core::{ClusterConfig, ConfigError};
use regent_types::{CoordinatorId, Region};

pub use cluster::{change as change_policy, render as render_policy};
pub use fencing::FencingDriver;
pub use route53::{ChangeMode, Route53, Route53Mode, Weighted};

/// Name of the built-in DNS provider.
pub const EMBEDDED: &str = "embedded";

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong kind.
    #[error("{path}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser said, with line and key.
        message: String,
    },
    /// A value or a relation that cannot work.
    #[error(transparent)]
    Value(#[from] ConfigError),
}

pub(crate) fn refuse<T>(field: impl Into<String>, problem: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError { field: field.into(), problem: problem.into() })
}

/// Another coordinator, or this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its failure domain.
    pub region: Region,
    /// `host:port` of its gRPC listener.
    pub address: String,
}

/// How connections are secured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Security {
    /// mTLS with these files.
    Tls {
        /// Certificate authority.
        ca: PathBuf,
        /// This node's certificate.
        cert: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// Plain text, on loopback only.
    Plaintext,
}

/// Raft's time-outs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftTiming {
    /// Between two heartbeats of a leader.
    pub heartbeat_interval: Duration,
    /// Lower end of the random election time-out.
    pub election_timeout_min: Duration,
    /// Upper end, and the time that followers stay with a silent leader.
    pub election_timeout_max: Duration,
    /// The worst round trip between two coordinators that the time-outs must bear.
    pub round_trip_max: Duration,
}

impl RaftTiming {
    /// The longest that the group may be without a leader after losing one, ms: the followers' patience, then the
    /// longest draw of the election time-out, then four round trips (pre-vote, vote, first append, retry).
    pub fn election_worst_ms(&self) -> u64 {
        (self.election_timeout_max * 2 + self.round_trip_max * 4 + self.heartbeat_interval).as_millis() as u64
    }
}

/// The embedded DNS server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// UDP and TCP.
    pub listen: SocketAddr,
    /// The zone served, without the last dot.
    pub zone: String,
    /// Names of the zone's servers, without the last dot.
    pub name_servers: Vec<String>,
    /// Listeners that must show a changed record: one of them at least.
    pub verify: Vec<SocketAddr>,
}

/// Where the leader prefers to live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Hand the leadership to a coordinator outside the region where most primaries are.
    pub avoid_primary_region: bool,
    /// Not more often than this.
    pub interval: Duration,
}

/// Only for tests: how this node is to die or to pause.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TestHooks {
    /// `kind:step`, e.g. `failover:fence`: the process kills itself when the commit that enters this step was applied
    /// while it leads.
    pub exit_after_step: Option<String>,
    /// Likewise, but it stops itself (SIGSTOP), with `failover:*` after each step: a test does something between two steps and continues it.
    pub stop_after_step: Option<String>,
}

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This node.
    pub node_id: CoordinatorId,
    /// Name of the Raft group.
    pub group: String,
    /// This node's failure domain.
    pub region: Region,
    /// Log, vote and snapshots.
    pub data_dir: PathBuf,
    /// Refuse to start when `data_dir` is empty.
    pub expect_existing: bool,
    /// The highest feature level that this node announces and takes.
    pub feature_level_max: u8,
    /// This node joins a group that exists; it never founds one.
    pub join: bool,
    /// gRPC for agents, operators and the other coordinators.
    pub listen: SocketAddr,
    /// Metrics and health over HTTP.
    pub http_listen: Option<SocketAddr>,
    /// The embedded DNS server.
    pub dns: Option<Dns>,
    /// Places in Route 53, by provider name.
    pub route53: BTreeMap<String, Route53>,
    /// TLS.
    pub security: Security,
    /// All coordinators, this one included.
    pub peers: BTreeMap<CoordinatorId, Peer>,
    /// Raft's time-outs.
    pub raft: RaftTiming,
    /// Where the leader prefers to live.
    pub placement: Placement,
    /// Clusters to be added when the group does not know them.
    pub clusters: Vec<ClusterConfig>,
    /// External fencing drivers of this node.
    pub fencing_drivers: Vec<FencingDriver>,
    /// Commands of the operator's own.
    pub hooks: Option<crate::callout::Hooks>,
    /// Only for tests.
    pub test_hooks: Option<TestHooks>,
}

/// A text with one `[[cluster]]` table, checked as if this node's file held it alone: an operator's new cluster.
pub fn parse_cluster(config: &Config, text: &str) -> Result<ClusterConfig, ConfigError> {
    let cluster = cluster::read_one(text)?;
    let one = Config { clusters: vec![cluster.clone()], ..config.clone() };
    check::check(&one)?;
    Ok(cluster)
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Reads and checks a text; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, LoadError> {
        let file: file::File = toml::from_str(text)
            .map_err(|error| LoadError::Parse { path: path.to_owned(), message: error.to_string() })?;
        let config = file.into_config()?;
        check::check(&config)?;
        Ok(config)
    }
}
