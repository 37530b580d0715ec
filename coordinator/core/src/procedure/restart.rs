//! An operator restarts PostgreSQL on one member, or has it read its configuration again, in its present role.
//!
//! A restart of the primary is no failover: the epoch stays, and so does the lease, which the agent goes on renewing. The
//! detector leaves the dead server alone for as long as the restart may take (`promote_timeout`); afterwards, or when
//! anything else happens to the primary (silence, a failing disk, another guard), a failover comes as usual and this
//! operation gives way.
//!
//! The interleaving that would break it: a restart that never ends keeps a dead primary from being failed over. The deadline
//! is the step's own, counted by whoever leads, so it is late by a change of leader at most. `restarts.rs` has the test.

use std::collections::BTreeMap;

use regent_types::{Directive, MemberName};

use super::{
    Change,
    automation::{remember, seen},
    check_epoch, cluster,
    declare::{check_member, declared},
    running,
    steps::{self, Start},
};
use crate::{
    Cluster, EffectKind, Kind, OperationResult, OperatorRequest, Rejection, RequestKind, State, Step,
    Trigger, proposal::Evidence,
};

/// An operator's restart or reload.
pub(crate) fn request(
    state: &mut State,
    change: &mut Change,
    request: &OperatorRequest,
) -> Result<(), Rejection> {
    let RequestKind::Restart { member, reload_only, behind } = &request.kind else {
        return Err(Rejection::NotWaiting);
    };
    let cluster = cluster(state, &request.cluster)?;
    if let Some(operation) = seen(cluster, request) {
        change.touched(cluster);
        change.answered(operation);
        return Ok(());
    }
    check_epoch(cluster, request.expected_epoch)?;
    check_member(cluster, member)?;
    if let Some(other) = &cluster.operation {
        return Err(Rejection::OperationRunning { operation: other.id, step: other.step });
    }
    let established = cluster.leasable().filter(|appointment| appointment.established.is_some());
    let primary = established.ok_or(Rejection::NoPrimary)?.member == *member;
    if primary && !reload_only {
        check_standbys(cluster, member, behind)?;
    }
    let start = Start {
        kind: Kind::Restart { member: member.clone(), reload_only: *reload_only },
        trigger: Trigger::Operator,
        actor: request.actor.clone(),
        reason: request.reason.clone(),
        evidence: Evidence::default(),
    };
    steps::begin(cluster, change, start);
    let operation = running(cluster);
    operation.target = Some(member.clone());
    let id = operation.id;
    remember(cluster, request, Some(id));
    declared(cluster, change, member);
    let role = if primary { "primary" } else { "standby" };
    steps::enter(running(cluster), change, Step::Restart, format!("{member} is {role}"));
    let epoch = cluster.epoch;
    let directive = Directive::Restart { epoch, primary, reload_only: *reload_only };
    steps::add_effect(cluster, change, epoch, EffectKind::Agent { member: member.clone(), directive });
    Ok(())
}

/// A primary that comes back with more connections (or another of [`regent_types::STANDBY_NEEDS`]) than a standby has stops that
/// standby's replay, and with it everything that a failover would promote. Who was not heard is not waited for: a lost standby
/// must not keep its primary from being restarted, and its agent starts it with the new value anyway.
fn check_standbys(
    cluster: &Cluster,
    primary: &MemberName,
    behind: &BTreeMap<MemberName, Vec<String>>,
) -> Result<(), Rejection> {
    let standbys = behind.iter().filter(|(name, what)| {
        *name != primary && !what.is_empty() && cluster.config.members.contains_key(*name)
    });
    let behind: Vec<String> = standbys.map(|(name, what)| format!("{name} ({})", what.join(", "))).collect();
    if behind.is_empty() {
        return Ok(());
    }
    Err(Rejection::StandbysBehind { primary: primary.clone(), behind: behind.join(" and ") })
}

/// The server runs again in its role.
pub(crate) fn restarted(cluster: &mut Cluster, change: &mut Change, elapsed_ms: u64) {
    let evidence = format!("PostgreSQL accepts connections in its role, {elapsed_ms} ms after the directive");
    steps::finish(cluster, change, OperationResult::Done { warning: None }, evidence);
}

/// Refused by the agent, or overdue.
pub(crate) fn failed(cluster: &mut Cluster, change: &mut Change, reason: &str) {
    let result = OperationResult::Aborted { reason: reason.to_owned() };
    steps::finish(cluster, change, result, "not restarted".into());
}

/// A restart of this member runs: that its server is down is expected.
pub(crate) fn is_restarting(cluster: &Cluster, member: &MemberName) -> bool {
    cluster
        .operation
        .as_ref()
        .is_some_and(|operation| operation.step == Step::Restart && operation.target.as_ref() == Some(member))
}
