//! The `Fence` effect: a proof, then the candidates' reports, then one proposal with both, so that only two commits
//! stand between detection and promotion.
//!
//! Invariant: `Prepare` leaves only after the proof. Until then the old primary's last WAL may still arrive.

use std::time::Duration;

use regent_core::{Body, FenceProof};
use regent_types::{BootId, Directive, EffectKey, Epoch, Evidence, InstanceId, MemberName, Outcome};

use super::{Context, ask, external, prepare};
use crate::fencing::Target;

/// Between two looks at the bound.
const BOUND_POLL: Duration = Duration::from_millis(20);
/// After a refusal of the guard, before it is asked again.
const ASK_PAUSE: Duration = Duration::from_millis(500);
/// With no candidate answering for this long the proof is proposed alone, and the core moves on to *Choose*.
pub(super) const CANDIDATES_TIMEOUT: Duration = Duration::from_secs(10);

/// What is to be fenced.
pub(super) struct Order {
    pub epoch: Epoch,
    pub member: MemberName,
    pub instance: InstanceId,
    pub boot: BootId,
    pub grace_ms: u64,
    pub candidates: Vec<MemberName>,
}

pub(super) async fn run(context: &Context, key: &EffectKey, order: Order) {
    run_from(context, key, order, 0).await;
}

/// The first proof of any kind; `None` when the effect or the leadership is gone.
pub(super) async fn prove(context: &Context, key: &EffectKey, order: &Order) -> Option<FenceProof> {
    tokio::select! {
        proof = acknowledged(context, key, order) => Some(proof),
        // In a planned move the primary is healthy and takes its time to shut down: a driver must not cut that short.
        proof = async {
            context.node.clock.sleep(Duration::from_millis(order.grace_ms)).await;
            external(context, key, order).await
        } => Some(proof),
        proof = expired(context, key) => proof,
    }
}

/// As [`run`], after so many attempts by somebody else.
pub(super) async fn run_from(context: &Context, key: &EffectKey, order: Order, attempts: u32) {
    let mut attempt = attempts;
    while context.wanted(key) {
        // A second preparation needs a key of its own, or the agent repeats its first report.
        attempt += 1;
        let proof = tokio::select! {
            // An acknowledgement that the core has rejected is not offered again; the bound passes in any case.
            proof = acknowledged(context, key, &order), if attempt == 1 => proof,
            proof = external(context, key, &order), if attempt == 1 => proof,
            proof = expired(context, key) => match proof {
                Some(proof) => proof,
                None => return,
            },
        };
        tracing::info!(?key, proof = proof.name(), "fence proof in hand");
        let mut candidates = order.candidates.clone();
        if matches!(proof, FenceProof::Acknowledged(_)) && !candidates.contains(&order.member) {
            candidates.push(order.member.clone());
        }
        let directive = Directive::Prepare { fenced: order.epoch, promises_void: proof.voids_promises() };
        let reports =
            prepare::prepare(context, key, directive, &candidates, attempt, CANDIDATES_TIMEOUT).await;
        context.prepared.begin(context, &key.cluster, &reports);
        let body = Body::FenceProven { key: key.clone(), proof, candidates: reports };
        if !context.propose(body).await {
            return;
        }
        context.node.clock.sleep(ASK_PAUSE).await;
    }
}

/// Waits for a driver's word.
async fn external(context: &Context, key: &EffectKey, order: &Order) -> FenceProof {
    let config = {
        let inner = context.node.shared.lock();
        let cluster = inner.state.clusters.get(&key.cluster);
        cluster.and_then(|cluster| cluster.config.members.get(&order.member)).cloned()
    };
    // A member that is no longer there has no driver either.
    let Some(config) = config else { return std::future::pending().await };
    let target = Target {
        key: key.clone(),
        member: order.member.clone(),
        region: config.region,
        host: config.host,
        port: config.port,
        instance: order.instance,
        boot: order.boot.clone(),
    };
    external::fenced(context, &target).await
}

/// Asks the guard until it acknowledges.
async fn acknowledged(context: &Context, key: &EffectKey, order: &Order) -> FenceProof {
    let Order { epoch, member, grace_ms, .. } = order;
    let (epoch, grace_ms) = (*epoch, *grace_ms);
    let sub = ask::sub_key(key, context.leadership.term, 0);
    loop {
        let directive = Directive::Fence { epoch, grace_ms };
        match ask::ask(context, member, &sub, directive, None).await {
            Outcome::Done(Evidence::Fenced(evidence)) if speaks_for(context, key, epoch, &evidence) => {
                return FenceProof::Acknowledged(evidence);
            }
            other => tracing::info!(%member, ?other, "not a fence proof; asking again"),
        }
        context.node.clock.sleep(ASK_PAUSE).await;
    }
}

/// Whether this answer proves it for the bound instance. The core judges again; asked here so that another machine with
/// the member's identity does not keep the lease's expiry from being waited for.
fn speaks_for(
    context: &Context,
    key: &EffectKey,
    epoch: Epoch,
    evidence: &regent_types::FencedEvidence,
) -> bool {
    let inner = context.node.shared.lock();
    let cluster = inner.state.clusters.get(&key.cluster);
    let Some(bound) = cluster.and_then(|cluster| cluster.appointment.as_ref()) else { return false };
    let same = evidence.instance == bound.instance
        || (evidence.boot == bound.boot && evidence.succeeds.contains(&bound.instance));
    evidence.epoch >= epoch && same
}

/// Waits for the leader's bound. `None` when the effect or the leadership is gone.
async fn expired(context: &Context, key: &EffectKey) -> Option<FenceProof> {
    loop {
        if !context.wanted(key) {
            return None;
        }
        let passed = {
            let inner = context.node.shared.lock();
            let now_ns = context.node.clock.now_ns();
            inner.leases.bound_passed(now_ns, context.leadership, &inner.state, &key.cluster)
        };
        match passed {
            Ok(proof) => return Some(proof),
            Err(pending) => tracing::trace!(?key, %pending, "bound not passed"),
        }
        context.node.clock.sleep(BOUND_POLL).await;
    }
}
