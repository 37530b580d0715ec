//! The file as it is written: one struct per table, unknown keys refused, defaults of DESIGN.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use regent_core::{ConfigError, FEATURE_LEVEL};
use regent_types::{CoordinatorId, Region};
use serde::Deserialize;

use crate::callout::{Hooks, OnFailure};

use super::{
    Config, Dns, Peer, Placement, RaftTiming, Security, TestHooks, cluster::ClusterTable,
    fencing::FencingTable, refuse, route53::Route53Table,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    node_id: u64,
    #[serde(default = "default_group")]
    group: String,
    region: Region,
    data_dir: PathBuf,
    #[serde(default)]
    expect_existing: bool,
    #[serde(default = "default_feature_level_max")]
    feature_level_max: u8,
    #[serde(default)]
    join: bool,
    listen: SocketAddr,
    http_listen: Option<SocketAddr>,
    #[serde(default)]
    plaintext: bool,
    #[serde(default)]
    allow_single_region_majority: bool,
    tls: Option<TlsTable>,
    dns: Option<DnsTable>,
    #[serde(default)]
    route53: Vec<Route53Table>,
    peers: Vec<PeerTable>,
    #[serde(default)]
    raft: RaftTable,
    #[serde(default)]
    placement: PlacementTable,
    #[serde(default)]
    cluster: Vec<ClusterTable>,
    #[serde(default)]
    fencing_driver: Vec<FencingTable>,
    hooks: Option<HooksTable>,
    test_hooks: Option<TestHooksTable>,
}

fn default_feature_level_max() -> u8 {
    FEATURE_LEVEL
}

fn default_group() -> String {
    "regent".into()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsTable {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DnsTable {
    listen: SocketAddr,
    zone: String,
    name_servers: Vec<String>,
    verify: Vec<SocketAddr>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerTable {
    id: u64,
    region: Region,
    address: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RaftTable {
    #[serde(with = "humantime_serde")]
    heartbeat_interval: Duration,
    #[serde(with = "humantime_serde")]
    election_timeout_min: Duration,
    #[serde(with = "humantime_serde")]
    election_timeout_max: Duration,
    #[serde(with = "humantime_serde")]
    round_trip_max: Duration,
}

impl Default for RaftTable {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_millis(250),
            election_timeout_min: Duration::from_millis(1000),
            election_timeout_max: Duration::from_millis(1500),
            round_trip_max: Duration::from_millis(150),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PlacementTable {
    avoid_primary_region: bool,
    #[serde(with = "humantime_serde")]
    interval: Duration,
}

impl Default for PlacementTable {
    fn default() -> Self {
        Self { avoid_primary_region: true, interval: Duration::from_secs(30) }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HooksTable {
    veto: Vec<String>,
    #[serde(with = "humantime_serde")]
    veto_timeout: Duration,
    #[serde(with = "humantime_serde")]
    veto_retry: Duration,
    veto_on_failure: OnFailure,
    event: Vec<String>,
    #[serde(with = "humantime_serde")]
    event_timeout: Duration,
    event_attempts: u32,
}

impl Default for HooksTable {
    fn default() -> Self {
        Self {
            veto: Vec::new(),
            veto_timeout: Duration::from_secs(10),
            veto_retry: Duration::from_secs(30),
            veto_on_failure: OnFailure::Allow,
            event: Vec::new(),
            event_timeout: Duration::from_secs(30),
            event_attempts: 5,
        }
    }
}

impl HooksTable {
    fn into_hooks(self) -> Result<Hooks, ConfigError> {
        for (key, command) in [("hooks.veto", &self.veto), ("hooks.event", &self.event)] {
            if let Some(program) = command.first().filter(|program| !program.starts_with('/')) {
                return refuse(key, format!("{program:?} is not an absolute path"));
            }
        }
        for (key, time) in [
            ("hooks.veto_timeout", self.veto_timeout),
            ("hooks.veto_retry", self.veto_retry),
            ("hooks.event_timeout", self.event_timeout),
        ] {
            if time.is_zero() {
                return refuse(key, "must be longer than 0");
            }
        }
        if self.event_attempts == 0 {
            return refuse("hooks.event_attempts", "0: an event that is never tried is never told");
        }
        Ok(Hooks {
            veto: self.veto,
            veto_timeout: self.veto_timeout,
            veto_retry: self.veto_retry,
            veto_on_failure: self.veto_on_failure,
            event: self.event,
            event_timeout: self.event_timeout,
            event_attempts: self.event_attempts,
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TestHooksTable {
    exit_after_step: Option<String>,
    stop_after_step: Option<String>,
}

impl File {
    pub(super) fn into_config(self) -> Result<Config, ConfigError> {
        let security = match (self.tls, self.plaintext) {
            (Some(_), true) => return refuse("plaintext", "true, but [tls] is set too: choose one"),
            (Some(tls), false) => Security::Tls { ca: tls.ca, cert: tls.cert, key: tls.key },
            (None, true) => Security::Plaintext,
            (None, false) => {
                return refuse(
                    "tls",
                    "is missing; plain text must be asked for with plaintext = true (loopback only)",
                );
            }
        };
        let mut peers = std::collections::BTreeMap::new();
        for peer in self.peers {
            let id = CoordinatorId(peer.id);
            if peers.insert(id, Peer { region: peer.region, address: peer.address }).is_some() {
                return refuse("peers.id", format!("{id} is given twice"));
            }
        }
        let raft = RaftTiming {
            heartbeat_interval: self.raft.heartbeat_interval,
            election_timeout_min: self.raft.election_timeout_min,
            election_timeout_max: self.raft.election_timeout_max,
            round_trip_max: self.raft.round_trip_max,
        };
        let clusters =
            self.cluster.into_iter().map(ClusterTable::into_cluster).collect::<Result<Vec<_>, _>>()?;
        let config = Config {
            node_id: CoordinatorId(self.node_id),
            group: self.group,
            region: self.region,
            data_dir: self.data_dir,
            expect_existing: self.expect_existing,
            feature_level_max: self.feature_level_max,
            join: self.join,
            listen: self.listen,
            http_listen: self.http_listen,
            dns: self.dns.map(|dns| Dns {
                listen: dns.listen,
                zone: dns.zone,
                name_servers: dns.name_servers,
                verify: dns.verify,
            }),
            route53: super::route53::into_providers(self.route53)?,
            security,
            peers,
            raft,
            placement: Placement {
                avoid_primary_region: self.placement.avoid_primary_region,
                interval: self.placement.interval,
            },
            clusters,
            fencing_drivers: self.fencing_driver.into_iter().map(FencingTable::into_driver).collect(),
            hooks: self.hooks.map(HooksTable::into_hooks).transpose()?,
            test_hooks: self.test_hooks.map(|hooks| TestHooks {
                exit_after_step: hooks.exit_after_step,
                stop_after_step: hooks.stop_after_step,
            }),
        };
        super::check::check_votes(&config, self.allow_single_region_majority)?;
        Ok(config)
    }
}
