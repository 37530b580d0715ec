//! `Explain`: the core's explanation, from the leader's memory. Decides nothing.

use regent_core::{Cluster, DeclareEvidence, Explanation, GAP_THRESHOLDS_MS, Operation, Shell};
use regent_proto::v1::{self, ExplainReply, ExplainRequest};
use tonic::{Response, Status};

use super::{
    auth::{self, Caller},
    operator::{Answered, Operators, RELAY_TIMEOUT, Way, cluster_name},
};
use crate::{node::Node, shared::Inner};

impl Operators {
    /// Answered by the leader only, confirmed by a quorum: what a deposed one believes explains nothing.
    pub(super) async fn explanation(
        &self,
        caller: Caller,
        message: ExplainRequest,
    ) -> Answered<ExplainReply> {
        let name = cluster_name(&message.cluster)?;
        if let Way::There(mut client) = self.way(&caller)? {
            let request = auth::on_behalf(message, &caller.actor())?;
            return self.in_time(RELAY_TIMEOUT, client.explain(request)).await;
        }
        self.confirmed().await?;
        let now_ns = self.node.clock.now_ns();
        let inner = self.node.shared.lock();
        let cluster = inner.state.clusters.get(&name);
        let cluster = cluster.ok_or_else(|| Status::not_found(format!("there is no cluster {name}")))?;
        let shell = shell(&self.node, &inner, now_ns, cluster);
        let explained = inner.detector.explain(now_ns, cluster, &shell);
        let explained = explained.ok_or_else(|| Status::unavailable("this node does not lead any more"))?;
        let mut reply = reply(explained, |id| region(&self.node, id));
        reply.cluster = name.to_string();
        reply.epoch = cluster.epoch.0;
        let appointed = cluster.appointment.as_ref().map(|appointment| &appointment.member);
        let seen = cluster.observed.as_ref().map(|seen| &seen.primary);
        reply.primary = appointed.or(seen).map(ToString::to_string);
        Ok(Response::new(reply))
    }
}

fn region(node: &Node, id: &regent_types::CoordinatorId) -> String {
    node.config.peers.get(id).map(|peer| peer.region.to_string()).unwrap_or_default()
}

/// What the detector does not know itself.
pub fn shell(node: &Node, inner: &Inner, now_ns: u64, cluster: &Cluster) -> Shell {
    Shell {
        coordinators: node.config.peers.keys().copied().collect(),
        own: node.heard.own(now_ns),
        lease_left_ms: inner.leases.held(now_ns, cluster).map(|left_ns| left_ns / 1_000_000),
        cooldown_left_ms: inner.cooldowns.remaining_ms(now_ns, cluster),
        veto: node.vetoes.objection(now_ns / 1_000_000, &cluster.config.name),
    }
}

/// What the leader knows, for an operator's failover, with the explanation of that moment beside it.
pub(super) fn evidence(node: &Node, inner: &Inner, cluster: &Cluster) -> DeclareEvidence {
    let now_ns = node.clock.now_ns();
    let snapshot = inner.detector.snapshot(now_ns, cluster, &shell(node, inner, now_ns, cluster));
    DeclareEvidence { snapshot, ..inner.detector.evidence(now_ns, cluster) }
}

/// The report with what was known when the operation was declared, and a drill's own part.
pub(super) fn with_evidence(
    node: &Node,
    cluster: &Cluster,
    operation: &Operation,
    report: v1::OperationReport,
) -> v1::OperationReport {
    let evidence = operation.evidence.snapshot.as_deref().map(|snapshot| {
        let from = operation.from.as_ref();
        ExplainReply {
            cluster: cluster.config.name.to_string(),
            epoch: from.map_or(0, |from| from.epoch.0),
            primary: from.map(|from| from.member.to_string()),
            ..reply(snapshot.clone(), |id| region(node, id))
        }
    });
    v1::OperationReport { evidence, drill: super::drill::report(operation), ..report }
}

fn reply(explained: Explanation, region: impl Fn(&regent_types::CoordinatorId) -> String) -> ExplainReply {
    let condition = |one: regent_core::Condition| v1::Condition {
        name: one.name.into_owned(),
        holds: one.holds,
        text: one.text,
    };
    ExplainReply {
        would_fail_over: explained.would,
        verdict: explained.verdict,
        would_if_silent: explained.would_if_silent,
        if_silent: explained.if_silent,
        triggers: explained.triggers.into_iter().map(condition).collect(),
        guards: explained.guards.into_iter().map(condition).collect(),
        candidates: explained
            .candidates
            .into_iter()
            .map(|one| v1::Standing {
                member: one.member.to_string(),
                able: one.able,
                text: one.text,
                lag_bytes: one.lag_bytes,
            })
            .collect(),
        loss_bytes: explained.loss.as_ref().and_then(|loss| loss.bytes_at_last_contact),
        loss_exposed_ms: explained.loss.as_ref().map(|loss| loss.exposed_ms),
        phases: explained
            .phases
            .into_iter()
            .map(|one| v1::ExpectedPhase {
                name: one.phase.into_owned(),
                median_ms: one.median_ms,
                longest_ms: one.longest_ms,
                samples: one.samples as u64,
                at_most_ms: one.at_most_ms,
                text: one.text,
            })
            .collect(),
        heard: explained
            .heard
            .into_iter()
            .map(|one| v1::HeardBy {
                member: one.member.to_string(),
                coordinator: one.coordinator.0,
                region: region(&one.coordinator),
                age_ms: one.age_ms,
                told_ms: one.told_ms,
            })
            .collect(),
        gaps: explained
            .gaps
            .into_iter()
            .map(|(member, counts)| v1::MemberGaps {
                member: member.to_string(),
                observed_ms: counts.observed_ms,
                longest_ms: counts.longest_ms,
                heard: counts.heard,
                counts: GAP_THRESHOLDS_MS
                    .iter()
                    .zip(&counts.reached)
                    .map(|(threshold_ms, reached)| v1::GapCount {
                        threshold_ms: *threshold_ms,
                        reached: *reached,
                    })
                    .collect(),
            })
            .collect(),
        ..ExplainReply::default()
    }
}
