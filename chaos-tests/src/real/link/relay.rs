//! One proxied TCP connection: two pipelines, each reading, holding for the delay, and writing in order.
//!
//! Invariant: bytes leave in the order they came and none is dropped, except with the whole connection.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::state::OneWay;

const CHUNK_BYTES_MAX: usize = 32 * 1024;
/// Chunks on the way at once, per direction: far above any window of these tests, and bounded.
const CHUNKS_MAX: usize = 2048;

enum Passage {
    Data(Vec<u8>),
    /// The sender closed its side.
    End,
    /// The sender's socket died.
    Reset,
}

struct Due {
    at: Instant,
    passage: Passage,
}

/// How a pipeline ended.
#[derive(PartialEq, Eq)]
enum Ending {
    Closed,
    Reset,
}

/// Relays one accepted connection to `target` until both sides are done.
pub async fn relay(client: TcpStream, target: SocketAddr, there: OneWay, back: OneWay) {
    if !handshake(&client, &there, &back).await {
        return;
    }
    let server = match TcpStream::connect(target).await {
        Ok(server) => server,
        Err(_) => {
            // The refusal's travel is within the round trip already waited for, unless it meets a cut.
            back.whole().await;
            reset(&client);
            return;
        }
    };
    // Small messages must not wait for each other's acknowledgements: the delay is ours alone.
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let (mut client_in, mut client_out) = (client_in, client_out);
    let (mut server_in, mut server_out) = (server_in, server_out);
    let ended = {
        let forth = pipeline(&mut client_in, &mut server_out, &there);
        let home = pipeline(&mut server_in, &mut client_out, &back);
        tokio::pin!(forth, home);
        tokio::select! {
            ending = &mut forth => if ending == Ending::Reset { Ending::Reset } else { home.await },
            ending = &mut home => if ending == Ending::Reset { Ending::Reset } else { forth.await },
        }
    };
    if ended == Ending::Reset {
        reset(client_in.as_ref());
        reset(server_in.as_ref());
        // Dropping a write half would send an orderly end first.
        client_out.forget();
        server_out.forget();
    }
}

/// Waits for what a SYN and its answer would take; false when the client has given up meanwhile.
async fn handshake(client: &TcpStream, there: &OneWay, back: &OneWay) -> bool {
    there.whole().await;
    back.whole().await;
    tokio::time::sleep(there.delay() + back.delay()).await;
    there.whole().await;
    back.whole().await;
    let mut byte = [0u8; 1];
    // Its closing is only visible behind what it sent; a client that sent nothing and closed is gone.
    let looked = tokio::time::timeout(Duration::ZERO, client.peek(&mut byte)).await;
    !matches!(looked, Ok(Ok(0) | Err(_))) && !hung_up(client)
}

/// Whether the peer has closed its side, even when data waits in front of that.
fn hung_up(stream: &TcpStream) -> bool {
    use std::os::fd::AsRawFd;
    let mut poll = libc::pollfd { fd: stream.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: one valid entry, no waiting.
    let ready = unsafe { libc::poll(&mut poll, 1, 0) };
    ready > 0 && poll.revents & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0
}

/// Makes the close of this socket a reset.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

async fn pipeline(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, link: &OneWay) -> Ending {
    let (queue, arrivals) = mpsc::channel(CHUNKS_MAX);
    let (_, ending) = tokio::join!(collect(from, link, queue), deliver(to, link, arrivals));
    ending
}

async fn collect(from: &mut OwnedReadHalf, link: &OneWay, queue: mpsc::Sender<Due>) {
    let mut buffer = vec![0u8; CHUNK_BYTES_MAX];
    loop {
        // While cut, nothing is read: the sender's window fills up, as it would.
        link.whole().await;
        let read = tokio::select! {
            biased;
            () = link.cut() => continue,
            read = from.read(&mut buffer) => read,
        };
        let passage = match read {
            Ok(0) => Passage::End,
            Ok(len) => Passage::Data(buffer[..len].to_vec()),
            Err(_) => Passage::Reset,
        };
        let last = !matches!(passage, Passage::Data(_));
        let due = Due { at: Instant::now() + link.delay(), passage };
        if queue.send(due).await.is_err() || last {
            return;
        }
    }
}

async fn deliver(to: &mut OwnedWriteHalf, link: &OneWay, mut arrivals: mpsc::Receiver<Due>) -> Ending {
    while let Some(due) = arrivals.recv().await {
        tokio::time::sleep_until(due.at).await;
        link.whole().await;
        match due.passage {
            Passage::Data(bytes) => match to.write_all(&bytes).await {
                Ok(()) => link.delivered(bytes.len()),
                // The receiver is gone. Its end travels back on the other pipeline; what still comes here
                // hits a dead socket, so the sender learns nothing from this direction.
                Err(_) => {
                    while arrivals.recv().await.is_some() {}
                    return Ending::Closed;
                }
            },
            Passage::End => {
                let _ = to.shutdown().await;
                return Ending::Closed;
            }
            Passage::Reset => return Ending::Reset,
        }
    }
    Ending::Closed
}
