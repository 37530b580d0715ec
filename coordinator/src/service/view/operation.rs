//! Operations and their reports: the measured times beside the recovery plan's budgets (DESIGN section 12).

use regent_core::{
    Certainty, Cluster, FenceProof, FenceRecord, Kind, LossReport, LossUpperBound, Operation,
    OperationResult, Step, StepRecord, Trigger, Verdict, VerdictReason,
};
use regent_proto::v1;

use super::step_name;

const MINUTE_MS: u64 = 60_000;

/// One line of a history.
pub fn summary(cluster: &Cluster, operation: &Operation, now_wall_ms: u64) -> v1::OperationSummary {
    let to = appointed(cluster, operation);
    let (state, reason, warning) = match (&operation.result, &operation.waiting) {
        (Some(OperationResult::Done { warning }), _) if rolled_back(operation, to.as_ref()) => {
            (v1::OperationState::RolledBack, Some(why_rolled_back(operation)), warning.clone())
        }
        (Some(OperationResult::Done { warning }), _) => (v1::OperationState::Done, None, warning.clone()),
        (Some(OperationResult::Aborted { reason }), _) => {
            (v1::OperationState::Aborted, Some(reason.clone()), None)
        }
        (None, Some(waiting)) => (v1::OperationState::Waiting, Some(waiting.clone()), None),
        (None, None) => (v1::OperationState::Running, None, None),
    };
    let ended_ms = operation.ended_wall_ms.unwrap_or(now_wall_ms);
    v1::OperationSummary {
        id: operation.id.0,
        kind: kind(&operation.kind) as i32,
        trigger: trigger(&operation.trigger) as i32,
        state: state as i32,
        step: step_name(operation.step).to_owned(),
        started_wall_ms: operation.began_wall_ms,
        elapsed_ms: ended_ms.saturating_sub(operation.began_wall_ms),
        reason,
        from_epoch: operation.from.as_ref().map_or(0, |from| from.epoch.0),
        to_epoch: to.as_ref().map(|(epoch, _)| *epoch),
        from_member: match &operation.kind {
            Kind::Observed { member } => Some(member.to_string()),
            _ => operation.from.as_ref().map(|from| from.member.to_string()),
        },
        to_member: to
            .map(|(_, member)| member)
            .or_else(|| operation.target.as_ref().map(ToString::to_string)),
        warning,
    }
}

/// A failover that ended where it began: nobody else could be promoted. Not one after a restart of the primary's own
/// guard, whose aim is a new epoch for the same member.
fn rolled_back(operation: &Operation, to: Option<&(u64, String)>) -> bool {
    let (Some(from), Some((_, to))) = (&operation.from, to) else { return false };
    matches!(operation.kind, Kind::Failover | Kind::Switchover | Kind::Failback)
        && !matches!(operation.trigger, Trigger::InstanceChanged { .. })
        && from.member.as_str() == to
}

fn why_rolled_back(operation: &Operation) -> String {
    if let Some(reason) = &operation.rollback {
        return reason.clone();
    }
    let others: Vec<String> = operation
        .verdicts
        .iter()
        .filter(|verdict| !matches!(verdict.reason, VerdictReason::Chosen { .. }))
        .map(|verdict| format!("{}: {}", verdict.member, verdict.reason))
        .collect();
    format!("the old primary was appointed again, nobody else could be promoted ({})", others.join("; "))
}

/// The epoch that the operation led to: of the appointments after its start, the newest that is its target's.
fn appointed(cluster: &Cluster, operation: &Operation) -> Option<(u64, String)> {
    // A planned move that was aborted had a target, and appointed nobody.
    let aborted = matches!(operation.result, Some(OperationResult::Aborted { .. }));
    if aborted
        || matches!(
            operation.kind,
            Kind::Rejoin { .. } | Kind::Restart { .. } | Kind::Drill { .. } | Kind::Observed { .. }
        )
    {
        return None;
    }
    let target = operation.target.as_ref()?;
    let from = operation.from.as_ref().map_or(0, |from| from.epoch.0);
    let running = operation.result.is_none().then_some(cluster.appointment.as_ref()).flatten();
    let running = running.filter(|a| a.member == *target).map(|a| a.epoch.0);
    let past = cluster.history.iter().find(|record| record.member == *target && record.epoch.0 > from);
    let epoch = running.or(past.map(|record| record.epoch.0)).filter(|epoch| *epoch > from)?;
    Some((epoch, target.to_string()))
}

