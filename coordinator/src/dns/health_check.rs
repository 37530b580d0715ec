//! Route 53's data plane moves the name: records with health checks, made beforehand, point at each agent's
//! `GET /primary`, which answers 200 only while its member holds the lease. Nothing is changed here and no API is called;
//! the name is looked up as a client would, until it leads to the new primary and to nobody else.
//!
//! There is no companion record in this mode: the lease itself is the epoch's witness, because a member of an older
//! epoch answers 503. So nothing of an older epoch can be written late: nothing is written.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_proto::{
    op::ResponseCode,
    rr::{RData, RecordType},
};
use regent_core::DnsRecord;
use tokio::task::JoinSet;

use super::{DnsError, DnsProvider, Ensured, Observed, question};
use crate::clock::Clock;

/// Longest wait for one resolver.
const TIMEOUT: Duration = Duration::from_secs(2);

/// See the module's documentation.
pub struct HealthCheck {
    name: String,
    resolvers: Vec<SocketAddr>,
    clock: Clock,
}

impl HealthCheck {
    /// Asks these DNS servers.
    pub fn new(name: String, resolvers: Vec<SocketAddr>, clock: Clock) -> Self {
        Self { name, resolvers, clock }
    }

    /// Every resolver's answer: addresses in order, or why there is none.
    async fn ask(&self, name: &str, kind: RecordType) -> Vec<(SocketAddr, Result<Vec<IpAddr>, String>)> {
        let mut asked = JoinSet::new();
        for resolver in self.resolvers.clone() {
            let (name, clock) = (name.to_owned(), self.clock.clone());
            asked.spawn(async move {
                let answer = match clock.within(TIMEOUT, question::ask(resolver, &name, kind)).await {
                    Some(Ok(message)) => addresses(&message),
                    Some(Err(error)) => Err(error.to_string()),
                    None => Err("no answer".to_owned()),
                };
                (resolver, answer)
            });
        }
        let mut answers: Vec<_> = asked.join_all().await;
        answers.sort();
        answers
    }
}

fn addresses(message: &hickory_proto::op::Message) -> Result<Vec<IpAddr>, String> {
    match message.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        code => return Err(format!("the server answers {code}")),
    }
    let mut found: Vec<IpAddr> = message
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            RData::AAAA(a) => Some(IpAddr::V6(a.0)),
            _ => None,
        })
        .collect();
    found.sort();
    Ok(found)
}

#[tonic::async_trait]
impl DnsProvider for HealthCheck {
    fn name(&self) -> &str {
        &self.name
    }

    /// Done when every resolver that answers shows this address alone, and one at least answers.
    async fn ensure(&self, name: &str, record: &DnsRecord) -> Result<Ensured, DnsError> {
        let kind = if record.address.is_ipv6() { RecordType::AAAA } else { RecordType::A };
        let answers = self.ask(name, kind).await;
        let moved = |found: &Vec<IpAddr>| *found == [record.address];
        let shown = answers.iter().filter(|(_, answer)| answer.as_ref().is_ok_and(moved)).count();
        let elsewhere = answers.iter().any(|(_, answer)| answer.as_ref().is_ok_and(|found| !moved(found)));
        if shown > 0 && !elsewhere {
            return Ok(Ensured::AlreadyThere);
        }
        let found: Vec<String> = answers
            .iter()
            .map(|(resolver, answer)| match answer {
                Ok(found) if found.is_empty() => format!("{resolver}: no address"),
                Ok(found) => {
                    let all: Vec<String> = found.iter().map(IpAddr::to_string).collect();
                    format!("{resolver}: {}", all.join(", "))
                }
                Err(error) => format!("{resolver}: {error}"),
            })
            .collect();
        let wanted = format!(
            "{} alone for {name}: the health checks of {} have not moved it to {}",
            record.address, self.name, record.member
        );
        Err(DnsError::NotShown { wanted, found: found.join("; ") })
    }

    async fn observe(&self, name: &str) -> Result<Option<Observed>, DnsError> {
        let mut errors = Vec::new();
        for kind in [RecordType::A, RecordType::AAAA] {
            for (resolver, answer) in self.ask(name, kind).await {
                match answer {
                    Ok(found) => {
                        if let Some(address) = found.first() {
                            return Ok(Some(Observed { address: *address, epoch: None, member: None }));
                        }
                    }
                    Err(error) => errors.push(format!("{resolver}: {error}")),
                }
            }
        }
        if errors.len() == self.resolvers.len() * 2 {
            return Err(DnsError::NotShown { wanted: name.to_owned(), found: errors.join("; ") });
        }
        Ok(None)
    }
}
