//! An operator changes what is configured of a member: priority, whether it may be promoted, where clients reach it.
//!
//! A member that becomes promotable counts against a primary's lease only once that primary has the new list
//! ([`crate::PromotableList`] follows the configuration by itself); one that is no more counts at once. The primary's own addresses
//! stay as they are while it is primary: its DNS record is of its epoch, and would say something else than the configuration.
//!
//! The interleaving to fear is the one of `promotable.rs`: a standby is made promotable, the primary has not heard of it, loses every
//! coordinator, and runs on by the promises of the others. Test: `decisions/member_changes.rs`.

use regent_types::MemberName;

use super::{Change, automation::remember, members::check_quiet};
use crate::{Cluster, ConfigError, EventKind, MemberChanges, OperatorRequest, Rejection, SyncState};

/// All of it, or nothing.
pub(super) fn set(
    cluster: &mut Cluster,
    change: &mut Change,
    request: &OperatorRequest,
    member: &MemberName,
    changes: &MemberChanges,
) -> Result<(), Rejection> {
    let Some(before) = cluster.config.members.get(member) else {
        let (cluster, member) = (cluster.config.name.clone(), member.clone());
        return Err(Rejection::UnknownMember { cluster, member });
    };
    check_quiet(cluster)?;
    let mut next = before.clone();
    next.priority = changes.priority.unwrap_or(next.priority);
    next.promotable = changes.promotable.unwrap_or(next.promotable);
    next.client_address = changes.client_address.unwrap_or(next.client_address);
    next.client_port = changes.client_port.unwrap_or(next.client_port);
    next.agent_address = changes.agent_address.clone().or(next.agent_address);
    let mut what = Vec::new();
    let mut differs = |field: &str, old: String, new: String| {
        if old != new {
            what.push(format!("{field} {old} -> {new}"));
        }
    };
    differs("priority", before.priority.to_string(), next.priority.to_string());
    differs("promotable", before.promotable.to_string(), next.promotable.to_string());
    differs("client_address", before.client_address.to_string(), next.client_address.to_string());
    differs("client_port", before.client_port.to_string(), next.client_port.to_string());
    let shown = |address: &Option<String>| address.clone().unwrap_or_else(|| "none".to_owned());
    differs("agent_address", shown(&before.agent_address), shown(&next.agent_address));
    if what.is_empty() {
        return Err(Rejection::Unchanged { what: format!("{member} is configured like this already") });
    }
    let primary = match &cluster.appointment {
        Some(appointment) => appointment.member.clone(),
        None => cluster.config.initial_primary.clone(),
    };
    let fixed = (before.client_address, before.client_port, before.promotable)
        != (next.client_address, next.client_port, next.promotable);
    if primary == *member && fixed {
        return Err(Rejection::IsPrimary { member: member.clone(), epoch: cluster.epoch });
    }
    let moved = (before.client_address, before.client_port) != (next.client_address, next.client_port);
    if let Some((other, _)) = cluster.config.members.iter().find(|(name, other)| {
        moved
            && *name != member
            && (other.client_address, other.client_port) == (next.client_address, next.client_port)
    }) {
        let address = format!("{}:{}", next.client_address, next.client_port);
        return Err(Rejection::AddressTaken { address, by: other.to_string() });
    }
    if before.promotable && !next.promotable {
        let others = cluster.config.members.iter().filter(|(name, _)| *name != member && **name != primary);
        if !others.into_iter().any(|(_, other)| other.promotable) {
            return Err(Rejection::LastPromotable { member: member.clone(), primary });
        }
    }
    let mut config = cluster.config.clone();
    // Where a bootstrap begins; the primary is a better place than a member that may not be one.
    if config.initial_primary == *member && !next.promotable {
        config.initial_primary = primary;
    }
    config.members.insert(member.clone(), next);
    // The relations of the policy's numbers are not touched by it.
    config.check(0).map_err(|error: ConfigError| Rejection::Config(error))?;
    cluster.config = config;
    remember(cluster, request, None);
    let note = match cluster.sync.get(member) {
        Some(SyncState::Unconfirmed { .. }) | None if changes.promotable == Some(true) => {
            ", promotable once it is sync confirmed"
        }
        _ => "",
    };
    let text = format!("{member}: {}{note} ({}: {})", what.join(", "), request.actor, request.reason);
    change.event(cluster, EventKind::MemberChanged, "6 member list", Some(member), text);
    Ok(())
}