fn kind(kind: &Kind) -> v1::OperationKind {
    match kind {
        Kind::Bootstrap => v1::OperationKind::Bootstrap,
        Kind::Failover => v1::OperationKind::Failover,
        Kind::Rejoin { .. } => v1::OperationKind::Rejoin,
        Kind::Switchover => v1::OperationKind::Switchover,
        Kind::Failback => v1::OperationKind::Failback,
        Kind::Restart { .. } => v1::OperationKind::Restart,
        Kind::Drill { .. } => v1::OperationKind::Drill,
        Kind::Observed { .. } => v1::OperationKind::Observed,
    }
}

fn trigger(trigger: &Trigger) -> v1::Trigger {
    match trigger {
        Trigger::Bootstrap => v1::Trigger::Bootstrap,
        Trigger::Partition { .. } => v1::Trigger::Partition,
        Trigger::PostgresDown { .. } => v1::Trigger::PostgresDown,
        Trigger::DiskFailure { .. } => v1::Trigger::DiskFailure,
        Trigger::InstanceChanged { .. } => v1::Trigger::InstanceChanged,
        Trigger::Operator => v1::Trigger::Operator,
        Trigger::NotInSync { .. } => v1::Trigger::NotInSync,
        Trigger::Schedule { .. } => v1::Trigger::Schedule,
        Trigger::PreferredRegion { .. } => v1::Trigger::PreferredRegion,
    }
}

/// What the detector found, in words; nothing for an operator's request.
pub(super) fn found(trigger: &Trigger) -> String {
    match trigger {
        Trigger::Bootstrap => "a new cluster".to_owned(),
        Trigger::Partition { silent_ms } => {
            format!("no coordinator heard the primary's agent for {silent_ms} ms")
        }
        Trigger::PostgresDown { down_ms } => format!("PostgreSQL accepted no connection for {down_ms} ms"),
        Trigger::DiskFailure { probe } => format!("the disk failed: {probe}"),
        Trigger::InstanceChanged { bound, found } => {
            format!("the guard restarted: the epoch is bound to instance {bound}, {found} lives")
        }
        Trigger::Operator => String::new(),
        Trigger::NotInSync { why } => format!("the member is not in sync: {why}"),
        Trigger::Schedule { at_wall_ms } => format!("scheduled for {at_wall_ms} ms"),
        Trigger::PreferredRegion { region } => format!("the preferred region {region} is in sync"),
    }
}

fn why(operation: &Operation) -> String {
    let found = found(&operation.trigger);
    match (found.is_empty(), operation.reason.is_empty()) {
        (true, _) => operation.reason.clone(),
        (false, true) => found,
        (false, false) if operation.reason == found => found,
        (false, false) => format!("{found}; {}", operation.reason),
    }
}

/// The full report.
pub fn report(cluster: &Cluster, operation: &Operation, now_wall_ms: u64) -> v1::OperationReport {
    let request = cluster.requests.iter().find(|(_, id)| *id == Some(operation.id));
    let (upper, last, salvage) = match &operation.loss {
        LossReport::NotApplicable => {
            let would = operation.drill.as_ref().and_then(|drill| drill.loss.as_ref());
            (would.map(upper_bound), None, None)
        }
        LossReport::UpperBound(bound) => (Some(upper_bound(bound)), None, None),
        LossReport::None if operation.kind.is_planned() => (None, Some(nothing_to_lose(operation)), None),
        LossReport::None => (None, Some(nothing_lost()), None),
        LossReport::Final(salvage) => (None, Some(final_loss(salvage)), Some(salvage.clone().into())),
    };
    v1::OperationReport {
        cluster: cluster.config.name.to_string(),
        summary: Some(summary(cluster, operation, now_wall_ms)),
        requested_by: operation.actor.clone(),
        why: why(operation),
        request_id: request.map(|(id, _)| id.to_string()),
        steps: operation.steps.iter().map(step).collect(),
        phases: phases(operation),
        fence: operation.fences.iter().map(rung).collect(),
        candidates: operation.verdicts.iter().map(verdict).collect(),
        loss_upper_bound: upper,
        loss_final: last,
        salvage,
        evidence: None,
        drill: None,
        acknowledged_loss: operation.acknowledged_loss.clone(),
    }
}

