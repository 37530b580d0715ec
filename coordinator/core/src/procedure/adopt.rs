//! What a member's data counts as, before it is promoted or rejoins: taken over from a time without Regent, or disowned after
//! a removal. Both are a directive of their own in front of the usual one, so that the usual one needs no exception.
//!
//! The primary is claimed under its appointment and promoted after; refused, its promotion has failed like any other. A
//! standby whose claim is refused rejoins like a stranger, by a clone, and its old data is kept beside.

use regent_types::{AdoptedHistory, Directive, EffectKey, Epoch, MemberName, Timeline};

use super::{
    Change, failover, running,
    steps::{add_effect, retire},
};
use crate::{Cluster, EffectKind, EventKind, Kind};

/// The primary of an adopted cluster is claimed before its first promotion. True when it is.
pub(crate) fn claim_first(
    cluster: &mut Cluster,
    change: &mut Change,
    member: &MemberName,
    epoch: Epoch,
) -> bool {
    let Some(adoption) = cluster.adoption.clone().filter(|_| cluster.history.is_empty()) else {
        return false;
    };
    let directive = Directive::Adopt { epoch, system_id: adoption.system_id, standby_of: None };
    add_effect(cluster, change, epoch, EffectKind::Agent { member: member.clone(), directive });
    true
}

/// What has to be settled about `member`'s data before it may rejoin.
pub(crate) fn claim_standby(cluster: &mut Cluster, member: &MemberName, lineage: Epoch) -> Option<Directive> {
    let (appointment, established) = cluster.established()?;
    let epoch = appointment.epoch;
    if cluster.membership.returning.contains(member) {
        return Some(Directive::Disown { epoch });
    }
    let end_lsn = running(cluster).evidence.primary_lsn;
    let adoption = cluster.adoption.as_mut()?;
    // Tried once: whatever comes of it, the next rejoin goes the usual way.
    if !adoption.standbys.remove(member) || lineage != Epoch::NONE {
        return None;
    }
    let first = established.timeline == Timeline(1);
    let standby_of = AdoptedHistory {
        timeline: established.timeline,
        switch_lsn: (!first).then_some(established.switch_lsn),
        end_lsn: end_lsn?,
    };
    Some(Directive::Adopt { epoch, system_id: established.system_id, standby_of: Some(standby_of) })
}

/// It was written down, or refused (`Err`); on with the usual directive.
pub(crate) fn claimed(cluster: &mut Cluster, change: &mut Change, key: &EffectKey, came: Result<&str, &str>) {
    let disowned = running(cluster).effects.iter().any(|effect| {
        effect.key == *key
            && matches!(&effect.kind, EffectKind::Agent { directive: Directive::Disown { .. }, .. })
    });
    let member = running(cluster).target.clone();
    let rejoins = matches!(running(cluster).kind, Kind::Rejoin { .. });
    if let (Err(reason), false) = (came, rejoins) {
        failover::promotion_failed(cluster, change, reason);
        return;
    }
    if let (Err(reason), true) = (came, disowned) {
        // Followed by a rejoin it could be re-pointed with data that nobody knows.
        super::rejoin::rejoin_failed(cluster, change, reason);
        return;
    }
    retire(cluster, key);
    if disowned && let Some(member) = &member {
        cluster.membership.returning.remove(member);
    }
    let text = match came {
        Ok(text) => text.to_owned(),
        Err(reason) => format!("not taken over, it will be cloned: {reason}"),
    };
    change.event(cluster, EventKind::Adopted, "adopt", member.as_ref(), text);
    if rejoins {
        super::rejoin::send(cluster, change);
    } else {
        failover::send_promote(cluster, change, false);
    }
}
