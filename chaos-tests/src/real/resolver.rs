//! A stub resolver of the harness's own, as an application has one: it shares no code with the server it
//! tests, trusts nothing but the wire, and never caches.
//!
//! Servers are asked in turn: UDP with a deadline, TCP when the answer is truncated. A server that is silent,
//! refuses, or does not know the name is passed over; the error lists what each one said.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

const MESSAGE_BYTES_MAX: usize = 65_535;

/// What one server said about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The A and AAAA records, in the order given.
    pub addresses: Vec<IpAddr>,
    /// How long they may be cached: the smallest of them.
    pub ttl_s: u32,
    /// `regent-epoch=N` of the companion TXT record; `None` when there is no such record.
    pub epoch: Option<u64>,
    /// Whether the server claims authority.
    pub authoritative: bool,
    /// Which server answered.
    pub server: SocketAddr,
}

/// The servers to ask, in order.
#[derive(Clone, Debug)]
pub struct StubResolver {
    servers: Vec<SocketAddr>,
    within: Duration,
    rounds: u32,
}

/// One record set, from one server.
struct RecordSet {
    records: Vec<(u32, Data)>,
    authoritative: bool,
}

enum Data {
    Address(IpAddr),
    Text(String),
}

impl StubResolver {
    /// Asks `servers` in order, each for up to `within`, in two rounds.
    pub fn new(servers: Vec<SocketAddr>, within: Duration) -> Self {
        Self { servers, within, rounds: 2 }
    }