fn step(record: &StepRecord) -> v1::StepReport {
    v1::StepReport {
        name: step_name(record.step).to_owned(),
        started_wall_ms: record.began_wall_ms,
        elapsed_ms: record.ended_wall_ms.map(|ended| ended.saturating_sub(record.began_wall_ms)),
        budget_ms: budget(record.step),
        evidence: record.evidence.clone(),
    }
}

fn budget(step: Step) -> Option<u64> {
    match step {
        Step::Checkpoint | Step::Fence | Step::Choose => Some(10 * MINUTE_MS),
        Step::Promote => Some(20 * MINUTE_MS),
        Step::Redirect => Some(5 * MINUTE_MS),
        Step::Validate => Some(20 * MINUTE_MS),
        Step::Rebuild | Step::Confirm => Some(60 * MINUTE_MS),
        Step::Detect => Some(5 * MINUTE_MS),
        Step::Away | Step::Back => Some(20 * MINUTE_MS),
        Step::Declare | Step::Done | Step::Restart => None,
    }
}

/// The recovery plan's phases, each with the steps that it covers.
fn phases(operation: &Operation) -> Vec<v1::PhaseReport> {
    let spent = |wanted: &[Step]| {
        let steps = operation.steps.iter().filter(|record| wanted.contains(&record.step));
        let times = steps.filter_map(|r| r.ended_wall_ms.map(|ended| ended.saturating_sub(r.began_wall_ms)));
        times.reduce(|a, b| a + b)
    };
    let phase = |name: &str, elapsed_ms: Option<u64>, minutes: u64| v1::PhaseReport {
        name: name.to_owned(),
        elapsed_ms,
        budget_ms: minutes * MINUTE_MS,
    };
    if matches!(operation.kind, Kind::Restart { .. }) {
        return Vec::new();
    }
    if matches!(operation.kind, Kind::Rejoin { .. }) {
        return vec![phase("full_sync", spent(&[Step::Rebuild, Step::Confirm]), 60)];
    }
    if let Kind::Drill { full, .. } = operation.kind {
        let silent_ms = operation.drill.as_ref().map(|drill| drill.silent_ms);
        let mut all = vec![phase("detection", silent_ms, 5)];
        if full {
            all.push(phase("failover_preparation", spent(&[Step::Away]), 20));
            all.push(phase("full_sync", spent(&[Step::Confirm]), 60));
        }
        return all;
    }
    let detection = match operation.trigger {
        Trigger::Partition { silent_ms } => Some(silent_ms),
        Trigger::PostgresDown { down_ms } => Some(down_ms),
        _ => None,
    };
    if matches!(operation.kind, Kind::Observed { .. }) {
        return vec![phase("detection", detection, 5)];
    }
    vec![
        phase("detection", detection, 5),
        phase("assessment", spent(&[Step::Fence, Step::Choose]), 10),
        phase("failover_preparation", spent(&[Step::Promote]), 20),
        phase("dns", spent(&[Step::Redirect]), 5),
        phase("reconnection", operation.reconnected_ms, 10),
        phase("validation", spent(&[Step::Validate]), 20),
        phase("full_sync", None, 60),
    ]
}

