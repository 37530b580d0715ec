//! The configuration files, as an operator would write them for each host.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::layout::{
    CLUSTER, EAST, MEMBERS, NAME, NORTH, REGIONS, Service, ZONE, checked_dns, client_address, host, index,
};
use super::life::Deployment;
use super::timing::text;
use crate::real::user::RunAs;

/// Role and database of the application.
pub(super) const APP: &str = "app";
/// Role of `regent-agent observe`.
pub(super) const OBSERVER: &str = "regent_observer";

impl Deployment {
    /// Writes every file.
    pub(super) fn write_configs(&self) -> Result<()> {
        let password = self.files.password();
        write(&password, &format!("{:032x}\n", rand::random::<u128>()), &self.world.user().clone(), 0o600)?;
        for region in REGIONS {
            self.write_coordinator(region)?;
            self.write_file(&self.files.ctl_config(region), &self.ctl_toml(region)?)?;
        }
        MEMBERS.into_iter().try_for_each(|member| self.write_member(member))
    }

    pub(super) fn write_member(&self, member: &str) -> Result<()> {
        self.write_file(&self.files.config(&format!("guard-{member}")), &self.guard_toml(member))?;
        self.write_file(&self.files.config(&format!("agent-{member}")), &self.agent_toml(member)?)?;
        self.write_file(&self.files.config(&format!("observer-{member}")), &self.observer_toml(member)?)
    }

    fn write_file(&self, path: &Path, text: &str) -> Result<()> {
        write(path, text, self.world.user(), 0o644)
    }

    pub(super) fn write_coordinator(&self, region: &str) -> Result<()> {
        let hook = self.lock_hooks().get(region).cloned();
        let path = self.files.config(&format!("coordinator-{region}"));
        self.write_file(&path, &self.coordinator_toml(region, hook.as_deref())?)
    }

    fn tls(&self, stem: &str) -> String {
        let pki = self.files.pki();
        format!(
            "ca = {:?}\ncert = {:?}\nkey = {:?}\n",
            pki.join("ca.crt"),
            pki.join(format!("{stem}.crt")),
            pki.join(format!("{stem}.key"))
        )
    }

    /// Addresses of a coordinators' service as seen from `region`, the own one first.
    fn coordinators(&self, region: &str, service: Service) -> Result<Vec<String>> {
        let mut all = vec![self.address(region, region, service)?.to_string()];
        for other in REGIONS.iter().filter(|other| **other != region) {
            all.push(self.address(region, other, service)?.to_string());
        }
        Ok(all)
    }

    fn coordinator_toml(&self, region: &str, hook: Option<&str>) -> Result<String> {
        let timing = &self.timing;
        let id = index(region)? + 1;
        let mut out = format!(
            "node_id = {id}\nregion = {region:?}\ndata_dir = {:?}\nlisten = \"{}\"\nhttp_listen = \"{}\"\n\n[tls]\n{}",
            self.files.coordinator(region),
            self.address(region, region, Service::Coordinator)?,
            self.address(region, region, Service::CoordinatorHttp)?,
            self.tls(&format!("coordinator-{id}"))
        );
        for peer in REGIONS {
            let address = self.address(region, peer, Service::Coordinator)?;
            write!(
                out,
                "\n[[peers]]\nid = {}\nregion = {peer:?}\naddress = \"{address}\"\n",
                index(peer)? + 1
            )?;
        }
        write!(
            out,
            "\n[dns]\nlisten = \"{}\"\nzone = {ZONE:?}\nname_servers = [\"ns1.{ZONE}\", \"ns2.{ZONE}\", \"ns3.{ZONE}\"]\n\
             verify = {:?}\n\n[raft]\nheartbeat_interval = {}\nelection_timeout_min = {}\nelection_timeout_max = {}\n\
             round_trip_max = {}\n\n[placement]\navoid_primary_region = {}\ninterval = \"5s\"\n",
            self.address(region, region, Service::Dns)?,
            REGIONS
                .iter()
                .map(|other| Ok(checked_dns(self.world.addresses(), self.ports, other)?.to_string()))
                .collect::<Result<Vec<_>>>()?,
            text(timing.raft_heartbeat),
            text(timing.election_min),
            text(timing.election_max),
            text(timing.round_trip_max),
            self.options.avoid_primary_region
        )?;
        if let Some(hook) = hook {
            let (key, step) = match hook.strip_prefix("stop ") {
                Some(step) => ("stop_after_step", step),
                None => ("exit_after_step", hook),
            };
            write!(out, "\n[test_hooks]\n{key} = {step:?}\n")?;
        }
        for (_, table) in &self.options.dns_providers {
            write!(out, "\n{table}")?;
        }
        for table in &self.options.coordinator_tables {
            write!(out, "\n{}\n", table.replace("{root}", &self.files.root().display().to_string()))?;
        }
        if !self.options.without_cluster {
            out.push_str(&self.cluster_toml()?);
        }
        Ok(out)
    }

    /// A file with the cluster alone, as `regentctl adopt` and `members create` take it.
    pub fn cluster_file(&self) -> Result<std::path::PathBuf> {
        let path = self.files.config("cluster");
        self.write_file(&path, &self.cluster_toml()?)?;
        Ok(path)
    }

