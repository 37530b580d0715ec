//! The Route 53 provider: one change batch is the compare-and-swap (`records`), one call is one try (`client`).
//!
//! `ensure` reads the zone, swaps if it must, and waits until the change is INSYNC. It never sends a batch twice: after
//! a lost answer, a busy zone or a lost race it reads again and plans anew. It returns an error when it has got no
//! further; the executor calls again for as long as the operation wants it, and says why it waits.
//!
//! A late change of an older epoch loses in both orders. It read before the newer one: its DELETE of the companion
//! record no longer matches, the whole batch is refused, and the next reading finds the higher epoch. It read after:
//! it finds the higher epoch at once. Tests: `route53_fake::a_late_change_of_an_older_epoch_loses_in_both_orders`.

mod client;
mod pace;
mod records;

use std::{collections::BTreeMap, sync::Arc, sync::Mutex, time::Duration};

use regent_core::DnsRecord;

use super::{DnsError, DnsProvider, Ensured, Observed};
use crate::{clock::Clock, config::ChangeMode};
use client::{CallError, Calls};
pub use pace::Pace;
use records::{Plan, Wanted};

/// Races lost in one call before the executor is asked for patience.
const RACES_MAX: usize = 3;
/// Between two looks at a pending change.
const POLL: Duration = Duration::from_millis(500);
/// Looks in one call: then the operation says that it waits. "Generally within 60 seconds" (API reference).
const LOOKS_MAX: usize = 20;

/// A change that was accepted and has not been seen INSYNC.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pending {
    record: DnsRecord,
    change: String,
}

/// See the module's documentation.
pub struct Route53 {
    name: String,
    mode: ChangeMode,
    clock: Clock,
    pace: Arc<Pace>,
    calls: tokio::sync::Mutex<Option<Arc<Calls>>>,
    pending: Mutex<BTreeMap<String, Pending>>,
}

impl Route53 {
    /// Nothing is loaded before it is needed: most coordinators never lead.
    pub fn new(name: String, mode: ChangeMode, clock: Clock, pace: Arc<Pace>) -> Self {
        Self { name, mode, clock, pace, calls: tokio::sync::Mutex::default(), pending: Mutex::default() }
    }

    async fn calls(&self) -> Arc<Calls> {
        let mut calls = self.calls.lock().await;
        if let Some(calls) = &*calls {
            return calls.clone();
        }
        let new = Calls::new(&self.name, &self.mode, self.clock.clone(), self.pace.clone()).await;
        calls.insert(Arc::new(new)).clone()
    }

    /// Credentials that were not accepted are read anew for the next call: they may have been replaced meanwhile.
    async fn failed(&self, error: CallError) -> DnsError {
        if matches!(error, CallError::Credentials(_)) {
            self.calls.lock().await.take();
        }
        DnsError::Failed(error.to_string())
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Pending>> {
        self.pending.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    async fn wait_in_sync(&self, name: &str, pending: &Pending) -> Result<(), DnsError> {
        let mut last = None;
        for look in 0..LOOKS_MAX {
            if look > 0 {
                self.clock.sleep(POLL).await;
            }
            match self.calls().await.in_sync(&pending.change).await {
                Ok(true) => {
                    self.pending().remove(name);
                    return Ok(());
                }
                Ok(false) => last = None,
                Err(error) => last = Some(error),
            }
        }
        let why = match last {
            Some(error) => error.to_string(),
            None => "it is PENDING: not every name server of the zone has it yet".to_owned(),
        };
        let (change, epoch) = (&pending.change, pending.record.epoch);
        Err(DnsError::Failed(format!("route53 change {change} of epoch {epoch} was accepted, but {why}")))
    }
}

#[tonic::async_trait]
impl DnsProvider for Route53 {
    fn name(&self) -> &str {
        &self.name
    }

    async fn ensure(&self, name: &str, record: &DnsRecord) -> Result<Ensured, DnsError> {
        let calls = self.calls().await;
        let ttl_s = self.mode.ttl_s.unwrap_or(record.ttl_s);
        let wanted = Wanted { name, record, ttl_s, weighted: self.mode.weighted.as_ref() };
        let mut lost = String::new();
        for _ in 0..RACES_MAX {
            let found = match calls.list(name).await {
                Ok(found) => found,
                Err(error) => return Err(self.failed(error).await),
            };
            let batch = match wanted.plan(&found)? {
                Plan::InPlace => {
                    // Accepted in an earlier call, or by an earlier leader, or its answer was lost.
                    let pending =
                        self.pending().get(name).filter(|pending| pending.record == *record).cloned();
                    return match pending {
                        Some(pending) => {
                            self.wait_in_sync(name, &pending).await?;
                            Ok(Ensured::Changed)
                        }
                        None => Ok(Ensured::AlreadyThere),
                    };
                }
                Plan::Swap(batch) => batch,
            };
            match calls.change(batch).await {
                Ok(change) => {
                    tracing::info!(provider = self.name, name, epoch = %record.epoch, change, "route53 accepted the change");
                    let pending = Pending { record: record.clone(), change };
                    self.pending().insert(name.to_owned(), pending.clone());
                    self.wait_in_sync(name, &pending).await?;
                    return Ok(Ensured::Changed);
                }
                Err(CallError::Lost(why)) => lost = why,
                Err(error) => return Err(self.failed(error).await),
            }
        }
        Err(DnsError::Failed(lost))
    }

    async fn observe(&self, name: &str) -> Result<Option<Observed>, DnsError> {
        match self.calls().await.list(name).await {
            Ok(found) => Ok(records::observed(&found, self.mode.weighted.as_ref())),
            Err(error) => Err(self.failed(error).await),
        }
    }
}
