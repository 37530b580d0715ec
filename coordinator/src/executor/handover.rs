//! The `Handover` effect: a switchover's fence. Guard and target are asked at the same time, so that the proof and the
//! target's report reach the leader side by side, and one proposal carries both. Decides nothing: whether the target has
//! everything is the core's to judge.

use std::time::Duration;

use regent_core::{Body, FenceProof};
use regent_types::{CandidateReport, Directive, EffectKey, Epoch, Evidence, MemberName, Outcome};

use super::{
    Context, ask,
    fence::{self, CANDIDATES_TIMEOUT},
    prepare,
};

/// After a refusal of the target, before it is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// What is to be handed over.
pub(super) struct Handover {
    pub fence: fence::Order,
    pub target: MemberName,
    pub timeout_ms: u64,
}

pub(super) async fn run(context: &Context, key: &EffectKey, order: Handover) {
    let Handover { fence: fenced, target, timeout_ms } = order;
    let timeout = Duration::from_millis(timeout_ms);
    // The target's question begins first: it must watch the stream while the old primary shuts down.
    let drained = drain(context, key, fenced.epoch, &target, timeout_ms);
    tokio::pin!(drained);
    let mut report = None;
    let proof = {
        let proven = fence::prove(context, key, &fenced);
        tokio::pin!(proven);
        loop {
            tokio::select! {
                proof = &mut proven => break proof,
                drained = &mut drained, if report.is_none() => report = Some(drained),
            }
        }
    };
    let Some(proof) = proof else { return };
    tracing::info!(?key, proof = proof.name(), target_reported = report.is_some(), "fence proof in hand");
    let directive = Directive::Prepare { fenced: fenced.epoch, promises_void: proof.voids_promises() };
    let reports = match &proof {
        FenceProof::Acknowledged(_) => {
            if report.is_none() {
                report = context.node.clock.within(timeout, &mut drained).await;
            }
            match report {
                Some(report) if report.promise_left_ms.is_none() => vec![report],
                // It had promised the old primary not to be promoted, a moment ago; that one is proved fenced now.
                Some(_) => {
                    let asked = std::slice::from_ref(&target);
                    prepare::prepare(context, key, directive, asked, 2, CANDIDATES_TIMEOUT).await
                }
                // Without the target, the old primary is the way back.
                None => {
                    let back = std::slice::from_ref(&fenced.member);
                    prepare::prepare(context, key, directive, back, 2, CANDIDATES_TIMEOUT).await
                }
            }
        }
        _ => prepare::prepare(context, key, directive, &fenced.candidates, 2, CANDIDATES_TIMEOUT).await,
    };
    context.prepared.begin(context, &key.cluster, &reports);
    let body = Body::FenceProven { key: key.clone(), proof, candidates: reports };
    if context.propose(body).await && context.wanted(key) {
        // The core has not taken it (a guard that cannot speak for the bound instance): only the bound is left.
        fence::run_from(context, key, fenced, 3).await;
    }
}

/// The target's report, once its stream has ended. Asked again until it comes.
async fn drain(
    context: &Context,
    key: &EffectKey,
    fenced: Epoch,
    target: &MemberName,
    timeout_ms: u64,
) -> CandidateReport {
    let sub = ask::sub_key(key, context.leadership.term, 1);
    loop {
        let directive = Directive::Drain { fenced, timeout_ms };
        match ask::ask(context, target, &sub, directive, None).await {
            Outcome::Done(Evidence::Prepared(report)) if report.member == *target => return report,
            other => tracing::info!(%target, ?other, "the target did not report; asking again"),
        }
        context.node.clock.sleep(PAUSE).await;
    }
}
