//! What holds automatic failover back, for the status.

use regent_core::Cluster;
use regent_proto::v1;
use regent_types::Automation;

use crate::{node::Node, shared::Inner};

/// `None` when nothing does.
pub fn restraint(node: &Node, inner: &Inner, cluster: &Cluster, now_ns: u64) -> Option<v1::Restraint> {
    let name = &cluster.config.name;
    let restraint = v1::Restraint {
        pending: cluster.pending.as_ref().map(|pending| v1::PendingFailover {
            member: pending.member.to_string(),
            found: super::operation::found(&pending.trigger),
            why: pending.why.to_string(),
            since_wall_ms: pending.since_wall_ms,
        }),
        cooldown_after: cluster.cooldown.as_ref().map(|cooldown| cooldown.operation.0),
        cooldown_remaining_ms: inner.cooldowns.remaining_ms(now_ns, cluster),
        refusal: inner.detector.refusal(name).map(str::to_owned),
        resumes_to: (cluster.automation == Automation::Paused).then(|| cluster.resumed.name().to_owned()),
        observed: cluster.observed.as_ref().map(|seen| v1::Observation {
            primary: seen.primary.to_string(),
            since_wall_ms: seen.since_wall_ms,
            would: seen.would.as_ref().map(|would| would.reason.clone()),
            count: seen.count,
        }),
        veto: node.vetoes.objection(now_ns / 1_000_000, name),
    };
    (restraint != v1::Restraint::default()).then_some(restraint)
}
