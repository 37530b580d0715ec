//! Drills: the call of `drill.proto`, and a drill's part of a report. Decides nothing.

use regent_core::{Body, Cluster, Kind, Operation, Rejection, RequestKind};
use regent_proto::v1::{DrillPlan, DrillReply, DrillReport, DrillRequest, DrillStep, drill_reply::Answer};
use tonic::{Response, Status};

use super::{
    auth::{self, Caller},
    judge::Common,
    operator::{Answered, Operators, RELAY_TIMEOUT, Way, cluster_name},
    view,
};

impl Operators {
    pub(super) async fn rehearse(&self, caller: Caller, message: DrillRequest) -> Answered<DrillReply> {
        if let Way::There(mut client) = self.way(&caller)? {
            let request = auth::on_behalf(message, &caller.actor())?;
            return self.in_time(RELAY_TIMEOUT, client.drill(request)).await;
        }
        let readiness = self.readiness(&cluster_name(&message.cluster)?).await?;
        let common = Common {
            cluster: &message.cluster,
            reason: &message.reason,
            expected_epoch: message.expected_epoch,
            request_id: &message.request_id,
            dry_run: message.dry_run,
        };
        let kind = RequestKind::Drill { full: message.full, readiness };
        let request = self.request(&caller, &common, kind)?;
        if message.dry_run {
            let plan = self.plan_drill(request, message.full).await?;
            return Ok(Response::new(DrillReply { answer: Some(Answer::Plan(plan)) }));
        }
        let (cluster, id) = (request.cluster.clone(), request.request_id.clone());
        let applied = self.propose(request).await?;
        let first = self.known(&cluster, |known| {
            let first = known.requests.iter().find(|(known, _)| *known == id);
            first.and_then(|(_, operation)| *operation)
        })?;
        let started = first.or(applied.operation);
        let started = started.ok_or_else(|| Status::internal("the drill started no operation"))?;
        Ok(Response::new(DrillReply { answer: Some(Answer::Operation(started.0)) }))
    }

    /// The core itself, on a copy of the state.
    async fn plan_drill(
        &self,
        request: regent_core::OperatorRequest,
        full: bool,
    ) -> Result<DrillPlan, Status> {
        let leadership = self.confirmed().await?;
        let cluster = request.cluster.clone();
        let proposal = self.node.proposer.proposal(Body::Request(request));
        let inner = self.node.shared.lock();
        let mut state = inner.state.clone();
        let index = state.applied_index + 1;
        let answer = state.apply(regent_core::Position { index, leadership }, &proposal);
        let known = state.clusters.get(&cluster);
        let known = known.ok_or_else(|| Status::not_found(format!("there is no cluster {cluster}")))?;
        let primary = known.appointment.as_ref().map(|appointment| &appointment.member);
        let region = primary.and_then(|primary| known.config.members.get(primary));
        let mut plan = DrillPlan {
            cluster: cluster.to_string(),
            epoch: known.epoch.0,
            full,
            region: region.map(|member| member.region.to_string()).unwrap_or_default(),
            from_member: primary.map(ToString::to_string),
            ..Default::default()
        };
        match answer {
            Ok(_) => {
                let drill = known.operation.as_ref();
                let target = drill.and_then(|drill| drill.target.as_ref());
                plan.to_member = target.map(ToString::to_string);
                plan.steps = steps(known, full, plan.to_member.as_deref().unwrap_or("the best member"));
            }
            Err(
                rejection @ (Rejection::StaleEpoch { .. }
                | Rejection::UnknownCluster { .. }
                | Rejection::Level { .. }),
            ) => return Err(view::rejected(&rejection)),
            Err(rejection) => plan.blockers.push(rejection.to_string()),
        }
        Ok(plan)
    }
}

fn steps(cluster: &Cluster, full: bool, target: &str) -> Vec<DrillStep> {
    let policy = &cluster.config.policy;
    let primary = cluster.appointment.as_ref().map_or("the primary", |a| a.member.as_str());
    let step = |name: &str, text: String, at_most_ms| DrillStep { name: name.into(), text, at_most_ms };
    let detect = format!(
        "{primary} counts as silent for the drill only, until a failover would begin; leases and the real detection go on"
    );
    let mut all = vec![step("detect", detect, Some(policy.partition_timeout_ms.saturating_mul(2)))];
    if full {
        let limit = Some(policy.rejoin_timeout_ms);
        all.push(step(
            "away",
            format!("a switchover to {target}: nothing is lost, or it is rolled back"),
            limit,
        ));
        all.push(step("confirm", format!("{primary} becomes a confirmed standby"), limit));
        all.push(step("back", format!("a switchover to {primary}"), None));
        all.push(step("confirm", format!("{target} becomes a confirmed standby again"), limit));
    }
    all
}

/// A drill's part of its report.
pub(super) fn report(operation: &Operation) -> Option<DrillReport> {
    let Kind::Drill { region, full } = &operation.kind else { return None };
    let findings = operation.drill.as_deref();
    Some(DrillReport {
        region: region.to_string(),
        full: *full,
        verdict: findings.map(|findings| findings.verdict.clone()),
        silent_ms: findings.map(|findings| findings.silent_ms),
        candidate: findings.and_then(|findings| findings.candidate.as_ref()).map(ToString::to_string),
        grade: match full {
            true => "switchover: nothing is lost, or a move is rolled back".to_owned(),
            false => "stopped before promotion: nothing was fenced, nothing moved".to_owned(),
        },
    })
}
