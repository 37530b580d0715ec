//! The embedded zone: authoritative answers straight from the replicated state, over UDP and TCP. Read-only; the record
//! set of a name is made anew for each answer, so that two primaries can never stand side by side.
//!
//! A node without a leader goes on answering with its last state: an old address is better than none, the guard at that
//! address refuses writes, and the metric says so.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use hickory_proto::{
    op::{Metadata, OpCode, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, NS, SOA, TXT},
    },
};
use hickory_server::{
    net::runtime::Time,
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo, Server},
    zone_handler::MessageResponseBuilder,
};
use regent_core::DnsRecord;
use tokio::net::{TcpListener, UdpSocket};

use crate::{config, node::Node};

/// TTL of negative answers and of the zone's own records, seconds.
const ZONE_TTL_S: u32 = 30;
const NEGATIVE_TTL_S: u32 = 1;
const TCP_TIMEOUT: Duration = Duration::from_secs(5);
const TCP_BUFFER: usize = 4096;

/// Where the answers come from.
pub trait Source: Send + Sync + Unpin + 'static {
    /// Records by lower-case name without the last dot, and a serial that grows with each change.
    fn records(&self) -> (BTreeMap<String, DnsRecord>, u32);
    /// A question was answered.
    fn answered(&self);
}

struct FromState(Arc<Node>);

impl Source for FromState {
    fn records(&self) -> (BTreeMap<String, DnsRecord>, u32) {
        let inner = self.0.shared.lock();
        let clusters = inner.state.clusters.values();
        let records: BTreeMap<_, _> = clusters
            .filter_map(|cluster| Some((cluster.config.dns_name.clone(), cluster.record.clone()?)))
            .collect();
        // Epochs only rise, and every change of a record has one of its own.
        let serial = records.values().map(|record| record.epoch.0).sum::<u64>();
        (records, serial as u32)
    }

    fn answered(&self) {
        self.0.metrics.dns_queries.add(1);
        if self.0.leader().is_none() {
            self.0.metrics.dns_stale.add(1);
        }
    }
}

/// Serves until the node ends.
pub async fn serve(node: Arc<Node>, sockets: (UdpSocket, TcpListener)) {
    let Some(dns) = node.config.dns.clone() else { return };
    let stop = node.stop.clone();
    let mut server = start(Zone::new(&dns, FromState(node)), sockets);
    let shutdown = server.shutdown_token().clone();
    tokio::select! {
        ended = server.block_until_done() => {
            if let Err(error) = ended {
                tracing::error!(%error, "the DNS server has ended");
            }
        }
        () = stop.cancelled() => shutdown.cancel(),
    }
}

/// Serves `zone` on both sockets while the server lives.
pub fn start<S: Source>(zone: Zone<S>, (udp, tcp): (UdpSocket, TcpListener)) -> Server<Zone<S>> {
    let mut server = Server::new(zone);
    server.register_socket(udp);
    server.register_listener(tcp, TCP_TIMEOUT, TCP_BUFFER);
    server
}

/// The zone.
pub struct Zone<S> {
    apex: String,
    servers: Vec<Name>,
    source: S,
}

/// An answer: code, answers, and the SOA when there are none.
struct Answer {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    authority: Vec<Record>,
}

impl<S: Source> Zone<S> {
    /// A zone as configured.
    pub fn new(dns: &config::Dns, source: S) -> Self {
        let servers = dns.name_servers.iter().map(|name| absolute(name)).collect();
        Self { apex: dns.zone.to_ascii_lowercase(), servers, source }
    }

    fn soa(&self, serial: u32) -> Record {
        let primary = self.servers[0].clone();
        let contact = absolute(&format!("hostmaster.{}", self.apex));
        let soa = SOA::new(primary, contact, serial, 60, 15, 604_800, NEGATIVE_TTL_S);
        Record::from_rdata(absolute(&self.apex), NEGATIVE_TTL_S, RData::SOA(soa))
    }

    fn answer(&self, name: &str, kind: RecordType, class: DNSClass) -> Answer {
        let refused =
            Answer { code: ResponseCode::Refused, authoritative: false, answers: vec![], authority: vec![] };
        let inside = name == self.apex || name.ends_with(&format!(".{}", self.apex));
        if !inside || !matches!(class, DNSClass::IN | DNSClass::ANY) {
            return refused;
        }
        let (records, serial) = self.source.records();
        let wants = |this| kind == this || kind == RecordType::ANY;
        let owner = absolute(name);
        let mut answers = Vec::new();
        let mut exists = name == self.apex;
        if exists {
            if wants(RecordType::SOA) {
                answers.push(self.soa(serial));
            }
            if wants(RecordType::NS) {
                let ns = |server: &Name| {
                    Record::from_rdata(owner.clone(), ZONE_TTL_S, RData::NS(NS(server.clone())))
                };
                answers.extend(self.servers.iter().map(ns));
            }
        }
        if let Some(record) = records.get(name) {
            exists = true;
            match record.address {
                IpAddr::V4(ip) if wants(RecordType::A) => {
                    answers.push(Record::from_rdata(owner.clone(), record.ttl_s, RData::A(A(ip))));
                }
                IpAddr::V6(ip) if wants(RecordType::AAAA) => {
                    answers.push(Record::from_rdata(owner.clone(), record.ttl_s, RData::AAAA(AAAA(ip))));
                }
                _ => {}
            }
            if wants(RecordType::TXT) {
                let text = format!("regent-epoch={} member={}", record.epoch, record.member);
                answers.push(Record::from_rdata(owner, record.ttl_s, RData::TXT(TXT::new(vec![text]))));
            }
        }
        // A name above an existing one exists too, without records.
        let below = format!(".{name}");
        exists = exists || records.keys().any(|known| known.ends_with(&below));
        let authority = if answers.is_empty() { vec![self.soa(serial)] } else { Vec::new() };
        let code = if exists { ResponseCode::NoError } else { ResponseCode::NXDomain };
        Answer { code, authoritative: true, answers, authority }
    }
}

fn absolute(name: &str) -> Name {
    let mut name: Name = name.parse().unwrap_or_else(|_| Name::root());
    name.set_fqdn(true);
    name
}

#[tonic::async_trait]
impl<S: Source> RequestHandler for Zone<S> {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let answer = match request.request_info() {
            Ok(info) if request.metadata.op_code == OpCode::Query => {
                let name = info.query.name().to_string().trim_end_matches('.').to_ascii_lowercase();
                self.answer(&name, info.query.query_type(), info.query.query_class())
            }
            Ok(_) => Answer {
                code: ResponseCode::NotImp,
                authoritative: false,
                answers: vec![],
                authority: vec![],
            },
            Err(_) => Answer {
                code: ResponseCode::FormErr,
                authoritative: false,
                answers: vec![],
                authority: vec![],
            },
        };
        self.source.answered();
        metadata.response_code = answer.code;
        metadata.authoritative = answer.authoritative;
        let message = MessageResponseBuilder::from_message_request(request).build(
            metadata,
            &answer.answers,
            &[],
            &answer.authority,
            &[],
        );
        match response.send_response(message).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "a DNS answer was not sent");
                let mut failed = Metadata::response_from_request(&request.metadata);
                failed.response_code = ResponseCode::ServFail;
                hickory_proto::op::Header { metadata: failed, counts: Default::default() }.into()
            }
        }
    }
}
