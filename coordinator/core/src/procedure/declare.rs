//! *Declare*: whether an operation may begin. Once it may, `FenceDecided` is part of the same entry, so that only two
//! commits (this one and the proof) stand between detection and promotion.
//!
//! Declaring needs somebody who could take over: fencing a primary that nobody can replace would only be an outage.

use regent_types::{Automation, MemberName};

use super::{
    Change,
    automation::{remember, seen},
    check_epoch, cluster,
    failover::{begin_fence, promote_first},
    precedence::{self, Proposed, Running},
    rejoin::begin_rejoin,
    restraint,
    steps::{self, Start},
    switchover::take_over,
};
use crate::{
    Cluster, Declare, EventKind, Kind, OperationResult, OperatorRequest, Rejection, RequestKind, State, Step,
    SyncState, Trigger, proposal::Evidence,
};

/// The detector's wish.
pub(crate) fn declare(state: &mut State, change: &mut Change, declare: &Declare) -> Result<(), Rejection> {
    let cluster = cluster(state, &declare.cluster)?;
    check_epoch(cluster, declare.expected_epoch)?;
    check_member(cluster, &declare.member)?;
    match &declare.trigger {
        Trigger::Bootstrap => bootstrap(cluster, change, declare),
        Trigger::NotInSync { .. } => begin_rejoin(cluster, change, declare),
        Trigger::Operator | Trigger::Schedule { .. } | Trigger::PreferredRegion { .. } => {
            Err(Rejection::NotWaiting)
        }
        Trigger::Partition { .. }
        | Trigger::PostgresDown { .. }
        | Trigger::DiskFailure { .. }
        | Trigger::InstanceChanged { .. } => automatic_failover(cluster, change, declare),
    }
}

pub(super) fn check_member(cluster: &Cluster, member: &MemberName) -> Result<(), Rejection> {
    if cluster.config.members.contains_key(member) {
        return Ok(());
    }
    Err(Rejection::UnknownMember { cluster: cluster.config.name.clone(), member: member.clone() })
}

pub(super) fn check_automatic(cluster: &Cluster) -> Result<(), Rejection> {
    match cluster.automation {
        Automation::Automatic | Automation::Approve => Ok(()),
        Automation::Paused => Err(Rejection::Paused { by: cluster.paused_by.clone().unwrap_or_default() }),
        Automation::Observe => Err(Rejection::WrongMode {
            automation: cluster.automation.name().to_owned(),
            problem: "nothing is changed".to_owned(),
        }),
    }
}

fn bootstrap(cluster: &mut Cluster, change: &mut Change, declare: &Declare) -> Result<(), Rejection> {
    check_automatic(cluster)?;
    if cluster.appointment.is_some() {
        return Err(Rejection::AlreadyBootstrapped { epoch: cluster.epoch });
    }
    if cluster.config.initial_primary != declare.member {
        return Err(Rejection::NotPrimary { member: declare.member.clone(), epoch: cluster.epoch });
    }
    if cluster.import.is_some() {
        super::import::check_first(cluster, declare)?;
    } else if !declare.evidence.empty && cluster.adoption.is_none() {
        return Err(Rejection::NotEmpty { member: declare.member.clone() });
    }
    if declare.evidence.empty && cluster.adoption.is_some() {
        return Err(Rejection::NothingToAdopt { member: declare.member.clone() });
    }
    let (instance, boot) = declare.evidence.instance.clone().ok_or(Rejection::NoPrimary)?;
    let start = Start {
        kind: Kind::Bootstrap,
        trigger: Trigger::Bootstrap,
        actor: "regent".into(),
        reason: format!("{} is the configured initial primary", declare.member),
        evidence: declare.evidence.clone(),
    };
    steps::begin(cluster, change, start);
    promote_first(cluster, change, &declare.member, instance, boot, declare.evidence.empty);
    Ok(())
}

