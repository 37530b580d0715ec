//! Three release coordinators with many clusters in their configuration, and the certificates of everybody.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_chaos::real::clock::wait_until;
use regent_chaos::real::dirs::build_dir;
use regent_chaos::real::process::{Process, ProcessSpec};
use regent_chaos::real::world::World;
use regent_pki::{Authority, Identity, Overwrite, write_issued};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::proc::{self, Memory};

/// Regions of coordinators 1 to 3; members live in the first and the last.
pub const REGIONS: [&str; 3] = ["eu-north-1", "eu-west-1", "us-east-1"];
const GRPC: u16 = 7400;
const DNS: u16 = 7453;
const HTTP: u16 = 7480;

/// The group.
pub struct Group {
    nodes: BTreeMap<u64, Process>,
    world: World,
}

/// Name of cluster `number`.
pub fn cluster(number: usize) -> String {
    format!("c{number:04}")
}

impl Group {
    /// Starts it and waits for a leader.
    pub async fn start(members: usize) -> Result<Self> {
        let world = World::new("bench-heartbeats", &REGIONS)?;
        let pki = world.root().join("pki");
        fs::create_dir_all(&pki)?;
        let authority = Authority::init(&pki, "regent-bench", 30, Overwrite::Refuse)?;
        let mut group = Self { nodes: BTreeMap::new(), world };
        let mut names: Vec<String> = (1..=3).map(|id| format!("regent://coordinator/{id}")).collect();
        for number in 0..members / 2 {
            names.extend(["m1", "m2"].map(|member| format!("regent://agent/{}/{member}", cluster(number))));
        }
        for name in names {
            let identity: Identity = name.parse()?;
            write_issued(&pki, &authority.issue(&identity, 5)?, Overwrite::Refuse)?;
        }
        let program = build_dir()?.join("regent-coordinator");
        ensure!(program.exists(), "{} is missing: build it in the same profile first", program.display());
        for id in 1..=3 {
            let config = group.root().join(format!("coordinator-{id}.toml"));
            fs::write(&config, group.config(id, members / 2)?)?;
            let spec = ProcessSpec::new(&format!("coordinator-{id}"), &program)
                .args(["run", "--config"])
                .args([&config])
                .env("RUST_LOG", "warn");
            group.nodes.insert(id, Process::spawn(&spec, group.root())?);
        }
        group.leader().await?;
        Ok(group)
    }

    /// Where everything lies.
    pub fn root(&self) -> &Path {
        self.world.root()
    }

    /// Certificates.
    pub fn pki(&self) -> PathBuf {
        self.root().join("pki")
    }

    /// Ids of the coordinators.
    pub fn ids(&self) -> impl Iterator<Item = u64> {
        self.nodes.keys().copied()
    }

    /// Where agents find coordinator `id`.
    pub fn url(&self, id: u64) -> String {
        format!("https://{}", self.address(id, GRPC))
    }

    fn address(&self, id: u64, port: u16) -> SocketAddr {
        (self.world.addresses().ip(id as u8), port).into()
    }

    fn config(&self, id: u64, clusters: usize) -> Result<String> {
        let pki = self.pki();
        let verify: Vec<String> = (1..=3).map(|node| self.address(node, DNS).to_string()).collect();
        let mut out = format!(
            "node_id = {id}\nregion = {:?}\ndata_dir = {:?}\nlisten = \"{}\"\nhttp_listen = \"{}\"\n\n\
             [tls]\nca = {:?}\ncert = {:?}\nkey = {:?}\n\n\
             [dns]\nlisten = \"{}\"\nzone = \"bench.test\"\nname_servers = [\"ns1.bench.test\"]\nverify = {verify:?}\n",
            REGIONS[id as usize - 1],
            self.root().join(format!("data-{id}")),
            self.address(id, GRPC),
            self.address(id, HTTP),
            pki.join("ca.crt"),
            pki.join(format!("coordinator-{id}.crt")),
            pki.join(format!("coordinator-{id}.key")),
            self.address(id, DNS),
        );
        for peer in 1..=3 {
            let (region, address) = (REGIONS[peer as usize - 1], self.address(peer, GRPC));
            write!(out, "\n[[peers]]\nid = {peer}\nregion = {region:?}\naddress = \"{address}\"\n")?;
        }
        // The product's own time-outs: nothing but the interval of placement is scaled.
        out.push_str("\n[placement]\ninterval = \"5s\"\n");
        for number in 0..clusters {
            let name = cluster(number);
            write!(
                out,
                "\n[[cluster]]\nname = {name:?}\ndns_name = \"{name}.bench.test\"\ninitial_primary = \"m1\"\n"
            )?;
            for (member, region, host) in [("m1", REGIONS[0], 11), ("m2", REGIONS[2], 12)] {
                write!(
                    out,
                    "\n[[cluster.member]]\nname = {member:?}\nregion = {region:?}\nhost = \"{ip}\"\nport = 5432\n\
                     client_address = \"{ip}\"\n",
                    ip = self.world.addresses().ip(host)
                )?;
            }
        }
        Ok(out)
    }

    /// The coordinator that says that it leads.
    pub async fn leader(&self) -> Result<u64> {
        let mut found = None;
        wait_until("a coordinator leads", Duration::from_secs(60), async || {
            for id in self.ids() {
                let leads = self.metrics(id).await.is_ok_and(|text| {
                    text.lines().any(|line| line.starts_with("regent_leader ") && line.ends_with(" 1"))
                });
                if leads {
                    found = Some(id);
                }
            }
            found.is_some()
        })
        .await?;
        found.context("no leader")
    }

    async fn metrics(&self, id: u64) -> Result<String> {
        let mut stream = tokio::net::TcpStream::connect(self.address(id, HTTP)).await?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: bench\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    }

    /// CPU time so far.
    pub fn cpu_ms(&self) -> Result<BTreeMap<u64, u64>> {
        self.nodes.iter().map(|(id, node)| Ok((*id, proc::cpu_ms(node.pid())?))).collect()
    }

    /// Memory now.
    pub fn memory(&self) -> Result<BTreeMap<u64, Memory>> {
        self.nodes.iter().map(|(id, node)| Ok((*id, Memory::of(node.pid())?))).collect()
    }

    /// Stops all coordinators; the directory goes with the group.
    pub async fn stop(self) -> Result<()> {
        for node in self.nodes.values() {
            node.signal(libc::SIGTERM)?;
        }
        wait_until("all coordinators have ended", Duration::from_secs(20), async || {
            self.nodes.values().all(|node| !node.is_running())
        })
        .await
    }
}
