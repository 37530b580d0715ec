//! Changes of the synchronous rules (`synchronous.rs` in this crate): what the leader has seen is checked once more, and
//! logged before PostgreSQL is told.

use std::collections::BTreeMap;

use regent_types::{ClusterName, Epoch, Lsn, MemberName, SyncSet};

use super::{Change, check_epoch, cluster};
use crate::{Cluster, EventKind, Rejection, Shortage, State, SyncState};

/// The cluster, when `version` of this epoch's rules is the newest and its primary holds a lease that nobody has ended.
fn current<'s>(
    state: &'s mut State,
    name: &ClusterName,
    epoch: Epoch,
    version: u64,
) -> Result<&'s mut Cluster, Rejection> {
    let cluster = cluster(state, name)?;
    check_epoch(cluster, epoch)?;
    let (appointment, _) = cluster.established().ok_or(Rejection::NoPrimary)?;
    if cluster.fenced_through >= epoch {
        return Err(Rejection::NotPrimary { member: appointment.member.clone(), epoch });
    }
    if cluster.synchronous.logged.is_empty() {
        return Err(Rejection::NotWaiting);
    }
    let newest = cluster.synchronous.version;
    if version != newest {
        let problem = format!("version {version} was seen, the newest is {newest}");
        return Err(Rejection::SynchronousRule { problem });
    }
    Ok(cluster)
}

/// The primary is to act by another rule.
pub(crate) fn set(
    state: &mut State,
    change: &mut Change,
    name: &ClusterName,
    epoch: Epoch,
    version: u64,
    set: Option<&SyncSet>,
    why: &str,
) -> Result<(), Rejection> {
    let cluster = current(state, name, epoch, version)?;
    let before = cluster.synchronous.logged.last().map_or_else(String::new, ToString::to_string);
    if cluster.synchronous.wanted() == set {
        return Err(Rejection::Unchanged { what: format!("commits wait for {before} already") });
    }
    check(cluster, set).map_err(|problem| Rejection::SynchronousRule { problem })?;
    let primary = cluster.appointment.as_ref().map(|appointment| appointment.member.clone());
    cluster.synchronous.log(set.cloned(), why.to_owned());
    let now = cluster.synchronous.logged.last().map_or_else(String::new, ToString::to_string);
    let text = format!("commits are to wait for {now}, for {before} until now: {why}");
    change.event(cluster, EventKind::SynchronousChanged, "8 synchronous", primary.as_ref(), text);
    Ok(())
}

/// Whether the policy allows this rule, and its members are who they should be.
fn check(cluster: &Cluster, set: Option<&SyncSet>) -> Result<(), String> {
    let policy = &cluster.config.policy.synchronous;
    let primary = cluster.appointment.as_ref().map(|appointment| &appointment.member);
    let Some(primary) = primary else { return Err("there is no primary".into()) };
    let strict = policy.shortage == Shortage::Strict;
    let Some(set) = set else {
        return match strict {
            true => Err(format!("{} standbys are waited for, strictly", policy.standbys)),
            false => Ok(()),
        };
    };
    let members = u32::try_from(set.members.len()).unwrap_or(u32::MAX);
    if set.number == 0 || set.number > members || set.number > policy.standbys {
        return Err(format!(
            "{set}: {} of {members} members, the policy asks for {}",
            set.number, policy.standbys
        ));
    }
    if strict && set.number < policy.standbys {
        return Err(format!("{set}: {} are waited for, strictly", policy.standbys));
    }
    let eligible = cluster.config.sync_members(primary);
    if let Some(stranger) = set.members.iter().find(|member| !eligible.contains(*member)) {
        return Err(format!("{set}: commits of {primary} may not wait for {stranger}"));
    }
    let newest = cluster.history.last().map(|record| record.epoch);
    let confirmed = |member: &MemberName| matches!(cluster.sync.get(member), Some(SyncState::Confirmed { epoch }) if Some(*epoch) == newest);
    // Strict, and too few are confirmed: whoever comes is waited for.
    if strict && set.members == eligible {
        return Ok(());
    }
    match set.members.iter().find(|member| !confirmed(member)) {
        Some(member) => Err(format!("{set}: {member} is not in sync")),
        None => Ok(()),
    }
}

/// The newest rule is in force since `since_lsn`, and its members have received that: no other one covers anything any more.
pub(crate) fn proven(
    state: &mut State,
    change: &mut Change,
    name: &ClusterName,
    epoch: Epoch,
    version: u64,
    since_lsn: Lsn,
    received: &BTreeMap<MemberName, Lsn>,
) -> Result<(), Rejection> {
    let cluster = current(state, name, epoch, version)?;
    let Some(set) = cluster.synchronous.wanted().cloned() else { return Err(Rejection::NotWaiting) };
    if cluster.synchronous.is_proven() {
        return Err(Rejection::Unchanged { what: format!("{set} is proven already") });
    }
    for member in &set.members {
        let found = received.get(member).copied();
        if found.is_none_or(|found| found < since_lsn) {
            let found = found.map_or_else(|| "nothing known".to_owned(), |lsn| lsn.to_string());
            let problem = format!("{member} has received {found}, {set} is in force since {since_lsn}");
            return Err(Rejection::SynchronousRule { problem });
        }
    }
    let primary = cluster.appointment.as_ref().map(|appointment| appointment.member.clone());
    let last = cluster.synchronous.logged.pop().expect("checked: there is a rule");
    cluster.synchronous.logged = vec![last];
    cluster.synchronous.proven = Some(since_lsn);
    let text = format!("{set} is in force since {since_lsn}: no acknowledged write is outside it");
    change.event(cluster, EventKind::SynchronousProven, "8 synchronous", primary.as_ref(), text);
    Ok(())
}

/// PostgreSQL was found to act by something else than the newest rule: commits may have waited for nobody.
pub(crate) fn lost(
    state: &mut State,
    change: &mut Change,
    name: &ClusterName,
    epoch: Epoch,
    version: u64,
    found: &str,
) -> Result<(), Rejection> {
    let cluster = current(state, name, epoch, version)?;
    if !cluster.synchronous.is_proven() {
        return Err(Rejection::NotWaiting);
    }
    let primary = cluster.appointment.as_ref().map(|appointment| appointment.member.clone());
    let set = cluster.synchronous.wanted().cloned();
    let why = format!("the server was found with synchronous_standby_names = '{found}'");
    cluster.synchronous.log(None, why.clone());
    cluster.synchronous.log(set, why.clone());
    change.event(cluster, EventKind::SynchronousChanged, "8 synchronous", primary.as_ref(), why);
    Ok(())
}
