//! One `[[cluster]]` table, its members and its policy, with the defaults of DESIGN section 7.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use regent_core::{
    ClusterConfig, ConfigError, FailbackMode, MemberConfig, Policy, Shortage, SyncMembers, SynchronousPolicy,
};
use regent_types::{Automation, ClusterName, LeaseTerms, MemberName, Region};
use serde::{Deserialize, Serialize};

mod policy;
mod synchronous;

pub use policy::{change, render};

use super::{EMBEDDED, refuse, window};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClusterTable {
    name: ClusterName,
    dns_name: String,
    #[serde(with = "humantime_serde", default = "default_ttl")]
    dns_ttl: Duration,
    #[serde(default = "default_providers")]
    dns_providers: Vec<String>,
    initial_primary: MemberName,
    #[serde(default = "default_automation")]
    automation: Automation,
    preferred_region: Option<Region>,
    #[serde(default)]
    policy: PolicyTable,
    member: Vec<MemberTable>,
}

fn default_automation() -> Automation {
    Automation::Automatic
}

fn default_ttl() -> Duration {
    Duration::from_secs(5)
}

fn default_providers() -> Vec<String> {
    vec![EMBEDDED.into()]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberTable {
    name: MemberName,
    region: Region,
    host: String,
    port: u16,
    client_address: IpAddr,
    client_port: Option<u16>,
    #[serde(default = "default_priority")]
    priority: u32,
    #[serde(default = "default_promotable")]
    promotable: bool,
    agent_address: Option<String>,
}

fn default_priority() -> u32 {
    100
}

fn default_promotable() -> bool {
    true
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct PolicyTable {
    #[serde(with = "humantime_serde")]
    partition_timeout: Duration,
    #[serde(with = "humantime_serde")]
    lease_ttl: Duration,
    #[serde(with = "humantime_serde")]
    kill_time: Duration,
    clock_drift_ppm: u64,
    #[serde(with = "humantime_serde")]
    postgres_down_timeout: Duration,
    #[serde(with = "humantime_serde")]
    disk_stall_timeout: Duration,
    #[serde(with = "humantime_serde")]
    heartbeat_interval: Duration,
    #[serde(with = "humantime_serde")]
    fence_grace: Duration,
    #[serde(with = "humantime_serde")]
    promote_timeout: Duration,
    #[serde(with = "humantime_serde")]
    replay_timeout: Duration,
    #[serde(with = "humantime_serde")]
    validate_timeout: Duration,
    #[serde(with = "humantime_serde")]
    rejoin_timeout: Duration,
    #[serde(with = "humantime_serde")]
    rewind_timeout: Duration,
    sync_lag_bytes_max: u64,
    #[serde(with = "humantime_serde")]
    sync_window: Duration,
    #[serde(deserialize_with = "bytes_or_off", serialize_with = "policy::write_bytes_or_off")]
    max_lag_bytes: Option<u64>,
    #[serde(with = "humantime_serde")]
    cooldown: Duration,
    #[serde(deserialize_with = "time_or_off", serialize_with = "policy::write_time_or_off")]
    max_lag: Option<Duration>,
    #[serde(deserialize_with = "time_or_off", serialize_with = "policy::write_time_or_off")]
    disk_full_alert: Option<Duration>,
    #[serde(with = "humantime_serde")]
    switchover_timeout: Duration,
    failback: FailbackMode,
    #[serde(with = "humantime_serde")]
    failback_after: Duration,
    #[serde(skip_serializing_if = "Option::is_none")]
    failback_window: Option<window::Text>,
    #[serde(with = "humantime_serde::option", skip_serializing_if = "Option::is_none")]
    promise_duration: Option<Duration>,
    #[serde(deserialize_with = "synchronous::read_switch", serialize_with = "synchronous::write_switch")]
    synchronous: bool,
    synchronous_standbys: u32,
    #[serde(deserialize_with = "synchronous::read_members", serialize_with = "synchronous::write_members")]
    synchronous_members: SyncMembers,
    synchronous_shortage: Shortage,
    #[serde(with = "humantime_serde")]
    synchronous_timeout: Duration,
}

const OFF: &str = "off";

/// A number of bytes, or `"off"`.
fn bytes_or_off<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        Bytes(u64),
        Text(String),
    }
    match Value::deserialize(from) {
        Ok(Value::Bytes(bytes)) => Ok(Some(bytes)),
        Ok(Value::Text(text)) if text == OFF => Ok(None),
        Ok(Value::Text(text)) => {
            Err(serde::de::Error::custom(format!("{text:?} is neither a number of bytes nor \"off\"")))
        }
        Err(_) => Err(serde::de::Error::custom("use a number of bytes, or \"off\"")),
    }
}

/// A duration, or `"off"`.
fn time_or_off<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    if text == OFF {
        return Ok(None);
    }
    humantime::parse_duration(&text).map(Some).map_err(|error| {
        serde::de::Error::custom(format!("{text:?} is neither a time ({error}) nor \"off\""))
    })
}

