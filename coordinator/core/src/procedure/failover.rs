//! Failover: fence, choose, appoint, and the rungs when a promotion fails.
//!
//! ```text
//! Declare + FenceDecided(E)  --commit 1-->  Fence  --proof, candidates' reports (commit 2)-->  Choose + appoint E+1
//!   Promote  --verified (commit 3)-->  Redirect -> Validate -> Done
//!   Promote  --refused, overdue-->     FenceDecided(E+1) -> Fence (its target) -> Choose ...
//! ```
//!
//! Interleaving to fear: the answer to a Promote is lost, another member is named, and the late directive arrives. It
//! finds its epoch closed: naming another one needs `FenceDecided(E+1)` and a proof for the target's instance.

use regent_types::{BootId, CandidateReport, Directive, EffectKey, FencedEvidence, InstanceId, MemberName};

use super::{
    Change,
    automation::{remember, seen},
    check_effect, check_epoch, cluster,
    declare::declared,
    running,
    steps::{add_effect, enter, retire, retire_all},
};
use crate::{
    Appointment, Cluster, EffectKind, EventKind, FenceProof, FenceRecord, LossReport, LossUpperBound,
    OperatorRequest, Rejection, State, Step, authority, candidate, operation::Kind,
};

/// Decides the fence of the current appointment and asks for a proof.
pub(crate) fn begin_fence(cluster: &mut Cluster, change: &mut Change) {
    let from = cluster.appointment.clone().expect("checked: there is an appointment");
    declared(cluster, change, &from.member);
    let reason = running(cluster).reason.clone();
    enter(running(cluster), change, Step::Fence, reason);
    fence(cluster, change, &from);
}

fn fence(cluster: &mut Cluster, change: &mut Change, from: &Appointment) {
    authority::decide_fence(cluster, from.epoch);
    let text =
        format!("epoch {} ({}, instance {}) gets no lease any more", from.epoch, from.member, from.instance);
    change.event(cluster, EventKind::FenceDecided, "5.4 FenceDecided", Some(&from.member), text);
    let kind = EffectKind::Fence {
        epoch: from.epoch,
        member: from.member.clone(),
        instance: from.instance,
        boot: from.boot.clone(),
        grace_ms: cluster.config.policy.fence_grace_ms,
        candidates: candidates(cluster, &from.member),
    };
    add_effect(cluster, change, from.epoch, kind);
}

fn candidates(cluster: &Cluster, except: &MemberName) -> Vec<MemberName> {
    let members = cluster.config.members.iter();
    members
        .filter(|(name, member)| member.promotable && *name != except)
        .map(|(name, _)| name.clone())
        .collect()
}

/// The executor has a proof.
pub(crate) fn fence_proven(
    state: &mut State,
    change: &mut Change,
    key: &EffectKey,
    proof: &FenceProof,
    reports: &[CandidateReport],
) -> Result<(), Rejection> {
    let cluster = cluster(state, &key.cluster)?;
    let (_, effect) = check_effect(cluster, key)?;
    if !matches!(effect.kind, EffectKind::Fence { .. }) {
        return Err(Rejection::StaleEffect { key: key.clone() });
    }
    let bound = cluster.appointment.clone().ok_or(Rejection::NoPrimary)?;
    authority::check_proof(&bound, proof, change.at.leadership)?;
    retire(cluster, key);
    record_proof(cluster, change, &bound, proof.clone());
    enter(running(cluster), change, Step::Choose, proof.name().to_owned());
    choose(cluster, change, reports);
    Ok(())
}

fn record_proof(cluster: &mut Cluster, change: &mut Change, bound: &Appointment, proof: FenceProof) {
    let text = match &proof {
        FenceProof::Acknowledged(evidence) if evidence.instance == bound.instance => {
            format!("the guard of {} has emptied epoch {}", bound.member, bound.epoch)
        }
        FenceProof::Acknowledged(evidence) => {
            format!("guard {} speaks for its predecessor {}", evidence.instance, bound.instance)
        }
        FenceProof::LeaseExpired { led_for_ms, passed_for_ms, leadership } => format!(
            "every lease of epoch {} has ended: the bound of {leadership} passed {passed_for_ms} ms ago, \
             {led_for_ms} ms after its election",
            bound.epoch
        ),
        FenceProof::Operator { actor, reason } => {
            format!("EXCEPTION TO PROMISE 1: {actor} takes epoch {} for fenced ({reason})", bound.epoch)
        }
    };
    let rule = format!("5.4 {}", proof.name());
    change.event(cluster, EventKind::FenceProven, &rule, Some(&bound.member), text);
    let record = FenceRecord {
        epoch: bound.epoch,
        member: bound.member.clone(),
        certainty: proof.certainty(),
        proof,
        wall_ms: change.wall_ms,
    };
    running(cluster).fences.push(record);
}

