//! The drill: rehearses the loss of the primary's region on the live system.
//!
//! ```text
//! Declare -> Detect: the leader counts the region's members as silent in a second detector, beside the one that decides
//!   -- commit (WouldDeclare): the declaration is tried on a copy of the cluster; what came of it is the finding
//!      stop before promotion (default): Done
//!      full: Away (a switchover) -> Confirm -> Back (a switchover) -> Confirm -> Done
//! ```
//!
//! The cut concerns the *detector* only. Heartbeats are answered and leases granted as ever, so a drill cannot cost a lease,
//! and there is nothing to be lifted: the second detector is memory of the leader that dies with it, with its leadership, and
//! with this operation. What it shows is everything from "the coordinators hear nothing" on: ages told between coordinators,
//! thresholds, the quorum of relays, evidence, guards, candidates, and the very declaration, judged by the very code. What it
//! does not show: that an agent's broken network looks like silence. Which way mistakes fall: a drill may find fault where a
//! real failover would have worked (a new leader's second detector begins with nothing heard of the region, so detection
//! takes longer), never the other way.
//!
//! Both ways of a full drill are *switchovers*: nothing is fenced by expiry and nothing is lost, or the move is rolled back.
//!
//! Invariants: no `FenceDecided`, effect, lease or epoch comes of *Detect*; a real failover ends any drill at once; a full
//! drill that cannot go on ends where it is, with the primary's name in its report, and begins nothing more.
//!
//! Interleavings to fear:
//! - *A real failover is declared while the drill's finding is under way.* The finding names the drill's operation, which is
//!   gone: refused. `71-drill-superseded.txt`.
//! - *The finding of a drill is taken for a declaration.* It is another proposal (`Drill`), its `Declare` is applied to a copy,
//!   and of that copy only words are kept. `70-drill.txt` shows that epoch, lease
//!   and primary stay.
//! - *A leader of an older build* never sees a drill: it is of feature level 2.

use regent_types::{ClusterName, MemberName, OperationId};

use super::{
    Change,
    automation::{remember, seen},
    check_epoch, cluster,
    declare::{self, check_automatic, declared},
    guards,
    precedence::{self, Proposed, Running},
    running,
    steps::{self, Start, enter, finish},
    switchover::{self, Move},
};
use crate::{
    Cluster, Declare, DrillFindings, DrillNews, DrillStage, EventKind, Kind, OperationResult,
    OperatorRequest, Proposal, Readiness, Rehearsal, Rejection, RequestKind, State, Step, Trigger,
};

const RULE: &str = "8 drill";

/// An operator wants a drill.
pub(crate) fn request(
    state: &mut State,
    change: &mut Change,
    request: &OperatorRequest,
) -> Result<(), Rejection> {
    let RequestKind::Drill { full, readiness } = &request.kind else { return Err(Rejection::NotWaiting) };
    let cluster = cluster(state, &request.cluster)?;
    if let Some(operation) = seen(cluster, request) {
        change.touched(cluster);
        change.answered(operation);
        return Ok(());
    }
    check_epoch(cluster, request.expected_epoch)?;
    check_automatic(cluster)?;
    precedence::check(cluster, Proposed::Drill)?;
    let (appointment, _) = cluster.established().ok_or(Rejection::NoPrimary)?;
    let primary = appointment.member.clone();
    let region = cluster.config.members[&primary].region.clone();
    let target = in_order(cluster, readiness, &guards::Wanted::Outside(&region))?;
    let start = Start {
        kind: Kind::Drill { region, full: *full },
        trigger: Trigger::Operator,
        actor: request.actor.clone(),
        reason: request.reason.clone(),
        evidence: readiness.evidence.clone(),
    };
    steps::begin(cluster, change, start);
    running(cluster).target = Some(target);
    let id = running(cluster).id;
    remember(cluster, request, Some(id));
    declared(cluster, change, &primary);
    let text = format!("{primary} counts as silent for this drill only; leases and the real detection go on");
    change.event(cluster, EventKind::Drill, RULE, Some(&primary), text.clone());
    enter(running(cluster), change, Step::Detect, text);
    Ok(())
}

/// Whatever would keep a failover from beginning by itself is not to be found out by a drill.
fn in_order(
    cluster: &Cluster,
    readiness: &Readiness,
    wanted: &guards::Wanted<'_>,
) -> Result<MemberName, Rejection> {
    let mut no = Vec::new();
    if let Some(cooldown) = &cluster.cooldown {
        no.push(format!("guard cooldown: operation {} is not acknowledged", cooldown.operation));
    }
    if let Some(pending) = &cluster.pending {
        no.push(format!("guard pending: a failover of {} waits for an operator", pending.member));
    }
    if let Some(scheduled) = &cluster.scheduled {
        no.push(format!("guard scheduled: a switchover begins at {} ms", scheduled.at_wall_ms));
    }
    match guards::target(cluster, readiness, wanted) {
        Ok(target) if no.is_empty() => Ok(target),
        Ok(_) => Err(Rejection::GuardsSayNo { guards: no }),
        Err(Rejection::GuardsSayNo { guards }) => {
            no.extend(guards);
            Err(Rejection::GuardsSayNo { guards: no })
        }
        Err(other) => Err(other),
    }
}

