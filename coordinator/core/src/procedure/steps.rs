//! Bookkeeping of operations: begin, next step, effects, end. Decides nothing.

use std::collections::BTreeSet;

use regent_types::{EffectKey, Epoch, OperationId};

use super::Change;
use crate::{
    Cluster, Effect, EffectKind, EventKind, Kind, LossReport, Operation, OperationResult, Step, StepRecord,
    Trigger, proposal::Evidence, state,
};

/// What starts an operation.
pub(crate) struct Start {
    pub kind: Kind,
    pub trigger: Trigger,
    pub actor: String,
    pub reason: String,
    pub evidence: Evidence,
}

/// Begins an operation in *Declare*.
pub(crate) fn begin(cluster: &mut Cluster, change: &mut Change, start: Start) {
    if matches!(start.kind, Kind::Failover | Kind::Switchover | Kind::Failback) {
        super::drill::superseded(cluster, change, &start.reason);
    }
    assert!(cluster.operation.is_none(), "one operation at a time");
    cluster.operation = Some(record(cluster, change, start));
}

/// The next operation, in *Declare*.
pub(crate) fn record(cluster: &mut Cluster, change: &Change, start: Start) -> Operation {
    cluster.next_operation += 1;
    Operation {
        id: OperationId(cluster.next_operation),
        kind: start.kind,
        trigger: start.trigger,
        actor: start.actor,
        reason: start.reason,
        from: cluster.appointment.clone(),
        evidence: start.evidence,
        step: Step::Declare,
        steps: vec![StepRecord {
            step: Step::Declare,
            began_wall_ms: change.wall_ms,
            ended_wall_ms: None,
            evidence: String::new(),
        }],
        effects: Vec::new(),
        next_effect: 1,
        fences: Vec::new(),
        verdicts: Vec::new(),
        excluded: BTreeSet::new(),
        wanted: None,
        consent: None,
        target: None,
        loss: LossReport::NotApplicable,
        waiting: None,
        result: None,
        began_wall_ms: change.wall_ms,
        ended_wall_ms: None,
        rollback: None,
        reconnected_ms: None,
        drill: None,
        acknowledged_loss: None,
    }
}

/// Ends the running step with its evidence and enters `step`.
pub(crate) fn enter(operation: &mut Operation, change: &Change, step: Step, evidence: String) {
    close_step(operation, change, evidence);
    operation.step = step;
    operation.waiting = None;
    operation.steps.push(StepRecord {
        step,
        began_wall_ms: change.wall_ms,
        ended_wall_ms: None,
        evidence: String::new(),
    });
}

fn close_step(operation: &mut Operation, change: &Change, evidence: String) {
    if let Some(last) = operation.steps.last_mut() {
        last.ended_wall_ms = Some(change.wall_ms);
        last.evidence = evidence;
    }
}

/// Adds an effect under the next key.
pub(crate) fn add_effect(cluster: &mut Cluster, change: &mut Change, epoch: Epoch, kind: EffectKind) {
    let name = cluster.config.name.clone();
    let operation = super::running(cluster);
    let key = EffectKey { cluster: name, operation: operation.id, step: operation.next_effect, epoch };
    operation.next_effect += 1;
    let effect = Effect { key, kind };
    change.created(&effect);
    operation.effects.push(effect);
}

/// Retires one effect.
pub(crate) fn retire(cluster: &mut Cluster, key: &EffectKey) {
    super::running(cluster).effects.retain(|effect| effect.key != *key);
}

/// Retires every effect of the running operation.
pub(crate) fn retire_all(cluster: &mut Cluster) {
    super::running(cluster).effects.clear();
}

/// Ends an operation that is kept beside the running one; whatever runs keeps its place.
pub(crate) fn finish_beside(
    cluster: &mut Cluster,
    change: &mut Change,
    operation: Operation,
    result: OperationResult,
    evidence: String,
) {
    let other = cluster.operation.replace(operation);
    finish(cluster, change, result, evidence);
    cluster.operation = other;
}

/// Ends the running operation.
pub(crate) fn finish(cluster: &mut Cluster, change: &mut Change, result: OperationResult, evidence: String) {
    let text = match &result {
        OperationResult::Done { warning: None } => "done".to_owned(),
        OperationResult::Done { warning: Some(warning) } => format!("done, but {warning}"),
        OperationResult::Aborted { reason } => format!("aborted: {reason}"),
    };
    change.touched(cluster);
    change.event(cluster, EventKind::Ended, "8 operation ended", None, text);
    let mut operation = cluster.operation.take().expect("checked: an operation is running");
    close_step(&mut operation, change, evidence);
    operation.effects.clear();
    operation.waiting = None;
    operation.step = Step::Done;
    operation.result = Some(result);
    operation.ended_wall_ms = Some(change.wall_ms);
    cluster.finished.push_back(operation);
    while cluster.finished.len() > state::OPERATIONS_KEPT {
        // A rejoin that fails again and again must not push out the failover whose loss it would make final.
        let failed = cluster.finished.iter().position(|old| {
            matches!(old.kind, Kind::Rejoin { .. })
                && matches!(old.result, Some(OperationResult::Aborted { .. }))
        });
        cluster.finished.remove(failed.unwrap_or(0));
    }
}
