//! Switchover and failback: the primary changes as planned, and nothing is lost.
//!
//! ```text
//! Declare -> Checkpoint (nothing is fenced; a refusal ends it)
//!   -- commit --> Fence: FenceDecided(E), fast shutdown; the target streams on meanwhile
//!   -- commit: clean acknowledgement, and the target has replayed the shutdown checkpoint --> appoint the target at E+1
//!   -- commit: anything less --> appoint the old primary at E+1 after its own acknowledgement (rolled back)
//!   Promote -> Redirect -> Validate -> Done as in `failover.rs`
//! ```
//!
//! Rules: the target is appointed only on `Acknowledged`, *clean*, and `replayed > checkpoint` of that very acknowledgement
//! (`candidate.rs`, [`crate::candidate::Handover`]); the executor's word counts for nothing. A proof by expiry, an operator's
//! word, or an old primary that cannot come back turns the operation into a failover, which owns the loss that it may mean.
//!
//! Interleavings to fear, and what catches them:
//! - *The target is promoted without the shutdown checkpoint.* Its stream broke for another reason while the old primary
//!   still wrote. Its report is compared with the checkpoint that `pg_control` names after the namespace is empty, so rows
//!   that were acknowledged late are on the far side of the comparison. `28-switchover-short.txt`, and the checker of
//!   `chaos-tests/tests/switchover.rs` (a procedure that commits in a loop until it dies).
//! - *An immediate shutdown names an old checkpoint*, and the target has of course replayed that one: `clean` is part of the
//!   rule. `27-switchover-unclean.txt`.
//! - *The old primary is appointed again while the target's promotion is in flight.* Naming anybody after the target's
//!   appointment needs `FenceDecided(E+1)` and a proof for the target, as in any failover; a late `Promote` finds its epoch
//!   closed. `29-switchover-promotion-refused.txt`.
//! - *A late `Fence(E)` arrives after the rollback.* The old primary holds E+1 then, and its guard does not touch a newer
//!   lease for a fence of E (agent/guard, `fence`).
//! - *The leader changes at any commit.* Nothing is remembered outside the state but what was heard: the new leader's
//!   executor asks guard and target again under keys of its own. `chaos-tests/tests/switchover.rs` kills it at each step.

use regent_types::{CheckpointedEvidence, Directive, EffectKey, MemberName};

use super::{
    Change,
    automation::{remember, seen},
    check_epoch, cluster,
    declare::{declared, supersede},
    drill, failover, guards,
    precedence::{self, Proposed, Running},
    restraint, running,
    steps::{self, Start, add_effect, enter, finish},
};
use crate::{
    Cluster, EffectKind, EventKind, Kind, OperationResult, OperatorRequest, Readiness, Rejection, State,
    Step, Trigger, authority, proposal::Evidence,
};

/// A planned change of primary that may begin.
pub(crate) struct Move {
    pub kind: Kind,
    pub target: MemberName,
    pub trigger: Trigger,
    pub actor: String,
    pub reason: String,
    pub evidence: Evidence,
}

/// An operator's switchover or failback.
pub(crate) fn request(
    state: &mut State,
    change: &mut Change,
    request: &OperatorRequest,
    to: Option<&MemberName>,
    failback: bool,
    readiness: &Readiness,
) -> Result<(), Rejection> {
    let cluster = cluster(state, &request.cluster)?;
    if let Some(operation) = seen(cluster, request) {
        change.touched(cluster);
        change.answered(operation);
        return Ok(());
    }
    check_epoch(cluster, request.expected_epoch)?;
    if let Some(member) = to {
        check_member(cluster, member)?;
    }
    precedence::check(cluster, Proposed::PlannedMove)?;
    let (kind, target) = if failback {
        (Kind::Failback, failback_target(cluster, readiness)?)
    } else {
        let wanted = to.map_or(guards::Wanted::Any, guards::Wanted::Member);
        (Kind::Switchover, guards::target(cluster, readiness, &wanted)?)
    };
    let planned = Move {
        kind,
        target,
        trigger: Trigger::Operator,
        actor: request.actor.clone(),
        reason: request.reason.clone(),
        evidence: readiness.evidence.clone(),
    };
    begin(cluster, change, planned);
    let id = running(cluster).id;
    remember(cluster, request, Some(id));
    Ok(())
}

pub(crate) fn check_member(cluster: &Cluster, member: &MemberName) -> Result<(), Rejection> {
    if cluster.config.members.contains_key(member) {
        return Ok(());
    }
    Err(Rejection::UnknownMember { cluster: cluster.config.name.clone(), member: member.clone() })
}

