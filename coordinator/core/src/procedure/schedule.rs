//! What begins later: scheduled switchovers, and failbacks that wait for a word or for a maintenance window. The leader's
//! wall clock says when; everything else is judged when it is due, as if it were asked for then.

use regent_types::{ClusterName, Epoch, MemberName};

use super::{
    Change,
    automation::{remember, seen},
    check_epoch, cluster,
    declare::check_automatic,
    guards,
    precedence::{self, Proposed},
    running,
    switchover::{self, Move},
};
use crate::{
    Cluster, EventKind, FailbackMode, Kind, OperatorRequest, PendingFailback, Readiness, Rejection,
    Scheduled, State, Trigger,
};

/// An operator wants a switchover at a wall time.
pub(crate) fn schedule(
    state: &mut State,
    change: &mut Change,
    request: &OperatorRequest,
    to: Option<&MemberName>,
    at_wall_ms: u64,
) -> Result<(), Rejection> {
    let cluster = cluster(state, &request.cluster)?;
    if seen(cluster, request).is_some() {
        change.touched(cluster);
        return Ok(());
    }
    check_epoch(cluster, request.expected_epoch)?;
    if let Some(member) = to {
        switchover::check_member(cluster, member)?;
    }
    if at_wall_ms <= change.wall_ms {
        let problem = format!("{at_wall_ms} ms is not after now ({} ms, the leader's clock)", change.wall_ms);
        return Err(Rejection::BadTime { problem });
    }
    if let Some(scheduled) = &cluster.scheduled {
        let problem = format!(
            "a switchover is scheduled at {} ms already ({}); abort it first",
            scheduled.at_wall_ms, scheduled.actor
        );
        return Err(Rejection::BadTime { problem });
    }
    let (appointment, _) = cluster.established().ok_or(Rejection::NoPrimary)?;
    if to == Some(&appointment.member) {
        let member = appointment.member.clone();
        return Err(Rejection::AlreadyPrimary { member, epoch: cluster.epoch });
    }
    cluster.scheduled = Some(Scheduled {
        at_wall_ms,
        to: to.cloned(),
        actor: request.actor.clone(),
        reason: request.reason.clone(),
        epoch: cluster.epoch,
        waiting: None,
    });
    remember(cluster, request, None);
    let whom = to.map_or("the best member".to_owned(), ToString::to_string);
    let text = format!("switchover to {whom} at {at_wall_ms} ms ({}: {})", request.actor, request.reason);
    change.event(cluster, EventKind::Scheduled, "8 schedule", to, text);
    Ok(())
}

/// The leader's wall clock has reached it.
pub(crate) fn due(
    state: &mut State,
    change: &mut Change,
    name: &ClusterName,
    at_wall_ms: u64,
    expired: bool,
    readiness: &Readiness,
) -> Result<(), Rejection> {
    let cluster = cluster(state, name)?;
    let scheduled = cluster
        .scheduled
        .clone()
        .filter(|scheduled| scheduled.at_wall_ms == at_wall_ms)
        .ok_or(Rejection::NotWaiting)?;
    if scheduled.epoch != cluster.epoch {
        let reason =
            format!("it was planned at epoch {}, the current one is {}", scheduled.epoch, cluster.epoch);
        drop_it(cluster, change, &scheduled, &reason);
        return Ok(());
    }
    let wanted = scheduled.to.as_ref().map_or(guards::Wanted::Any, guards::Wanted::Member);
    let target = check_automatic(cluster)
        .and_then(|()| precedence::check(cluster, Proposed::PlannedMove))
        .and_then(|()| guards::target(cluster, readiness, &wanted));
    let target = match target {
        Ok(target) => target,
        Err(refused) if expired => {
            drop_it(cluster, change, &scheduled, &format!("it could not start for too long: {refused}"));
            return Ok(());
        }
        Err(refused) => {
            let why = refused.to_string();
            if scheduled.waiting.as_ref() == Some(&why) {
                return Err(refused);
            }
            cluster.scheduled = Some(Scheduled { waiting: Some(why.clone()), ..scheduled });
            change.event(cluster, EventKind::Waiting, "8 schedule", None, format!("due, but {why}"));
            return Ok(());
        }
    };
    cluster.scheduled = None;
    let planned = Move {
        kind: Kind::Switchover,
        target,
        trigger: Trigger::Schedule { at_wall_ms },
        actor: scheduled.actor,
        reason: scheduled.reason,
        evidence: readiness.evidence.clone(),
    };
    switchover::begin(cluster, change, planned);
    Ok(())
}

