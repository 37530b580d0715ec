//! Switchover, failback and abort: requests in, what the core says out. Decides nothing.

use regent_core::{Body, Cluster, OperatorRequest, Readiness, Rejection, RequestKind};
use regent_proto::v1::{
    AbortReply, AbortRequest, SwitchoverPlan, SwitchoverReply, SwitchoverRequest, SwitchoverStep,
    switchover_reply::Answer,
};
use regent_types::{ClusterName, Epoch, OperationId};
use tonic::{Response, Status};

use super::{
    auth::{self, Caller},
    operator::{Answered, Operators, RELAY_TIMEOUT, Way, cluster_name, member_name, reason, request_id},
    view,
};

impl Operators {
    pub(super) async fn switch_over(
        &self,
        caller: Caller,
        message: SwitchoverRequest,
    ) -> Answered<SwitchoverReply> {
        if let Way::There(mut client) = self.way(&caller)? {
            let request = auth::on_behalf(message, &caller.actor())?;
            return self.in_time(RELAY_TIMEOUT, client.switchover(request)).await;
        }
        let cluster = cluster_name(&message.cluster)?;
        let to = member_name("target", message.target.as_deref())?;
        if message.failback && to.is_some() {
            return Err(Status::invalid_argument(
                "target: a failback leads to the preferred region, leave it out",
            ));
        }
        if message.failback && message.at_wall_ms.is_some() {
            return Err(Status::invalid_argument(
                "at_wall_ms: only a switchover is scheduled; for failback see failback_window",
            ));
        }
        let readiness = self.readiness(&cluster).await?;
        let kind = match message.at_wall_ms {
            Some(at_wall_ms) => RequestKind::Schedule { to, at_wall_ms },
            None if message.failback => RequestKind::Failback { readiness },
            None => RequestKind::Switchover { to, readiness },
        };
        let request = OperatorRequest {
            cluster: cluster.clone(),
            actor: caller.actor(),
            reason: reason(&message.reason)?,
            expected_epoch: Epoch(message.expected_epoch),
            request_id: request_id(&message.request_id)?,
            kind,
        };
        if message.dry_run {
            let plan = self.plan_switch(request, message.failback).await?;
            return Ok(Response::new(SwitchoverReply { answer: Some(Answer::Plan(plan)) }));
        }
        let id = request.request_id.clone();
        let applied = self.propose(request).await?;
        let answer = match message.at_wall_ms {
            Some(at_wall_ms) => Answer::ScheduledAtWallMs(at_wall_ms),
            None => {
                let started = self.remembered(&cluster, &id).or(applied.operation);
                let started =
                    started.ok_or_else(|| Status::internal("the switchover started no operation"))?;
                Answer::Operation(started.0)
            }
        };
        Ok(Response::new(SwitchoverReply { answer: Some(answer) }))
    }

    pub(super) async fn stop_planned(&self, caller: Caller, message: AbortRequest) -> Answered<AbortReply> {
        if let Way::There(mut client) = self.way(&caller)? {
            let request = auth::on_behalf(message, &caller.actor())?;
            return self.in_time(RELAY_TIMEOUT, client.abort(request)).await;
        }
        let cluster = cluster_name(&message.cluster)?;
        let what = {
            let inner = self.node.shared.lock();
            inner.state.clusters.get(&cluster).map_or_else(String::new, stoppable)
        };
        let request = OperatorRequest {
            cluster,
            actor: caller.actor(),
            reason: reason(&message.reason)?,
            expected_epoch: Epoch(message.expected_epoch),
            request_id: request_id(&message.request_id)?,
            kind: RequestKind::Abort,
        };
        let applied = self.propose_or_try(request, message.dry_run).await?;
        let reply = AbortReply { what, operation: applied.operation.map(|id| id.0), epoch: applied.epoch.0 };
        Ok(Response::new(reply))
    }

    pub(super) async fn readiness(&self, cluster: &ClusterName) -> Result<Box<Readiness>, Status> {
        self.listened(cluster).await;
        let inner = self.node.shared.lock();
        let known = inner.state.clusters.get(cluster);
        let known = known.ok_or_else(|| Status::not_found(format!("there is no cluster {cluster}")))?;
        Ok(Box::new(inner.detector.readiness(self.node.clock.now_ns(), known)))
    }

    /// What a request id was answered with: of a repeated request the first answer counts, whatever runs by now.
    fn remembered(&self, cluster: &ClusterName, id: &regent_types::RequestId) -> Option<OperationId> {
        let inner = self.node.shared.lock();
        let known = inner.state.clusters.get(cluster)?;
        known.requests.iter().find(|(known, _)| known == id).and_then(|(_, operation)| *operation)
    }

