//! Three coordinators, each reaching the others through links of its own, and the questions that tests ask them.

use std::{
    collections::BTreeMap,
    future::Future,
    net::TcpListener,
    path::Path,
    time::{Duration, Instant},
};

use regent_coordinator::{
    clock::Clock,
    config::Config,
    node::{NodeError, Running},
};
use regent_proto::v1::{
    ClusterStatus, OperationReport, OperationRequest, StatusReply, StatusRequest,
    operator_service_client::OperatorServiceClient,
};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::link::Link;

/// Long enough for a loaded machine; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The scaled policy's silence before a failover, ms.
pub const PARTITION_MS: u64 = 4_000;

pub struct Group {
    pub nodes: BTreeMap<u64, Running>,
    pub ports: BTreeMap<u64, Ports>,
    links: BTreeMap<(u64, u64), Link>,
    dir: TempDir,
    security: String,
    verify: Option<u16>,
    edit: fn(&Path, String) -> String,
}

#[derive(Clone, Copy)]
pub struct Ports {
    pub grpc: u16,
    pub dns: u16,
    pub http: u16,
}

/// A port that nothing listens on at the moment, on TCP; the kernel does not hand it out again at once.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until `check` returns something, asking again every 20 ms.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut check: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out waiting for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "info,openraft=error,regent_raft=warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init().ok();
}

pub fn ports() -> BTreeMap<u64, Ports> {
    (1..=3).map(|id| (id, Ports { grpc: free_port(), dns: free_port(), http: free_port() })).collect()
}

/// The configuration of one node. `address` says how it reaches each peer.
pub fn config_text(
    id: u64,
    ports: &BTreeMap<u64, Ports>,
    dir: &Path,
    security: &str,
    address: impl Fn(u64) -> String,
) -> String {
    let regions = ["eu", "us", "witness", "ap", "sa"];
    let own = ports[&id];
    let verify: Vec<String> = ports.values().map(|p| format!("\"127.0.0.1:{}\"", p.dns)).collect();
    let peers: String = ports
        .keys()
        .map(|peer| {
            let region = regions[*peer as usize - 1];
            format!("[[peers]]\nid = {peer}\nregion = \"{region}\"\naddress = \"{}\"\n", address(*peer))
        })
        .collect();
    format!(
        r#"
node_id = {id}
region = "{region}"
data_dir = "{data}"
listen = "127.0.0.1:{grpc}"
http_listen = "127.0.0.1:{http}"
{security}
{peers}
[dns]
listen = "127.0.0.1:{dns}"
zone = "db.test"
name_servers = ["ns.db.test"]
verify = [{verify}]

[raft]
heartbeat_interval = "150ms"
election_timeout_min = "500ms"
election_timeout_max = "800ms"
round_trip_max = "50ms"

[placement]
avoid_primary_region = false

[[cluster]]
name = "c"
dns_name = "pg.db.test"
initial_primary = "m1"
[cluster.policy]
partition_timeout = "{PARTITION_MS}ms"
lease_ttl = "1500ms"
kill_time = "100ms"
heartbeat_interval = "200ms"
promote_timeout = "20s"
replay_timeout = "5s"
validate_timeout = "20s"
sync_window = "300ms"
cooldown = "0s"
[[cluster.member]]
name = "m1"
region = "eu"
host = "127.0.0.1"
port = 5001
client_address = "127.0.1.1"
[[cluster.member]]
name = "m2"
region = "us"
host = "127.0.0.1"
port = 5002
client_address = "127.0.1.2"
"#,
        region = regions[id as usize - 1],
        data = dir.join(format!("node-{id}")).display(),
        grpc = own.grpc,
        http = own.http,
        dns = own.dns,
        verify = verify.join(", "),
    )
}

impl Group {
    /// Starts three nodes in plain text.
    pub async fn start() -> Self {
        Self::start_with(|_, _| "plaintext = true".to_owned(), None).await
    }

    /// The same, with DNS to be seen at one port only.
    pub async fn start_with_dns_at(port: u16) -> Self {
        Self::start_with(|_, _| "plaintext = true".to_owned(), Some(port)).await
    }

    /// The same, with every configuration edited; the folder is the group's own.
    pub async fn start_edited(edit: fn(&Path, String) -> String, prepare: impl FnOnce(&Path)) -> Self {
        let mut group = Self::unstarted(None).await;
        prepare(group.dir.path());
        (group.edit, group.security) = (edit, "plaintext = true".into());
        for id in 1..=3 {
            group.start_node(id).await;
        }
        group
    }

    /// Starts three nodes; `security` writes the lines about TLS. It must come before any table, or be one.
    pub async fn start_with(security: impl Fn(u64, &Path) -> String, verify: Option<u16>) -> Self {
        let mut group = Self::unstarted(verify).await;
        for id in 1..=3 {
            group.security = security(id, group.dir.path());
            group.start_node(id).await;
        }
        group
    }