/// The candidates have reported again.
pub(crate) fn candidates_reported(
    state: &mut State,
    change: &mut Change,
    key: &EffectKey,
    acknowledged: Option<&FencedEvidence>,
    reports: &[CandidateReport],
) -> Result<(), Rejection> {
    let cluster = cluster(state, &key.cluster)?;
    let (_, effect) = check_effect(cluster, key)?;
    if !matches!(effect.kind, EffectKind::Collect { .. }) {
        return Err(Rejection::StaleEffect { key: key.clone() });
    }
    let bound = cluster.appointment.clone().ok_or(Rejection::NoPrimary)?;
    if let Some(evidence) = acknowledged {
        let proof = FenceProof::Acknowledged(evidence.clone());
        authority::check_proof(&bound, &proof, change.at.leadership)?;
        let known =
            running(cluster).fences.iter().any(|record| record.epoch == bound.epoch && record.proof == proof);
        if !known {
            record_proof(cluster, change, &bound, proof);
        }
    }
    retire(cluster, key);
    let failed_before = running(cluster).excluded.clone();
    choose(cluster, change, reports);
    // Nobody else: those whose promotion failed may try again at the next report.
    let operation = running(cluster);
    if operation.step == Step::Choose && operation.excluded == failed_before {
        operation.excluded.clear();
    }
    change.touched(cluster);
    Ok(())
}

/// Chooses and appoints, or waits.
fn choose(cluster: &mut Cluster, change: &mut Change, reports: &[CandidateReport]) {
    let bound = cluster.appointment.clone().expect("checked: there is an appointment");
    let operation = cluster.operation.as_ref().expect("checked: an operation is running");
    let fences: Vec<&FenceRecord> =
        operation.fences.iter().filter(|record| record.epoch == bound.epoch).collect();
    let acknowledgement = fences.iter().find_map(|record| match &record.proof {
        FenceProof::Acknowledged(evidence) => Some(evidence),
        _ => None,
    });
    let proof = &fences.first().expect("checked: a proof is recorded").proof;
    let shut_down_at =
        acknowledgement.filter(|evidence| evidence.clean).and_then(|evidence| evidence.checkpoint_lsn);
    let choice = candidate::Choice {
        cluster,
        from: &bound,
        trigger: &operation.trigger,
        proof,
        old_primary_acknowledged: acknowledgement.is_some(),
        excluded: &operation.excluded,
        wanted: operation.wanted.as_ref(),
        consent: operation.consent.as_ref(),
        primary_lsn: operation.evidence.primary_lsn.max(shut_down_at),
    };
    let primary_lsn = choice.primary_lsn;
    let (winner, verdicts) = candidate::choose(&choice, reports);
    let exposed_ms = if acknowledgement.is_some() { 0 } else { exposed_ms(operation, change) };
    let summary: Vec<String> = verdicts.iter().map(|v| format!("{}: {}", v.member, v.reason)).collect();
    let winner = winner.cloned();
    let operation = running(cluster);
    operation.verdicts = verdicts;
    let summary = summary.join("; ");
    match winner {
        Some(winner) => {
            if winner.member != bound.member && operation.kind == Kind::Failover {
                operation.loss = LossReport::UpperBound(LossUpperBound {
                    primary_lsn,
                    received_lsn: winner.received_lsn,
                    bytes_at_last_contact: primary_lsn
                        .zip(winner.received_lsn)
                        .map(|(p, r)| p.bytes_since(r)),
                    exposed_ms,
                });
            }
            retire_all(cluster);
            appoint(cluster, change, &winner, summary);
        }
        None => wait(cluster, change, &bound, summary),
    }
}

