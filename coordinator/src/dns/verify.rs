//! The embedded provider: the record is in the replicated state already, so `ensure` only makes sure that clients can
//! see it, by asking the coordinators' own DNS listeners as a client would.
//!
//! Its compare-and-swap is the log itself: `apply` is the only writer of the record.

use std::{net::SocketAddr, time::Duration};

use regent_core::DnsRecord;
use tokio::task::JoinSet;

use super::{DnsError, DnsProvider, Ensured, Observed, question};
use crate::{clock::Clock, config::EMBEDDED};

/// Longest wait for one listener.
const TIMEOUT: Duration = Duration::from_millis(800);

/// See the module's documentation.
pub struct Embedded {
    servers: Vec<SocketAddr>,
    clock: Clock,
}

impl Embedded {
    /// Asks these listeners.
    pub fn new(servers: Vec<SocketAddr>, clock: Clock) -> Self {
        Self { servers, clock }
    }

    fn ask(&self, name: &str, want_v6: bool) -> JoinSet<(SocketAddr, Result<Option<Observed>, String>)> {
        let mut asked = JoinSet::new();
        for server in self.servers.clone() {
            let (name, clock) = (name.to_owned(), self.clock.clone());
            asked.spawn(async move {
                let answer = clock.within(TIMEOUT, question::observe(server, &name, want_v6)).await;
                let found = match answer {
                    Some(Ok(found)) => Ok(found),
                    Some(Err(error)) => Err(error.to_string()),
                    None => Err("no answer".to_owned()),
                };
                (server, found)
            });
        }
        asked
    }
}

#[tonic::async_trait]
impl DnsProvider for Embedded {
    fn name(&self) -> &str {
        EMBEDDED
    }

    async fn ensure(&self, name: &str, record: &DnsRecord) -> Result<Ensured, DnsError> {
        let mut asked = self.ask(name, record.address.is_ipv6());
        let mut found = Vec::new();
        while let Some(answer) = asked.join_next().await {
            let Ok((server, answer)) = answer else { continue };
            match answer {
                Ok(Some(seen)) if seen.epoch.is_some_and(|epoch| epoch > record.epoch) => {
                    let found = seen.epoch.unwrap_or_default();
                    return Err(DnsError::Superseded { found, wanted: record.epoch });
                }
                // One is enough: clients ask several, and the others apply the same entry.
                Ok(Some(seen)) if seen.epoch == Some(record.epoch) && seen.address == record.address => {
                    return Ok(Ensured::Changed);
                }
                Ok(Some(seen)) => {
                    found.push(format!("{server}: {} of epoch {:?}", seen.address, seen.epoch.map(|e| e.0)))
                }
                Ok(None) => found.push(format!("{server}: no such record")),
                Err(error) => found.push(format!("{server}: {error}")),
            }
        }
        found.sort();
        let wanted = format!("{} of epoch {} for {name}", record.address, record.epoch);
        Err(DnsError::NotShown { wanted, found: found.join("; ") })
    }

    async fn observe(&self, name: &str) -> Result<Option<Observed>, DnsError> {
        let mut newest: Option<Observed> = None;
        let mut errors = Vec::new();
        for want_v6 in [false, true] {
            let mut asked = self.ask(name, want_v6);
            while let Some(answer) = asked.join_next().await {
                match answer {
                    Ok((_, Ok(Some(seen)))) if newest.as_ref().is_none_or(|held| seen.epoch > held.epoch) => {
                        newest = Some(seen);
                    }
                    Ok((server, Err(error))) => errors.push(format!("{server}: {error}")),
                    Ok(_) | Err(_) => {}
                }
            }
        }
        if newest.is_none() && errors.len() == self.servers.len() * 2 {
            return Err(DnsError::NotShown { wanted: name.to_owned(), found: errors.join("; ") });
        }
        Ok(newest)
    }
}