/// The leader has something to say about a drill.
pub(crate) fn news(
    state: &mut State,
    change: &mut Change,
    name: &ClusterName,
    operation: OperationId,
    news: &DrillNews,
) -> Result<(), Rejection> {
    let cluster = cluster(state, name)?;
    let detecting = precedence::running(cluster) == Running::Drilling && running(cluster).id == operation;
    let touring = cluster.rehearsal.as_ref().is_some_and(|rehearsal| rehearsal.drill.id == operation);
    match news {
        DrillNews::WouldDeclare(declare) if detecting => found(cluster, change, declare),
        DrillNews::Overdue { after_ms, why } if detecting => {
            let reason = format!("no failover would have begun within {after_ms} ms: {why}");
            finish(cluster, change, OperationResult::Aborted { reason: reason.clone() }, reason);
            Ok(())
        }
        DrillNews::Overdue { after_ms, why } if touring => {
            end(cluster, change, Some(format!("no progress for {after_ms} ms: {why}")));
            Ok(())
        }
        DrillNews::Next { readiness } if touring => next(cluster, change, readiness),
        _ => Err(Rejection::NotWaiting),
    }
}

/// The declaration that the detector would make is tried on a copy.
fn found(cluster: &mut Cluster, change: &mut Change, declare: &Declare) -> Result<(), Rejection> {
    check_epoch(cluster, declare.expected_epoch)?;
    let Trigger::Partition { silent_ms } = declare.trigger else { return Err(Rejection::NotWaiting) };
    if silent_ms < cluster.config.policy.partition_timeout_ms {
        return Err(Rejection::NotWaiting);
    }
    let Kind::Drill { full, .. } = running(cluster).kind else { return Err(Rejection::NotWaiting) };
    let verdict = would(cluster, change, declare)?;
    let snapshot = declare.evidence.snapshot.as_deref();
    let able = snapshot.into_iter().flat_map(|snapshot| &snapshot.candidates).filter(|one| one.able);
    let candidate = able.min_by_key(|one| one.lag_bytes).map(|one| one.member.clone());
    let drill = running(cluster);
    drill.evidence = declare.evidence.clone();
    let candidate = candidate.or_else(|| drill.target.clone());
    let whom = candidate.as_ref().map_or("nobody".to_owned(), ToString::to_string);
    let text = format!("silent for {silent_ms} ms: {verdict}; {whom} would be promoted");
    drill.drill = Some(Box::new(DrillFindings {
        verdict,
        silent_ms,
        candidate: candidate.clone(),
        loss: snapshot.and_then(|snapshot| snapshot.loss.clone()),
    }));
    change.event(cluster, EventKind::Drill, RULE, candidate.as_ref(), text.clone());
    if !full {
        finish(cluster, change, OperationResult::Done { warning: None }, text);
        return Ok(());
    }
    let origin = declare.member.clone();
    let away = running(cluster).target.clone().expect("a drill has a target");
    enter(running(cluster), change, Step::Away, text);
    change.touched(cluster);
    let drill = cluster.operation.take().expect("checked: the drill is running");
    let drill = Box::new(drill);
    cluster.rehearsal = Some(Rehearsal { drill, origin, away, stage: DrillStage::Leaving });
    Ok(())
}

/// What would come of the declaration, in words; a rejection when nothing would.
fn would(cluster: &Cluster, change: &Change, declare: &Declare) -> Result<String, Rejection> {
    let mut alone = cluster.clone();
    alone.operation = None;
    let mut state = State::default();
    state.clusters.insert(cluster.config.name.clone(), alone);
    let body = crate::Body::Declare(declare.clone());
    let proposal = Proposal { wall_ms: change.wall_ms, proposer: change.at.leadership.node, body };
    let mut tried = Change::new(change.at, &proposal);
    declare::declare(&mut state, &mut tried, declare)?;
    let applied = tried.finish(&mut state);
    let fences = applied.events.iter().any(|event| event.kind == EventKind::FenceDecided);
    Ok(if fences {
        "a failover would begin".to_owned()
    } else {
        let text = applied.events.first().map(|event| event.text.clone()).unwrap_or_default();
        format!("a failover would wait for an operator ({text})")
    })
}

