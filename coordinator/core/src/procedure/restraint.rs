//! What holds an automatic failover back: flap damping, and the mode `approve`. Decides whether a wish of the detector
//! begins, or is declared as pending and waits for an operator.
//!
//! Invariants:
//! - a pending failover fences nothing: no `FenceDecided`, no effect, the primary goes on if it can;
//! - it is of the current epoch: any failover that begins, and any change of automation, ends it;
//! - a re-appointment after a restart of the primary's own guard is neither damped nor asked for (an outage would
//!   protect from nothing), but while either holds it goes back to the same member or waits (`wanted`).
//!
//! Interleaving to fear: approved by an operator who saw epoch E while an operator's failover has already named E+1. The
//! request carries the expected epoch, and the pending failover was ended by the other one.

use regent_types::{Automation, ClusterName, Epoch, OperationId};

use super::{
    Change,
    automation::{remember, seen},
    check_epoch, cluster,
    declare::{check_candidates, describe},
    failover::begin_fence,
    precedence::{self, Proposed},
    running, schedule,
    steps::Start,
    switchover::take_over,
};
use crate::{
    Cluster, Cooldown, Declare, EventKind, Kind, OperatorRequest, Pending, PendingWhy, Readiness, Rejection,
    State, Trigger, proposal::Evidence,
};

/// Why an automatic failover may not begin by itself now, if so.
pub(super) fn restrained(cluster: &Cluster) -> Option<PendingWhy> {
    if cluster.automation == Automation::Approve {
        return Some(PendingWhy::Approve);
    }
    cluster.cooldown.as_ref().map(|cooldown| PendingWhy::Cooldown { after: cooldown.operation })
}

/// Declares a failover that waits. Said once for each reason: the log is not for waiting.
pub(super) fn declare_pending(
    cluster: &mut Cluster,
    change: &mut Change,
    declare: &Declare,
    why: PendingWhy,
) -> Result<(), Rejection> {
    if let Some(pending) = cluster.pending.as_ref().filter(|pending| pending.why == why) {
        let what = format!("the failover of {}", pending.member);
        return Err(Rejection::Pending { what, why: why.to_string() });
    }
    let found = describe(&declare.trigger, &declare.member);
    let text = format!("failover of {} is pending ({found}); {why}", declare.member);
    cluster.pending = Some(Pending {
        member: declare.member.clone(),
        epoch: cluster.epoch,
        trigger: declare.trigger.clone(),
        evidence: declare.evidence.clone(),
        why,
        since_wall_ms: change.wall_ms,
    });
    change.event(cluster, EventKind::Pending, "7 pending", Some(&declare.member), text);
    Ok(())
}

/// The running operation is an automatic failover: the next one waits.
pub(super) fn begin_cooldown(cluster: &mut Cluster, change: &Change) {
    if cluster.config.policy.cooldown_ms > 0 {
        let operation = running(cluster).id;
        cluster.cooldown = Some(Cooldown { operation, wall_ms: change.wall_ms });
    }
}

/// An operator takes note of the last automatic failover. What is pending because of it is declared again by the detector,
/// with today's evidence, while its reason lasts.
pub(crate) fn acknowledge(
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
    let Some(cooldown) = cluster.cooldown.take() else {
        return Err(Rejection::NothingToAcknowledge { cluster: request.cluster.clone() });
    };
    if cluster.pending.as_ref().is_some_and(|pending| matches!(pending.why, PendingWhy::Cooldown { .. })) {
        cluster.pending = None;
    }
    // In `approve` a re-appointment stays bound to its member until that is approved.
    if cluster.automation != Automation::Approve {
        release(cluster);
    }
    remember(cluster, request, Some(cooldown.operation));
    let text = format!(
        "{} has acknowledged operation {} ({}): the next automatic failover need not wait",
        request.actor, cooldown.operation, request.reason
    );
    change.event(cluster, EventKind::Acknowledged, "7 flap damping", None, text);
    change.answered(Some(cooldown.operation));
    Ok(())
}

/// An operator says go. Judged by what the leader knows now, not by what it knew when the failover was declared.
pub(crate) fn approve(
    state: &mut State,
    change: &mut Change,
    request: &OperatorRequest,
    evidence: &Evidence,
    readiness: &Readiness,
) -> Result<(), Rejection> {
    let cluster = cluster(state, &request.cluster)?;
    if let Some(operation) = seen(cluster, request) {
        change.touched(cluster);
        change.answered(operation);
        return Ok(());
    }
    check_epoch(cluster, request.expected_epoch)?;
    if let Some(pending) = cluster.pending.clone() {
        return approve_failover(cluster, change, request, evidence, &pending);
    }
    if let Some(operation) = release(cluster) {
        remember(cluster, request, Some(operation));
        let text = format!("{} lets another member be appointed ({})", request.actor, request.reason);
        change.event(cluster, EventKind::Approved, "7 approve", None, text);
        return Ok(());
    }
    if let Some(failback) =
        cluster.pending_failback.clone().filter(|failback| failback.epoch == cluster.epoch)
    {
        return schedule::approve(cluster, change, request, &failback, readiness);
    }
    Err(Rejection::NothingPending {
        cluster: request.cluster.clone(),
        automation: cluster.automation.name().to_owned(),
    })
}

