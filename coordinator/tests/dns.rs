//! The embedded zone over real sockets, asked with messages made by hand.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RecordType},
};
use hickory_server::server::Server;
use regent_coordinator::{
    clock::Clock,
    config,
    dns::{
        self, DnsError, Ensured,
        embedded::{Source, Zone},
    },
};
use regent_core::DnsRecord;
use regent_types::{Epoch, MemberName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

#[derive(Clone, Default)]
struct Records(Arc<Mutex<BTreeMap<String, DnsRecord>>>);

impl Source for Records {
    fn records(&self) -> (BTreeMap<String, DnsRecord>, u32) {
        let records = self.0.lock().unwrap().clone();
        let serial = records.values().map(|record| record.epoch.0 as u32).sum();
        (records, serial)
    }
    fn answered(&self) {}
}

fn record(epoch: u64, address: &str) -> DnsRecord {
    let member = MemberName::new("us-east-1").unwrap();
    DnsRecord { epoch: Epoch(epoch), member, address: address.parse().unwrap(), ttl_s: 5 }
}

async fn start(records: &Records) -> (SocketAddr, Server<Zone<Records>>) {
    // UDP and TCP need the same port; the kernel gives one for TCP, and UDP's is free nearly always.
    let sockets = loop {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if let Ok(sockets) = dns::bind(SocketAddr::from(([127, 0, 0, 1], port))).await {
            break sockets;
        }
    };
    let address = sockets.0.local_addr().unwrap();
    let settings = config::Dns {
        listen: address,
        zone: "DB.Test".into(),
        name_servers: vec!["ns1.db.test".into(), "ns2.db.test".into()],
        verify: vec![address],
    };
    (address, dns::embedded::start(Zone::new(&settings, records.clone()), sockets))
}

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    let name: Name = name.parse().unwrap();
    message.add_query(Query::query(name, kind));
    message.to_vec().unwrap()
}

async fn udp(server: SocketAddr, bytes: &[u8]) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(bytes, server).await.unwrap();
    let mut buffer = [0; 1232];
    let length =
        tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await.unwrap().unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn tcp(server: SocketAddr, bytes: &[u8]) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_u16(bytes.len() as u16).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut buffer = vec![0; length.into()];
    stream.read_exact(&mut buffer).await.unwrap();
    Message::from_vec(&buffer).unwrap()
}