/// The member of the preferred region that a failback leads to.
pub(crate) fn failback_target(cluster: &Cluster, readiness: &Readiness) -> Result<MemberName, Rejection> {
    let (appointment, _) = cluster.established().ok_or(Rejection::NoPrimary)?;
    let region = cluster.config.preferred_region().ok_or(Rejection::NoPrimary)?;
    if cluster.config.members.get(&appointment.member).is_some_and(|config| config.region == *region) {
        return Err(Rejection::AlreadyPrimary { member: appointment.member.clone(), epoch: cluster.epoch });
    }
    guards::target(cluster, readiness, &guards::Wanted::In(region))
}

/// Begins it; precedence and guards were asked.
pub(crate) fn begin(cluster: &mut Cluster, change: &mut Change, planned: Move) {
    let (appointment, _) = cluster.established().expect("checked: there is an established primary");
    let (primary, epoch) = (appointment.member.clone(), appointment.epoch);
    cluster.pending_failback = None;
    let start = Start {
        kind: planned.kind,
        trigger: planned.trigger,
        actor: planned.actor,
        reason: planned.reason,
        evidence: planned.evidence,
    };
    steps::begin(cluster, change, start);
    let operation = running(cluster);
    operation.wanted = Some(planned.target.clone());
    operation.target = Some(planned.target.clone());
    declared(cluster, change, &planned.target);
    let evidence = format!("{primary} to {}", planned.target);
    enter(running(cluster), change, Step::Checkpoint, evidence);
    let directive = Directive::Checkpoint { epoch };
    add_effect(cluster, change, epoch, EffectKind::Agent { member: primary, directive });
}

/// The primary has written its checkpoint, and says who streams from it: the last look before the fence.
pub(crate) fn checkpointed(
    cluster: &mut Cluster,
    change: &mut Change,
    key: &EffectKey,
    evidence: &CheckpointedEvidence,
) -> Result<(), Rejection> {
    let from = cluster.appointment.clone().ok_or(Rejection::NoPrimary)?;
    if evidence.epoch != from.epoch {
        let reason = format!("a checkpoint of epoch {}, the current one is {}", evidence.epoch, from.epoch);
        return Err(Rejection::BadOutcome { reason });
    }
    let target = running(cluster).wanted.clone().expect("a planned move has a target");
    steps::retire(cluster, key);
    let max = cluster.config.policy.sync_lag_bytes_max;
    let stream = evidence.standbys.iter().find(|standby| standby.member == target);
    let no = match stream {
        None => Some("the primary does not stream to it".to_owned()),
        Some(standby) if standby.state != "streaming" => {
            Some(format!("its stream is in state {:?}, not \"streaming\"", standby.state))
        }
        Some(standby) => {
            let lag = standby.flush_lsn.map(|flushed| evidence.write_lsn.bytes_since(flushed));
            match lag {
                Some(lag) if lag <= max => None,
                Some(lag) => Some(format!("{lag} bytes behind, {max} are allowed")),
                None => Some("the primary does not know how far it is".to_owned()),
            }
        }
    };
    if let Some(no) = no {
        stop_before_fence(cluster, change, &format!("guard streaming ({target}): {no}"));
        return Ok(());
    }
    // A failover that has to take over counts what it may lose from here, not from before the checkpoint.
    let known = &mut running(cluster).evidence.primary_lsn;
    *known = (*known).max(Some(evidence.write_lsn));
    let text = format!("checkpoint at {} in {} ms", evidence.write_lsn, evidence.elapsed_ms);
    change.event(cluster, EventKind::Checkpointed, "8 checkpoint", Some(&from.member), text.clone());
    enter(running(cluster), change, Step::Fence, text);
    authority::decide_fence(cluster, from.epoch);
    let said =
        format!("epoch {} ({}, instance {}) gets no lease any more", from.epoch, from.member, from.instance);
    change.event(cluster, EventKind::FenceDecided, "5.4 FenceDecided", Some(&from.member), said);
    let timeout_ms = cluster.config.policy.switchover_timeout_ms;
    // The shutdown must not outlast what is left of the lease: killed by its end, a healthy primary could not say that it was
    // shut down, and the expiry would turn the move into a failover. The mistake is a rollback.
    let grace_ms = timeout_ms.min(cluster.config.policy.lease.ttl_ms / 2);
    let kind = EffectKind::Handover {
        epoch: from.epoch,
        member: from.member.clone(),
        instance: from.instance,
        boot: from.boot.clone(),
        grace_ms,
        target,
        timeout_ms,
        candidates: failover::candidates(cluster, &from.member),
    };
    add_effect(cluster, change, from.epoch, kind);
    Ok(())
}

