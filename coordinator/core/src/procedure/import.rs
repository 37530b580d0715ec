//! Taking a cluster over from another group: who must be heard, when a primary is appointed. [`crate::import`] says why.
//!
//! ```text
//! request, every promotable member heard  -->  view `supersedes` the old groups, no lease is granted, promises go on
//! each member obeys this group            -->  ImportAcknowledged; the last one ends the wait
//! detector: the primary is heard          -->  bootstrap: appointed above every epoch, in place, while it writes on
//! ```

use std::collections::BTreeSet;

use regent_types::{ClusterName, DataForm, Epoch, GroupId, InstanceId, LeaseTerms, Lsn, MemberName};

use super::{Change, cluster};
use crate::{
    Cluster, ClusterConfig, Declare, EpochRecord, Established, EventKind, GroupRequest, GroupRequestKind,
    Import, ImportError, ImportedMember, LeaseInFlight, Rejection, State, import::EPOCH_STRIDE,
};

/// An operator takes a cluster over.
pub(crate) fn request(
    state: &mut State,
    change: &mut Change,
    request: &GroupRequest,
) -> Result<String, Rejection> {
    let GroupRequestKind::ImportCluster {
        config,
        election_worst_ms,
        members,
        unheard,
        primary,
        expected_epoch,
    } = &request.kind
    else {
        return Err(Rejection::NotWaiting);
    };
    let group = state.group.id.ok_or(ImportError::NoGroupId)?;
    let mut config = (**config).clone();
    let holder = members.iter().find(|(_, said)| said.lease_epoch.is_some()).map(|(member, _)| member);
    let primary = primary.as_ref().or(holder).unwrap_or(&config.initial_primary).clone();
    // The configured one says where the cluster prefers to be, whoever is primary by now.
    config.preferred_region = config.preferred_region().cloned();
    config.initial_primary = primary.clone();
    config.check(*election_worst_ms)?;
    check_heard(&config, &primary, members.keys().collect(), unheard)?;
    let first = &members[&primary];
    check_primary(&primary, first, members)?;
    check_lists(&config, &primary, first, unheard)?;
    let highest = members.values().map(|said| said.highest_epoch).max().unwrap_or_default();
    if let Some(expected) = expected_epoch.filter(|expected| *expected != highest) {
        return Err(ImportError::OtherEpoch { expected, found: highest }.into());
    }
    // The group's own file may name it already: nothing of it has begun.
    let unbegun = |known: &Cluster| {
        known.epoch == Epoch::NONE && known.appointment.is_none() && known.operation.is_none()
    };
    let by = format!("{}: {}", request.actor, request.reason);
    let mut begun = state.clone();
    if begun.clusters.get(&config.name).is_some_and(unbegun) {
        begun.clusters.remove(&config.name);
    }
    if let Some(forgotten) = begun.forgotten.get(&config.name).filter(|forgotten| !forgotten.settled) {
        let bound_ms = forgotten.terms.bound_ns().div_ceil(1_000_000);
        let (cluster, epoch) = (config.name.clone(), forgotten.epoch);
        return Err(Rejection::StillLeased { cluster, epoch, bound_ms });
    }
    super::membership::begin(&mut begun, change, &config, *election_worst_ms, None, &by)?;
    begun.forgotten.remove(&config.name);
    *state = begun;
    let cluster = state.clusters.get_mut(&config.name).expect("just begun");
    let above = if unheard.is_empty() { 0 } else { EPOCH_STRIDE };
    begin_at(cluster, Epoch(highest.0 + above));
    cluster.history = first_record(&primary, first).into_iter().collect();
    cluster.import = Some(Box::new(Import {
        group,
        supersedes: members.values().filter_map(|said| said.group).filter(|one| *one != group).collect(),
        waiting: members.keys().filter(|member| config.members.contains_key(*member)).cloned().collect(),
        said: Default::default(),
        unheard: unheard.clone(),
        by: by.clone(),
    }));
    let exception = match unheard.is_empty() {
        true => String::new(),
        false => format!("EXCEPTION TO PROMISE 1: {} not heard and taken for fenced; ", names(unheard)),
    };
    let text = format!(
        "{exception}{} is taken over above epoch {}; {primary} is to be primary when {} obey this group ({by})",
        config.name,
        cluster.epoch,
        names(&cluster.import.as_ref().expect("just set").waiting)
    );
    change.event(cluster, EventKind::ClusterImported, "11 import", Some(&primary), text.clone());
    Ok(text)
}

fn names<'m>(members: impl IntoIterator<Item = &'m MemberName>) -> String {
    members.into_iter().map(MemberName::as_str).collect::<Vec<_>>().join(", ")
}

/// Everything up to `epoch` belongs to the other group and gets no lease here.
fn begin_at(cluster: &mut Cluster, epoch: Epoch) {
    let epoch = epoch.max(cluster.epoch);
    (cluster.epoch, cluster.fenced_through) = (epoch, epoch);
}

/// The epoch that the primary's data is of, so that standbys of it need no clone.
fn first_record(primary: &MemberName, said: &ImportedMember) -> Option<EpochRecord> {
    let established = Established {
        timeline: said.timeline?,
        // Nobody asks where the first record of a history began.
        switch_lsn: Lsn(0),
        system_id: said.system_id?,
    };
    Some(EpochRecord { epoch: said.lineage, member: primary.clone(), established })
}