/// The next stage of a full drill, when it is possible.
fn next(cluster: &mut Cluster, change: &mut Change, readiness: &Readiness) -> Result<(), Rejection> {
    if let Some(operation) = &cluster.operation {
        return Err(Rejection::OperationRunning { operation: operation.id, step: operation.step });
    }
    // The guards are asked while the drill is still in its place: a refusal changes nothing.
    let rehearsal = cluster.rehearsal.as_ref().expect("checked: a drill is on its way");
    let (origin, away) = (rehearsal.origin.clone(), rehearsal.away.clone());
    match rehearsal.stage.clone() {
        DrillStage::Leaving => set_out(cluster, change, readiness, &away, true),
        DrillStage::Returning => set_out(cluster, change, readiness, &origin, false),
        DrillStage::Away { operation } => {
            arrived(cluster, change, operation, &away, DrillStage::Returning);
            Ok(())
        }
        DrillStage::Back { operation } => {
            arrived(cluster, change, operation, &origin, DrillStage::Settling);
            Ok(())
        }
        DrillStage::Settling => {
            guards::target(cluster, readiness, &guards::Wanted::Member(&away))?;
            end(cluster, change, None);
            Ok(())
        }
    }
}

/// Begins a switchover of the drill's own.
fn set_out(
    cluster: &mut Cluster,
    change: &mut Change,
    readiness: &Readiness,
    to: &MemberName,
    leaving: bool,
) -> Result<(), Rejection> {
    check_automatic(cluster)?;
    let to = in_order(cluster, readiness, &guards::Wanted::Member(to))?;
    // Out of its place while the move begins, so that it does not give way to its own move.
    let mut rehearsal = cluster.rehearsal.take().expect("checked: a drill is on its way");
    let drill = &mut rehearsal.drill;
    let planned = Move {
        kind: Kind::Switchover,
        target: to.clone(),
        trigger: Trigger::Operator,
        actor: drill.actor.clone(),
        reason: format!("drill {}: {}", drill.id, drill.reason),
        evidence: readiness.evidence.clone(),
    };
    switchover::begin(cluster, change, planned);
    let operation = running(cluster).id;
    if leaving {
        rehearsal.stage = DrillStage::Away { operation };
    } else {
        enter(drill, change, Step::Back, format!("in sync with {to}; operation {operation} moves back"));
        rehearsal.stage = DrillStage::Back { operation };
    }
    cluster.rehearsal = Some(rehearsal);
    Ok(())
}

/// A move of the drill's own has ended.
fn arrived(
    cluster: &mut Cluster,
    change: &mut Change,
    operation: OperationId,
    at: &MemberName,
    next: DrillStage,
) {
    let move_ = cluster.finished.iter().find(|old| old.id == operation);
    let done = move_.is_some_and(|old| matches!(old.result, Some(OperationResult::Done { .. })));
    let there = cluster.established().is_some_and(|(appointment, _)| appointment.member == *at);
    if !done || !there {
        let why = move_.and_then(|old| match (&old.rollback, &old.result) {
            (Some(reason), _) | (None, Some(OperationResult::Aborted { reason })) => Some(reason.clone()),
            _ => None,
        });
        let why = why.unwrap_or_else(|| "another member is primary".to_owned());
        end(cluster, change, Some(format!("operation {operation} did not move the primary to {at}: {why}")));
        return;
    }
    let rehearsal = cluster.rehearsal.as_mut().expect("checked: a drill is on its way");
    enter(&mut rehearsal.drill, change, Step::Confirm, format!("{at} is primary by operation {operation}"));
    rehearsal.stage = next;
    let text = format!("drill {}: {at} is primary; waiting for sync confirmed", rehearsal.drill.id);
    change.event(cluster, EventKind::Drill, RULE, Some(at), text);
}

/// Ends a drill that is on its way; `failed` says why it did not come to its end.
fn end(cluster: &mut Cluster, change: &mut Change, failed: Option<String>) {
    let Some(rehearsal) = cluster.rehearsal.take() else { return };
    let primary = cluster.appointment.as_ref().map_or("nobody".to_owned(), |a| a.member.to_string());
    let (result, evidence) = match failed {
        None => {
            let text = format!("{} is primary again, {} is in sync", rehearsal.origin, rehearsal.away);
            (OperationResult::Done { warning: None }, text)
        }
        Some(why) => {
            let reason = format!("{why}; {primary} is primary, it was {} before", rehearsal.origin);
            (OperationResult::Aborted { reason: reason.clone() }, reason)
        }
    };
    steps::finish_beside(cluster, change, *rehearsal.drill, result, evidence);
}

/// A change of primary begins that is not the drill's.
pub(super) fn superseded(cluster: &mut Cluster, change: &mut Change, by: &str) {
    end(cluster, change, Some(format!("gave way to: {by}")));
}

/// An operator stops a drill. A switchover of its own that runs is aborted as any other.
pub(super) fn abort(cluster: &mut Cluster, change: &mut Change, who: &str) {
    let reason = format!("aborted by {who}");
    if precedence::running(cluster) == Running::Drilling {
        finish(cluster, change, OperationResult::Aborted { reason: reason.clone() }, reason);
    } else {
        end(cluster, change, Some(reason));
    }
}
