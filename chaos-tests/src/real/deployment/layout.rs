//! Names, addresses and files of a deployment.
//!
//! Each region's services have addresses of their own in the world's loopback block. From another region they are
//! reached at another address, one for each ordered pair of regions, with the *same port*: there the link listens. So
//! one configuration value (a member's port, the port that clients know) is right from everywhere.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::real::address::LoopbackBlock;

/// The cluster.
pub const CLUSTER: &str = "gravl";
/// The zone that the coordinators serve.
pub(super) const ZONE: &str = "db.regent.test";
/// The name that clients use.
pub const NAME: &str = "gravl.db.regent.test";
/// Where the first primary lives.
pub const NORTH: &str = "eu-north-1";
/// A vote, no data; clients and operators live here.
pub const WITNESS: &str = "eu-west-1";
/// Where the standby lives.
pub const EAST: &str = "us-east-1";
/// All of them; a coordinator's id is its index and one.
pub const REGIONS: [&str; 3] = [NORTH, WITNESS, EAST];
/// Not a region: from where coordinators look whether the zone shows a change. Cut it off, and nobody can tell.
pub const DNS_CHECKS: &str = "dns-checks";
/// Members are named like their regions.
pub const MEMBERS: [&str; 2] = [NORTH, EAST];

/// What listens somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// A coordinator's gRPC.
    Coordinator,
    /// A coordinator's `/metrics` and `/health`.
    CoordinatorHttp,
    /// A coordinator's DNS.
    Dns,
    /// A member's PostgreSQL.
    Postgres,
    /// A member's agent: `/primary`, `/replica`, `/health`, `/metrics`.
    AgentHttp,
    /// A member's agent, for the other members' agents.
    AgentPeer,
}

/// One port for each service, the same on all addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    coordinator: u16,
    coordinator_http: u16,
    dns: u16,
    postgres: u16,
    agent_http: u16,
    agent_peer: u16,
}

impl Ports {
    /// The usual ones, or the next that nobody has bound on all addresses.
    pub(super) fn pick(block: &LoopbackBlock) -> Result<Self> {
        let probe = block.ip(254);
        Ok(Self {
            coordinator: free_from(probe, 7400)?,
            coordinator_http: free_from(probe, 7480)?,
            dns: free_from(probe, 7453)?,
            postgres: free_from(probe, 5432)?,
            agent_http: free_from(probe, 8008)?,
            agent_peer: free_from(probe, 7432)?,
        })
    }

    pub(super) fn of(self, service: Service) -> u16 {
        match service {
            Service::Coordinator => self.coordinator,
            Service::CoordinatorHttp => self.coordinator_http,
            Service::Dns => self.dns,
            Service::Postgres => self.postgres,
            Service::AgentHttp => self.agent_http,
            Service::AgentPeer => self.agent_peer,
        }
    }
}

fn free_from(ip: IpAddr, first: u16) -> Result<u16> {
    let free = |port| TcpListener::bind((ip, port)).is_ok() && UdpSocket::bind((ip, port)).is_ok();
    (first..first + 20)
        .find(|port| free(*port))
        .with_context(|| format!("no port from {first} to {} is free on {ip}", first + 19))
}

/// The index of a region.
pub(super) fn index(region: &str) -> Result<u8> {
    match REGIONS.iter().position(|name| *name == region) {
        Some(at) => Ok(at as u8),
        None => bail!("no region {region}: there are {}", REGIONS.join(", ")),
    }
}

/// Host of `service` in `region` as seen from `from`.
pub(super) fn host(block: &LoopbackBlock, from: &str, region: &str, service: Service) -> Result<IpAddr> {
    let (here, there) = (index(from)?, index(region)?);
    let number = match service {
        _ if here != there => 100 + 10 * here + there,
        Service::Coordinator | Service::CoordinatorHttp | Service::Dns => 1 + there,
        Service::Postgres | Service::AgentHttp | Service::AgentPeer => 11 + there,
    };
    Ok(block.ip(number))
}

/// Where the coordinators' own checks reach the DNS of `region`, over the link from [`DNS_CHECKS`].
pub(super) fn checked_dns(block: &LoopbackBlock, ports: Ports, region: &str) -> Result<SocketAddr> {
    Ok((block.ip(150 + index(region)?), ports.of(Service::Dns)).into())
}

/// The address that clients in the witness region use for a member, and DNS shows. One of its own even where no link
/// is between, because PostgreSQL listens on the member's.
pub(super) fn client_address(block: &LoopbackBlock, ports: Ports, member: &str) -> Result<SocketAddr> {
    Ok((host(block, WITNESS, member, Service::Postgres)?, ports.of(Service::Postgres)).into())
}

/// Files of one deployment.
#[derive(Clone, Debug)]
pub struct Files {
    root: PathBuf,
}

impl Files {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// The scenario's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Configuration file of a process (`guard-eu-north-1`).
    pub fn config(&self, process: &str) -> PathBuf {
        self.root.join("etc").join(format!("{process}.toml"))
    }

    /// Configuration of `regentctl` for an operator in `region`.
    pub fn ctl_config(&self, region: &str) -> PathBuf {
        self.root.join("etc").join(format!("regentctl-{region}.toml"))
    }

    /// The CA and all certificates.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// Password of the replication role.
    pub fn password(&self) -> PathBuf {
        self.root.join("etc/replication-password")
    }

    /// A coordinator's log and vote.
    pub fn coordinator(&self, region: &str) -> PathBuf {
        self.root.join(format!("coordinator-{region}"))
    }

    /// Everything of a member.
    pub fn member(&self, member: &str) -> PathBuf {
        self.root.join(member)
    }

    /// The folder around the data directory: what a failing disk covers.
    pub fn disk(&self, member: &str) -> PathBuf {
        self.member(member).join("pg")
    }

    /// The data directory.
    pub fn data(&self, member: &str) -> PathBuf {
        self.disk(member).join("data")
    }

    /// The guard's state.
    pub fn guard_state(&self, member: &str) -> PathBuf {
        self.member(member).join("guard")
    }

    /// The agent's state and PostgreSQL's socket.
    pub fn agent_state(&self, member: &str) -> PathBuf {
        self.member(member).join("agent")
    }

    /// Where divergent WAL is kept.
    pub fn salvage(&self, member: &str) -> PathBuf {
        self.member(member).join("salvage")
    }

    /// Log of a process.
    pub fn log(&self, process: &str) -> PathBuf {
        self.root.join("logs").join(format!("{process}.log"))
    }
}
