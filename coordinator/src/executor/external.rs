//! External fencing drivers beside the guard and the bound: each one configured for the member is run until it proves
//! something, can never do so, or another proof is in hand.
//!
//! At least once: a new leader starts them again. They are not started at once: a guard that answers costs the member
//! nothing but its primary's role, a driver may cost it its power.

use std::collections::BTreeSet;

use regent_core::{Body, FenceProof};
use regent_types::{EffectKey, Outcome};
use tokio::task::JoinSet;

use super::Context;
use crate::{
    config::FencingDriver,
    fencing::{self, NoProof, Target},
};

/// Distinct failures of one driver that are proposed for one effect: the log is not for waiting.
const FAILURES_TOLD: usize = 10;

/// The first proof. Never returns when there is none to be had.
pub(super) async fn fenced(context: &Context, target: &Target) -> FenceProof {
    let mut drivers = JoinSet::new();
    for driver in &context.node.config.fencing_drivers {
        if driver.serves(&target.key.cluster, &target.member) {
            let (context, driver, target) = (context.clone(), driver.clone(), target.clone());
            drivers.spawn(async move { drive(&context, &driver, &target).await });
        }
    }
    // Dropping the set ends the others, and kills what they run.
    while let Some(ended) = drivers.join_next().await {
        if let Ok(Some(proof)) = ended {
            return proof;
        }
    }
    std::future::pending().await
}

/// Runs one driver until it has a proof; `None` when it never will.
async fn drive(context: &Context, driver: &FencingDriver, target: &Target) -> Option<FenceProof> {
    let clock = &context.node.clock;
    clock.sleep(driver.delay).await;
    let mut told: BTreeSet<String> = BTreeSet::new();
    let mut failures = 0;
    while context.wanted(&target.key) {
        let name = driver.name.as_str();
        tracing::warn!(driver = name, member = %target.member, instance = %target.instance, "fencing driver starts");
        context.node.metrics.fencing_runs.add(1);
        let ended = tokio::select! {
            ended = fencing::run(clock, driver, target, failures + 1) => ended,
            // This task may outlive its node by a moment; what it runs must not.
            () = context.node.stop.cancelled() => return None,
        };
        let failed = match ended {
            Ok(evidence) => {
                tracing::warn!(driver = name, member = %target.member, detail = evidence.detail, "fenced");
                return Some(FenceProof::External(evidence));
            }
            Err(failed) => failed,
        };
        failures += 1;
        context.node.metrics.fencing_failures.add(1);
        tracing::warn!(driver = name, member = %target.member, %failed, "the fencing driver proves nothing");
        let reason = format!("fencing driver {name} proves nothing: {failed}");
        if told.len() < FAILURES_TOLD && told.insert(reason.clone()) {
            tell(context, &target.key, reason).await;
        }
        if matches!(failed, NoProof::Cannot { .. }) {
            return None;
        }
        clock.sleep(fencing::backoff(failures)).await;
    }
    None
}

/// Into the status and the history of the operation; the other ways of fencing go on.
async fn tell(context: &Context, key: &EffectKey, reason: String) {
    let body = Body::Outcome { key: key.clone(), outcome: Outcome::Unknown { reason } };
    context.propose(body).await;
}