fn drop_it(cluster: &mut Cluster, change: &mut Change, scheduled: &Scheduled, reason: &str) {
    cluster.scheduled = None;
    let text = format!("the switchover at {} ms does not take place: {reason}", scheduled.at_wall_ms);
    change.event(cluster, EventKind::Unscheduled, "8 schedule", scheduled.to.as_ref(), text);
}

/// A member of the preferred region has been in sync for long enough. The detector looks at the window and the clock.
pub(crate) fn failback_ready(
    state: &mut State,
    change: &mut Change,
    name: &ClusterName,
    expected: Epoch,
    target: &MemberName,
    readiness: &Readiness,
) -> Result<(), Rejection> {
    let cluster = cluster(state, name)?;
    check_epoch(cluster, expected)?;
    check_automatic(cluster)?;
    precedence::check(cluster, Proposed::PlannedMove)?;
    let found = switchover::failback_target(cluster, readiness)?;
    if found != *target {
        return Err(Rejection::NotWaiting);
    }
    let region = cluster.config.members[&found].region.clone();
    match cluster.config.policy.failback {
        FailbackMode::Manual => Err(Rejection::NotWaiting),
        FailbackMode::Approval => {
            let known = cluster.pending_failback.as_ref();
            if known.is_some_and(|pending| pending.epoch == cluster.epoch && pending.target == found) {
                return Err(Rejection::NotWaiting);
            }
            let pending = PendingFailback {
                target: found.clone(),
                region: region.clone(),
                epoch: cluster.epoch,
                since_wall_ms: change.wall_ms,
            };
            cluster.pending_failback = Some(pending);
            let text = format!("failback to {found} ({region}) waits for approval");
            change.event(cluster, EventKind::ApprovalWanted, "8 failback", Some(&found), text);
            Ok(())
        }
        FailbackMode::Automatic => {
            let planned = Move {
                kind: Kind::Failback,
                target: found.clone(),
                trigger: Trigger::PreferredRegion { region: region.clone() },
                actor: "regent".into(),
                reason: format!("{found} is in sync in the preferred region {region}"),
                evidence: readiness.evidence.clone(),
            };
            switchover::begin(cluster, change, planned);
            Ok(())
        }
    }
}

/// An operator lets the failback go ahead that waits; the request was checked.
pub(crate) fn approve(
    cluster: &mut Cluster,
    change: &mut Change,
    request: &OperatorRequest,
    pending: &PendingFailback,
    readiness: &Readiness,
) -> Result<(), Rejection> {
    precedence::check(cluster, Proposed::PlannedMove)?;
    let target = guards::target(cluster, readiness, &guards::Wanted::Member(&pending.target))?;
    let text = format!("{} approves the failback to {target} ({})", request.actor, request.reason);
    change.event(cluster, EventKind::Approved, "8 failback", Some(&target), text);
    let planned = Move {
        kind: Kind::Failback,
        target,
        trigger: Trigger::PreferredRegion { region: pending.region.clone() },
        actor: request.actor.clone(),
        reason: request.reason.clone(),
        evidence: readiness.evidence.clone(),
    };
    switchover::begin(cluster, change, planned);
    let id = running(cluster).id;
    remember(cluster, request, Some(id));
    Ok(())
}
