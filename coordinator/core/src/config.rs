//! A cluster's configuration and policy, as replicated, and the relations between its numbers.

use std::collections::BTreeMap;

use regent_types::{Automation, ClusterName, LeaseTerms, MemberName, Region};
use serde::{Deserialize, Serialize};

use crate::{
    switch::{FailbackMode, Window},
    synchronous::SynchronousPolicy,
};

/// One member as configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberConfig {
    /// Its failure domain.
    pub region: Region,
    /// Address at which the other members reach its PostgreSQL.
    pub host: String,
    /// Port at which the other members reach its PostgreSQL.
    pub port: u16,
    /// Address that the DNS name gets when this member is primary (IPv4 or IPv6).
    pub client_address: std::net::IpAddr,
    /// Port for clients.
    pub client_port: u16,
    /// Higher is preferred between candidates with equal WAL.
    pub priority: u32,
    /// May ever be promoted: a static property (DESIGN section 6), never lag or health.
    pub promotable: bool,
    /// `host:port` at which the other members' agents reach its agent, for promises; without one it cannot be asked.
    #[serde(default)]
    pub agent_address: Option<String>,
}

/// Time bounds and thresholds of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Silence of the primary's agent before a failover, ms.
    pub partition_timeout_ms: u64,
    /// The lease protocol's numbers.
    pub lease: LeaseTerms,
    /// PostgreSQL not accepting connections before a failover, ms.
    pub postgres_down_timeout_ms: u64,
    /// Stalled fsync probe before a failover, ms; errors count at once.
    pub disk_stall_timeout_ms: u64,
    /// Agents' heartbeat interval, ms.
    pub heartbeat_interval_ms: u64,
    /// Time for a fast shutdown when fencing by acknowledgement, ms.
    pub fence_grace_ms: u64,
    /// Longest time in *Promote* before the target is fenced and another rung is tried, ms.
    pub promote_timeout_ms: u64,
    /// Longest wait for replay of received WAL before promotion, ms.
    pub replay_timeout_ms: u64,
    /// Longest time in *Validate*, ms.
    pub validate_timeout_ms: u64,
    /// Longest time in *Rejoin* without news of the member before the operation gives up, ms.
    pub rejoin_timeout_ms: u64,
    /// Time budget of a rewind before a clone is made instead, ms.
    pub rewind_timeout_ms: u64,
    /// Largest lag that counts as in sync, bytes.
    pub sync_lag_bytes_max: u64,
    /// How long the lag must stay below it for *sync confirmed*, ms.
    pub sync_window_ms: u64,
    /// A candidate that lagged more than this at last contact waits for an operator's consent, bytes.
    pub max_lag_bytes: Option<u64>,
    /// After an automatic failover the next one waits for an operator's acknowledgement for this long, ms; 0: never.
    #[serde(default = "cooldown_default")]
    pub cooldown_ms: u64,
    /// The same in time: the oldest write that it lacked at last contact was this old, ms.
    #[serde(default)]
    pub max_lag_ms: Option<u64>,
    /// An alert when the primary's disk would be full sooner than this at the present rate, ms; 0 is never.
    #[serde(default)]
    pub disk_full_alert_ms: u64,
    /// Longest shutdown of the old primary in a switchover, and longest wait for what its target has replayed, ms; over
    /// it, or without a clean shutdown, the old primary is appointed again.
    #[serde(default = "switchover_timeout_ms")]
    pub switchover_timeout_ms: u64,
    /// How the cluster gets back to its preferred region.
    #[serde(default)]
    pub failback: FailbackMode,
    /// How long a member there must have been in sync, ms.
    #[serde(default = "failback_after_ms")]
    pub failback_after_ms: u64,
    /// When an automatic failback may start; at any time without one.
    #[serde(default)]
    pub failback_window: Option<Window>,
    /// How long one promise between members lasts, ms; 0 turns promises off.
    #[serde(default)]
    pub promise_ms: u64,
    /// Whom commits wait for.
    #[serde(default)]
    pub synchronous: SynchronousPolicy,
}

fn cooldown_default() -> u64 {
    3_600_000
}

fn switchover_timeout_ms() -> u64 {
    30_000
}

fn failback_after_ms() -> u64 {
    600_000
}

/// One cluster as configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// Its name.
    pub name: ClusterName,
    /// The DNS name that clients use, fully qualified without the last dot.
    pub dns_name: String,
    /// TTL of its record, seconds.
    pub dns_ttl_s: u32,
    /// Names of the DNS providers that publish it.
    pub dns_providers: Vec<String>,
    /// The member that is appointed first.
    pub initial_primary: MemberName,
    /// Its members.
    pub members: BTreeMap<MemberName, MemberConfig>,
    /// Its numbers.
    pub policy: Policy,
    /// How much happens by itself when the cluster is added; changed afterwards by an operator's request.
    #[serde(default = "automation_default")]
    pub automation: Automation,
    /// Where the primary should be; the initial primary's region when it is not given.
    #[serde(default)]
    pub preferred_region: Option<Region>,
}

fn automation_default() -> Automation {
    Automation::Automatic
}

/// A value or a relation that is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{field}: {problem}")]
pub struct ConfigError {
    /// The field, e.g. `cluster.gravl.partition_timeout`.
    pub field: String,
    /// What is wrong, with the values.
    pub problem: String,
}

impl ClusterConfig {
    /// Where failback leads to.
    pub fn preferred_region(&self) -> Option<&Region> {
        let initial = || self.members.get(&self.initial_primary).map(|member| &member.region);
        self.preferred_region.as_ref().or_else(initial)
    }

