//! Deadlines of steps, on the leader's clock. A new leader counts anew: a deadline may come late, never early.

use regent_types::{ClusterName, Epoch, OperationId};

use super::Detector;
use crate::{Body, Cluster, Step};

/// Since when this leader has seen a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StepWatch {
    operation: OperationId,
    step: Step,
    epoch: Epoch,
    since_ns: u64,
}

impl Detector {
    pub(super) fn overdue(&mut self, now_ns: u64, name: &ClusterName, cluster: &Cluster) -> Option<Body> {
        let Some(operation) = &cluster.operation else {
            self.watches.remove(name);
            return None;
        };
        let fresh = StepWatch {
            operation: operation.id,
            step: operation.step,
            epoch: cluster.epoch,
            since_ns: now_ns,
        };
        let watch = self.watches.entry(name.clone()).or_insert(fresh);
        if (watch.operation, watch.step, watch.epoch) != (fresh.operation, fresh.step, fresh.epoch) {
            *watch = fresh;
        }
        let watch = *watch;
        let policy = &cluster.config.policy;
        let (deadline_ms, from_ns) = match operation.step {
            Step::Promote => (policy.promote_timeout_ms, watch.since_ns),
            Step::Validate => (policy.validate_timeout_ms, watch.since_ns),
            // As long as the member reports, its own budgets bound the work.
            Step::Rebuild | Step::Confirm => {
                let target = operation.target.as_ref()?;
                let memory = self.memory(name, target);
                let news_ns =
                    memory.and_then(|m| m.last.as_ref()).map(|(heartbeat, at_ns)| match operation.step {
                        Step::Confirm if !heartbeat.report.wal.streaming => watch.since_ns,
                        _ => *at_ns,
                    });
                (policy.rejoin_timeout_ms, news_ns.unwrap_or_default().max(watch.since_ns))
            }
            Step::Declare | Step::Fence | Step::Choose | Step::Redirect | Step::Done => return None,
        };
        let after_ms = now_ns.saturating_sub(from_ns) / 1_000_000;
        (after_ms >= deadline_ms).then(|| Body::StepOverdue {
            cluster: name.clone(),
            operation: watch.operation,
            step: watch.step,
            epoch: watch.epoch,
            after_ms,
        })
    }
}