    async fn propose_or_try(
        &self,
        request: OperatorRequest,
        dry_run: bool,
    ) -> Result<regent_core::Applied, Status> {
        if !dry_run {
            return self.propose(request).await;
        }
        let leadership = self.confirmed().await?;
        let proposal = self.node.proposer.proposal(Body::Request(request));
        let answer = self.node.shared.lock().state.dry_run(leadership, &proposal);
        answer.map_err(|rejection| view::rejected(&rejection))
    }

    /// The core itself, on a copy of the state. The caller's own mistakes are errors; what the state says no to is what a
    /// plan is for.
    async fn plan_switch(&self, request: OperatorRequest, failback: bool) -> Result<SwitchoverPlan, Status> {
        let leadership = self.confirmed().await?;
        let cluster = request.cluster.clone();
        let proposal = self.node.proposer.proposal(Body::Request(request));
        let inner = self.node.shared.lock();
        let mut state = inner.state.clone();
        let index = state.applied_index + 1;
        let answer = state.apply(regent_core::Position { index, leadership }, &proposal);
        let known = state.clusters.get(&cluster);
        let known = known.ok_or_else(|| Status::not_found(format!("there is no cluster {cluster}")))?;
        let mut plan = SwitchoverPlan {
            cluster: cluster.to_string(),
            epoch: known.epoch.0,
            failback,
            from_member: known.appointment.as_ref().map(|appointment| appointment.member.to_string()),
            ..Default::default()
        };
        match answer {
            Ok(_) => {
                let running = known.operation.as_ref().filter(|operation| operation.kind.is_planned());
                let scheduled = known.scheduled.as_ref().and_then(|scheduled| scheduled.to.as_ref());
                plan.to_member = running
                    .and_then(|running| running.target.as_ref())
                    .or(scheduled)
                    .map(ToString::to_string);
                plan.steps = steps(known, plan.to_member.as_deref().unwrap_or("the best member"));
            }
            Err(
                rejection @ (Rejection::StaleEpoch { .. }
                | Rejection::UnknownCluster { .. }
                | Rejection::UnknownMember { .. }
                | Rejection::BadTime { .. }),
            ) => return Err(view::rejected(&rejection)),
            Err(rejection) => plan.blockers.push(rejection.to_string()),
        }
        Ok(plan)
    }
}

/// What an abort would stop.
fn stoppable(cluster: &Cluster) -> String {
    let drilling = cluster.operation.as_ref().filter(|o| matches!(o.kind, regent_core::Kind::Drill { .. }));
    let touring = cluster.rehearsal.as_ref().map(|rehearsal| &*rehearsal.drill);
    let moving = cluster.operation.as_ref().is_some_and(|operation| operation.kind.is_planned());
    if let Some(drill) = drilling.or(touring.filter(|_| !moving)) {
        return format!("drill {} (step {})", drill.id, view::step_name(drill.step));
    }
    if let Some(operation) = cluster.operation.as_ref().filter(|operation| operation.kind.is_planned()) {
        return format!("operation {} (step {})", operation.id, view::step_name(operation.step));
    }
    match &cluster.scheduled {
        Some(scheduled) => format!("the switchover scheduled at {} ms", scheduled.at_wall_ms),
        None => "nothing".to_owned(),
    }
}

fn steps(cluster: &Cluster, target: &str) -> Vec<SwitchoverStep> {
    let policy = &cluster.config.policy;
    let primary =
        cluster.appointment.as_ref().map_or("the primary", |appointment| appointment.member.as_str());
    let step = |name: &str, text: String, at_most_ms| SwitchoverStep { name: name.into(), text, at_most_ms };
    vec![
        step(
            "checkpoint",
            format!("{primary} writes a checkpoint, clients go on writing"),
            Some(policy.switchover_timeout_ms),
        ),
        step(
            "fence",
            format!(
                "{primary} shuts down cleanly, {target} replays everything up to its shutdown checkpoint"
            ),
            Some(policy.switchover_timeout_ms.saturating_mul(2)),
        ),
        step("promote", format!("{target} is promoted at the next epoch"), Some(policy.promote_timeout_ms)),
        step("redirect", format!("{} leads to {target}", cluster.config.dns_name), None),
        step(
            "validate",
            "a marker row is written through the name".to_owned(),
            Some(policy.validate_timeout_ms),
        ),
    ]
}