fn approve_failover(
    cluster: &mut Cluster,
    change: &mut Change,
    request: &OperatorRequest,
    evidence: &Evidence,
    pending: &Pending,
) -> Result<(), Rejection> {
    precedence::check(cluster, Proposed::OperatorFailover)?;
    check_candidates(cluster, evidence, None)?;
    let found = describe(&pending.trigger, &pending.member);
    let text = format!("{} approves the failover of {} ({})", request.actor, pending.member, request.reason);
    change.event(cluster, EventKind::Approved, "7 approve", Some(&pending.member), text);
    let start = Start {
        kind: Kind::Failover,
        trigger: pending.trigger.clone(),
        actor: request.actor.clone(),
        reason: format!("approved: {}; {found}", request.reason),
        evidence: evidence.clone(),
    };
    let by = start.reason.clone();
    take_over(cluster, change, start, &by);
    // Somebody looks: that is what the cooldown asks for.
    cluster.cooldown = None;
    let id = running(cluster).id;
    remember(cluster, request, Some(id));
    begin_fence(cluster, change);
    Ok(())
}

/// A re-appointment that had to go back to the same member may go to another one from now on.
fn release(cluster: &mut Cluster) -> Option<OperationId> {
    let operation = cluster.operation.as_mut()?;
    let bound = matches!(operation.trigger, Trigger::InstanceChanged { .. }) && operation.wanted.is_some();
    if !bound {
        return None;
    }
    operation.wanted = None;
    Some(operation.id)
}

/// The leader's count is full.
pub(crate) fn cooldown_over(
    state: &mut State,
    change: &mut Change,
    name: &ClusterName,
    operation: OperationId,
    counted_ms: u64,
) -> Result<(), Rejection> {
    let cluster = cluster(state, name)?;
    let runs = cluster.operation.as_ref().is_some_and(|running| running.id == operation);
    let needed_ms = cluster.config.policy.cooldown_ms;
    let same = cluster.cooldown.as_ref().is_some_and(|cooldown| cooldown.operation == operation);
    if !same || runs || counted_ms < needed_ms {
        return Err(Rejection::NothingToAcknowledge { cluster: name.clone() });
    }
    cluster.cooldown = None;
    if cluster.pending.as_ref().is_some_and(|pending| matches!(pending.why, PendingWhy::Cooldown { .. })) {
        cluster.pending = None;
    }
    if cluster.automation != Automation::Approve {
        release(cluster);
    }
    let text =
        format!("{counted_ms} ms since operation {operation}: the next automatic failover need not wait");
    change.event(cluster, EventKind::CooldownOver, "7 flap damping", None, text);
    Ok(())
}

/// What a pending failover was declared for is gone.
pub(crate) fn withdraw(
    state: &mut State,
    change: &mut Change,
    name: &ClusterName,
    epoch: Epoch,
    found: &str,
) -> Result<(), Rejection> {
    let cluster = cluster(state, name)?;
    check_epoch(cluster, epoch)?;
    let Some(pending) = cluster.pending.take() else { return Err(Rejection::NotWaiting) };
    let text = format!("the failover of {} is not needed any more: {found}", pending.member);
    change.event(cluster, EventKind::Withdrawn, "7 pending", Some(&pending.member), text);
    Ok(())
}

/// The veto hook said no. The same words are recorded once in a row.
pub(crate) fn vetoed(
    state: &mut State,
    change: &mut Change,
    name: &ClusterName,
    epoch: Epoch,
    reason: &str,
) -> Result<(), Rejection> {
    let last = state.events.iter().rev().find(|event| event.cluster == *name);
    let text = format!("the veto hook objects to an automatic failover: {reason}");
    let said = last.is_some_and(|event| event.kind == EventKind::Vetoed && event.text == text);
    let cluster = cluster(state, name)?;
    check_epoch(cluster, epoch)?;
    if said {
        return Err(Rejection::NotWaiting);
    }
    change.event(cluster, EventKind::Vetoed, "8 veto", None, text);
    Ok(())
}
