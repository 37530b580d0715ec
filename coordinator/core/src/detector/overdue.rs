//! Deadlines of steps, on the leader's clock. A new leader counts anew: a deadline may come late, never early.
//!
//! A rejoin has all the time that it needs while it gets anywhere. News without progress do not count: a member that
//! reports for ever and never gets done would keep every other member's rejoin waiting, one operation at a time.

use regent_types::{ClusterName, DataForm, Epoch, Heartbeat, Lsn, OperationId, PostgresState};

use super::Detector;
use crate::{Body, Cluster, Step};

/// What a member has got done: any change of it is progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    form: DataForm,
    running: bool,
    job: Option<(String, u64)>,
    received: Option<Lsn>,
    replayed: Option<Lsn>,
    lineage: Epoch,
}

impl Progress {
    /// A heartbeat arrived.
    pub fn observe(known: &mut Option<(Progress, u64)>, heartbeat: &Heartbeat, now_ns: u64) {
        let report = &heartbeat.report;
        let now = Progress {
            form: report.data.form,
            running: report.postgres.state == PostgresState::Standby,
            job: report.job.as_ref().map(|job| (job.kind.clone(), job.done_bytes)),
            received: report.wal.received_lsn,
            replayed: report.wal.replayed_lsn,
            lineage: report.data.lineage,
        };
        if known.as_ref().is_none_or(|(last, _)| now.is_further_than(last)) {
            *known = Some((now, now_ns));
        }
    }

    /// A server that starts and stops over and over gets nowhere, so that alone does not count.
    fn is_further_than(&self, last: &Progress) -> bool {
        let advanced = |now: Option<Lsn>, then: Option<Lsn>| now.is_some() && now > then;
        self.form != last.form
            || self.lineage != last.lineage
            || (self.job != last.job && self.job.is_some())
            || (self.running
                && (advanced(self.received, last.received) || advanced(self.replayed, last.replayed)))
    }
}

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
            Step::Promote | Step::Restart => (policy.promote_timeout_ms, watch.since_ns),
            Step::Validate => (policy.validate_timeout_ms, watch.since_ns),
            Step::Checkpoint => (policy.switchover_timeout_ms, watch.since_ns),
            // A planned move that can appoint nobody becomes a failover, and not sooner than silence would have begun one:
            // the old primary may come back, and then nothing is lost.
            Step::Choose if operation.kind.is_planned() => (policy.partition_timeout_ms, watch.since_ns),
            Step::Rebuild => {
                let memory = self.memory(name, operation.target.as_ref()?);
                let progress_ns = memory.and_then(|memory| memory.progress.as_ref()).map(|(_, at_ns)| *at_ns);
                (policy.rejoin_timeout_ms, progress_ns.unwrap_or_default().max(watch.since_ns))
            }
            // It has started: either it streams and its lag gets small within the time, or it is too slow for its primary.
            Step::Confirm => (policy.rejoin_timeout_ms, watch.since_ns),
            Step::Declare
            | Step::Fence
            | Step::Choose
            | Step::Redirect
            | Step::Done
            | Step::Detect
            | Step::Away
            | Step::Back => return None,
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
