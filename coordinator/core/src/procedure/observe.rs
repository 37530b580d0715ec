//! Mode `observe`: another tool leads the cluster, and Regent says and counts what it *would* have done.
//!
//! Invariants: nothing here creates an effect, an epoch, an appointment or a fence; and only a cluster in `observe` that never
//! had a primary of Regent's is observed, so that no member of it can hold a lease. What would have begun is judged by the
//! detector on an image of the cluster as if Regent led it (`detector/observe.rs`); here it is only recorded.
//!
//! Interleaving to fear: an operator leaves `observe` while a sighting is on its way. It finds another mode, and is refused:
//! a bootstrapped cluster never comes back under observation. `76-observe.txt`.

use regent_types::{Automation, ClusterName, MemberName};

use super::{
    Change, cluster,
    declare::{check_member, describe},
    steps::{self, Start},
};
use crate::{Cluster, EventKind, Kind, Observation, OperationResult, Rejection, Sighting, State};

const RULE: &str = "7 observe";

/// The leader has seen something.
pub(crate) fn sighting(
    state: &mut State,
    change: &mut Change,
    name: &ClusterName,
    sighting: &Sighting,
) -> Result<(), Rejection> {
    let cluster = cluster(state, name)?;
    if cluster.automation != Automation::Observe || cluster.appointment.is_some() {
        return Err(Rejection::WrongMode {
            automation: cluster.automation.name().to_owned(),
            problem: "only a cluster that another tool leads is observed".to_owned(),
        });
    }
    match sighting {
        Sighting::Primary { member, found } => primary(cluster, change, member, found),
        Sighting::Would { declare, candidate } => {
            check_member(cluster, &declare.member)?;
            would(cluster, change, declare, candidate.as_ref())
        }
        Sighting::Well { found } => {
            let seen = cluster.observed.as_ref().filter(|seen| seen.would.is_some());
            let member = seen.ok_or(Rejection::NotWaiting)?.primary.clone();
            over(cluster, change, &format!("{member} is well again: {found}"));
            Ok(())
        }
    }
}

fn primary(
    cluster: &mut Cluster,
    change: &mut Change,
    member: &MemberName,
    found: &str,
) -> Result<(), Rejection> {
    check_member(cluster, member)?;
    if cluster.observed.as_ref().is_some_and(|seen| seen.primary == *member) {
        return Err(Rejection::NotWaiting);
    }
    let text = format!("{member} is primary: {found}");
    over(cluster, change, &text);
    let count = cluster.observed.as_ref().map_or(0, |seen| seen.count);
    let since_wall_ms = change.wall_ms;
    cluster.observed = Some(Observation { primary: member.clone(), since_wall_ms, would: None, count });
    change.event(cluster, EventKind::PrimarySeen, RULE, Some(member), text);
    Ok(())
}

fn would(
    cluster: &mut Cluster,
    change: &mut Change,
    declare: &crate::Declare,
    candidate: Option<&MemberName>,
) -> Result<(), Rejection> {
    let seen = cluster.observed.as_ref();
    if seen.is_none_or(|seen| seen.would.is_some() || seen.primary != declare.member) {
        return Err(Rejection::NotWaiting);
    }
    let found = describe(&declare.trigger, &declare.member);
    let whom = candidate.map_or("nobody".to_owned(), ToString::to_string);
    let text = format!("would fail over from {} to {whom}: {found}", declare.member);
    let start = Start {
        kind: Kind::Observed { member: declare.member.clone() },
        trigger: declare.trigger.clone(),
        actor: "regent".into(),
        reason: text.clone(),
        evidence: declare.evidence.clone(),
    };
    let mut record = steps::record(cluster, change, start);
    record.target = candidate.cloned();
    let seen = cluster.observed.as_mut().expect("checked above");
    seen.would = Some(Box::new(record));
    seen.count += 1;
    change.event(cluster, EventKind::WouldFailOver, RULE, Some(&declare.member), text);
    Ok(())
}

/// Its reason is gone: it comes to the history, with how long it took.
fn over(cluster: &mut Cluster, change: &mut Change, found: &str) {
    let Some(record) = cluster.observed.as_mut().and_then(|seen| seen.would.take()) else { return };
    steps::finish_beside(cluster, change, *record, OperationResult::Done { warning: None }, found.to_owned());
}

/// The cluster is not observed any more.
pub(super) fn end(cluster: &mut Cluster, change: &mut Change) {
    over(cluster, change, "the mode was changed");
    cluster.observed = None;
}
