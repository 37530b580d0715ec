//! Rejoin: a member becomes a standby of the primary; *sync confirmed* ends it. Until then it is not promotable.

use regent_types::{
    Branch, ClusterName, Directive, EffectKey, Epoch, Lsn, MemberName, RejoinMethod, RejoinedEvidence,
    Upstream,
};

use super::{
    Change, check_epoch, cluster,
    declare::{check_automatic, declared},
    precedence::{self, Proposed},
    running,
    steps::{self, Start, add_effect, enter, finish, retire},
};
use crate::{
    Cluster, Declare, EffectKind, EventKind, Kind, LossReport, Operation, OperationResult, Rejection, State,
    Step, SyncState, Trigger,
};

/// The detector has found a member that is not a confirmed standby.
pub(crate) fn begin_rejoin(
    cluster: &mut Cluster,
    change: &mut Change,
    declare: &Declare,
) -> Result<(), Rejection> {
    // A rejoin rewinds and clones: not while an operator has asked that nothing begins.
    check_automatic(cluster)?;
    let member = &declare.member;
    let (appointment, _) = cluster.established().ok_or(Rejection::NoPrimary)?;
    let (primary, epoch) = (appointment.member.clone(), appointment.epoch);
    if *member == primary {
        return Err(Rejection::NoRejoin {
            member: member.clone(),
            reason: format!("it is the primary of epoch {epoch}"),
        });
    }
    precedence::check(cluster, Proposed::Rejoin)?;
    let adopts = cluster.adoption.as_ref().is_some_and(|adoption| adoption.standbys.contains(member));
    if adopts && declare.evidence.primary_lsn.is_none() {
        // It is compared with once: without it a standby that fits would be cloned.
        let reason = format!("the end of the WAL of {primary} is not known yet");
        return Err(Rejection::NoRejoin { member: member.clone(), reason });
    }
    let why = match &declare.trigger {
        Trigger::NotInSync { why } => why.clone(),
        _ => String::new(),
    };
    let start = Start {
        kind: Kind::Rejoin { member: member.clone() },
        trigger: declare.trigger.clone(),
        actor: "regent".into(),
        reason: format!("{member} is not in sync with {primary}: {why}"),
        evidence: declare.evidence.clone(),
    };
    cluster.sync.insert(member.clone(), SyncState::Unconfirmed { why });
    super::declare::supersede(cluster, change, &start.reason);
    steps::begin(cluster, change, start);
    running(cluster).target = Some(member.clone());
    declared(cluster, change, member);
    let reason = running(cluster).reason.clone();
    enter(running(cluster), change, Step::Rebuild, reason);
    match super::adopt::claim_standby(cluster, member, declare.evidence.lineage) {
        Some(directive) => {
            add_effect(cluster, change, epoch, EffectKind::Agent { member: member.clone(), directive });
        }
        None => send(cluster, change),
    }
    Ok(())
}

/// The directive to the rejoining member.
pub(crate) fn send(cluster: &mut Cluster, change: &mut Change) {
    let (appointment, established) = cluster.established().expect("checked: there is a primary");
    let (primary, epoch) = (appointment.member.clone(), appointment.epoch);
    let operation = super::running(cluster);
    let member = operation.target.clone().expect("a rejoin has a target");
    let lineage = operation.evidence.lineage;
    let config = &cluster.config.members[&primary];
    let upstream = Upstream {
        member: primary.clone(),
        epoch,
        host: config.host.clone(),
        port: config.port,
        timeline: established.timeline,
    };
    let branches = branches(cluster, lineage);
    let rewind_timeout_ms = cluster.config.policy.rewind_timeout_ms;
    let directive = Directive::Rejoin { upstream, branches, rewind_timeout_ms };
    add_effect(cluster, change, epoch, EffectKind::Agent { member, directive });
}

/// Where each epoch since `lineage` ended, oldest first. Epochs whose primary was re-appointed in place are named too: a
/// member whose lineage is one of them finds itself in the list. WAL beyond the first branch at which the timeline
/// changed is divergent.
fn branches(cluster: &Cluster, lineage: Epoch) -> Vec<Branch> {
    let pairs = cluster.history.windows(2);
    pairs
        .filter(|pair| pair[1].epoch > lineage)
        .map(|pair| Branch {
            epoch: pair[0].epoch,
            timeline: pair[0].established.timeline,
            switch_lsn: pair[1].established.switch_lsn,
        })
        .collect()
}

