//! The primary has the list of who may be promoted on its disk. Decides only whether that counts: it must be this
//! epoch's primary, of this instance, and the epoch must still be its own.

use regent_types::{ClusterName, Epoch, InstanceId};

use super::{Change, check_epoch, cluster};
use crate::{EventKind, Rejection, State};

/// Takes the acknowledgement of list `version`.
pub(crate) fn acknowledged(
    state: &mut State,
    change: &mut Change,
    name: &ClusterName,
    epoch: Epoch,
    instance: InstanceId,
    version: u64,
) -> Result<(), Rejection> {
    let cluster = cluster(state, name)?;
    check_epoch(cluster, epoch)?;
    let newest = cluster.promotable.version;
    let fenced_through = cluster.fenced_through;
    let appointment = cluster.appointment.as_mut().ok_or(Rejection::NoPrimary)?;
    // After FenceDecided nothing may become promotable any more by what the fenced primary says.
    if fenced_through >= epoch || appointment.instance != instance {
        return Err(Rejection::NotPrimary { member: appointment.member.clone(), epoch });
    }
    if version > newest || version <= appointment.promotable_acknowledged {
        return Err(Rejection::NotWaiting);
    }
    appointment.promotable_acknowledged = version;
    let member = appointment.member.clone();
    let text =
        format!("{member} asks the members of list {version} for promises from now on (newest: {newest})");
    change.event(cluster, EventKind::PromotableAcknowledged, "6 promotable list", Some(&member), text);
    Ok(())
}
