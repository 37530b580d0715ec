//! What a scenario may choose about its deployment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Choices.
#[derive(Clone, Debug)]
pub struct DeploymentOptions {
    /// The scenario's name: letters, digits and dashes, 24 at most.
    pub name: String,
    /// Everything else is scaled from it.
    pub partition_timeout: Duration,
    /// 15 or 18.
    pub postgres_major: u32,
    /// One-way delay of every link between regions.
    pub link_delay: Duration,
    /// Whether the leader moves away from the primary's region.
    pub avoid_primary_region: bool,
    /// Region -> `kind:step` after whose commit its coordinator kills itself while it leads; with `stop ` before it, it
    /// only stops itself.
    pub hooks: BTreeMap<String, String>,
    /// Members whose guard and agent run on a disk that can be made to fail ([`super::Deployment::set_disk`]).
    pub failing_disks: BTreeSet<String>,
    /// That disk also holds the states of guard and agent, as on a host with one disk only.
    pub one_disk: bool,
    /// Keys of the cluster's policy, in place of the scaled values, as TOML.
    pub policy: BTreeMap<String, String>,
    /// More lines for every `agent.toml`, as TOML (top level).
    pub agent_lines: Vec<String>,
    /// DNS providers beside the embedded one: name and the table that configures it in `coordinator.toml`.
    pub dns_providers: Vec<(String, String)>,
    /// `RUST_LOG` of the coordinators.
    pub log_filter: String,
    /// The coordinators' files name no cluster: the scenario adds it.
    pub without_cluster: bool,
    /// Each member finds its PostgreSQL by a link of its own, the older of two minor versions at first.
    pub switchable_postgres: bool,
    /// More tables for every `coordinator.toml`, as TOML; `{root}` stands for the scenario's directory.
    pub coordinator_tables: Vec<String>,
    /// The cluster's `automation`.
    pub automation: String,
}

impl DeploymentOptions {
    /// Partition timeout 15 s (lease 8.5 s), PostgreSQL 18, no delay.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            partition_timeout: Duration::from_secs(15),
            postgres_major: 18,
            link_delay: Duration::ZERO,
            avoid_primary_region: true,
            hooks: BTreeMap::new(),
            failing_disks: BTreeSet::new(),
            one_disk: false,
            policy: BTreeMap::new(),
            agent_lines: Vec::new(),
            dns_providers: Vec::new(),
            log_filter: "info,openraft=warn,hickory_server=warn".into(),
            without_cluster: false,
            switchable_postgres: false,
            coordinator_tables: Vec::new(),
            automation: "automatic".into(),
        }
    }

    /// Another partition timeout.
    pub fn partition_timeout(mut self, timeout: Duration) -> Self {
        self.partition_timeout = timeout;
        self
    }

    /// Another PostgreSQL.
    pub fn postgres(mut self, major: u32) -> Self {
        self.postgres_major = major;
        self
    }

    /// Delay of every link, one way.
    pub fn link_delay(mut self, delay: Duration) -> Self {
        self.link_delay = delay;
        self
    }

    /// Lets the leader stay wherever it was elected.
    pub fn leader_anywhere(mut self) -> Self {
        self.avoid_primary_region = false;
        self
    }

    /// The coordinator of `region` stops itself (SIGSTOP), as leader, after the commit that enters `step`. What is
    /// done before it is continued is done between two steps.
    pub fn stop_hook(mut self, region: &str, step: &str) -> Self {
        self.hooks.insert(region.to_owned(), format!("stop {step}"));
        self
    }

    /// The coordinator of `region` dies, as leader, after the commit that enters `step` (`failover:fence`).
    pub fn hook(mut self, region: &str, step: &str) -> Self {
        self.hooks.insert(region.to_owned(), step.to_owned());
        self
    }

    /// The member's disk can be made to fail.
    pub fn failing_disk(mut self, member: &str) -> Self {
        self.failing_disks.insert(member.to_owned());
        self
    }

    /// The member's disk can be made to fail, and it is the only one: guard and agent keep their state on it too.
    pub fn failing_host_disk(mut self, member: &str) -> Self {
        self.one_disk = true;
        self.failing_disk(member)
    }

    /// One more line for every `agent.toml`.
    pub fn agent_line(mut self, line: impl Into<String>) -> Self {
        self.agent_lines.push(line.into());
        self
    }

    /// A key of the cluster's policy, as TOML: `policy("postgres_down_timeout", "\"3s\"")`.
    pub fn policy(mut self, key: &str, toml: &str) -> Self {
        self.policy.insert(key.to_owned(), toml.to_owned());
        self
    }

    /// How much happens by itself from the beginning.
    pub fn automation(mut self, mode: &str) -> Self {
        self.automation = mode.to_owned();
        self
    }

    /// One more table for every `coordinator.toml`; `{root}` stands for the scenario's directory.
    pub fn coordinator_table(mut self, table: &str) -> Self {
        self.coordinator_tables.push(table.to_owned());
        self
    }

    /// The coordinators' files name no cluster.
    pub fn without_cluster(mut self) -> Self {
        self.without_cluster = true;
        self
    }

    /// Each member finds its PostgreSQL by a link ([`super::Deployment::switch_postgres`]).
    pub fn switchable_postgres(mut self) -> Self {
        self.switchable_postgres = true;
        self
    }

    /// A DNS provider beside the embedded one, with its table of `coordinator.toml`.
    pub fn dns_provider(mut self, name: &str, table: &str) -> Self {
        self.dns_providers.push((name.to_owned(), table.to_owned()));
        self
    }
}
