//! After a verified promotion: the record, the DNS providers, the marker row, the end.

use std::collections::BTreeSet;

use regent_types::{Directive, EffectKey, Epoch, PromotedEvidence};

use super::{
    Change, running,
    steps::{add_effect, enter, finish, retire},
};
use crate::{
    Cluster, DnsRecord, EffectKind, EpochRecord, Established, EventKind, OperationResult, Rejection, Step,
    SyncState,
};

/// The promotion was verified: history, sync states, record; then the providers.
pub(crate) fn promoted(
    cluster: &mut Cluster,
    change: &mut Change,
    key: &EffectKey,
    evidence: &PromotedEvidence,
) -> Result<(), Rejection> {
    let appointment = cluster.appointment.clone().ok_or(Rejection::NoPrimary)?;
    if evidence.epoch != appointment.epoch {
        let reason =
            format!("promoted at epoch {}, appointed at epoch {}", evidence.epoch, appointment.epoch);
        return Err(Rejection::BadOutcome { reason });
    }
    if let Some(record) = cluster.history.last()
        && record.established.system_id != evidence.system_id
    {
        let (found, expected) = (evidence.system_id, record.established.system_id);
        return Err(Rejection::BadOutcome {
            reason: format!("system identifier {found}, the cluster has {expected}"),
        });
    }
    // A promoted standby always begins a timeline of its own. Taken as it is, a mistaken number would say that nothing
    // branched off here, and the old primary's divergent WAL would not be salvaged.
    if let Some(record) = cluster.history.last() {
        let (found, last) = (evidence.timeline, record.established.timeline);
        if found < last || (found == last && record.member != appointment.member) {
            let reason = format!(
                "timeline {found} of {}, the history is at timeline {last} of {} (epoch {})",
                appointment.member, record.member, record.epoch
            );
            return Err(Rejection::BadOutcome { reason });
        }
    }
    retire(cluster, key);
    let established = Established {
        timeline: evidence.timeline,
        switch_lsn: evidence.switch_lsn,
        system_id: evidence.system_id,
    };
    update_sync(cluster, &appointment.member, established);
    crate::synchronous::verified(cluster);
    let member = appointment.member;
    cluster.history.push(EpochRecord { epoch: evidence.epoch, member: member.clone(), established });
    if let Some(current) = &mut cluster.appointment {
        current.established = Some(established);
    }
    let text = format!(
        "{member} is primary at epoch {}: timeline {} from {} ({} ms, of which {} ms replay)",
        evidence.epoch, evidence.timeline, evidence.switch_lsn, evidence.elapsed_ms, evidence.replay_ms
    );
    change.event(cluster, EventKind::Promoted, "8 promote", Some(&member), text.clone());
    let config = &cluster.config.members[&member];
    let record = DnsRecord {
        epoch: evidence.epoch,
        member: member.clone(),
        address: config.client_address,
        ttl_s: cluster.config.dns_ttl_s,
    };
    cluster.record = Some(record.clone());
    let name = cluster.config.dns_name.clone();
    let said = format!("{name} is {} (epoch {})", record.address, record.epoch);
    change.event(cluster, EventKind::RecordChanged, "9 embedded zone", Some(&member), said);
    enter(running(cluster), change, Step::Redirect, text);
    let providers = cluster.config.dns_providers.clone();
    for provider in providers {
        let kind = EffectKind::Redirect { provider, name: name.clone(), record: record.clone() };
        add_effect(cluster, change, evidence.epoch, kind);
    }
    if running(cluster).effects.is_empty() {
        validate(cluster, change, "no DNS provider is configured".into());
    }
    Ok(())
}

/// Who is still a confirmed standby after a promotion.
///
/// After a promotion everybody else has to show that it follows; being wrong here would make a diverged member
/// promotable. A primary that was re-appointed in place goes on with its own timeline, so whoever was in sync has not
/// diverged; but the preparation has detached every promotable member, and one that stayed confirmed would be left
/// without its stream for good: nobody rejoins a member that is in sync, and the next failover would lose all since.
fn update_sync(cluster: &mut Cluster, primary: &regent_types::MemberName, established: Established) {
    let in_place = cluster.history.last().is_some_and(|record| {
        record.member == *primary && record.established.timeline == established.timeline
    });
    let epoch = cluster.epoch;
    let newest = cluster.history.last().map_or(Epoch::NONE, |record| record.epoch);
    // Named in between, and perhaps promoted without anybody hearing of it.
    let fences = cluster.operation.iter().flat_map(|operation| &operation.fences);
    let named: BTreeSet<_> =
        fences.filter(|record| record.epoch > newest).map(|record| record.member.clone()).collect();
    let before = cluster.history.last().map(|record| record.epoch);
    let members: Vec<_> = cluster.config.members.keys().cloned().collect();
    for member in members {
        if member == *primary {
            cluster.sync.remove(&member);
            continue;
        }
        let confirmed_before = matches!(cluster.sync.get(&member), Some(SyncState::Confirmed { epoch }) if Some(*epoch) == before);
        let prepared = cluster.config.members[&member].promotable;
        let state = if in_place && confirmed_before && !prepared && !named.contains(&member) {
            SyncState::Confirmed { epoch }
        } else {
            SyncState::Unconfirmed { why: format!("not yet seen to follow epoch {epoch}") }
        };
        cluster.sync.insert(member, state);
    }
}

/// One provider has the record.
pub(crate) fn redirected(
    cluster: &mut Cluster,
    change: &mut Change,
    key: &EffectKey,
    provider: &str,
    changed: bool,
) {
    retire(cluster, key);
    change.touched(cluster);
    if !running(cluster).effects.is_empty() {
        return;
    }
    let how = if changed { "changed" } else { "found as desired" };
    let text = format!("{} {how} by {provider}", cluster.config.dns_name);
    change.event(cluster, EventKind::Redirected, "9 providers", None, text.clone());
    validate(cluster, change, text);
}

fn validate(cluster: &mut Cluster, change: &mut Change, evidence: String) {
    enter(running(cluster), change, Step::Validate, evidence);
    let appointment = cluster.appointment.clone().expect("checked: there is an appointment");
    let config = &cluster.config.members[&appointment.member];
    let directive = Directive::Validate {
        name: cluster.config.dns_name.clone(),
        address: config.client_address.to_string(),
        port: config.client_port,
        epoch: appointment.epoch,
    };
    add_effect(
        cluster,
        change,
        appointment.epoch,
        EffectKind::Agent { member: appointment.member, directive },
    );
}

/// The marker row came back.
pub(crate) fn validated(
    cluster: &mut Cluster,
    change: &mut Change,
    key: &EffectKey,
    address: &str,
    elapsed_ms: u64,
) {
    retire(cluster, key);
    let text = format!("marker row written and read back through {address} in {elapsed_ms} ms");
    change.event(cluster, EventKind::Validated, "8 validate", None, text.clone());
    finish(cluster, change, OperationResult::Done { warning: None }, text);
}

/// The marker row did not come back: the promotion stands, an operator should look.
pub(crate) fn validation_failed(cluster: &mut Cluster, change: &mut Change, reason: &str) {
    let warning = Some(format!("validation failed: {reason}"));
    finish(cluster, change, OperationResult::Done { warning }, reason.to_owned());
}