impl Default for PolicyTable {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            partition_timeout: s(300),
            lease_ttl: s(270),
            kill_time: s(1),
            clock_drift_ppm: 5_000,
            postgres_down_timeout: s(60),
            disk_stall_timeout: s(30),
            heartbeat_interval: s(1),
            fence_grace: s(5),
            promote_timeout: s(120),
            replay_timeout: s(60),
            validate_timeout: s(120),
            rejoin_timeout: s(3600),
            rewind_timeout: s(1200),
            sync_lag_bytes_max: 16 << 20,
            sync_window: s(10),
            cooldown: s(3600),
            max_lag_bytes: Some(64 << 20),
            max_lag: Some(s(60)),
            disk_full_alert: Some(s(6 * 3600)),
            switchover_timeout: s(30),
            failback: FailbackMode::Approval,
            failback_after: s(600),
            failback_window: None,
            promise_duration: None,
            synchronous: false,
            synchronous_standbys: 1,
            synchronous_members: SyncMembers::All,
            synchronous_shortage: Shortage::Degrade,
            synchronous_timeout: s(30),
        }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Reads a text with exactly one `[[cluster]]` table, as it stands in a coordinator's file.
pub(super) fn read_one(text: &str) -> Result<ClusterConfig, ConfigError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Alone {
        cluster: Vec<ClusterTable>,
    }
    let mut alone: Alone = match toml::from_str(text) {
        Ok(alone) => alone,
        Err(error) => return refuse("toml", error.to_string()),
    };
    match (alone.cluster.pop(), alone.cluster.len()) {
        (Some(table), 0) => table.into_cluster(),
        (_, more) => refuse("toml", format!("{} [[cluster]] tables, one is wanted", more + 1)),
    }
}

impl From<PolicyTable> for Policy {
    fn from(policy: PolicyTable) -> Self {
        Self {
            partition_timeout_ms: ms(policy.partition_timeout),
            lease: LeaseTerms {
                ttl_ms: ms(policy.lease_ttl),
                rho_ppm: policy.clock_drift_ppm,
                kill_ms: ms(policy.kill_time),
            },
            postgres_down_timeout_ms: ms(policy.postgres_down_timeout),
            disk_stall_timeout_ms: ms(policy.disk_stall_timeout),
            heartbeat_interval_ms: ms(policy.heartbeat_interval),
            fence_grace_ms: ms(policy.fence_grace),
            promote_timeout_ms: ms(policy.promote_timeout),
            replay_timeout_ms: ms(policy.replay_timeout),
            validate_timeout_ms: ms(policy.validate_timeout),
            rejoin_timeout_ms: ms(policy.rejoin_timeout),
            rewind_timeout_ms: ms(policy.rewind_timeout),
            sync_lag_bytes_max: policy.sync_lag_bytes_max,
            sync_window_ms: ms(policy.sync_window),
            max_lag_bytes: policy.max_lag_bytes,
            cooldown_ms: ms(policy.cooldown),
            max_lag_ms: policy.max_lag.map(ms),
            disk_full_alert_ms: policy.disk_full_alert.map_or(0, ms),
            switchover_timeout_ms: ms(policy.switchover_timeout),
            failback: policy.failback,
            failback_after_ms: ms(policy.failback_after),
            failback_window: policy.failback_window.map(|text| text.0),
            // Short beside the lease: a region that is cut from the coordinators and not from its peers is failed over this much
            // later. A promise is renewed at a quarter of it, so it bears a cut between members of half a minute.
            promise_ms: ms(policy.promise_duration.unwrap_or(Duration::from_secs(60).min(policy.lease_ttl))),
            synchronous: SynchronousPolicy {
                on: policy.synchronous,
                standbys: policy.synchronous_standbys,
                members: policy.synchronous_members,
                shortage: policy.synchronous_shortage,
                timeout_ms: ms(policy.synchronous_timeout),
            },
        }
    }
}

impl ClusterTable {
    pub(super) fn into_cluster(self) -> Result<ClusterConfig, ConfigError> {
        let name = self.name;
        let mut members = BTreeMap::new();
        for member in self.member {
            let field = |key: &str| format!("cluster.{name}.member.{}.{key}", member.name);
            for (key, port) in [("port", Some(member.port)), ("client_port", member.client_port)] {
                if port == Some(0) {
                    return refuse(field(key), "0 is not a port");
                }
            }
            if member.host.is_empty() {
                return refuse(field("host"), "is empty");
            }
            let config = MemberConfig {
                region: member.region,
                host: member.host,
                port: member.port,
                client_address: member.client_address,
                client_port: member.client_port.unwrap_or(member.port),
                priority: member.priority,
                promotable: member.promotable,
                agent_address: member.agent_address,
            };
            if members.insert(member.name.clone(), config).is_some() {
                return refuse(
                    format!("cluster.{name}.member.name"),
                    format!("{} is given twice", member.name),
                );
            }
        }
        let ttl_s = u32::try_from(self.dns_ttl.as_secs()).ok().filter(|ttl| (1..=3600).contains(ttl));
        let Some(dns_ttl_s) = ttl_s else {
            let text = humantime::format_duration(self.dns_ttl);
            return refuse(format!("cluster.{name}.dns_ttl"), format!("{text}: must be 1 s to 1 h"));
        };
        Ok(ClusterConfig {
            dns_name: self.dns_name.to_ascii_lowercase(),
            dns_ttl_s,
            dns_providers: self.dns_providers,
            initial_primary: self.initial_primary,
            members,
            policy: self.policy.into(),
            automation: self.automation,
            preferred_region: self.preferred_region,
            name,
        })
    }
}