    fn cluster_toml(&self) -> Result<String> {
        let timing = &self.timing;
        let scaled = [
            ("partition_timeout", text(timing.partition_timeout)),
            ("lease_ttl", text(timing.lease_ttl)),
            ("heartbeat_interval", text(timing.heartbeat)),
            ("postgres_down_timeout", text(timing.postgres_down)),
            ("disk_stall_timeout", text(timing.disk_stall)),
            ("fence_grace", "\"2s\"".into()),
            ("promote_timeout", "\"30s\"".into()),
            ("replay_timeout", "\"10s\"".into()),
            ("validate_timeout", "\"30s\"".into()),
            ("rewind_timeout", "\"60s\"".into()),
            ("sync_window", text(timing.sync_window)),
            // Scenarios fail over again and again; flap damping has its own.
            ("cooldown", "\"0s\"".into()),
        ];
        let mut policy: Vec<(String, String)> =
            scaled.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        policy.retain(|(key, _)| !self.options.policy.contains_key(key));
        policy.extend(self.options.policy.clone());
        let others = self.options.dns_providers.iter().map(|(name, _)| name.as_str());
        let providers: Vec<&str> = ["embedded"].into_iter().chain(others).collect();
        let mut out = format!(
            "\n[[cluster]]\nname = {CLUSTER:?}\ndns_name = {NAME:?}\ndns_ttl = \"1s\"\ndns_providers = {providers:?}\n\
             initial_primary = {NORTH:?}\nautomation = {:?}\n\n[cluster.policy]\n",
            self.options.automation
        );
        for (key, value) in policy {
            writeln!(out, "{key} = {value}")?;
        }
        for (member, other) in [(NORTH, EAST), (EAST, NORTH)] {
            let clients = client_address(self.world.addresses(), self.ports, member)?;
            write!(
                out,
                "\n[[cluster.member]]\nname = {member:?}\nregion = {member:?}\nhost = \"{}\"\nport = {}\n\
                 client_address = \"{}\"\nclient_port = {}\nagent_address = \"{}\"\n",
                host(self.world.addresses(), other, member, Service::Postgres)?,
                self.ports.of(Service::Postgres),
                clients.ip(),
                clients.port(),
                self.address(other, member, Service::AgentPeer)?
            )?;
        }
        Ok(out)
    }

    fn guard_toml(&self, member: &str) -> String {
        format!(
            "state_dir = {:?}\ndata_dir = {:?}\npg_bin = {:?}\nlease_ttl_max = {}\n",
            self.files.guard_state(member),
            self.files.data(member),
            self.pg_bin(member),
            text(self.timing.lease_ttl)
        )
    }

    fn agent_toml(&self, member: &str) -> Result<String> {
        let urls: Vec<_> = self
            .coordinators(member, Service::Coordinator)?
            .into_iter()
            .map(|address| format!("https://{address}"))
            .collect();
        let postgres = self.address(member, member, Service::Postgres)?;
        let superuser = &self.superuser;
        let mut out = format!(
            "cluster = {CLUSTER:?}\nmember = {member:?}\nregion = {member:?}\ncoordinators = {urls:?}\n\
             guard_socket = {:?}\ndata_dir = {:?}\nstate_dir = {:?}\nsalvage_dir = {:?}\npg_bin = {:?}\n\
             superuser = {superuser:?}\nlisten_host = \"{}\"\nport = {}\nreplication_password_file = {:?}\n\
             http_listen = \"{}\"\nheartbeat_interval = {}\nprobe_interval = {}\nprobe_timeout = \"2s\"\n\
             disk_interval = \"500ms\"\ndns_servers = {:?}\n\
             hba_extra = [\"host {APP} {APP} 127.0.0.0/8 trust\", \"host all {superuser} 127.0.0.0/8 trust\"]\n",
            self.files.guard_state(member).join("guard.sock"),
            self.files.data(member),
            self.files.agent_state(member),
            self.files.salvage(member),
            self.pg_bin(member),
            postgres.ip(),
            postgres.port(),
            self.files.password(),
            self.address(member, member, Service::AgentHttp)?,
            text(self.timing.heartbeat),
            text(self.timing.heartbeat),
            self.coordinators(member, Service::Dns)?
        );
        if !self.options.agent_lines.iter().any(|line| line.starts_with("max_slot_wal_keep_size")) {
            out.push_str("max_slot_wal_keep_size = \"1GB\"\n");
        }
        for line in &self.options.agent_lines {
            writeln!(out, "{line}")?;
        }
        write!(
            out,
            "\n[peer]\nlisten = \"{}\"\n\n[tls]\n{}\n[postgres]\nshared_buffers = \"32MB\"\nmax_connections = 60\nmin_wal_size = \"64MB\"\nlog_line_prefix = \"%m [%p] \"\n",
            self.address(member, member, Service::AgentPeer)?,
            self.tls(&format!("agent-{CLUSTER}-{member}"))
        )?;
        Ok(out)
    }

    fn observer_toml(&self, member: &str) -> Result<String> {
        let coordinators = self.coordinators(member, Service::Coordinator)?;
        let urls: Vec<_> = coordinators.into_iter().map(|address| format!("https://{address}")).collect();
        let postgres = self.address(member, member, Service::Postgres)?;
        let interval = text(self.timing.heartbeat);
        Ok(format!(
            "cluster = {CLUSTER:?}\nmember = {member:?}\nregion = {member:?}\ncoordinators = {urls:?}\n\
             dsn = \"host={} port={} user={OBSERVER} dbname=postgres\"\nheartbeat_interval = {interval}\n\
             probe_interval = {interval}\n\n[tls]\n{}",
            postgres.ip(),
            postgres.port(),
            self.tls(&format!("agent-{CLUSTER}-{member}"))
        ))
    }

    fn ctl_toml(&self, region: &str) -> Result<String> {
        let endpoints = self.coordinators(region, Service::Coordinator)?;
        Ok(format!("endpoints = {endpoints:?}\ntimeout = \"2s\"\n{}", self.tls("operator-alice")))
    }
}

fn write(path: &Path, text: &str, user: &RunAs, mode: u32) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    user.chown(path)
}
