//! Adding and removing members while the cluster runs.
//!
//! A new member counts for nothing at first: it is cloned, and against a primary's lease it may be promoted only
//! once that primary asks it for promises ([`crate::PromotableList`]). A removal counts at once: the primary that
//! still asks the removed member for a promise asks more than it must. A member that comes back after a removal has to
//! forget its data first, because nobody knows what was done to it outside.

use regent_types::{ClusterName, MemberName};

use super::{
    Change,
    automation::{remember, seen},
    check_epoch, cluster, steps,
};
use crate::{
    Cluster, EventKind, Kind, MemberConfig, OperationResult, OperatorRequest, Rejection, RemovedMember,
    RequestKind, State, SyncState,
};

/// An operator adds or removes a member.
pub(crate) fn request(
    state: &mut State,
    change: &mut Change,
    request: &OperatorRequest,
) -> Result<(), Rejection> {
    let cluster = cluster(state, &request.cluster)?;
    if seen(cluster, request).is_some() {
        change.touched(cluster);
        return Ok(());
    }
    check_epoch(cluster, request.expected_epoch)?;
    match &request.kind {
        RequestKind::AddMember { member, config } => add(cluster, change, request, member, config),
        RequestKind::RemoveMember { member } => remove(cluster, change, request, member),
        RequestKind::SetMember { member, changes } => {
            super::member_changes::set(cluster, change, request, member, changes)
        }
        _ => Err(Rejection::NotWaiting),
    }
}

/// Only a rejoin may run: every other operation has looked at the list and goes on by what it saw.
pub(super) fn check_quiet(cluster: &Cluster) -> Result<(), Rejection> {
    match &cluster.operation {
        Some(operation) if !matches!(operation.kind, Kind::Rejoin { .. }) => {
            Err(Rejection::OperationRunning { operation: operation.id, step: operation.step })
        }
        _ => Ok(()),
    }
}

fn add(
    cluster: &mut Cluster,
    change: &mut Change,
    request: &OperatorRequest,
    member: &MemberName,
    config: &MemberConfig,
) -> Result<(), Rejection> {
    check_quiet(cluster)?;
    if cluster.config.members.contains_key(member) {
        let (cluster, member) = (cluster.config.name.clone(), member.clone());
        return Err(Rejection::AlreadyMember { cluster, member });
    }
    let same = |other: &MemberConfig| other.host == config.host && other.port == config.port;
    if let Some((other, _)) = cluster.config.members.iter().find(|(_, other)| same(other)) {
        let address = format!("{}:{}", config.host, config.port);
        return Err(Rejection::AddressTaken { address, by: other.to_string() });
    }
    let membership = &mut cluster.membership;
    membership.version += 1;
    let back = membership.removed.remove(member).is_some();
    if back {
        membership.returning.insert(member.clone());
    }
    let version = membership.version;
    cluster.config.members.insert(member.clone(), config.clone());
    cluster.sync.insert(member.clone(), SyncState::Unconfirmed { why: "it was added".into() });
    remember(cluster, request, None);
    let again = if back { ", back after a removal: only a clone may follow" } else { "" };
    let text = format!(
        "{member} in {} ({}:{}) is a member since list {version}{again} ({}: {})",
        config.region, config.host, config.port, request.actor, request.reason
    );
    change.event(cluster, EventKind::MemberAdded, "6 member list", Some(member), text);
    Ok(())
}

fn remove(
    cluster: &mut Cluster,
    change: &mut Change,
    request: &OperatorRequest,
    member: &MemberName,
) -> Result<(), Rejection> {
    if !cluster.config.members.contains_key(member) {
        let (cluster, member) = (cluster.config.name.clone(), member.clone());
        return Err(Rejection::UnknownMember { cluster, member });
    }
    check_quiet(cluster)?;
    let primary = match &cluster.appointment {
        Some(appointment) => &appointment.member,
        None => &cluster.config.initial_primary,
    };
    if primary == member {
        return Err(Rejection::IsPrimary { member: member.clone(), epoch: cluster.epoch });
    }
    let others = cluster.config.members.iter().filter(|(name, _)| *name != primary && *name != member);
    if !others.into_iter().any(|(_, other)| other.promotable) {
        return Err(Rejection::LastPromotable { member: member.clone(), primary: primary.clone() });
    }
    let mut without = cluster.config.clone();
    without.members.remove(member);
    without.check_synchronous()?;
    if let Some(operation) = &cluster.operation
        && operation.kind == (Kind::Rejoin { member: member.clone() })
    {
        let reason = format!("{member} was removed ({})", request.reason);
        steps::finish(cluster, change, OperationResult::Aborted { reason: reason.clone() }, reason);
    }
    // The name in the configuration is where a bootstrap begins; the primary is a better one than a stranger.
    if cluster.config.initial_primary == *member
        && let Some(appointment) = &cluster.appointment
    {
        cluster.config.initial_primary = appointment.member.clone();
    }
    cluster.config.members.remove(member);
    cluster.sync.remove(member);
    if let Some(adoption) = &mut cluster.adoption {
        adoption.standbys.remove(member);
    }
    let membership = &mut cluster.membership;
    membership.version += 1;
    membership.acknowledged.remove(member);
    membership.returning.remove(member);
    let (version, wall_ms) = (membership.version, change.wall_ms);
    let by = format!("{}: {}", request.actor, request.reason);
    membership.removed.insert(member.clone(), RemovedMember { version, by: by.clone(), wall_ms });
    remember(cluster, request, None);
    let text = format!("{member} is no member since list {version} ({by})");
    change.event(cluster, EventKind::MemberRemoved, "6 member list", Some(member), text);
    Ok(())
}

/// A member acts by this list.
pub(crate) fn acknowledged(
    state: &mut State,
    change: &mut Change,
    name: &ClusterName,
    member: &MemberName,
    version: u64,
) -> Result<(), Rejection> {
    let cluster = cluster(state, name)?;
    if !cluster.config.members.contains_key(member) {
        return Err(Rejection::UnknownMember { cluster: name.clone(), member: member.clone() });
    }
    let membership = &mut cluster.membership;
    let known = membership.acknowledged.get(member).copied().unwrap_or(0);
    // Nobody can know of a list that was never made, and what was once acknowledged is acted by from then on.
    if version > membership.version || version <= known {
        return Err(Rejection::NotWaiting);
    }
    membership.acknowledged.insert(member.clone(), version);
    let text = format!("{member} acts by member list {version}");
    change.event(cluster, EventKind::MembersAcknowledged, "6 member list", Some(member), text);
    Ok(())
}