fn texts(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

#[tokio::test]
async fn the_zone_answers_with_exactly_what_the_state_holds() {
    let records = Records::default();
    records.0.lock().unwrap().insert("pg.db.test".into(), record(1, "192.0.2.1"));
    records.0.lock().unwrap().insert("six.eu.db.test".into(), record(1, "2001:db8::1"));
    let (server, _running) = start(&records).await;

    for ask in [
        udp(server, &query("PG.db.test.", RecordType::A)).await,
        tcp(server, &query("pg.db.test.", RecordType::A)).await,
    ] {
        assert_eq!(ask.metadata.response_code, ResponseCode::NoError);
        assert!(ask.metadata.authoritative && ask.metadata.id == 4711);
        assert_eq!(texts(&ask), ["192.0.2.1"]);
        assert_eq!(ask.answers[0].ttl, 5);
    }
    // A change replaces the set: never two primaries side by side.
    records.0.lock().unwrap().insert("pg.db.test".into(), record(2, "192.0.2.2"));
    assert_eq!(texts(&udp(server, &query("pg.db.test.", RecordType::A)).await), ["192.0.2.2"]);
    let companion = udp(server, &query("pg.db.test.", RecordType::TXT)).await;
    assert!(texts(&companion)[0].contains("regent-epoch=2 member=us-east-1"), "{companion:?}");
    assert_eq!(texts(&udp(server, &query("six.eu.db.test.", RecordType::AAAA)).await), ["2001:db8::1"]);
    assert_eq!(udp(server, &query("pg.db.test.", RecordType::ANY)).await.answers.len(), 2);

    let nodata = udp(server, &query("six.eu.db.test.", RecordType::A)).await;
    assert_eq!((nodata.metadata.response_code, nodata.answers.len()), (ResponseCode::NoError, 0));
    assert_eq!(nodata.authorities[0].record_type(), RecordType::SOA);
    let between = udp(server, &query("eu.db.test.", RecordType::A)).await;
    assert_eq!(between.metadata.response_code, ResponseCode::NoError, "a name above another exists");
    let missing = udp(server, &query("other.db.test.", RecordType::A)).await;
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(missing.authorities[0].record_type(), RecordType::SOA);
    let apex = udp(server, &query("db.test.", RecordType::NS)).await;
    assert_eq!(texts(&apex), ["ns1.db.test.", "ns2.db.test."]);
    assert_eq!(udp(server, &query("db.test.", RecordType::SOA)).await.answers.len(), 1);
    for outside in ["db.test.example.org.", "xdb.test.", "test.", "."] {
        let refused = udp(server, &query(outside, RecordType::A)).await;
        assert_eq!(refused.metadata.response_code, ResponseCode::Refused, "{outside}");
        assert!(!refused.metadata.authoritative);
    }
}

#[tokio::test]
async fn updates_and_other_classes_are_refused() {
    let (server, _running) = start(&Records::default()).await;
    let mut message = Message::new(1, MessageType::Query, OpCode::Query);
    let mut chaos = Query::query("db.test.".parse().unwrap(), RecordType::TXT);
    chaos.set_query_class(DNSClass::CH);
    message.add_query(chaos);
    let answer = udp(server, &message.to_vec().unwrap()).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    let mut message = Message::new(2, MessageType::Query, OpCode::Notify);
    message.add_query(Query::query("db.test.".parse().unwrap(), RecordType::SOA));
    let answer = udp(server, &message.to_vec().unwrap()).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NotImp);
}

#[tokio::test]
async fn the_provider_is_content_with_one_listener_and_never_with_another_epoch() {
    let records = Records::default();
    let (server, _running) = start(&records).await;
    let dead: SocketAddr = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let text = include_str!("../../deploy/config/coordinator.toml");
    let listeners = format!("verify = [\"{dead}\", \"{server}\"]");
    let text =
        text.replace("verify = [\"192.0.2.1:7453\", \"192.0.2.2:7453\", \"192.0.2.3:7453\"]", &listeners);
    let config = config::Config::parse(&text, "test.toml".as_ref()).unwrap();
    let provider = dns::providers(&config, &Clock::system()).remove("embedded").unwrap();

    let nothing = provider.ensure("pg.db.test", &record(2, "192.0.2.2")).await.unwrap_err();
    assert!(nothing.to_string().contains(&format!("{server}: no such record")), "{nothing}");
    assert_eq!(provider.observe("pg.db.test").await.unwrap(), None);
    records.0.lock().unwrap().insert("pg.db.test".into(), record(1, "192.0.2.1"));
    let old = provider.ensure("pg.db.test", &record(2, "192.0.2.2")).await.unwrap_err();
    assert!(matches!(old, DnsError::NotShown { .. }), "{old}");
    records.0.lock().unwrap().insert("pg.db.test".into(), record(2, "192.0.2.2"));
    assert_eq!(provider.ensure("pg.db.test", &record(2, "192.0.2.2")).await.unwrap(), Ensured::Changed);
    let seen = provider.observe("pg.db.test").await.unwrap().unwrap();
    assert_eq!((seen.epoch, seen.address.to_string()), (Some(Epoch(2)), "192.0.2.2".to_owned()));
    let late = provider.ensure("pg.db.test", &record(1, "192.0.2.1")).await.unwrap_err();
    assert!(matches!(late, DnsError::Superseded { found: Epoch(2), wanted: Epoch(1) }), "{late}");
}