    /// The address of `name`, and the epoch beside it. The TXT record is looked up at the same server, at the
    /// same name; its absence is no error.
    pub async fn resolve(&self, name: &str) -> Result<Answer> {
        ensure!(!self.servers.is_empty(), "no DNS server to ask for {name}");
        let mut failures = Vec::new();
        for _ in 0..self.rounds {
            for server in &self.servers {
                match self.ask(*server, name).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => failures.push(format!("{server}: {error:#}")),
                }
            }
        }
        bail!("{name} did not resolve: {}", failures.join("; "))
    }

    /// As [`StubResolver::resolve`], of one server only.
    pub async fn ask(&self, server: SocketAddr, name: &str) -> Result<Answer> {
        let found = self.query(server, name, TYPE::A).await?;
        let ttl_s = found.records.iter().map(|(ttl, _)| *ttl).min().unwrap_or(0);
        let addresses: Vec<_> = found
            .records
            .iter()
            .filter_map(|(_, data)| if let Data::Address(ip) = data { Some(*ip) } else { None })
            .collect();
        ensure!(!addresses.is_empty(), "no address for {name}");
        let epoch = match self.query(server, name, TYPE::TXT).await {
            Ok(texts) => texts
                .records
                .iter()
                .filter_map(|(_, data)| if let Data::Text(text) = data { Some(text) } else { None })
                .find_map(|text| text.split([' ', ';']).find_map(|word| word.strip_prefix("regent-epoch=")))
                .map(|number| number.parse().with_context(|| format!("TXT of {name}: epoch \"{number}\"")))
                .transpose()?,
            Err(_) => None,
        };
        Ok(Answer { addresses, ttl_s, epoch, authoritative: found.authoritative, server })
    }

    async fn query(&self, server: SocketAddr, name: &str, kind: TYPE) -> Result<RecordSet> {
        let id = rand::random();
        let mut query = Packet::new_query(id);
        query.set_flags(PacketFlag::RECURSION_DESIRED);
        let question = Name::new(name).with_context(|| format!("name \"{name}\""))?;
        query.questions.push(Question::new(question, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
        let query = query.build_bytes_vec()?;
        let answer = timeout(self.within, over_udp(server, &query, id)).await.context("UDP: no answer")??;
        let truncated = Packet::parse(&answer)?.has_flags(PacketFlag::TRUNCATION);
        let answer = if truncated {
            timeout(self.within, over_tcp(server, &query)).await.context("TCP: no answer")??
        } else {
            answer
        };
        read(&answer, id, name, kind)
    }
}

async fn over_udp(server: SocketAddr, query: &[u8], id: u16) -> Result<Vec<u8>> {
    let local: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    loop {
        let len = socket.recv(&mut buffer).await.context("UDP")?;
        // A late answer to another question is not ours.
        if len >= 2 && buffer[..2] == id.to_be_bytes() {
            buffer.truncate(len);
            return Ok(buffer);
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await.context("TCP")?;
    let mut message = (query.len() as u16).to_be_bytes().to_vec();
    message.extend_from_slice(query);
    stream.write_all(&message).await?;
    let len = stream.read_u16().await.context("TCP: reading the length")?;
    let mut answer = vec![0; usize::from(len)];
    stream.read_exact(&mut answer).await.context("TCP: reading the answer")?;
    Ok(answer)
}

fn read(answer: &[u8], id: u16, name: &str, kind: TYPE) -> Result<RecordSet> {
    let packet = Packet::parse(answer).context("unreadable answer")?;
    ensure!(packet.id() == id, "answer {} to question {id}", packet.id());
    ensure!(packet.has_flags(PacketFlag::RESPONSE), "a question came back");
    ensure!(packet.rcode() == RCODE::NoError, "{kind:?} of {name}: {:?}", packet.rcode());
    let records = packet.answers.iter().filter_map(|record| {
        let data = match &record.rdata {
            RData::A(a) => Data::Address(Ipv4Addr::from(a.address).into()),
            RData::AAAA(a) => Data::Address(Ipv6Addr::from(a.address).into()),
            RData::TXT(text) => Data::Text(String::try_from(text.clone()).ok()?),
            _ => return None,
        };
        Some((record.ttl, data))
    });
    Ok(RecordSet {
        records: records.collect(),
        authoritative: packet.has_flags(PacketFlag::AUTHORITATIVE_ANSWER),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, TXT};
    use tokio::net::TcpListener;

    fn reply(query: &[u8], truncate: bool) -> Vec<u8> {
        let query = Packet::parse(query).unwrap();
        let question = &query.questions[0];
        let name = question.qname.clone();
        let mut packet = Packet::new_reply(query.id());
        packet.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
        if name.to_string() != "db.regent.test" {
            *packet.rcode_mut() = RCODE::NameError;
        } else if truncate {
            packet.set_flags(PacketFlag::TRUNCATION);
        } else {
            let rdata = if question.qtype == QTYPE::TYPE(TYPE::A) {
                RData::A(A { address: Ipv4Addr::new(127, 64, 0, 7).into() })
            } else {
                RData::TXT(TXT::new().with_string("regent-epoch=42 member=us-east-1").unwrap())
            };
            packet.answers.push(ResourceRecord::new(name, CLASS::IN, 5, rdata));
        }
        packet.build_bytes_vec().unwrap()
    }

    async fn server(truncate: bool) -> SocketAddr {
        let (tcp, udp) = crate::real::address::bind_both(Ipv4Addr::LOCALHOST.into()).unwrap();
        let (tcp, udp) = (TcpListener::from_std(tcp).unwrap(), UdpSocket::from_std(udp).unwrap());
        let address = udp.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((len, from)) = udp.recv_from(&mut buffer).await {
                udp.send_to(&reply(&buffer[..len], truncate), from).await.unwrap();
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let len = stream.read_u16().await.unwrap();
                let mut query = vec![0; usize::from(len)];
                stream.read_exact(&mut query).await.unwrap();
                let answer = reply(&query, false);
                stream.write_u16(answer.len() as u16).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        });
        address
    }

    const SHORT: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn address_epoch_and_time_to_live() {
        let server = server(false).await;
        let answer = StubResolver::new(vec![server], SHORT).resolve("db.regent.test").await.unwrap();
        assert_eq!(answer.addresses, [IpAddr::from([127, 64, 0, 7])]);
        assert_eq!((answer.epoch, answer.ttl_s, answer.authoritative), (Some(42), 5, true));
    }

    #[tokio::test]
    async fn a_silent_server_is_passed_over_and_tcp_follows_truncation() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let working = server(true).await;
        let resolver = StubResolver::new(vec![silent.local_addr().unwrap(), working], SHORT);
        let answer = resolver.resolve("db.regent.test").await.unwrap();
        assert_eq!((answer.server, answer.epoch), (working, Some(42)));
    }

    #[tokio::test]
    async fn the_error_names_each_server() {
        let server = server(false).await;
        let error =
            StubResolver::new(vec![server], SHORT).resolve("other.test").await.unwrap_err().to_string();
        assert!(error.contains(&server.to_string()) && error.contains("NameError"), "{error}");
    }
}
