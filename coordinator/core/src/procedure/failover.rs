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

use std::collections::BTreeSet;

use regent_types::{
    BootId, CandidateReport, Directive, EffectKey, Epoch, FencedEvidence, InstanceId, Lsn, MemberName,
};

use super::{
    Change,
    automation::{remember, seen},
    check_effect, check_epoch, cluster,
    declare::declared,
    precedence::{self, Proposed},
    restraint, running,
    steps::{add_effect, enter, retire, retire_all},
    switchover,
};
use crate::{
    Appointment, Cluster, EffectKind, EventKind, FenceProof, FenceRecord, LossReport, LossUpperBound,
    Operation, OperatorRequest, Rejection, State, Step, Trigger, authority, candidate, operation::Kind,
    synchronous,
};

/// Decides the fence of the current appointment and asks for a proof.
pub(crate) fn begin_fence(cluster: &mut Cluster, change: &mut Change) {
    let from = cluster.appointment.clone().expect("checked: there is an appointment");
    // Whatever waited to begin was about this primary, and this operation ends its epoch.
    cluster.pending = None;
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

pub(super) fn candidates(cluster: &Cluster, except: &MemberName) -> Vec<MemberName> {
    let members = cluster.config.members.iter();
    members
        .filter(|(name, member)| member.promotable && *name != except)
        .map(|(name, _)| name.clone())
        .collect()
}

/// Asks for a proof of the current appointment's fence once more.
pub(super) fn fence_again(cluster: &mut Cluster, change: &mut Change) {
    let bound = cluster.appointment.clone().expect("checked: there is an appointment");
    fence(cluster, change, &bound);
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
    if !matches!(effect.kind, EffectKind::Fence { .. } | EffectKind::Handover { .. }) {
        return Err(Rejection::StaleEffect { key: key.clone() });
    }
    let bound = cluster.appointment.clone().ok_or(Rejection::NoPrimary)?;
    if let FenceProof::Operator { actor, .. } = proof {
        // It has no request id and no expected epoch here: the word may have been meant for another epoch.
        let reason = format!("the word of {actor} is taken by the request `assume fenced` only");
        return Err(Rejection::BadProof { reason });
    }
    if let FenceProof::External(evidence) = proof
        && evidence.begun_for != *key
    {
        let (driver, begun) = (&evidence.driver, &evidence.begun_for);
        let reason = format!(
            "driver {driver} was started for effect {}.{} (epoch {}), effect {}.{} (epoch {}) waits",
            begun.operation, begun.step, begun.epoch, key.operation, key.step, key.epoch
        );
        return Err(Rejection::BadProof { reason });
    }
    authority::check_proof(&bound, proof, change.at.leadership)?;
    // Of the target of a planned move whose promotion failed, any proof will do: the old primary comes back.
    let ends_old = running(cluster).from.as_ref().is_some_and(|from| from.epoch == bound.epoch);
    if running(cluster).kind.is_planned() && ends_old && !matches!(proof, FenceProof::Acknowledged(_)) {
        let reason = format!("the old primary did not acknowledge ({})", proof.name());
        switchover::becomes_failover(cluster, change, &reason);
    }
    retire(cluster, key);
    record_proof(cluster, change, &bound, proof.clone());
    enter(running(cluster), change, Step::Choose, proof.name().to_owned());
    choose(cluster, change, reports, None);
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
        FenceProof::External(evidence) => format!(
            "driver {}: instance {} of epoch {} is {} ({})",
            evidence.driver, evidence.instance, bound.epoch, evidence.confinement, evidence.detail
        ),
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
    let EffectKind::Collect { member: asked, .. } = &effect.kind else {
        return Err(Rejection::StaleEffect { key: key.clone() });
    };
    let asked = asked.clone();
    let bound = cluster.appointment.clone().ok_or(Rejection::NoPrimary)?;
    if let Some(evidence) = acknowledged.filter(|evidence| evidence.epoch < bound.epoch) {
        let (found, asked) = (evidence.epoch, bound.epoch);
        let reason = format!("the guard fenced epoch {found}, epoch {asked} is asked");
        return Err(Rejection::BadProof { reason });
    }
    if let Some(evidence) = acknowledged {
        let proof = FenceProof::Acknowledged(evidence.clone());
        let origin = running(cluster).from.clone();
        let appointment =
            [Some(bound), origin].into_iter().flatten().find(|appointment| appointment.member == asked);
        // A guard of another boot proves nothing of the bound instance; that one was proved already. It speaks for
        // itself, which is all that a re-appointment needs: refused here, a primary whose host was rebooted would never
        // come back.
        if let Some(appointment) = appointment
            && acknowledgement(running(cluster), appointment.epoch).is_none()
            && authority::check_proof(&appointment, &proof, change.at.leadership).is_ok()
        {
            record_proof(cluster, change, &appointment, proof);
        }
    }
    retire(cluster, key);
    let failed_before = running(cluster).excluded.clone();
    choose(cluster, change, reports, acknowledged.map(|evidence| (asked, evidence.instance)));
    // Nobody else: those whose promotion failed may try again at the next report.
    let operation = running(cluster);
    if operation.step == Step::Choose && operation.excluded == failed_before {
        operation.excluded.clear();
    }
    change.touched(cluster);
    Ok(())
}

/// What the guard of an epoch's own instance, or one that speaks for it, answered in this operation.
fn acknowledgement(operation: &Operation, epoch: Epoch) -> Option<&FencedEvidence> {
    operation.fences.iter().filter(|record| record.epoch == epoch).find_map(|record| match &record.proof {
        FenceProof::Acknowledged(evidence) => Some(evidence),
        _ => None,
    })
}

/// The fenced appointment, and the one that the operation ended when that was another member's.
fn appointments<'o>(operation: &'o Operation, bound: &'o Appointment) -> Vec<&'o Appointment> {
    let origin = operation.from.as_ref().filter(|origin| origin.member != bound.member);
    [Some(bound), origin].into_iter().flatten().collect()
}

/// Chooses and appoints, or waits. `answered` is the guard that has just acknowledged.
fn choose(
    cluster: &mut Cluster,
    change: &mut Change,
    reports: &[CandidateReport],
    answered: Option<(MemberName, InstanceId)>,
) {
    let bound = cluster.appointment.clone().expect("checked: there is an appointment");
    let operation = cluster.operation.as_ref().expect("checked: an operation is running");
    assert!(
        operation.fences.iter().any(|record| record.epoch == bound.epoch),
        "checked: a proof is recorded"
    );
    let appointments = appointments(operation, &bound);
    let acknowledging = appointments.iter().filter(|a| acknowledgement(operation, a.epoch).is_some());
    let mut acknowledged: BTreeSet<MemberName> = acknowledging.map(|a| a.member.clone()).collect();
    let answered = answered.filter(|(member, instance)| {
        reports.iter().any(|report| report.member == *member && report.instance == *instance)
    });
    acknowledged.extend(answered.map(|(member, _)| member));
    let choice = candidate::Choice {
        cluster,
        from: &bound,
        origin: operation.from.as_ref(),
        trigger: &operation.trigger,
        acknowledged: &acknowledged,
        failed_again: operation.fences.iter().filter(|record| record.member == bound.member).count() > 1,
        excluded: &operation.excluded,
        wanted: operation.wanted.as_ref(),
        consent: operation.consent.as_ref(),
        primary_lsn: operation.evidence.primary_lsn.max(shut_down_at(operation)),
        // A clean shutdown says where the WAL ends.
        frozen_ms: operation.evidence.lag.frozen_ms.filter(|_| shut_down_at(operation).is_none()),
        lag_ms: &operation.evidence.lag.by_member_ms,
        handover: operation.kind.is_planned().then(|| candidate::Handover {
            checkpoint: shut_down_at(operation),
            rollback: operation.rollback.as_deref(),
        }),
    };
    let primary_lsn = choice.primary_lsn;
    let (winner, verdicts) = candidate::choose(&choice, reports);
    let summary: Vec<String> = verdicts.iter().map(|v| format!("{}: {}", v.member, v.reason)).collect();
    let winner = winner.cloned();
    let acknowledged_loss =
        winner.as_ref().and_then(|winner| acknowledged_loss(cluster, &bound, winner, reports));
    let operation = running(cluster);
    let known = operation.verdicts.len() == verdicts.len()
        && operation
            .verdicts
            .iter()
            .zip(&verdicts)
            .all(|(old, new)| old.member == new.member && old.reason.is_like(&new.reason));
    operation.verdicts = verdicts;
    let summary = summary.join("; ");
    match winner {
        Some(winner) => {
            let reason = rolled_back_by(operation, &winner.member);
            operation.loss = loss(operation, change, &winner, primary_lsn);
            // The same target once more: what was said of it holds.
            if winner.member != bound.member {
                operation.acknowledged_loss = acknowledged_loss;
            }
            retire_all(cluster);
            if let Some(reason) = reason {
                switchover::roll_back(cluster, change, &reason);
            }
            appoint(cluster, change, &winner, summary);
        }
        None => wait(cluster, change, &bound, summary, known),
    }
}

/// What the synchronous rules prove of a failover to `winner`.
fn acknowledged_loss(
    cluster: &Cluster,
    bound: &Appointment,
    winner: &CandidateReport,
    reports: &[CandidateReport],
) -> Option<String> {
    let operation = cluster.operation.as_ref()?;
    let moved = operation.from.as_ref().is_some_and(|from| from.member != winner.member);
    if !moved || operation.kind != Kind::Failover {
        return None;
    }
    match synchronous::check(cluster, bound, winner, reports) {
        Ok(proof) => proof,
        Err(reason) => Some(format!("not proven: {reason}")),
    }
}

/// Why a planned move ends where it began, if it does: what became of its target.
fn rolled_back_by(operation: &Operation, winner: &MemberName) -> Option<String> {
    let from =
        operation.from.as_ref().filter(|from| operation.kind.is_planned() && from.member == *winner)?;
    let target = operation.wanted.as_ref()?;
    let verdict = operation.verdicts.iter().find(|verdict| verdict.member == *target);
    let why = verdict.map_or_else(|| "no report".to_owned(), |verdict| verdict.reason.to_string());
    Some(format!("{target} is not appointed ({why}): back to {}", from.member))
}

/// The end of the old primary's WAL, when its guard has shut it down cleanly.
fn shut_down_at(operation: &Operation) -> Option<Lsn> {
    let from = operation.from.as_ref()?;
    let evidence = acknowledgement(operation, from.epoch)?;
    evidence.checkpoint_lsn.filter(|_| evidence.clean)
}

/// What appointing `winner` may lose.
fn loss(
    operation: &Operation,
    change: &Change,
    winner: &CandidateReport,
    primary_lsn: Option<Lsn>,
) -> LossReport {
    let changes_primary = matches!(operation.kind, Kind::Failover | Kind::Switchover | Kind::Failback);
    let Some(from) = operation.from.as_ref().filter(|_| changes_primary) else {
        return LossReport::NotApplicable;
    };
    if operation.kind.is_planned() && winner.member != from.member {
        // It has replayed the shutdown checkpoint, or it would not be eligible.
        return LossReport::None;
    }
    let upper = |primary_lsn: Option<Lsn>, received_lsn: Option<Lsn>, exposed_ms| {
        let bytes_at_last_contact = primary_lsn.zip(received_lsn).map(|(p, r)| p.bytes_since(r));
        LossReport::UpperBound(LossUpperBound {
            primary_lsn,
            received_lsn,
            bytes_at_last_contact,
            exposed_ms,
        })
    };
    if winner.member != from.member {
        let exposed_ms = if shut_down_at(operation).is_some() { 0 } else { exposed_ms(operation, change) };
        return upper(primary_lsn, winner.received_lsn, exposed_ms);
    }
    // A target that was named in between may have accepted writes before it was fenced.
    if operation.fences.iter().any(|record| record.member != from.member) {
        return upper(None, None, change.wall_ms.saturating_sub(operation.began_wall_ms));
    }
    LossReport::NotApplicable
}

/// From the old primary's last report until now, ms.
fn exposed_ms(operation: &Operation, change: &Change) -> u64 {
    let since_declared = change.wall_ms.saturating_sub(operation.began_wall_ms);
    // A new leader may never have heard it; the silence that it inherited counts.
    let silent_ms = match operation.trigger {
        Trigger::Partition { silent_ms } => silent_ms,
        _ => 0,
    };
    let age_ms = operation.evidence.primary_age_ms.unwrap_or_default().max(silent_ms);
    age_ms.saturating_add(since_declared)
}

/// `known`: the same was said before, but for the time that is left of a promise.
fn wait(cluster: &mut Cluster, change: &mut Change, bound: &Appointment, summary: String, known: bool) {
    let reason = format!("no member may be promoted: {summary}");
    let said = running(cluster).waiting.replace(reason.clone());
    if said.as_ref() != Some(&reason) && !(known && said.is_some()) {
        change.event(cluster, EventKind::Waiting, "8 choose", None, reason);
    }
    // Whoever could be re-appointed after its own acknowledgement is asked for it, in turns.
    let operation = running(cluster);
    let mut asked = appointments(operation, bound);
    asked.retain(|appointment| acknowledgement(operation, appointment.epoch).is_none());
    let turn = usize::try_from(operation.next_effect).unwrap_or_default() % asked.len().max(1);
    let member = asked.get(turn).map_or(&bound.member, |appointment| &appointment.member).clone();
    let candidates = candidates(cluster, &member);
    let kind = EffectKind::Collect { epoch: bound.epoch, member, candidates };
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
    let operation = running(cluster);
    operation.target = Some(member.clone());
    // A re-appointment that went to another member is a failover by itself like any other.
    let moved = operation.from.as_ref().is_some_and(|from| from.member != *member);
    if moved && matches!(operation.trigger, Trigger::InstanceChanged { .. }) && operation.actor == "regent" {
        restraint::begin_cooldown(cluster, change);
    }
    let text = format!("{member} is appointed at epoch {epoch}, bound to instance {instance}");
    change.event(cluster, EventKind::Appointed, "5.5 appointment", Some(member), text);
    if super::adopt::claim_first(cluster, change, member, epoch) {
        return;
    }
    send_promote(cluster, change, initialize);
}

/// The directive to the appointed member.
pub(crate) fn send_promote(cluster: &mut Cluster, change: &mut Change, initialize: bool) {
    let bound = cluster.appointment.clone().expect("checked: there is an appointment");
    let (epoch, instance) = (bound.epoch, bound.instance);
    let replay_timeout_ms = cluster.config.policy.replay_timeout_ms;
    let directive = Directive::Promote { epoch, instance, initialize, replay_timeout_ms };
    add_effect(cluster, change, epoch, EffectKind::Agent { member: bound.member, directive });
}

/// The promotion failed, or nothing is known of it: the target is fenced like any other primary before anyone else,
/// the old one included, is named.
pub(crate) fn promotion_failed(cluster: &mut Cluster, change: &mut Change, reason: &str) {
    let bound = cluster.appointment.clone().expect("checked: there is an appointment");
    let operation = running(cluster);
    let back = operation.from.as_ref().is_some_and(|from| from.member == bound.member);
    if operation.kind.is_planned() && back {
        // The old primary cannot come back: whoever can take over now does, and its loss is counted.
        let reason = format!("{} could not come back at epoch {}: {reason}", bound.member, bound.epoch);
        switchover::becomes_failover(cluster, change, &reason);
        running(cluster).excluded.insert((bound.member.clone(), bound.instance));
        fence(cluster, change, &bound);
        return;
    }
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
    precedence::check(cluster, Proposed::AssumeFenced)?;
    if running(cluster).step != Step::Fence {
        return Err(Rejection::NotWaiting);
    }
    if running(cluster).kind.is_planned() {
        switchover::becomes_failover(cluster, change, "an operator takes the old primary for fenced");
    }
    let id = running(cluster).id;
    let proof = FenceProof::Operator { actor: request.actor.clone(), reason: request.reason.clone() };
    retire_all(cluster);
    record_proof(cluster, change, &bound, proof);
    remember(cluster, request, Some(id));
    enter(running(cluster), change, Step::Choose, "an operator's word".into());
    // Nobody has reported yet: the executor collects the candidates now.
    choose(cluster, change, &[], None);
    Ok(())
}