fn check_heard(
    config: &ClusterConfig,
    primary: &MemberName,
    heard: BTreeSet<&MemberName>,
    unheard: &BTreeSet<MemberName>,
) -> Result<(), ImportError> {
    if let Some(member) = unheard.iter().find(|member| heard.contains(member)) {
        return Err(ImportError::Heard { member: member.clone() });
    }
    let wanted = config.members.iter().filter(|(_, one)| one.promotable).map(|(member, _)| member);
    // The new primary itself can never be excepted.
    let missing = wanted
        .filter(|member| !heard.contains(member))
        .find(|member| *member == primary || !unheard.contains(*member));
    match missing {
        Some(member) => Err(ImportError::Unheard { member: member.clone() }),
        None => Ok(()),
    }
}

fn check_primary(
    primary: &MemberName,
    first: &ImportedMember,
    members: &std::collections::BTreeMap<MemberName, ImportedMember>,
) -> Result<(), ImportError> {
    let (form, lineage) = (first.form, first.lineage);
    if !matches!(form, DataForm::Primary | DataForm::Standby) || lineage == Epoch::NONE {
        return Err(ImportError::UnknownData { member: primary.clone(), form, lineage });
    }
    for (member, said) in members.iter().filter(|(member, _)| *member != primary) {
        if let Some(epoch) = said.lease_epoch {
            return Err(ImportError::OtherHolder { member: member.clone(), epoch, primary: primary.clone() });
        }
        let older = said.lineage > lineage || (said.lineage == lineage && form != DataForm::Primary);
        if said.form == DataForm::Primary && older {
            let (member, primary, epoch) = (member.clone(), primary.clone(), said.lineage);
            return Err(ImportError::OtherPrimary { member, epoch, primary, form, lineage });
        }
        if let (Some(found), Some(expected)) = (said.system_id, first.system_id)
            && found != expected
        {
            let (member, primary) = (member.clone(), primary.clone());
            return Err(ImportError::OtherSystem { member, found, primary, expected });
        }
    }
    Ok(())
}

/// The primary may run on by the promises of those on its list: exactly those may be promoted.
fn check_lists(
    config: &ClusterConfig,
    primary: &MemberName,
    first: &ImportedMember,
    unheard: &BTreeSet<MemberName>,
) -> Result<(), ImportError> {
    let Some((_, asks)) = first.asks.as_ref().filter(|(epoch, _)| Some(*epoch) == first.lease_epoch) else {
        return Ok(());
    };
    let promotable = |member: &MemberName| config.members.get(member).is_some_and(|one| one.promotable);
    if let Some(member) = asks.iter().find(|member| !promotable(member) && !unheard.contains(*member)) {
        return Err(ImportError::Missing { primary: primary.clone(), member: member.clone() });
    }
    let wanted = config.members.keys().filter(|member| promotable(member));
    match wanted.into_iter().find(|member| !asks.contains(member)) {
        Some(member) => Err(ImportError::NotAsked { primary: primary.clone(), member: member.clone() }),
        None => Ok(()),
    }
}

/// A member obeys this group.
pub(crate) fn acknowledged(
    state: &mut State,
    change: &mut Change,
    name: &ClusterName,
    member: &MemberName,
    group: GroupId,
    said: &ImportedMember,
    succeeds: &[InstanceId],
) -> Result<(), Rejection> {
    let cluster = cluster(state, name)?;
    let primary = cluster.config.initial_primary.clone();
    let import = cluster.arriving().ok_or(Rejection::NotWaiting)?;
    let before = import.said.get(member);
    let restarted =
        before.is_some_and(|before| before.instance != said.instance && succeeds.contains(&before.instance));
    if import.group != group || !(import.waiting.contains(member) || restarted) {
        return Err(Rejection::NotWaiting);
    }
    if let Some(epoch) = said.lease_epoch.filter(|_| *member != primary) {
        let (member, primary) = (member.clone(), primary);
        return Err(ImportError::OtherHolder { member, epoch, primary }.into());
    }
    let index = change.at.index;
    // What the old group told it between its first word and this one.
    begin_at(cluster, said.highest_epoch);
    let import = cluster.import.as_mut().expect("arriving");
    import.waiting.remove(member);
    import.said.insert(member.clone(), said.clone());
    let waiting = import.waiting.clone();
    if *member == primary {
        // The old group's last lease was asked for before this: it is over when the longest one has passed.
        let own = cluster.config.policy.lease;
        let ttl_ms = said.lease_ttl_max_ms.unwrap_or(own.ttl_ms).max(own.ttl_ms);
        let terms = LeaseTerms { ttl_ms, ..own };
        cluster.lease_in_flight = Some(LeaseInFlight { terms, index, foreign: true });
    }
    let rest = match waiting.is_empty() {
        true => format!("{primary} may be appointed above epoch {}", cluster.epoch),
        false => format!("{} do not yet", names(&waiting)),
    };
    let text = format!("{member} obeys this group (instance {}); {rest}", said.instance);
    change.event(cluster, EventKind::ImportAcknowledged, "11 import", Some(member), text);
    Ok(())
}

/// Whether the first primary of this group may be appointed now.
pub(crate) fn check_first(cluster: &Cluster, declare: &Declare) -> Result<(), Rejection> {
    let import = cluster.arriving().ok_or(Rejection::NotWaiting)?;
    if !import.waiting.is_empty() {
        return Err(ImportError::Waiting { waiting: import.waiting.iter().cloned().collect() }.into());
    }
    let said = import.said.get(&declare.member).ok_or(Rejection::NoPrimary)?;
    let (found, _) = declare.evidence.instance.clone().ok_or(Rejection::NoPrimary)?;
    if found == said.instance {
        return Ok(());
    }
    let (member, said) = (declare.member.clone(), said.instance);
    Err(ImportError::OtherInstance { member, said, found }.into())
}
