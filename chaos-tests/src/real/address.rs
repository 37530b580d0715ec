//! Loopback addresses that no other test uses, so that every member can have an address of its own and the
//! port it would have in production.
//!
//! A block is the 254 hosts of one `127.x.y.0/24`, held by a file lock for as long as the block lives. Linux
//! answers on all of 127/8 without any set-up.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use anyhow::{Context, Result, bail};

use super::cache::FileLock;

/// A reserved `127.x.y.0/24`.
#[derive(Debug)]
pub struct LoopbackBlock {
    second: u8,
    third: u8,
    _lock: FileLock,
}

impl LoopbackBlock {
    /// Reserves the first block that nobody holds, starting at one that depends on the process id.
    pub fn reserve() -> Result<Self> {
        // 127.64 to 127.127: away from what distributions and resolvers use near 127.0.
        const BLOCKS: u32 = 64 * 256;
        let start = std::process::id().wrapping_mul(2_654_435_761) % BLOCKS;
        for step in 0..256 {
            let block = (start + step) % BLOCKS;
            let (second, third) = (64 + (block / 256) as u8, (block % 256) as u8);
            if let Some(lock) = FileLock::try_acquire(&format!("loopback-{second}-{third}"))? {
                return Ok(Self { second, third, _lock: lock });
            }
        }
        bail!("no free loopback block among 256 tried from block {start}")
    }

    /// The address of host `host` (1 to 254).
    pub fn ip(&self, host: u8) -> IpAddr {
        assert!((1..=254).contains(&host), "loopback host {host} is not within 1..=254");
        IpAddr::V4(Ipv4Addr::new(127, self.second, self.third, host))
    }

    /// A port that is free on `host` now.
    pub fn free_port(&self, host: u8) -> Result<SocketAddr> {
        free_port(self.ip(host))
    }
}

/// A TCP port that is free on `ip` now; another process may take it before it is used.
pub fn free_port(ip: IpAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind((ip, 0)).with_context(|| format!("binding a free port on {ip}"))?;
    Ok(listener.local_addr()?)
}

/// Non-blocking TCP and UDP sockets bound to one port on `ip`, as a DNS server has.
pub fn bind_both(ip: IpAddr) -> Result<(TcpListener, UdpSocket)> {
    let mut last = None;
    // A port free for one protocol may be taken for the other.
    for _ in 0..64 {
        let tcp = TcpListener::bind((ip, 0)).with_context(|| format!("binding a free port on {ip}"))?;
        match UdpSocket::bind(tcp.local_addr()?) {
            Ok(udp) => {
                tcp.set_nonblocking(true)?;
                udp.set_nonblocking(true)?;
                return Ok((tcp, udp));
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.expect("64 tries were made")).with_context(|| format!("no port on {ip} is free for TCP and UDP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_distinct_while_held() {
        let one = LoopbackBlock::reserve().unwrap();
        let two = LoopbackBlock::reserve().unwrap();
        assert_ne!(one.ip(1), two.ip(1));
        let at = one.free_port(7).unwrap();
        assert_eq!(at.ip(), one.ip(7));
        TcpListener::bind(at).unwrap();
    }
}
