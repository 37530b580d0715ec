//! A dry run of a failover: the core itself, on a copy of the state, with the members' last reports in place of what
//! they would answer. Nothing of it is proposed.

use regent_core::{
    Body, EffectKind, FenceProof, Leadership, LossReport, Operation, OperatorRequest, Position, Proposal,
    Rejection, State,
};
use regent_proto::v1;
use regent_types::{CandidateReport, FencedEvidence, Heartbeat, MemberName};

use super::operation;
use crate::shared::Inner;

/// What `request` would do now.
pub fn plan(
    inner: &Inner,
    leadership: Leadership,
    proposal: &Proposal,
    request: &OperatorRequest,
    now_ns: u64,
) -> Result<v1::FailoverPlan, Rejection> {
    let mut state = inner.state.clone();
    let mut index = state.applied_index;
    let mut apply = |state: &mut State, proposal: &Proposal| {
        index += 1;
        state.apply(Position { index, leadership }, proposal)
    };
    let name = &request.cluster;
    let before = state
        .clusters
        .get(name)
        .cloned()
        .ok_or_else(|| Rejection::UnknownCluster { cluster: name.clone() })?;
    let mut plan = v1::FailoverPlan {
        cluster: name.to_string(),
        epoch: before.epoch.0,
        from_member: before.appointment.as_ref().map(|appointment| appointment.member.to_string()),
        ..Default::default()
    };
    match apply(&mut state, proposal) {
        Ok(_) => {}
        // The caller's own mistakes are errors; what the state says no to is what a plan is for.
        Err(
            rejection @ (Rejection::StaleEpoch { .. }
            | Rejection::UnknownCluster { .. }
            | Rejection::UnknownMember { .. }),
        ) => {
            return Err(rejection);
        }
        Err(rejection) => {
            plan.blockers.push(rejection.to_string());
            return Ok(plan);
        }
    }
    let reports = |member: &MemberName| {
        inner.detector.last_report(now_ns, name, member).map(|(heartbeat, _)| heartbeat.clone())
    };
    let fence = state.clusters[name].effects().iter().find_map(|effect| match &effect.kind {
        EffectKind::Fence { epoch, member, instance, boot, candidates, .. } => {
            Some((effect.key.clone(), *epoch, member.clone(), *instance, boot.clone(), candidates.clone()))
        }
        _ => None,
    });
    if let Some((key, epoch, member, instance, boot, mut candidates)) = fence {
        // The best case: the old primary's guard answers, and what each member last reported is what it would say.
        let proof = FenceProof::Acknowledged(FencedEvidence {
            epoch,
            instance,
            boot,
            succeeds: Vec::new(),
            checkpoint_lsn: None,
            timeline: None,
            clean: true,
        });
        candidates.push(member);
        let candidates = candidates.iter().filter_map(reports).map(|h| candidate(&h, epoch)).collect();
        let body = Body::FenceProven { key, proof, candidates };
        if let Err(rejection) = apply(&mut state, &Proposal { body, ..proposal.clone() }) {
            plan.blockers.push(rejection.to_string());
        }
    }
    let cluster = &state.clusters[name];
    if let Some(running) = cluster.operation.as_ref().or(cluster.finished.back()) {
        describe(&mut plan, running, cluster);
    }
    Ok(plan)
}

fn describe(plan: &mut v1::FailoverPlan, running: &Operation, cluster: &regent_core::Cluster) {
    plan.to_member = running.target.as_ref().map(ToString::to_string);
    plan.candidates = running.verdicts.iter().map(operation::verdict).collect();
    plan.blockers.extend(running.waiting.clone());
    if let LossReport::UpperBound(bound) = &running.loss {
        plan.loss_upper_bound = Some(operation::upper_bound(bound));
    }
    let policy = &cluster.config.policy;
    let bound_ms = cluster.lease_bound_ns().div_ceil(1_000_000);
    let target = plan.to_member.clone().unwrap_or_else(|| "nobody".to_owned());
    let steps = [
        (
            "fence",
            "the old primary's guard acknowledges, or its lease is waited for".to_owned(),
            Some(bound_ms),
        ),
        (
            "promote",
            format!("{target} replays what it received and is promoted"),
            Some(policy.promote_timeout_ms),
        ),
        ("redirect", format!("{} leads to {target}", cluster.config.dns_name), None),
        ("validate", "a marker row is written through the name".to_owned(), Some(policy.validate_timeout_ms)),
    ];
    let planned = |(name, text, at_most_ms): (&str, String, Option<u64>)| v1::PlannedStep {
        name: name.to_owned(),
        text,
        at_most_ms,
    };
    plan.steps = steps.into_iter().map(planned).collect();
}

/// What a member would report if it were prepared now.
fn candidate(heartbeat: &Heartbeat, fenced: regent_types::Epoch) -> CandidateReport {
    let report = &heartbeat.report;
    CandidateReport {
        member: heartbeat.member.clone(),
        instance: heartbeat.instance,
        boot: heartbeat.boot.clone(),
        received_lsn: report.wal.received_lsn.or(report.wal.write_lsn),
        replayed_lsn: report.wal.replayed_lsn,
        timeline: report.wal.timeline.or(report.data.timeline),
        system_id: report.data.system_id,
        form: report.data.form,
        lineage: report.data.lineage,
        promises_closed: fenced,
        refused: report.guard.refused.clone(),
        stamp_ns: heartbeat.stamp_ns,
        promise_left_ms: None,
    }
}
