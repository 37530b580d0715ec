//! The zone's name servers, over UDP: what the API made (INSYNC records only), or what health checks make of it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use simple_dns::{
    CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE,
    rdata::{A, AAAA, RData, TXT},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    task::JoinHandle,
};

use crate::{Fake, Record};

/// A DNS server; ends when dropped.
pub struct NameServer {
    /// UDP.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Source = Arc<dyn Fn(&str) -> Vec<Record> + Send + Sync>;

impl NameServer {
    /// Shows what is INSYNC.
    pub async fn of(fake: &Arc<Fake>, address: SocketAddr) -> io::Result<Self> {
        let fake = fake.clone();
        Self::start(address, Arc::new(move |name| fake.served(name))).await
    }

    async fn start(address: SocketAddr, source: Source) -> io::Result<Self> {
        let socket = UdpSocket::bind(address).await?;
        let address = socket.local_addr()?;
        let task = tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                if let Some(answer) = answer(&buffer[..length], &source) {
                    socket.send_to(&answer, from).await.ok();
                }
            }
        });
        Ok(Self { address, task })
    }
}

fn answer(question: &[u8], source: &Source) -> Option<Vec<u8>> {
    let query = Packet::parse(question).ok()?;
    let mut reply = Packet::new_reply(query.id());
    reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
    let asked = query.questions.first()?.clone();
    let name = asked.qname.to_string();
    let records = source(&name);
    if records.is_empty() {
        *reply.rcode_mut() = RCODE::NameError;
    }
    let wants = |kind: TYPE| {
        matches!(asked.qtype, QTYPE::TYPE(wanted) if wanted == kind) || asked.qtype == QTYPE::ANY
    };
    let owner = Name::new(&name).ok()?.into_owned();
    for record in &records {
        for value in &record.values {
            let data = match record.kind.as_str() {
                "A" if wants(TYPE::A) => {
                    value.parse().ok().map(|ip: std::net::Ipv4Addr| RData::A(A::from(ip)))
                }
                "AAAA" if wants(TYPE::AAAA) => {
                    value.parse().ok().map(|ip: std::net::Ipv6Addr| RData::AAAA(AAAA::from(ip)))
                }
                "TXT" if wants(TYPE::TXT) => TXT::new()
                    .with_string(value.trim_matches('"'))
                    .ok()
                    .map(|txt| RData::TXT(txt.into_owned())),
                _ => None,
            };
            if let Some(data) = data {
                let ttl = u32::try_from(record.ttl_s.unwrap_or(60)).unwrap_or(60);
                reply.answers.push(ResourceRecord::new(owner.clone(), CLASS::IN, ttl, data));
            }
        }
    }
    reply.questions.push(asked.into_owned());
    reply.build_bytes_vec().ok()
}

/// Records with health checks: a name whose addresses are shown while their targets answer 200.
pub struct HealthChecked {
    /// The name server.
    pub server: NameServer,
    checker: JoinHandle<()>,
}

impl Drop for HealthChecked {
    fn drop(&mut self) {
        self.checker.abort();
    }
}

impl HealthChecked {
    /// Asks `GET /primary` of each target every `interval`.
    ///
    /// Developer Guide, "How Amazon Route 53 chooses records when health checking is configured": unhealthy records are
    /// left out, and when none is healthy all are answered.
    pub async fn start(
        name: &str,
        targets: Vec<(IpAddr, SocketAddr)>,
        interval: Duration,
    ) -> io::Result<Self> {
        let all: Vec<IpAddr> = targets.iter().map(|(ip, _)| *ip).collect();
        let healthy: Arc<Mutex<Vec<IpAddr>>> = Arc::default();
        let (known, shown) = (crate::zone::canonical(name), healthy.clone());
        let source = move |asked: &str| {
            if crate::zone::canonical(asked) != known {
                return Vec::new();
            }
            let healthy = shown.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
            let shown = if healthy.is_empty() { all.clone() } else { healthy };
            let kind = |ip: &IpAddr| if ip.is_ipv4() { "A" } else { "AAAA" };
            shown.iter().map(|ip| Record::new(asked, kind(ip), 60, &[&ip.to_string()])).collect()
        };
        let server = NameServer::start(([127, 0, 0, 1], 0).into(), Arc::new(source)).await?;
        let checker = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(interval);
            loop {
                ticks.tick().await;
                let mut found = Vec::new();
                for (ip, target) in &targets {
                    // Developer Guide, "How Amazon Route 53 determines whether a health check is healthy": connect within
                    // 4 s, answer within 2 s, code 2xx or 3xx. Shorter here, as the interval is.
                    let check = tokio::time::timeout(Duration::from_secs(1), is_healthy(*target));
                    if check.await.is_ok_and(|healthy| healthy.unwrap_or(false)) {
                        found.push(*ip);
                    }
                }
                *healthy.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = found;
            }
        });
        Ok(Self { server, checker })
    }
}

async fn is_healthy(target: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect(target).await?;
    let request = format!("GET /primary HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let code = answer.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok());
    Ok(code.is_some_and(|code| (200..400).contains(&code)))
}