/// From the old primary's last report until now, ms.
fn exposed_ms(operation: &crate::Operation, change: &Change) -> u64 {
    let since_declared = change.wall_ms.saturating_sub(operation.began_wall_ms);
    operation.evidence.primary_age_ms.unwrap_or_default().saturating_add(since_declared)
}

fn wait(cluster: &mut Cluster, change: &mut Change, bound: &Appointment, summary: String) {
    let reason = format!("no member may be promoted: {summary}");
    if running(cluster).waiting.as_ref() != Some(&reason) {
        running(cluster).waiting = Some(reason.clone());
        change.event(cluster, EventKind::Waiting, "8 choose", None, reason);
    }
    let kind = EffectKind::Collect {
        epoch: bound.epoch,
        member: bound.member.clone(),
        candidates: candidates(cluster, &bound.member),
    };
    add_effect(cluster, change, bound.epoch, kind);
}

fn appoint(cluster: &mut Cluster, change: &mut Change, winner: &CandidateReport, summary: String) {
    let initialize = cluster.history.is_empty() && winner.form == regent_types::DataForm::Empty;
    enter(running(cluster), change, Step::Promote, summary);
    promote(cluster, change, &winner.member, winner.instance, winner.boot.clone(), initialize);
}

/// Appoints the first primary of a new cluster.
pub(crate) fn promote_first(
    cluster: &mut Cluster,
    change: &mut Change,
    member: &MemberName,
    instance: InstanceId,
    boot: BootId,
    initialize: bool,
) {
    declared(cluster, change, member);
    let reason = running(cluster).reason.clone();
    enter(running(cluster), change, Step::Promote, reason);
    promote(cluster, change, member, instance, boot, initialize);
}

fn promote(
    cluster: &mut Cluster,
    change: &mut Change,
    member: &MemberName,
    instance: InstanceId,
    boot: BootId,
    initialize: bool,
) {
    let epoch = authority::appoint(cluster, member.clone(), instance, boot);
    running(cluster).target = Some(member.clone());
    let text = format!("{member} is appointed at epoch {epoch}, bound to instance {instance}");
    change.event(cluster, EventKind::Appointed, "5.5 appointment", Some(member), text);
    let replay_timeout_ms = cluster.config.policy.replay_timeout_ms;
    let directive = Directive::Promote { epoch, instance, initialize, replay_timeout_ms };
    add_effect(cluster, change, epoch, EffectKind::Agent { member: member.clone(), directive });
}

/// The promotion failed, or nothing is known of it: the target is fenced like any other primary before anyone else,
/// the old one included, is named.
pub(crate) fn promotion_failed(cluster: &mut Cluster, change: &mut Change, reason: &str) {
    let bound = cluster.appointment.clone().expect("checked: there is an appointment");
    retire_all(cluster);
    let text = format!("{} at epoch {}: {reason}", bound.member, bound.epoch);
    change.event(
        cluster,
        EventKind::PromotionFailed,
        "5.5 promotion failed",
        Some(&bound.member),
        text.clone(),
    );
    running(cluster).excluded.insert((bound.member.clone(), bound.instance));
    enter(running(cluster), change, Step::Fence, text);
    fence(cluster, change, &bound);
}

/// An operator takes the risk that the fenced epoch's instance still writes.
pub(crate) fn assume_fenced(
    state: &mut State,
    change: &mut Change,
    request: &OperatorRequest,
) -> Result<(), Rejection> {
    let cluster = cluster(state, &request.cluster)?;
    if let Some(operation) = seen(cluster, request) {
        change.touched(cluster);
        change.answered(operation);
        return Ok(());
    }
    check_epoch(cluster, request.expected_epoch)?;
    let bound = cluster.appointment.clone().ok_or(Rejection::NoPrimary)?;
    let operation = cluster.operation.as_ref().filter(|operation| operation.step == Step::Fence);
    let id = operation.ok_or(Rejection::NotWaiting)?.id;
    let proof = FenceProof::Operator { actor: request.actor.clone(), reason: request.reason.clone() };
    retire_all(cluster);
    record_proof(cluster, change, &bound, proof);
    remember(cluster, request, Some(id));
    enter(running(cluster), change, Step::Choose, "an operator's word".into());
    // Nobody has reported yet: the executor collects the candidates now.
    choose(cluster, change, &[]);
    Ok(())
}