    async fn unstarted(verify: Option<u16>) -> Self {
        log();
        let (ports, dir) = (ports(), TempDir::new().unwrap());
        let mut links = BTreeMap::new();
        for from in 1..=3 {
            for to in (1..=3).filter(|to| *to != from) {
                links.insert((from, to), Link::new(format!("127.0.0.1:{}", ports[&to].grpc)).await);
            }
        }
        let (nodes, security) = (BTreeMap::new(), String::new());
        Self { nodes, ports, links, dir, security, verify, edit: |_, text| text }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub async fn start_node(&mut self, id: u64) {
        self.try_start_node(id).await.unwrap();
    }

    /// Starts a node with other lines before the tables.
    pub async fn start_node_with(&mut self, id: u64, lines: &str) -> Result<(), NodeError> {
        let usual = std::mem::replace(&mut self.security, lines.to_owned());
        let started = self.try_start_node(id).await;
        self.security = usual;
        started
    }

    pub async fn try_start_node(&mut self, id: u64) -> Result<(), NodeError> {
        let own = format!("127.0.0.1:{}", self.ports[&id].grpc);
        let address = |to: u64| self.links.get(&(id, to)).map_or(own.clone(), |link| link.address.clone());
        let founders =
            self.ports.iter().filter(|(id, _)| **id <= 3).map(|(id, ports)| (*id, *ports)).collect();
        let text = config_text(id, &founders, self.dir.path(), &self.security, address);
        let text = match self.verify {
            Some(port) => {
                let line = text.lines().find(|line| line.starts_with("verify")).unwrap().to_owned();
                text.replace(&line, &format!("verify = [\"127.0.0.1:{port}\"]"))
            }
            None => text,
        };
        let text = (self.edit)(self.dir.path(), text);
        let config = Config::parse(&text, Path::new("test.toml")).unwrap();
        self.nodes.insert(id, Running::start(config, Clock::system()).await?);
        Ok(())
    }

    /// Starts a further node that joins the group; it is reached without links.
    pub async fn join(&mut self, id: u64) -> Result<(), regent_coordinator::node::NodeError> {
        let made = || Ports { grpc: free_port(), dns: free_port(), http: free_port() };
        self.ports.entry(id).or_insert_with(made);
        let address = |to: u64| format!("127.0.0.1:{}", self.ports[&to].grpc);
        let text = config_text(id, &self.ports, self.dir.path(), &self.security, address);
        let text = text.replacen("region =", "join = true\nregion =", 1);
        let config = Config::parse(&text, Path::new("test.toml")).unwrap();
        self.nodes.insert(id, Running::start(config, Clock::system()).await?);
        Ok(())
    }

    pub async fn stop_node(&mut self, id: u64) {
        self.nodes.remove(&id).unwrap().shutdown().await;
    }

    /// Cuts, or heals, everything between `id` and the others.
    pub fn isolate(&self, id: u64, cut: bool) {
        self.links
            .iter()
            .filter(|((from, to), _)| *from == id || *to == id)
            .for_each(|(_, link)| link.cut(cut));
    }

    /// Waits until the other nodes know from the leader where the WAL of m1 stood: without that, the one that takes over
    /// waits for consent to a loss that it cannot bound (docs/loss.md).
    pub async fn until_told(&self, leader: u64) {
        eventually("the followers know the primary's position", || async {
            let others = self.nodes.iter().filter(|(id, _)| **id != leader);
            let told = others.into_iter().all(|(_, running)| {
                let heard = running.node.heard.inherited(running.node.clock.now_ns());
                heard.iter().any(|age| age.member.as_str() == "m1" && age.position.is_some())
            });
            told.then_some(())
        })
        .await;
    }

    pub fn url(&self, id: u64) -> String {
        format!("http://127.0.0.1:{}", self.ports[&id].grpc)
    }

    pub fn urls(&self) -> Vec<String> {
        self.ports.keys().map(|id| self.url(*id)).collect()
    }

    /// The node that leads, once its leadership is confirmed by a quorum.
    pub async fn leader(&self) -> u64 {
        self.leader_except(0).await
    }

    pub async fn leader_except(&self, except: u64) -> u64 {
        eventually("a confirmed leader", || async {
            for (id, running) in self.nodes.iter().filter(|(id, _)| **id != except) {
                let node = &running.node;
                if node.led.borrow().is_none() {
                    continue;
                }
                let deadline = node.clock.deadline(Duration::from_millis(500));
                if node.raft.confirm_leadership(deadline).await.is_ok() {
                    return Some(*id);
                }
            }
            None
        })
        .await
    }

    pub async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        *self.nodes.keys().find(|id| **id != leader).unwrap()
    }

    pub async fn operator(&self, id: u64) -> OperatorServiceClient<Channel> {
        let channel = Endpoint::from_shared(self.url(id)).unwrap().connect().await.unwrap();
        OperatorServiceClient::new(channel)
    }

    pub async fn status(&self, id: u64) -> StatusReply {
        let mut client = self.operator(id).await;
        client.get_status(StatusRequest { cluster: None }).await.unwrap().into_inner()
    }

    /// The cluster as `id` shows it, when it is known there.
    pub async fn cluster(&self, id: u64) -> Option<ClusterStatus> {
        self.status(id).await.clusters.into_iter().find(|cluster| cluster.name == "c")
    }

    /// Waits until the cluster is as `wanted`.
    pub async fn until(&self, id: u64, what: &str, wanted: impl Fn(&ClusterStatus) -> bool) -> ClusterStatus {
        eventually(what, || async { self.cluster(id).await.filter(&wanted) }).await
    }

    pub async fn operation(&self, id: u64, operation: u64) -> OperationReport {
        let request = OperationRequest { cluster: "c".into(), id: operation };
        self.operator(id).await.get_operation(request).await.unwrap().into_inner()
    }

    /// Both members: m1 established as primary, m2 a confirmed standby.
    pub async fn until_in_sync(&self, id: u64) -> ClusterStatus {
        self.until(id, "m1 primary and m2 in sync", |cluster| {
            let standby = cluster.members.iter().find(|member| member.name == "m2").unwrap();
            cluster.primary.as_deref() == Some("m1") && standby.sync_confirmed && cluster.operation.is_none()
        })
        .await
    }

    pub async fn stop(self) {
        for (_, running) in self.nodes {
            running.shutdown().await;
        }
    }
}
