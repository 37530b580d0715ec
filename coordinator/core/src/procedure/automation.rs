//! Pause and resume, and the memory of request ids.

use regent_types::{Automation, OperationId};

use super::{Change, check_epoch, cluster};
use crate::{Cluster, EventKind, OperatorRequest, Rejection, State, state};

/// Stops automation. Leases and self-fencing go on; a running operation goes on.
pub(crate) fn pause(
    state: &mut State,
    change: &mut Change,
    request: &OperatorRequest,
) -> Result<(), Rejection> {
    set(state, change, request, Automation::Paused)
}

/// Starts automation again.
pub(crate) fn resume(
    state: &mut State,
    change: &mut Change,
    request: &OperatorRequest,
) -> Result<(), Rejection> {
    set(state, change, request, Automation::Automatic)
}

fn set(
    state: &mut State,
    change: &mut Change,
    request: &OperatorRequest,
    automation: Automation,
) -> Result<(), Rejection> {
    let cluster = cluster(state, &request.cluster)?;
    if seen(cluster, request).is_some() {
        change.touched(cluster);
        return Ok(());
    }
    check_epoch(cluster, request.expected_epoch)?;
    let paused = automation == Automation::Paused;
    let (kind, name) = if paused { (EventKind::Paused, "paused") } else { (EventKind::Resumed, "automatic") };
    if cluster.automation == automation {
        return Err(Rejection::AlreadyThere { automation: name.to_owned() });
    }
    cluster.automation = automation;
    let who = format!("{}: {}", request.actor, request.reason);
    cluster.paused_by = paused.then(|| who.clone());
    remember(cluster, request, None);
    change.event(cluster, kind, "7 automation", None, format!("automation is {name} ({who})"));
    Ok(())
}

/// What the same request id was answered with before.
pub(crate) fn seen(cluster: &Cluster, request: &OperatorRequest) -> Option<Option<OperationId>> {
    cluster.requests.iter().find(|(id, _)| *id == request.request_id).map(|(_, operation)| *operation)
}

/// Remembers an answer.
pub(crate) fn remember(cluster: &mut Cluster, request: &OperatorRequest, operation: Option<OperationId>) {
    cluster.requests.push_back((request.request_id.clone(), operation));
    while cluster.requests.len() > state::REQUESTS_KEPT {
        cluster.requests.pop_front();
    }
}