fn automatic_failover(
    cluster: &mut Cluster,
    change: &mut Change,
    declare: &Declare,
) -> Result<(), Rejection> {
    check_automatic(cluster)?;
    let appointment = cluster.appointment.as_ref().ok_or(Rejection::NoPrimary)?;
    if appointment.member != declare.member {
        return Err(Rejection::NotPrimary { member: declare.member.clone(), epoch: cluster.epoch });
    }
    if let Trigger::InstanceChanged { bound, .. } = &declare.trigger
        && appointment.instance != *bound
    {
        return Err(Rejection::NotPrimary { member: declare.member.clone(), epoch: cluster.epoch });
    }
    // An announced restart: its step's deadline ends it, and then this is no reason to refuse any more.
    if matches!(declare.trigger, Trigger::PostgresDown { .. })
        && super::restart::is_restarting(cluster, &declare.member)
        && let Some(operation) = &cluster.operation
    {
        return Err(Rejection::OperationRunning { operation: operation.id, step: operation.step });
    }
    precedence::check(cluster, Proposed::AutomaticFailover)?;
    let restrained = restraint::restrained(cluster);
    // After a restart of its guard the primary itself can be re-appointed.
    let restarted = matches!(declare.trigger, Trigger::InstanceChanged { .. });
    if !restarted {
        check_candidates(cluster, &declare.evidence, None)?;
        if let Some(why) = restrained {
            return restraint::declare_pending(cluster, change, declare, why);
        }
    }
    let mut reason = describe(&declare.trigger, &declare.member);
    if let Some(why) = &restrained {
        reason.push_str(&format!("; only {} itself may be appointed again ({why})", declare.member));
    }
    let start = Start {
        kind: Kind::Failover,
        trigger: declare.trigger.clone(),
        actor: "regent".into(),
        reason,
        evidence: declare.evidence.clone(),
    };
    let by = start.reason.clone();
    take_over(cluster, change, start, &by);
    if !restarted {
        restraint::begin_cooldown(cluster, change);
    } else if restrained.is_some() {
        super::running(cluster).wanted = Some(declare.member.clone());
    }
    begin_fence(cluster, change);
    Ok(())
}

/// An operator's failover.
pub(crate) fn request_failover(
    state: &mut State,
    change: &mut Change,
    request: &OperatorRequest,
) -> Result<(), Rejection> {
    let RequestKind::Failover { to, consent_to_loss, evidence } = &request.kind else {
        return Err(Rejection::NotWaiting);
    };
    let cluster = cluster(state, &request.cluster)?;
    if let Some(operation) = seen(cluster, request) {
        change.touched(cluster);
        change.answered(operation);
        return Ok(());
    }
    check_epoch(cluster, request.expected_epoch)?;
    for member in to.iter().chain(consent_to_loss) {
        check_member(cluster, member)?;
    }
    if let Some(consented) = consent_to_loss
        && waits_for_a_candidate(cluster)
    {
        consent(cluster, change, request, to.as_ref(), consented);
        return Ok(());
    }
    let appointment = cluster.appointment.as_ref().ok_or(Rejection::NoPrimary)?;
    for member in to.iter().chain(consent_to_loss) {
        if *member == appointment.member {
            return Err(Rejection::AlreadyPrimary { member: member.clone(), epoch: cluster.epoch });
        }
    }
    precedence::check(cluster, Proposed::OperatorFailover)?;
    check_candidates(cluster, evidence, to.as_ref())?;
    let start = Start {
        kind: Kind::Failover,
        trigger: Trigger::Operator,
        actor: request.actor.clone(),
        reason: request.reason.clone(),
        evidence: evidence.clone(),
    };
    take_over(cluster, change, start, &format!("an operator's failover ({})", request.reason));
    let operation = super::running(cluster);
    operation.wanted = to.clone();
    operation.consent = consent_to_loss.clone();
    let id = operation.id;
    remember(cluster, request, Some(id));
    begin_fence(cluster, change);
    Ok(())
}

/// A failover that fences or chooses: it can still be told whose loss is accepted.
fn waits_for_a_candidate(cluster: &Cluster) -> bool {
    let operation = cluster.operation.as_ref();
    operation.is_some_and(|o| o.kind == Kind::Failover && matches!(o.step, Step::Fence | Step::Choose))
}

/// An operator's consent reaches the running failover; the candidates' next reports are judged by it. Without this an
/// operation that waits because of `max_lag` could never go on.
fn consent(
    cluster: &mut Cluster,
    change: &mut Change,
    request: &OperatorRequest,
    to: Option<&MemberName>,
    consented: &MemberName,
) {
    let operation = super::running(cluster);
    operation.consent = Some(consented.clone());
    if let Some(to) = to {
        operation.wanted = Some(to.clone());
    }
    let id = operation.id;
    remember(cluster, request, Some(id));
    let text = format!("{} consents to lose what {consented} lacks ({})", request.actor, request.reason);
    change.event(cluster, EventKind::Waiting, "8 consent to loss", Some(consented), text);
}