    /// Checks every relation; `election_worst_ms` is the worst case of a Raft re-election (DESIGN section 5.8).
    pub fn check(&self, election_worst_ms: u64) -> Result<(), ConfigError> {
        let error = |field: &str, problem: String| {
            Err(ConfigError { field: format!("cluster.{}.{field}", self.name), problem })
        };
        let policy = &self.policy;
        if !self.members.contains_key(&self.initial_primary) {
            return error("initial_primary", format!("{} is not one of its members", self.initial_primary));
        }
        if !self.members.values().any(|member| member.promotable) {
            return error("members", "none is promotable: there would never be a failover".into());
        }
        if !self.members[&self.initial_primary].promotable {
            return error("initial_primary", format!("{} is not promotable", self.initial_primary));
        }
        if self.dns_name.is_empty() || self.dns_name.len() > 253 || self.dns_name.ends_with('.') {
            return error(
                "dns_name",
                format!("{:?} must be 1 to 253 characters without a final dot", self.dns_name),
            );
        }
        for (name, member) in &self.members {
            if let Some(address) = member.agent_address.as_ref().filter(|address| !is_host_and_port(address))
            {
                return error(
                    &format!("member.{name}.agent_address"),
                    format!("{address:?} is not host:port"),
                );
            }
        }
        let positive = [
            ("partition_timeout", policy.partition_timeout_ms),
            ("lease_ttl", policy.lease.ttl_ms),
            ("heartbeat_interval", policy.heartbeat_interval_ms),
            ("postgres_down_timeout", policy.postgres_down_timeout_ms),
            ("disk_stall_timeout", policy.disk_stall_timeout_ms),
            ("promote_timeout", policy.promote_timeout_ms),
            ("validate_timeout", policy.validate_timeout_ms),
            ("rewind_timeout", policy.rewind_timeout_ms),
            ("rejoin_timeout", policy.rejoin_timeout_ms),
            ("switchover_timeout", policy.switchover_timeout_ms),
        ];
        for (field, value) in positive {
            if value == 0 {
                return error(field, "must be longer than 0".into());
            }
        }
        if policy.replay_timeout_ms >= policy.promote_timeout_ms {
            let problem = format!(
                "{} ms is not below promote_timeout ({} ms): a promotion that waits for replay would be fenced first",
                policy.replay_timeout_ms, policy.promote_timeout_ms
            );
            return error("replay_timeout", problem);
        }
        if policy.rejoin_timeout_ms <= policy.rewind_timeout_ms {
            let problem = format!(
                "{} ms is not above rewind_timeout ({} ms): a rewind shows no progress, and would be ended before its budget",
                policy.rejoin_timeout_ms, policy.rewind_timeout_ms
            );
            return error("rejoin_timeout", problem);
        }
        if let Some(region) = &self.preferred_region
            && !self.members.values().any(|member| member.promotable && member.region == *region)
        {
            let problem = format!("{region} has no promotable member: failback could lead nowhere");
            return error("preferred_region", problem);
        }
        if let Some(window) = &policy.failback_window {
            let Window { days, from_minute, to_minute } = window;
            if days.is_empty() || days.iter().any(|day| *day > 6) {
                return error("failback_window", format!("days {days:?}: at least one of 0 (Monday) to 6"));
            }
            if *from_minute >= 1440 || *to_minute > 1440 || from_minute == to_minute {
                let problem = format!("minutes {from_minute} to {to_minute}: two different times of a day");
                return error("failback_window", problem);
            }
        }
        if policy.lease.rho_ppm > 100_000 {
            return error("clock_drift_ppm", format!("{} is above 100000 (10 %)", policy.lease.rho_ppm));
        }
        if policy.heartbeat_interval_ms.saturating_mul(3) > policy.lease.ttl_ms {
            let problem = format!(
                "{} ms is not at least three heartbeat intervals of {} ms: one lost heartbeat would fence the primary",
                policy.lease.ttl_ms, policy.heartbeat_interval_ms
            );
            return error("lease_ttl", problem);
        }
        if policy.promise_ms > policy.lease.ttl_ms {
            // The bound that a grant raises must cover whatever was promised before it.
            let problem = format!(
                "{} ms is above lease_ttl ({} ms): a promise must not outlast a lease",
                policy.promise_ms, policy.lease.ttl_ms
            );
            return error("promise_duration", problem);
        }
        if policy.promise_ms > 0 && policy.promise_ms < policy.heartbeat_interval_ms.saturating_mul(3) {
            let problem = format!(
                "{} ms is below three heartbeat intervals of {} ms: promises would begin before a coordinator is missed; \
                 0s turns them off",
                policy.promise_ms, policy.heartbeat_interval_ms
            );
            return error("promise_duration", problem);
        }
        self.check_synchronous()?;
        let bound_ms = policy.lease.bound_ns().div_ceil(1_000_000);
        let needed_ms = election_worst_ms.saturating_add(bound_ms);
        if needed_ms > policy.partition_timeout_ms {
            let problem = format!(
                "{} ms is too short: re-election takes up to {election_worst_ms} ms, and a lease of {} ms with \
                 clock drift {} ppm and kill time {} ms may be valid for {bound_ms} ms after it; set at least \
                 {needed_ms} ms, or a shorter lease_ttl",
                policy.partition_timeout_ms, policy.lease.ttl_ms, policy.lease.rho_ppm, policy.lease.kill_ms
            );
            return error("partition_timeout", problem);
        }
        Ok(())
    }
}

fn is_host_and_port(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
}
