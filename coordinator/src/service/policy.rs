//! `GetPolicy` and `SetPolicy`. Decides nothing: the file's own table reads the values, the core judges the change.

use regent_core::{Body, OperatorRequest, Policy, RequestKind, differences};
use regent_proto::v1;
use regent_types::{ClusterName, Epoch};
use tonic::{Response, Status};

use super::{
    auth::{self, Caller},
    operator::{Answered, Operators, RELAY_TIMEOUT, Way, cluster_name, reason, request_id},
    view,
};
use crate::config;

impl Operators {
    pub(super) async fn policy(
        &self,
        caller: Caller,
        message: v1::PolicyRequest,
    ) -> Answered<v1::PolicyReply> {
        let name = cluster_name(&message.cluster)?;
        if let Ok(Way::There(mut client)) = self.way(&caller) {
            let request = auth::on_behalf(message.clone(), &caller.actor())?;
            if let Some(answer) = self.leaders_answer(client.get_policy(request)).await {
                return answer;
            }
        }
        let inner = self.node.shared.lock();
        let cluster = inner.state.clusters.get(&name).ok_or_else(|| unknown(&name))?;
        let values = config::render_policy(&cluster.config.policy);
        let value = |(key, value): (String, String)| v1::PolicyValue { key, value };
        Ok(Response::new(v1::PolicyReply {
            cluster: name.to_string(),
            epoch: cluster.epoch.0,
            values: values.into_iter().map(value).collect(),
            file_differs: view::file_differs(&self.node.config, cluster),
            leases_in_flight_ms: cluster.lease_in_flight.map(|flight| flight.terms.bound_ns() / 1_000_000),
        }))
    }

    pub(super) async fn change_policy(
        &self,
        caller: Caller,
        message: v1::SetPolicyRequest,
    ) -> Answered<v1::ChangeReply> {
        if let Way::There(mut client) = self.way(&caller)? {
            let request = auth::on_behalf(message, &caller.actor())?;
            return self.in_time(RELAY_TIMEOUT, client.set_policy(request)).await;
        }
        let name = cluster_name(&message.cluster)?;
        let values: Vec<_> = message.values.iter().map(|one| (one.key.clone(), one.value.clone())).collect();
        let (from, guards) = {
            let inner = self.node.shared.lock();
            let cluster = inner.state.clusters.get(&name).ok_or_else(|| unknown(&name))?;
            let now_ns = self.node.clock.now_ns();
            let limit = |member: &regent_types::MemberName| {
                let (heartbeat, _) = inner.detector.last_report(now_ns, &name, member)?;
                Some((member.clone(), heartbeat.report.guard.lease_ttl_max_ms?))
            };
            (cluster.config.policy.clone(), cluster.config.members.keys().filter_map(limit).collect())
        };
        let to = config::change_policy(&from, &values)
            .map_err(|error| Status::invalid_argument(format!("values: {error}")))?;
        let election_worst_ms = self.node.config.raft.election_worst_ms();
        let changes = differences(&from, &to);
        let notes = meaning(&from, &to, election_worst_ms);
        let request = OperatorRequest {
            cluster: name.clone(),
            actor: caller.actor(),
            reason: reason(&message.reason)?,
            expected_epoch: Epoch(message.expected_epoch),
            request_id: request_id(&message.request_id)?,
            kind: RequestKind::SetPolicy {
                from: Box::new(from),
                to: Box::new(to),
                election_worst_ms,
                guards,
            },
        };
        let applied = self.take(Body::Request(request), message.dry_run).await?;
        // A repeated request changes nothing, and says so.
        let changes = if applied.events.is_empty() { Vec::new() } else { changes };
        Ok(Response::new(v1::ChangeReply {
            changes,
            notes,
            epoch: applied.epoch.0,
            version: 0,
            dry_run: message.dry_run,
        }))
    }

    /// Has it applied, or tried on a copy.
    pub(super) async fn take(&self, body: Body, dry_run: bool) -> Result<regent_core::Applied, Status> {
        let leadership = self.confirmed().await?;
        if dry_run {
            let proposal = self.node.proposer.proposal(body);
            let answer = self.node.shared.lock().state.dry_run(leadership, &proposal);
            return answer.map_err(|rejection| view::rejected(&rejection));
        }
        self.propose_body(body).await
    }
}

pub(super) fn unknown(name: &ClusterName) -> Status {
    Status::not_found(format!("there is no cluster {name}"))
}

/// What a change means for the next failover.
fn meaning(from: &Policy, to: &Policy, election_worst_ms: u64) -> Vec<String> {
    let mut notes = Vec::new();
    let seconds = |ms: u64| format!("{:.1} s", ms as f64 / 1_000.0);
    if (from.lease, from.partition_timeout_ms) != (to.lease, to.partition_timeout_ms) {
        let bound_ms = to.lease.bound_ns().div_ceil(1_000_000);
        let latest_ms = to.partition_timeout_ms.max(election_worst_ms.saturating_add(bound_ms));
        notes.push(format!(
            "a lost region fails over after {}; a cut shorter than {} costs no write",
            seconds(latest_ms),
            seconds(to.lease.ttl_ms)
        ));
    }
    if to.lease.bound_ns() < from.lease.bound_ns() {
        notes.push(format!(
            "leases of the longer terms are out: until they have ended, {} from now, a failover waits for them",
            seconds(from.lease.bound_ns().div_ceil(1_000_000))
        ));
    }
    if to.heartbeat_interval_ms != from.heartbeat_interval_ms {
        notes.push("agents take the new interval with their next acknowledgement".to_owned());
    }
    notes.push("the files of the coordinators are not changed: write it there too".to_owned());
    notes
}