/// The member has started as a standby.
pub(crate) fn rejoined(
    cluster: &mut Cluster,
    change: &mut Change,
    key: &EffectKey,
    evidence: &RejoinedEvidence,
) {
    retire(cluster, key);
    let member = running(cluster).target.clone();
    let why = evidence.reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})"));
    let text = format!(
        "{:?}{why}: {} bytes copied in {} ms",
        evidence.method, evidence.copied_bytes, evidence.elapsed_ms
    );
    change.event(cluster, EventKind::Rejoined, "8 rejoin", member.as_ref(), text.clone());
    enter(running(cluster), change, Step::Confirm, text);
    if let Some(member) = member {
        settle_loss(cluster, change, &member, evidence);
    }
}

/// The old primary has been read: what its failover lost is known now.
fn settle_loss(cluster: &mut Cluster, change: &mut Change, member: &MemberName, evidence: &RejoinedEvidence) {
    // What a rejoin has once replaced cannot be read again: a later "nothing diverged" says nothing of it.
    let replaced = cluster.finished.iter().filter(|operation| {
        operation.kind == Kind::Rejoin { member: member.clone() }
            && operation.steps.iter().any(|record| record.step == Step::Confirm)
    });
    let replaced = replaced.map(|operation| operation.id).max();
    // Under another epoch: what such a rejoin did before it gave way is not told by the next one.
    let epoch = cluster.epoch;
    let unheard = cluster.finished.iter().filter(|operation| {
        operation.kind == Kind::Rejoin { member: member.clone() }
            && operation.steps.iter().all(|record| record.step != Step::Confirm)
            && operation.from.as_ref().is_some_and(|from| from.epoch != epoch)
    });
    let unheard = unheard.map(|operation| operation.id).max();
    let open = cluster.finished.iter_mut().rev().find(|operation| {
        matches!(operation.loss, LossReport::UpperBound(_))
            && Some(operation.id) > replaced
            && may_have_lost(operation, member)
    });
    let Some(operation) = open else { return };
    // A member names its last salvage with every rejoin, because an earlier rejoin that made it may have given way to
    // another epoch before it was heard. One of an older epoch is of an older failover.
    let ended = operation.from.as_ref().map_or(Epoch::NONE, |from| from.epoch);
    let salvage = evidence.salvage.as_ref().filter(|salvage| salvage.epoch >= ended);
    let loss = match (salvage, evidence.method) {
        (Some(salvage), _) => LossReport::Final(salvage.clone()),
        (None, RejoinMethod::Unchanged | RejoinMethod::Repointed) if unheard < Some(operation.id) => {
            LossReport::None
        }
        // Cloned over nothing readable, now or perhaps by a rejoin that was not heard, or rewound without a word of what
        // diverged: it stays an upper bound.
        (None, _) => return,
    };
    let id = operation.id;
    let text = match &loss {
        LossReport::Final(salvage) => format!(
            "operation {id} lost {} transactions, {} bytes ({} to {}), kept in {}",
            salvage.transactions,
            salvage.bytes(),
            salvage.from_lsn,
            salvage.to_lsn,
            salvage.folder
        ),
        _ => format!("operation {id} lost nothing"),
    };
    operation.loss = loss;
    change.event(cluster, EventKind::LossFinal, "8 loss", Some(member), text);
}

/// Whether it is `member` that has to be read for this operation's loss: the old primary, or a target named in between
/// when the old primary came back.
fn may_have_lost(operation: &Operation, member: &MemberName) -> bool {
    let Some(from) = &operation.from else { return false };
    if operation.target.as_ref() != Some(&from.member) {
        return from.member == *member;
    }
    from.member != *member && operation.fences.iter().any(|record| record.member == *member)
}

/// It could not: the detector will declare it again.
pub(crate) fn rejoin_failed(cluster: &mut Cluster, change: &mut Change, reason: &str) {
    if let Some(member) = running(cluster).target.clone() {
        cluster.sync.insert(member, SyncState::Unconfirmed { why: reason.to_owned() });
    }
    let result = OperationResult::Aborted { reason: reason.to_owned() };
    finish(cluster, change, result, reason.to_owned());
}

/// The standby was in sync for the whole window.
pub(crate) fn sync_confirmed(
    state: &mut State,
    change: &mut Change,
    name: &ClusterName,
    member: &MemberName,
    epoch: Epoch,
    received_lsn: Lsn,
) -> Result<(), Rejection> {
    let cluster = cluster(state, name)?;
    check_epoch(cluster, epoch)?;
    let confirming = cluster.operation.as_ref().is_some_and(|operation| {
        operation.step == Step::Confirm && operation.target.as_ref() == Some(member)
    });
    if !confirming {
        return Err(Rejection::NotWaiting);
    }
    cluster.sync.insert(member.clone(), SyncState::Confirmed { epoch });
    let text = format!("{member} streams epoch {epoch}, received {received_lsn}");
    change.event(cluster, EventKind::SyncConfirmed, "8 sync confirmed", Some(member), text.clone());
    finish(cluster, change, OperationResult::Done { warning: None }, text);
    Ok(())
}
