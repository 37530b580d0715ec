//! Links against plain sockets.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::{CutDirection, Net};
use crate::real::address::bind_both;
use crate::real::clock::wait_until;

const SOON: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_millis(150);

async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    serve_echo(listener)
}

fn serve_echo(listener: TcpListener) -> SocketAddr {
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

fn net() -> Net {
    Net::new(&["north", "east", "west"]).unwrap()
}

async fn ask(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).await.unwrap();
    let mut back = vec![0; text.len()];
    timeout(SOON, stream.read_exact(&mut back)).await.expect("an answer").unwrap();
    assert_eq!(back, text);
}

async fn silent(stream: &mut TcpStream) {
    let mut byte = [0];
    let read = timeout(SILENCE, stream.read(&mut byte)).await;
    assert!(read.is_err(), "neither data nor an end may come: {read:?}");
}

#[tokio::test]
async fn round_trip_takes_the_delay() {
    let net = net();
    net.set_delay("north", "east", Duration::from_millis(55)).unwrap();
    let at = net.listen("north", "east", echo().await).unwrap();
    let mut stream = TcpStream::connect(at).await.unwrap();
    ask(&mut stream, b"warm").await;
    let mut trips = Vec::new();
    for _ in 0..9 {
        let sent = Instant::now();
        ask(&mut stream, b"ping").await;
        trips.push(sent.elapsed());
    }
    trips.sort();
    assert!(trips[0] >= Duration::from_millis(110), "{trips:?}");
    assert!(trips[4] <= Duration::from_millis(125), "{trips:?}");
}