fn rung(record: &FenceRecord) -> v1::FenceRung {
    let certainty = match record.certainty {
        Certainty::Confirmed => v1::FenceCertainty::Confirmed,
        Certainty::AssumedByLease => v1::FenceCertainty::AssumedByLease,
        Certainty::Unknown => v1::FenceCertainty::Unknown,
    };
    let (name, evidence) = match &record.proof {
        FenceProof::Acknowledged(fenced) => {
            let lsn = fenced.checkpoint_lsn.map_or_else(|| "unknown".to_owned(), |lsn| lsn.to_string());
            let how = if fenced.clean { "cleanly" } else { "not cleanly" };
            let text = format!(
                "guard {} is fenced through epoch {}, stopped {how}, checkpoint {lsn}",
                fenced.instance, fenced.epoch
            );
            ("acknowledged", text)
        }
        FenceProof::LeaseExpired { leadership, led_for_ms, passed_for_ms } => {
            let text = format!(
                "the bound had passed by {passed_for_ms} ms; {leadership} had led for {led_for_ms} ms"
            );
            ("lease_expired", text)
        }
        FenceProof::Operator { actor, reason } => ("operator", format!("{actor}: {reason}")),
        FenceProof::External(external) => {
            let text = format!(
                "driver {} says after {} ms that instance {} is {}: {}",
                external.driver,
                external.elapsed_ms,
                external.instance,
                external.confinement,
                external.detail
            );
            ("external", text)
        }
    };
    let evidence = format!("{} of epoch {}: {evidence}", record.member, record.epoch);
    v1::FenceRung { rung: name.to_owned(), certainty: certainty as i32, evidence }
}

/// Why a member was chosen or not.
pub(super) fn verdict(verdict: &Verdict) -> v1::CandidateVerdict {
    let (received, lag_bytes, lag_ms) = match &verdict.reason {
        VerdictReason::Chosen { received } => (*received, None, None),
        VerdictReason::LagAboveBound { lag_bytes, .. } => (None, Some(*lag_bytes), None),
        VerdictReason::LagTimeAboveBound { lag_ms, .. } => (None, None, Some(*lag_ms)),
        _ => (None, None, None),
    };
    let reason = match &verdict.reason {
        VerdictReason::Chosen { received: Some(received) } => format!("chosen: received {received}"),
        VerdictReason::Chosen { received: None } => "chosen".to_owned(),
        other => other.to_string(),
    };
    v1::CandidateVerdict {
        member: verdict.member.to_string(),
        chosen: matches!(verdict.reason, VerdictReason::Chosen { .. }),
        reason,
        received_lsn: received.map(|lsn| lsn.to_string()),
        lag_bytes,
        lag_ms,
    }
}

/// Known when the new primary is appointed.
pub(super) fn upper_bound(bound: &LossUpperBound) -> v1::LossReport {
    v1::LossReport {
        none: false,
        from_lsn: bound.received_lsn.map(|lsn| lsn.to_string()),
        to_lsn: bound.primary_lsn.map(|lsn| lsn.to_string()),
        bytes: bound.bytes_at_last_contact,
        span_ms: Some(bound.exposed_ms),
        transactions: None,
        note:
            "difference at the last contact, and what the old primary accepted from then until it was fenced"
                .into(),
    }
}

/// A planned move loses nothing, or its target would not have been appointed.
fn nothing_to_lose(operation: &Operation) -> v1::LossReport {
    let checkpoint = operation.fences.iter().find_map(|record| match &record.proof {
        FenceProof::Acknowledged(fenced) if fenced.clean => fenced.checkpoint_lsn,
        _ => None,
    });
    let position = checkpoint.map_or_else(|| "unknown".to_owned(), |lsn| lsn.to_string());
    v1::LossReport {
        none: true,
        note: format!("the new primary had replayed the old one's shutdown checkpoint at {position}"),
        ..Default::default()
    }
}

fn nothing_lost() -> v1::LossReport {
    v1::LossReport {
        none: true,
        note: "the old primary was read: nothing diverged".into(),
        ..Default::default()
    }
}

fn final_loss(salvage: &regent_types::SalvageSummary) -> v1::LossReport {
    let note = match &salvage.completeness {
        regent_types::SalvageCompleteness::Complete => format!("kept whole in {}", salvage.folder),
        regent_types::SalvageCompleteness::Partial { reason } => {
            format!("kept in part in {}: {reason}", salvage.folder)
        }
    };
    v1::LossReport {
        none: false,
        from_lsn: Some(salvage.from_lsn.to_string()),
        to_lsn: Some(salvage.to_lsn.to_string()),
        bytes: Some(salvage.bytes()),
        span_ms: Some(salvage.span_ms),
        transactions: Some(salvage.transactions),
        note,
    }
}
