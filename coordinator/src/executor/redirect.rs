//! The `Redirect` effect: one DNS provider, retried with backoff until it shows the record. A failing provider never
//! undoes a promotion; each distinct error is proposed once, so that the status says why the operation waits.

use std::{collections::BTreeSet, time::Duration};

use regent_core::{Body, DnsRecord};
use regent_types::{EffectKey, Evidence, Outcome};

use super::Context;
use crate::dns::Ensured;

const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A failure that lasts so long is told: the first ones are often only a server that has not applied the last entry yet.
const TELL_AFTER_MS: u64 = 2_000;
/// Distinct errors that are proposed for one effect.
const ERRORS_MAX: usize = 20;

pub(super) async fn run(context: &Context, key: &EffectKey, provider: &str, name: &str, record: &DnsRecord) {
    let clock = &context.node.clock;
    let mut backoff = BACKOFF_FIRST;
    let began_ms = clock.now_ms();
    let mut told: BTreeSet<String> = BTreeSet::new();
    while context.wanted(key) {
        let attempt = match context.node.providers.get(provider) {
            Some(known) => known.ensure(name, record).await.map_err(|error| error.to_string()),
            None => {
                Err(format!("no provider {provider:?} is configured on node {}", context.node.config.node_id))
            }
        };
        context.node.metrics.dns_attempt(provider, attempt.is_ok());
        let reason = match attempt {
            Ok(ensured) => {
                let changed = ensured == Ensured::Changed;
                let evidence = Evidence::Redirected { provider: provider.to_owned(), changed };
                context.propose(Body::Outcome { key: key.clone(), outcome: Outcome::Done(evidence) }).await;
                clock.sleep(super::RETRY_PAUSE).await;
                continue;
            }
            Err(reason) => reason,
        };
        context.node.metrics.redirect_failures.add(1);
        tracing::warn!(provider, name, reason, "the DNS provider does not show the record; trying again");
        let lasts = clock.now_ms().saturating_sub(began_ms) >= TELL_AFTER_MS || backoff > BACKOFF_FIRST * 8;
        if lasts && told.len() < ERRORS_MAX && told.insert(reason.clone()) {
            let outcome = Outcome::Unknown { reason };
            if !context.propose(Body::Outcome { key: key.clone(), outcome }).await {
                return;
            }
        }
        clock.sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}