#[tokio::test]
async fn order_is_kept_and_throughput_is_not_serialised_by_the_delay() {
    let net = net();
    net.set_delay("north", "east", Duration::from_millis(50)).unwrap();
    let at = net.listen("north", "east", echo().await).unwrap();
    let (mut from, mut to) = TcpStream::connect(at).await.unwrap().into_split();
    let sent: Vec<u8> = (0..4_000_000u32).map(|n| (n % 251) as u8).collect();
    let copy = sent.clone();
    let began = Instant::now();
    let writer = tokio::spawn(async move {
        for part in copy.chunks(1000) {
            to.write_all(part).await.unwrap();
        }
        to.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    timeout(Duration::from_secs(20), from.read_to_end(&mut got)).await.unwrap().unwrap();
    writer.await.unwrap();
    assert!(got == sent, "bytes differ or are out of order");
    // 4000 parts one after the other at 50 ms would take 200 s.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_cut_is_silent_and_what_was_held_comes_in_order() {
    let net = net();
    let at = net.listen("north", "east", echo().await).unwrap();
    let mut stream = TcpStream::connect(at).await.unwrap();
    ask(&mut stream, b"before").await;
    net.isolate("east").unwrap();
    let passed = net.stats("north", "east").unwrap().delivered_bytes;
    stream.write_all(b"one ").await.unwrap();
    stream.write_all(b"two").await.unwrap();
    silent(&mut stream).await;
    assert_eq!(net.stats("north", "east").unwrap().delivered_bytes, passed);
    net.heal();
    let mut back = [0; 7];
    timeout(SOON, stream.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"one two");
}

#[tokio::test]
async fn one_direction_can_be_cut_alone() {
    let net = net();
    let at = net.listen("north", "east", echo().await).unwrap();
    let mut stream = TcpStream::connect(at).await.unwrap();
    ask(&mut stream, b"before").await;
    net.cut("north", "east", CutDirection::BToA).unwrap();
    assert!(net.is_cut("east", "north").unwrap() && !net.is_cut("north", "east").unwrap());
    let passed = net.stats("north", "east").unwrap().delivered_bytes;
    stream.write_all(b"question").await.unwrap();
    wait_until("the question arrives", SOON, async || {
        net.stats("north", "east").unwrap().delivered_bytes == passed + 8
    })
    .await
    .unwrap();
    silent(&mut stream).await;
    net.heal_link("north", "east").unwrap();
    let mut back = [0; 8];
    timeout(SOON, stream.read_exact(&mut back)).await.unwrap().unwrap();

    net.cut("north", "east", CutDirection::AToB).unwrap();
    let passed = net.stats("north", "east").unwrap().delivered_bytes;
    stream.write_all(b"unheard").await.unwrap();
    silent(&mut stream).await;
    assert_eq!(net.stats("north", "east").unwrap().delivered_bytes, passed);
}

#[tokio::test]
async fn other_regions_are_untouched_by_an_isolation() {
    let net = net();
    let service = echo().await;
    let to_east = net.listen("north", "east", service).unwrap();
    let to_west = net.listen("north", "west", service).unwrap();
    let inside = net.listen("east", "east", service).unwrap();
    net.isolate("east").unwrap();
    ask(&mut TcpStream::connect(to_west).await.unwrap(), b"hello").await;
    ask(&mut TcpStream::connect(inside).await.unwrap(), b"hello").await;
    let mut new = TcpStream::connect(to_east).await.unwrap();
    new.write_all(b"late").await.unwrap();
    silent(&mut new).await;
    net.heal();
    let mut back = [0; 4];
    timeout(SOON, new.read_exact(&mut back)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_given_up_during_the_cut_never_reaches_the_service() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let net = net();
    let at = net.listen("north", "east", listener.local_addr().unwrap()).unwrap();
    net.isolate("north").unwrap();
    let mut given_up = TcpStream::connect(at).await.unwrap();
    given_up.write_all(b"startup packet").await.unwrap();
    drop(given_up);
    let mut patient = TcpStream::connect(at).await.unwrap();
    patient.write_all(b"patient").await.unwrap();
    net.heal();
    let (mut first, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    let mut text = [0; 7];
    timeout(SOON, first.read_exact(&mut text)).await.unwrap().unwrap();
    assert_eq!(&text, b"patient");
    assert!(timeout(SILENCE, listener.accept()).await.is_err(), "the one given up must not come");
}

#[tokio::test]
async fn ends_and_refusals_travel_but_not_through_a_cut() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let net = net();
    let at = net.listen("north", "east", target).unwrap();
    let mut stream = TcpStream::connect(at).await.unwrap();
    let (behind, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    net.isolate("east").unwrap();
    behind.set_zero_linger().unwrap();
    drop(behind);
    silent(&mut stream).await;
    net.heal();
    let mut byte = [0];
    let end = timeout(SOON, stream.read(&mut byte)).await.unwrap();
    assert!(end.is_err(), "a reset must arrive as one: {end:?}");

    drop(listener);
    let mut refused = TcpStream::connect(at).await.unwrap();
    let end = timeout(SOON, refused.read(&mut byte)).await.unwrap();
    assert!(!matches!(end, Ok(1..)), "{end:?}");
}

#[tokio::test]
async fn datagrams_are_delayed_and_lost() {
    let service = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let target = service.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((len, from)) = service.recv_from(&mut buffer).await {
            service.send_to(&buffer[..len], from).await.unwrap();
        }
    });
    let net = net();
    net.set_delay("north", "east", Duration::from_millis(30)).unwrap();
    let at = net.listen_udp("north", "east", "127.0.0.1:0".parse().unwrap(), target).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(at).await.unwrap();
    let mut buffer = [0; 512];
    let sent = Instant::now();
    client.send(b"query").await.unwrap();
    timeout(SOON, client.recv(&mut buffer)).await.unwrap().unwrap();
    assert!(sent.elapsed() >= Duration::from_millis(60));
    net.cut("north", "east", CutDirection::AToB).unwrap();
    client.send(b"lost").await.unwrap();
    assert!(timeout(SILENCE, client.recv(&mut buffer)).await.is_err());
    net.heal();
    assert!(timeout(SILENCE, client.recv(&mut buffer)).await.is_err(), "a lost datagram stays lost");
    client.send(b"again").await.unwrap();
    let len = timeout(SOON, client.recv(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(&buffer[..len], b"again");
}

#[tokio::test]
async fn a_name_server_is_reached_over_both_protocols_at_one_port() {
    let (tcp, udp) = bind_both("127.0.0.1".parse().unwrap()).unwrap();
    let target = serve_echo(TcpListener::from_std(tcp).unwrap());
    let udp = UdpSocket::from_std(udp).unwrap();
    let net = net();
    let at = net.listen_dns("west", "east", target.ip(), target).unwrap();
    ask(&mut TcpStream::connect(at).await.unwrap(), b"over tcp").await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.send_to(b"over udp", at).await.unwrap();
    let mut buffer = [0; 64];
    let (len, _) = timeout(SOON, udp.recv_from(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(&buffer[..len], b"over udp");
}

#[test]
fn unknown_regions_are_named() {
    let error = net().isolate("nowhere").unwrap_err().to_string();
    assert!(error.contains("nowhere") && error.contains("north"), "{error}");
    assert!(net().cut("east", "east", CutDirection::Both).is_err());
}
