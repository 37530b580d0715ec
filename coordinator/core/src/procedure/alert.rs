//! Alerts: what the detector has seen for long enough that an operator should look. They change nothing else: no
//! alert starts, stops or forbids an operation.

use regent_types::{ClusterName, MemberName};

use super::{Change, cluster};
use crate::{Alert, AlertKind, EventKind, Rejection, State};

/// Raises an alert, or ends it.
pub(crate) fn alert(
    state: &mut State,
    change: &mut Change,
    name: &ClusterName,
    member: &MemberName,
    kind: AlertKind,
    text: Option<&String>,
) -> Result<(), Rejection> {
    let cluster = cluster(state, name)?;
    if text.is_some() && !cluster.config.members.contains_key(member) {
        return Err(Rejection::UnknownMember { cluster: name.clone(), member: member.clone() });
    }
    let known = cluster.alerts.iter().position(|alert| alert.member == *member && alert.kind == kind);
    match (known, text) {
        (None, Some(text)) => {
            let (member, text) = (member.clone(), text.clone());
            change.event(cluster, EventKind::AlertRaised, "7 alert", Some(&member), text.clone());
            cluster.alerts.push(Alert { member, kind, text, since_wall_ms: change.wall_ms });
            Ok(())
        }
        (Some(at), None) => {
            let over = cluster.alerts.remove(at);
            let lasted_s = change.wall_ms.saturating_sub(over.since_wall_ms) / 1000;
            let text = format!("over after {lasted_s} s: {}", over.text);
            change.event(cluster, EventKind::AlertCleared, "7 alert", Some(member), text);
            Ok(())
        }
        // Another leader has said so before.
        (Some(_), Some(_)) | (None, None) => Err(Rejection::NotWaiting),
    }
}
