//! The modes of automation: pause, resume, set; and the memory of request ids.

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

/// Starts automation again, in the mode that was set before.
pub(crate) fn resume(
    state: &mut State,
    change: &mut Change,
    request: &OperatorRequest,
) -> Result<(), Rejection> {
    let known = cluster(state, &request.cluster)?;
    let mode = known.resumed;
    if known.automation != Automation::Paused && seen(known, request).is_none() {
        check_epoch(known, request.expected_epoch)?;
        return Err(Rejection::AlreadyThere { automation: known.automation.name().to_owned() });
    }
    set(state, change, request, mode)
}

/// Sets the mode. While paused, it is what *resume* leads to.
pub(crate) fn set_mode(
    state: &mut State,
    change: &mut Change,
    request: &OperatorRequest,
    automation: Automation,
) -> Result<(), Rejection> {
    let known = cluster(state, &request.cluster)?;
    if automation == Automation::Observe && known.appointment.is_some() && seen(known, request).is_none() {
        check_epoch(known, request.expected_epoch)?;
        return Err(Rejection::WrongMode {
            automation: known.automation.name().to_owned(),
            problem:
                "observe is for a cluster that another tool leads, and this one has a primary of Regent's"
                    .to_owned(),
        });
    }
    set(state, change, request, automation)
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
    if cluster.automation == automation {
        return Err(Rejection::AlreadyThere { automation: automation.name().to_owned() });
    }
    let was_paused = cluster.automation == Automation::Paused;
    let kind = match automation {
        Automation::Paused => EventKind::Paused,
        _ if was_paused => EventKind::Resumed,
        _ => EventKind::AutomationChanged,
    };
    cluster.automation = automation;
    if automation != Automation::Paused {
        cluster.resumed = automation;
    }
    if automation != Automation::Observe {
        super::observe::end(cluster, change);
    }
    // Declared again under the new mode while its reason lasts.
    cluster.pending = None;
    let who = format!("{}: {}", request.actor, request.reason);
    cluster.paused_by = (automation == Automation::Paused).then(|| who.clone());
    remember(cluster, request, None);
    change.event(cluster, kind, "7 automation", None, format!("automation is {automation} ({who})"));
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
