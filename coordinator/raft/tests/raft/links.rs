//! Links between the members: one proxy for each ordered pair. A cut closes no socket and reports nothing: what is
//! under way stays where it is, and arrives after the heal, as it would by TCP's retransmission.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use regent_raft::{Connector, tuned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tonic::transport::{Channel, Endpoint};

pub struct Links {
    /// Where each member listens at present.
    servers: Mutex<BTreeMap<u64, SocketAddr>>,
    proxies: BTreeMap<(u64, u64), SocketAddr>,
    /// Whether bytes pass from the first to the second, whoever opened the connection.
    open: BTreeMap<(u64, u64), watch::Sender<bool>>,
    /// From one end to the other.
    delay: Duration,
}

impl Links {
    pub async fn new(nodes: &[u64], delay: Duration) -> Arc<Self> {
        let pairs: Vec<(u64, u64)> =
            nodes.iter().flat_map(|a| nodes.iter().map(move |b| (*a, *b))).filter(|(a, b)| a != b).collect();
        let mut listeners = Vec::new();
        let mut proxies = BTreeMap::new();
        for pair in &pairs {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            proxies.insert(*pair, listener.local_addr().unwrap());
            listeners.push((*pair, listener));
        }
        let open = pairs.iter().map(|pair| (*pair, watch::channel(true).0)).collect();
        let links = Arc::new(Self { servers: Mutex::new(BTreeMap::new()), proxies, open, delay });
        for (pair, listener) in listeners {
            tokio::spawn(links.clone().serve(pair, listener));
        }
        links
    }

    pub fn set_server(&self, node: u64, address: SocketAddr) {
        self.servers.lock().unwrap().insert(node, address);
    }

    /// Lets bytes pass from `a` to `b`, or not.
    pub fn set(&self, a: u64, b: u64, passes: bool) {
        self.open[&(a, b)].send_replace(passes);
    }

    /// Cuts a member off from all others, or joins it again.
    pub fn set_all(&self, node: u64, passes: bool) {
        for (a, b) in self.open.keys().filter(|(a, b)| *a == node || *b == node) {
            self.set(*a, *b, passes);
        }
    }

    async fn serve(self: Arc<Self>, (from, to): (u64, u64), listener: TcpListener) {
        while let Ok((client, _)) = listener.accept().await {
            let address = self.servers.lock().unwrap().get(&to).copied();
            let Some(address) = address else { continue };
            let Ok(server) = TcpStream::connect(address).await else { continue };
            let (client_read, client_write) = client.into_split();
            let (server_read, server_write) = server.into_split();
            tokio::spawn(pump(client_read, server_write, self.open[&(from, to)].subscribe(), self.delay));
            tokio::spawn(pump(server_read, client_write, self.open[&(to, from)].subscribe(), self.delay));
        }
    }
}

/// Bytes wait out the delay side by side, as on a long line, not one after another.
async fn pump(mut from: OwnedReadHalf, to: OwnedWriteHalf, open: watch::Receiver<bool>, delay: Duration) {
    let (line, arrivals) = mpsc::unbounded_channel();
    let deliver = tokio::spawn(deliver(arrivals, to, open));
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if line.send((Instant::now() + delay, buffer[..read].to_vec())).is_err() {
            break;
        }
    }
    drop(line);
    deliver.await.unwrap();
}

async fn deliver(
    mut arrivals: mpsc::UnboundedReceiver<(Instant, Vec<u8>)>,
    mut to: OwnedWriteHalf,
    mut open: watch::Receiver<bool>,
) {
    while let Some((at, bytes)) = arrivals.recv().await {
        sleep_until(at).await;
        if open.wait_for(|open| *open).await.is_err() || to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    // The end of a stream does not pass a cut either.
    open.wait_for(|open| *open).await.ok();
}

/// What one member connects with: by way of its own proxies, whatever the address says.
pub struct Via {
    pub links: Arc<Links>,
    pub from: u64,
}

impl Connector for Via {
    fn channel(&self, node: u64, _: &str) -> Channel {
        let address = self.links.proxies[&(self.from, node)];
        tuned(Endpoint::from_shared(format!("http://{address}")).unwrap()).connect_lazy()
    }
}
