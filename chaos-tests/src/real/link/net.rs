//! The set of regions and the links between them; hands out proxies.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Runtime;

use super::relay;
use super::state::{LinkStats, OneWay};
use super::udp;
use crate::real::address::bind_both;

/// Which direction of a pair is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutDirection {
    /// Both.
    Both,
    /// Only what the first region sends to the second.
    AToB,
    /// Only what the second region sends to the first.
    BToA,
}

/// Regions and the links between them. Clones share them; the proxies end with the last clone.
#[derive(Clone, Debug)]
pub struct Net {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    regions: BTreeSet<String>,
    links: BTreeMap<(String, String), OneWay>,
    /// Threads of their own, so that a busy or blocking test neither delays nor stops the links.
    runtime: Option<Runtime>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Never waits: the last clone may go inside another runtime.
            runtime.shutdown_background();
        }
    }
}

impl Net {
    /// Regions joined by whole links without delay.
    pub fn new(regions: &[&str]) -> Result<Self> {
        let names: BTreeSet<String> = regions.iter().map(|name| (*name).to_owned()).collect();
        ensure!(names.len() == regions.len(), "a region is named twice in {regions:?}");
        let pairs = names.iter().flat_map(|from| names.iter().map(|to| (from.clone(), to.clone())));
        let links = pairs.map(|pair| (pair, OneWay::new())).collect();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("links")
            .enable_all()
            .build()
            .context("starting the links' runtime")?;
        Ok(Self { inner: Arc::new(Inner { regions: names, links, runtime: Some(runtime) }) })
    }

    /// Opens an address on 127.0.0.1 through which `from` reaches the service at `target`, in `to`.
    pub fn listen(&self, from: &str, to: &str, target: SocketAddr) -> Result<SocketAddr> {
        self.listen_on(from, to, (Ipv4Addr::LOCALHOST, 0).into(), target)
    }

    /// As [`Net::listen`], on a chosen address (port 0 for any).
    pub fn listen_on(
        &self,
        from: &str,
        to: &str,
        local: SocketAddr,
        target: SocketAddr,
    ) -> Result<SocketAddr> {
        let listener = std::net::TcpListener::bind(local)
            .with_context(|| format!("binding {local} for the link {from} -> {to}"))?;
        listener.set_nonblocking(true)?;
        self.relay_tcp(from, to, listener, target)
    }

    /// Opens a UDP address on `local` through which `from` reaches the service at `target`, in `to`.
    pub fn listen_udp(
        &self,
        from: &str,
        to: &str,
        local: SocketAddr,
        target: SocketAddr,
    ) -> Result<SocketAddr> {
        let front = std::net::UdpSocket::bind(local)
            .with_context(|| format!("binding {local} (UDP) for the link {from} -> {to}"))?;
        front.set_nonblocking(true)?;
        self.relay_udp(from, to, front, target)
    }

    /// Opens a UDP and a TCP address with the same port on `ip`, as a DNS server has.
    pub fn listen_dns(&self, from: &str, to: &str, ip: IpAddr, target: SocketAddr) -> Result<SocketAddr> {
        let (listener, front) = bind_both(ip)?;
        self.relay_udp(from, to, front, target)?;
        self.relay_tcp(from, to, listener, target)
    }

    fn relay_tcp(
        &self,
        from: &str,
        to: &str,
        listener: std::net::TcpListener,
        target: SocketAddr,
    ) -> Result<SocketAddr> {
        let (there, back) = (self.link(from, to)?, self.link(to, from)?);
        let bound = listener.local_addr()?;
        let _guard = self.runtime().enter();
        let listener = TcpListener::from_std(listener)?;
        self.runtime().spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((client, _)) => {
                        tokio::spawn(relay::relay(client, target, there.clone(), back.clone()));
                    }
                    // Out of descriptors, or the client was quick to go: try again, not in a spin.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        Ok(bound)
    }

    fn relay_udp(
        &self,
        from: &str,
        to: &str,
        front: std::net::UdpSocket,
        target: SocketAddr,
    ) -> Result<SocketAddr> {
        let (there, back) = (self.link(from, to)?, self.link(to, from)?);
        let bound = front.local_addr()?;
        let _guard = self.runtime().enter();
        self.runtime().spawn(udp::relay(UdpSocket::from_std(front)?, target, there, back));
        Ok(bound)
    }

    /// Sets the delay of one direction, of what is sent from now on.
    pub fn set_one_way_delay(&self, from: &str, to: &str, delay: Duration) -> Result<()> {
        self.link(from, to)?.set_delay(delay);
        Ok(())
    }

    /// Sets the delay of both directions between two regions: the round trip is twice as long.
    pub fn set_delay(&self, a: &str, b: &str, one_way: Duration) -> Result<()> {
        self.set_one_way_delay(a, b, one_way)?;
        self.set_one_way_delay(b, a, one_way)
    }

    /// Cuts the link between two regions, or one direction of it.
    pub fn cut(&self, a: &str, b: &str, direction: CutDirection) -> Result<()> {
        ensure!(a != b, "region {a} cannot be cut from itself");
        let (there, back) = (self.link(a, b)?, self.link(b, a)?);
        if direction != CutDirection::BToA {
            there.set_cut(true);
        }
        if direction != CutDirection::AToB {
            back.set_cut(true);
        }
        Ok(())
    }

    /// Cuts every link that touches `region`; inside it, all works on.
    pub fn isolate(&self, region: &str) -> Result<()> {
        self.link(region, region)?;
        for ((from, to), link) in &self.inner.links {
            if from != to && (from == region || to == region) {
                link.set_cut(true);
            }
        }
        Ok(())
    }

    /// Makes every link whole; what was held is delivered.
    pub fn heal(&self) {
        self.inner.links.values().for_each(|link| link.set_cut(false));
    }

    /// Makes both directions between two regions whole.
    pub fn heal_link(&self, a: &str, b: &str) -> Result<()> {
        self.link(a, b)?.set_cut(false);
        self.link(b, a)?.set_cut(false);
        Ok(())
    }

    /// Whether what `from` sends to `to` is held back.
    pub fn is_cut(&self, from: &str, to: &str) -> Result<bool> {
        Ok(self.link(from, to)?.is_cut())
    }

    /// What the direction has delivered.
    pub fn stats(&self, from: &str, to: &str) -> Result<LinkStats> {
        Ok(self.link(from, to)?.stats())
    }

    fn link(&self, from: &str, to: &str) -> Result<OneWay> {
        self.inner
            .links
            .get(&(from.to_owned(), to.to_owned()))
            .cloned()
            .with_context(|| format!("no link {from} -> {to}: the regions are {:?}", self.inner.regions))
    }

    fn runtime(&self) -> &Runtime {
        self.inner.runtime.as_ref().expect("taken by drop only")
    }
}