/// It ends in *Checkpoint*: nothing was fenced, the primary has not noticed.
pub(crate) fn stop_before_fence(cluster: &mut Cluster, change: &mut Change, reason: &str) {
    let reason = format!("nothing was changed: {reason}");
    finish(cluster, change, OperationResult::Aborted { reason: reason.clone() }, reason);
}

/// An operator stops what is planned.
pub(crate) fn abort(
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
    let who = format!("{}: {}", request.actor, request.reason);
    let planned = cluster.operation.as_ref().is_some_and(|operation| operation.kind.is_planned());
    // A scheduled switchover is taken back whatever else runs, unless it is a planned move that is meant.
    if let Some(scheduled) = cluster.scheduled.clone().filter(|_| !planned) {
        cluster.scheduled = None;
        remember(cluster, request, None);
        let text = format!("the switchover at {} is taken back ({who})", scheduled.at_wall_ms);
        change.event(cluster, EventKind::Unscheduled, "8 abort", scheduled.to.as_ref(), text);
        return Ok(());
    }
    // A drill's own move that runs is aborted like any other, and the drill ends when it has not moved.
    let drill = cluster.rehearsal.as_ref().filter(|_| !planned).map(|rehearsal| rehearsal.drill.id);
    let Some(id) = drill.or(cluster.operation.as_ref().map(|operation| operation.id)) else {
        return Err(Rejection::NotWaiting);
    };
    if drill.is_none() {
        precedence::check(cluster, Proposed::Abort)?;
    }
    remember(cluster, request, Some(id));
    change.touched(cluster);
    change.answered(Some(id));
    if drill.is_some() || precedence::running(cluster) == Running::Drilling {
        drill::abort(cluster, change, &who);
        return Ok(());
    }
    if precedence::running(cluster) == Running::MovePreparing {
        stop_before_fence(cluster, change, &format!("aborted by {who}"));
    } else {
        roll_back(cluster, change, &format!("aborted by {who}"));
    }
    Ok(())
}

/// From here on the target is not appointed any more; the old primary is, after its own acknowledgement.
pub(crate) fn roll_back(cluster: &mut Cluster, change: &mut Change, reason: &str) {
    if running(cluster).rollback.is_some() {
        return;
    }
    running(cluster).rollback = Some(reason.to_owned());
    change.event(cluster, EventKind::RollingBack, "8 roll back", None, reason.to_owned());
}

/// The planned move cannot go on and its fence stays: a failover takes both over. `from` and the proofs go with it, because
/// the old primary may still be the one to come back.
pub(crate) fn becomes_failover(cluster: &mut Cluster, change: &mut Change, reason: &str) {
    let old = running(cluster).clone();
    // What the old primary accepted since its last report may be lost; the failover begins later than that.
    let mut evidence = old.evidence.clone();
    let age_ms = evidence.primary_age_ms.unwrap_or_default();
    evidence.primary_age_ms = Some(age_ms.saturating_add(change.wall_ms.saturating_sub(old.began_wall_ms)));
    let start = Start {
        kind: Kind::Failover,
        trigger: Trigger::Operator,
        actor: old.actor.clone(),
        reason: format!("operation {} could not go on as planned: {reason}", old.id),
        evidence,
    };
    take_over(cluster, change, start, reason);
    if old.actor == "regent" {
        restraint::begin_cooldown(cluster, change);
    }
    let member = cluster.appointment.as_ref().map(|appointment| appointment.member.clone());
    if let Some(member) = member {
        declared(cluster, change, &member);
    }
    let reason = running(cluster).reason.clone();
    enter(running(cluster), change, Step::Fence, reason);
}

/// Begins `start` in place of whatever runs; of a fenced planned move it keeps what was proved.
pub(crate) fn take_over(cluster: &mut Cluster, change: &mut Change, start: Start, by: &str) {
    let fenced = cluster
        .operation
        .as_ref()
        .filter(|_| precedence::running(cluster) == Running::MoveFencing)
        .map(|old| (old.from.clone(), old.fences.clone()));
    supersede(cluster, change, by);
    steps::begin(cluster, change, start);
    if let Some((from, fences)) = fenced {
        let operation = running(cluster);
        operation.from = from;
        operation.fences = fences;
    }
}

/// No end of the step within its deadline: before the fence it ends, after it a failover takes over.
pub(crate) fn overdue(cluster: &mut Cluster, change: &mut Change, reason: &str) {
    if precedence::running(cluster) == Running::MovePreparing {
        stop_before_fence(cluster, change, &format!("the checkpoint is not done: {reason}"));
        return;
    }
    becomes_failover(cluster, change, &format!("nobody could be appointed: {reason}"));
    failover::fence_again(cluster, change);
}