/// Somebody who is heard and in sync could take over.
pub(super) fn check_candidates(
    cluster: &Cluster,
    evidence: &Evidence,
    wanted: Option<&MemberName>,
) -> Result<(), Rejection> {
    let appointment = cluster.appointment.as_ref();
    let primary = appointment.map(|appointment| &appointment.member);
    let newest = cluster.history.last().map(|record| record.epoch);
    let mut reasons = Vec::new();
    for (name, member) in cluster.config.members.iter().filter(|(name, _)| Some(*name) != primary) {
        let reason = if !member.promotable {
            "not promotable by configuration".to_owned()
        } else if let Some(wanted) = wanted.filter(|wanted| *wanted != name) {
            format!("{wanted} was asked for")
        } else if !evidence.heard.contains(name) {
            "its agent is not heard".to_owned()
        } else {
            match cluster.sync.get(name) {
                Some(SyncState::Confirmed { epoch }) if Some(*epoch) == newest => {
                    match appointment.map_or(Ok(()), |primary| cluster.promotable.asks(primary, name)) {
                        Ok(()) => return Ok(()),
                        Err(not_asked) => not_asked.to_string(),
                    }
                }
                Some(SyncState::Confirmed { epoch }) => format!("in sync with epoch {epoch} only"),
                Some(SyncState::Unconfirmed { why }) => format!("not in sync ({why})"),
                None => "never in sync".to_owned(),
            }
        };
        reasons.push(format!("{name}: {reason}"));
    }
    if reasons.is_empty() {
        reasons.push("the cluster has no other member".to_owned());
    }
    Err(Rejection::NoCandidate { reasons: reasons.join("; ") })
}

/// Ends a running operation that gives way; [`precedence`] has said that it may.
pub(crate) fn supersede(cluster: &mut Cluster, change: &mut Change, by: &str) {
    let Some(operation) = &cluster.operation else { return };
    let result = match operation.kind {
        Kind::Switchover | Kind::Failback if precedence::running(cluster) != Running::Verified => {
            OperationResult::Aborted { reason: format!("gave way to: {by}") }
        }
        Kind::Rejoin { .. } | Kind::Restart { .. } | Kind::Drill { .. } => {
            OperationResult::Aborted { reason: format!("gave way to: {by}") }
        }
        // The promotion itself was verified.
        Kind::Bootstrap | Kind::Failover | Kind::Switchover | Kind::Failback => {
            let warning = format!("cut short in {:?} by: {by}", operation.step);
            OperationResult::Done { warning: Some(warning) }
        }
        Kind::Observed { .. } => unreachable!("what is only observed never runs"),
    };
    steps::finish(cluster, change, result, "superseded".into());
}

pub(super) fn describe(trigger: &Trigger, member: &MemberName) -> String {
    match trigger {
        Trigger::Partition { silent_ms } => {
            format!("no coordinator that reaches the leader has heard {member} for {silent_ms} ms")
        }
        Trigger::PostgresDown { down_ms } => {
            format!("PostgreSQL of {member} has accepted no connection for {down_ms} ms")
        }
        Trigger::DiskFailure { probe } => format!("the data directory's disk of {member} failed: {probe}"),
        Trigger::InstanceChanged { bound, found } => {
            format!("the guard of {member} restarted: instance {bound} is gone, {found} is there")
        }
        Trigger::Bootstrap
        | Trigger::Operator
        | Trigger::NotInSync { .. }
        | Trigger::Schedule { .. }
        | Trigger::PreferredRegion { .. } => String::new(),
    }
}

/// An event for the beginning of the operation.
pub(crate) fn declared(cluster: &Cluster, change: &mut Change, member: &MemberName) {
    let Some(operation) = &cluster.operation else { return };
    let text = format!("{}: {}", name(&operation.kind), operation.reason);
    change.event(cluster, EventKind::Declared, "7 trigger", Some(member), text);
}

fn name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Bootstrap => "bootstrap",
        Kind::Failover => "failover",
        Kind::Rejoin { .. } => "rejoin",
        Kind::Switchover => "switchover",
        Kind::Failback => "failback",
        Kind::Restart { reload_only: true, .. } => "reload",
        Kind::Restart { .. } => "restart",
        Kind::Drill { full: false, .. } => "drill",
        Kind::Drill { full: true, .. } => "full drill",
        Kind::Observed { .. } => "observed",
    }
}
