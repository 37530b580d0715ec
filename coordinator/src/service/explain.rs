//! `Explain`: the core's explanation, from the leader's memory. Decides nothing.

use regent_core::{Explanation, GAP_THRESHOLDS_MS, Shell};
use regent_proto::v1::{self, ExplainReply, ExplainRequest};
use tonic::{Response, Status};

use super::{
    auth::{self, Caller},
    operator::{Answered, Operators, RELAY_TIMEOUT, Way, cluster_name},
};

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
        let own = self.node.heard.own(now_ns);
        let inner = self.node.shared.lock();
        let cluster = inner.state.clusters.get(&name);
        let cluster = cluster.ok_or_else(|| Status::not_found(format!("there is no cluster {name}")))?;
        let shell = Shell {
            coordinators: self.node.config.peers.keys().copied().collect(),
            own,
            lease_left_ms: inner.leases.held(now_ns, cluster).map(|left_ns| left_ns / 1_000_000),
            cooldown_left_ms: inner.cooldowns.remaining_ms(now_ns, cluster),
            veto: self.node.vetoes.objection(now_ns / 1_000_000, &name),
        };
        let explained = inner.detector.explain(now_ns, cluster, &shell);
        let explained = explained.ok_or_else(|| Status::unavailable("this node does not lead any more"))?;
        let region = |id: &regent_types::CoordinatorId| {
            self.node.config.peers.get(id).map(|peer| peer.region.to_string()).unwrap_or_default()
        };
        let mut reply = reply(explained, region);
        reply.cluster = name.to_string();
        reply.epoch = cluster.epoch.0;
        reply.primary = cluster.appointment.as_ref().map(|appointment| appointment.member.to_string());
        Ok(Response::new(reply))
    }
}

fn reply(explained: Explanation, region: impl Fn(&regent_types::CoordinatorId) -> String) -> ExplainReply {
    let condition = |one: regent_core::Condition| v1::Condition {
        name: one.name.to_owned(),
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
                name: one.phase.to_owned(),
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
