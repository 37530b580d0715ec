//! A datagram proxy: each client gets a socket of its own towards the service; a cut loses datagrams.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::state::OneWay;

const DATAGRAM_BYTES_MAX: usize = 65_535;
/// A client silent for so long is forgotten.
const IDLE: Duration = Duration::from_secs(30);

/// Relays datagrams between the clients of `front` and `target`, for ever.
pub async fn relay(front: UdpSocket, target: SocketAddr, there: OneWay, back: OneWay) {
    let front = Arc::new(front);
    let mut clients: HashMap<SocketAddr, (Arc<UdpSocket>, Instant)> = HashMap::new();
    let mut buffer = vec![0u8; DATAGRAM_BYTES_MAX];
    loop {
        // An error here is an ICMP answer to an earlier send: not this datagram's concern.
        let Ok((len, client)) = front.recv_from(&mut buffer).await else { continue };
        clients.retain(|_, (_, seen)| seen.elapsed() < IDLE);
        let behind = match clients.get_mut(&client) {
            Some((behind, seen)) => {
                *seen = Instant::now();
                behind.clone()
            }
            None => {
                let Ok(behind) = open_towards(target).await else { continue };
                tokio::spawn(answers(behind.clone(), front.clone(), client, back.clone()));
                clients.insert(client, (behind.clone(), Instant::now()));
                behind
            }
        };
        let datagram = buffer[..len].to_vec();
        let link = there.clone();
        tokio::spawn(async move {
            if survives(&link).await && behind.send(&datagram).await.is_ok() {
                link.delivered(datagram.len());
            }
        });
    }
}

async fn open_towards(target: SocketAddr) -> std::io::Result<Arc<UdpSocket>> {
    let local: SocketAddr = if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(target).await?;
    Ok(Arc::new(socket))
}

/// A datagram is lost when the link is cut as it leaves or as it would arrive.
async fn survives(link: &OneWay) -> bool {
    if link.is_cut() {
        return false;
    }
    tokio::time::sleep(link.delay()).await;
    !link.is_cut()
}

async fn answers(behind: Arc<UdpSocket>, front: Arc<UdpSocket>, client: SocketAddr, back: OneWay) {
    let mut buffer = vec![0u8; DATAGRAM_BYTES_MAX];
    loop {
        match tokio::time::timeout(IDLE, behind.recv(&mut buffer)).await {
            Err(_) => return,
            // The service's port is closed: it may open later.
            Ok(Err(_)) => {}
            Ok(Ok(len)) => {
                let (datagram, link, front) = (buffer[..len].to_vec(), back.clone(), front.clone());
                tokio::spawn(async move {
                    if survives(&link).await && front.send_to(&datagram, client).await.is_ok() {
                        link.delivered(datagram.len());
                    }
                });
            }
        }
    }
}
