//! An operator changes PostgreSQL's parameters on every member. Nothing is restarted by it, and no operation runs: agents write
//! their files, have the server read them, and report what takes a restart.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Change,
    automation::{remember, seen},
    check_epoch, cluster,
};
use crate::{
    ConfigError, EventKind, OperatorRequest, Rejection, State,
    parameters::{check_name, check_value},
};

/// All of it, or nothing.
pub(crate) fn set(
    state: &mut State,
    change: &mut Change,
    request: &OperatorRequest,
    set: &BTreeMap<String, String>,
    unset: &BTreeSet<String>,
) -> Result<(), Rejection> {
    let cluster = cluster(state, &request.cluster)?;
    if seen(cluster, request).is_some() {
        change.touched(cluster);
        return Ok(());
    }
    check_epoch(cluster, request.expected_epoch)?;
    let mut next = cluster.parameters.clone();
    let mut what = Vec::new();
    let shown = |value: Option<&String>| value.map_or("not set".to_owned(), |value| format!("{value:?}"));
    for (name, value) in set {
        check_name(name)?;
        check_value(name, value)?;
        if unset.contains(name) {
            let problem = "is to be set and unset at once".to_owned();
            return Err(ConfigError { field: name.clone(), problem }.into());
        }
        let before = next.values.insert(name.clone(), value.clone());
        if before.as_ref() != Some(value) {
            what.push(format!("{name} {} -> {value:?}", shown(before.as_ref())));
        }
    }
    for name in unset {
        // Whatever was set once can be taken back, also what a later version would refuse to set.
        let Some(before) = next.values.remove(name) else {
            let problem = "is not set here, so it cannot be unset".to_owned();
            return Err(ConfigError { field: name.clone(), problem }.into());
        };
        what.push(format!("{name} {before:?} -> not set"));
    }
    next.check_count()?;
    if what.is_empty() {
        return Err(Rejection::Unchanged { what: "the parameters have these values already".into() });
    }
    next.version += 1;
    cluster.parameters = next;
    remember(cluster, request, None);
    let text = format!("{} ({}: {})", what.join(", "), request.actor, request.reason);
    change.event(cluster, EventKind::ParametersChanged, "8 parameters", None, text);
    Ok(())
}
