//! Changes of the policy while the cluster runs: which are acceptable, and what becomes of leases in flight.
//!
//! Interleaving to fear: leases of 270 s are out, the lease time is set to 60 s, the leader dies, and its successor takes 60 s
//! for the longest lease that can be valid at its election. The longer terms therefore stay in the state
//! ([`crate::LeaseInFlight`]) until a leader has led for their whole bound since it applied the change; tested in
//! `decisions/policy.rs`, which fails without it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Change,
    automation::{remember, seen},
    check_epoch, cluster,
};
use crate::{Cluster, EventKind, LeaseInFlight, OperatorRequest, Policy, Rejection, RequestKind, State};

/// An operator's change.
pub(crate) fn set(
    state: &mut State,
    change: &mut Change,
    request: &OperatorRequest,
) -> Result<(), Rejection> {
    let RequestKind::SetPolicy { from, to, election_worst_ms, guards } = &request.kind else {
        return Err(Rejection::NotWaiting);
    };
    let cluster = cluster(state, &request.cluster)?;
    if seen(cluster, request).is_some() {
        change.touched(cluster);
        return Ok(());
    }
    check_epoch(cluster, request.expected_epoch)?;
    if cluster.config.policy != **from {
        let what = differences(from, &cluster.config.policy).join(", ");
        return Err(Rejection::PolicyMoved { what });
    }
    let what = differences(from, to);
    if what.is_empty() {
        return Err(Rejection::Unchanged { what: "the policy has these values already".into() });
    }
    for (member, limit_ms) in guards {
        if to.lease.ttl_ms > *limit_ms && to.lease.ttl_ms > from.lease.ttl_ms {
            let (member, limit_ms, wanted_ms) = (member.clone(), *limit_ms, to.lease.ttl_ms);
            return Err(Rejection::GuardLimit { member, limit_ms, wanted_ms });
        }
    }
    let mut config = cluster.config.clone();
    config.policy = (**to).clone();
    config.check(*election_worst_ms)?;
    cluster.config = config;
    crate::synchronous::policy_changed(cluster);
    keep_in_flight(cluster, change, from);
    remember(cluster, request, None);
    let text = format!("{} ({}: {})", what.join(", "), request.actor, request.reason);
    change.event(cluster, EventKind::PolicyChanged, "7 policy", None, text);
    Ok(())
}

fn keep_in_flight(cluster: &mut Cluster, change: &Change, from: &Policy) {
    let now = cluster.config.policy.lease;
    let before = cluster.lease_in_flight.map(|flight| flight.terms);
    let foreign = cluster.lease_in_flight.is_some_and(|flight| flight.foreign);
    let longest = before.into_iter().chain([from.lease]).max_by_key(|terms| terms.bound_ns());
    let longest = longest.filter(|terms| foreign || terms.bound_ns() > now.bound_ns());
    if now != from.lease {
        cluster.lease_in_flight =
            longest.map(|terms| LeaseInFlight { terms, index: change.at.index, foreign });
    }
}

/// No lease of the earlier terms can be valid any more.
pub(crate) fn settled(
    state: &mut State,
    change: &mut Change,
    name: &regent_types::ClusterName,
    index: u64,
) -> Result<(), Rejection> {
    if let Some(forgotten) = state.forgotten.get_mut(name)
        && forgotten.index == index
    {
        forgotten.settled = true;
        return Ok(());
    }
    let cluster = cluster(state, name)?;
    if cluster.lease_in_flight.is_none_or(|flight| flight.index != index) {
        return Err(Rejection::NotWaiting);
    }
    cluster.lease_in_flight = None;
    change.touched(cluster);
    Ok(())
}

/// What differs, as `name old -> new`, by the names of the fields.
pub fn differences(from: &Policy, to: &Policy) -> Vec<String> {
    let fields = |policy: &Policy| {
        let mut fields = BTreeMap::new();
        flatten("", &serde_json::to_value(policy).expect("a policy is plain data"), &mut fields);
        fields
    };
    let (before, after) = (fields(from), fields(to));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let none = "none".to_owned();
    let pairs = names
        .into_iter()
        .map(|name| (name, before.get(name).unwrap_or(&none), after.get(name).unwrap_or(&none)));
    pairs
        .filter(|(_, old, new)| old != new)
        .map(|(name, old, new)| format!("{name} {old} -> {new}"))
        .collect()
}

fn flatten(prefix: &str, value: &serde_json::Value, out: &mut BTreeMap<String, String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&name, value, out);
            }
        }
        serde_json::Value::Null => {}
        plain => drop(out.insert(prefix.to_owned(), plain.to_string())),
    }
}
