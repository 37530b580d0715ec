//! `OperatorService`: any node answers any call. What only the leader knows or may do is relayed to it, with the
//! caller's identity; a status without a leader comes from this node's own state and says so (`leader` is absent).

use std::{pin::Pin, sync::Arc, time::Duration};

use regent_core::{Body, OperatorRequest, RequestKind};
use regent_proto::v1::{
    self, AbortReply, AbortRequest, AcknowledgeReply, AcknowledgeRequest, ApproveReply, ApproveRequest,
    AssumeFencedReply, AssumeFencedRequest, AutomationReply, AutomationRequest, ChangeReply, Event,
    ExplainReply, ExplainRequest, FailoverReply, FailoverRequest, HistoryReply, HistoryRequest,
    ImportClusterRequest, OperationReport, OperationRequest, RestartReply, RestartRequest,
    SetAutomationReply, SetAutomationRequest, StatusReply, StatusRequest, SwitchoverReply, SwitchoverRequest,
    WatchRequest, failover_reply::Answer, operator_service_client::OperatorServiceClient,
    operator_service_server::OperatorService,
};
use regent_types::{ClusterName, CoordinatorId, Epoch, MemberName, OperationId, RequestId};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, transport::Channel};

use super::{
    auth::{self, Caller, Gate},
    view,
};
use crate::{node::Node, proposer::ProposeFailure};

/// Longest wait for the leader on behalf of a caller.
pub(super) const RELAY_TIMEOUT: Duration = Duration::from_secs(8);
/// Between two looks whether every member was heard.
const LISTEN_POLL: Duration = Duration::from_millis(20);
/// Longest wait for a status of the leader before this node's own is given.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// Operations returned when no limit is given.
const HISTORY_DEFAULT: usize = 20;
/// A proposal of an operator may be no larger than this.
const REASON_BYTES_MAX: usize = 1000;

/// The service.
pub struct Operators {
    pub node: Arc<Node>,
    pub gate: Gate,
}

pub(super) type Answered<T> = Result<Response<T>, Status>;

/// Who answers a call that only the leader can.
pub(super) enum Way {
    Here,
    There(Box<OperatorServiceClient<Channel>>),
}

impl Operators {
    pub(super) fn way(&self, caller: &Caller) -> Result<Way, Status> {
        if self.node.led.borrow().is_some() {
            return Ok(Way::Here);
        }
        let nobody = "no leader is known; try again with the same request_id";
        if caller.relayed {
            return Err(Status::unavailable("the leader has changed; try again with the same request_id"));
        }
        let leader = self.node.leader().filter(|leader| *leader != self.node.config.node_id.0);
        let channel = leader.and_then(|leader| self.node.peers.channel(CoordinatorId(leader)));
        let channel = channel.ok_or_else(|| Status::unavailable(nobody))?;
        Ok(Way::There(Box::new(OperatorServiceClient::new(channel))))
    }

    pub(super) async fn in_time<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Answered<T>>,
    ) -> Answered<T> {
        let late =
            || Status::unavailable("the leader did not answer in time; try again with the same request_id");
        self.node.clock.within(limit, call).await.unwrap_or_else(|| Err(late()))
    }

    /// What the leader says to somebody who looks; `None` when this node's own state must do. A follower may be an entry
    /// behind: asked first, it would not know the operation whose number the same operator was just given.
    pub(super) async fn leaders_answer<T>(
        &self,
        call: impl Future<Output = Answered<T>>,
    ) -> Option<Answered<T>> {
        match self.in_time(STATUS_TIMEOUT, call).await {
            Ok(reply) => Some(Ok(reply)),
            Err(status) if status.code() == tonic::Code::NotFound => Some(Err(status)),
            Err(status) => {
                tracing::debug!(%status, "answered from this node's own state");
                None
            }
        }
    }

    /// Proposes a request and returns what it started.
    pub(super) async fn propose(&self, request: OperatorRequest) -> Result<regent_core::Applied, Status> {
        self.propose_body(Body::Request(request)).await
    }

    /// Proposes whatever an operator wants.
    pub(super) async fn propose_body(&self, body: Body) -> Result<regent_core::Applied, Status> {
        match self.node.proposer.propose(body).await {
            Ok(applied) => Ok(applied),
            Err(ProposeFailure::Rejected(rejection)) => Err(view::rejected(&rejection)),
            Err(ProposeFailure::NotLeader { .. }) => Err(Status::unavailable(
                "this node does not lead any more; try again with the same request_id",
            )),
            Err(ProposeFailure::Unknown { reason }) => Err(Status::unavailable(format!(
                "it is not known whether the request was taken ({reason}); ask again with the same request_id"
            ))),
        }
    }

    /// Before a mutation: a deposed leader must not answer from what it believes.
    pub(super) async fn confirmed(&self) -> Result<regent_core::Leadership, Status> {
        let deadline = self.node.clock.deadline(Duration::from_secs(2));
        match self.node.raft.confirm_leadership(deadline).await {
            Ok(confirmed) => Ok(crate::shared::leadership(confirmed.leadership)),
            Err(error) => Err(Status::unavailable(format!("{error}; try again with the same request_id"))),
        }
    }

    /// A leader that was elected a moment ago has heard no member yet, and would refuse for that: it listens first, for some
    /// heartbeat intervals at most.
    pub(super) async fn listened(&self, cluster: &ClusterName) {
        let has = || {
            let inner = self.node.shared.lock();
            let known = inner.state.clusters.get(cluster);
            known.is_none_or(|known| inner.detector.has_listened(self.node.clock.now_ns(), known))
        };
        while self.node.led.borrow().is_some() && !has() {
            self.node.clock.sleep(LISTEN_POLL).await;
        }
    }

    async fn failover_request(
        &self,
        caller: &Caller,
        message: &FailoverRequest,
    ) -> Result<OperatorRequest, Status> {
        let cluster = cluster_name(&message.cluster)?;
        let to = member_name("target", message.target.as_deref())?;
        let consent_to_loss = member_name("consent_to_loss", message.consent_to_loss.as_deref())?;
        self.listened(&cluster).await;
        let evidence = {
            let inner = self.node.shared.lock();
            let known = inner.state.clusters.get(&cluster);
            let known = known.ok_or_else(|| Status::not_found(format!("there is no cluster {cluster}")))?;
            super::explain::evidence(&self.node, &inner, known)
        };
        Ok(OperatorRequest {
            cluster,
            actor: caller.actor(),
            reason: reason(&message.reason)?,
            expected_epoch: Epoch(message.expected_epoch),
            request_id: request_id(&message.request_id)?,
            kind: RequestKind::Failover { to, consent_to_loss, evidence },
        })
    }

    /// The epoch is bound to one instance of one member, so the named member at the expected epoch names the risk.
    fn assume_fenced_request(
        &self,
        caller: &Caller,
        message: &AssumeFencedRequest,
    ) -> Result<OperatorRequest, Status> {
        let cluster = cluster_name(&message.cluster)?;
        let member = member_name("member", Some(&message.member))?;
        let expected_epoch = Epoch(message.expected_epoch);
        {
            let inner = self.node.shared.lock();
            let known = inner.state.clusters.get(&cluster);
            let known = known.ok_or_else(|| Status::not_found(format!("there is no cluster {cluster}")))?;
            let holder = known.appointment.as_ref().filter(|bound| bound.epoch == expected_epoch);
            if let Some(holder) = holder.filter(|holder| Some(&holder.member) != member.as_ref()) {
                return Err(Status::failed_precondition(format!(
                    "member: {} was named, epoch {expected_epoch} belongs to {}",
                    message.member, holder.member
                )));
            }
        }
        Ok(OperatorRequest {
            cluster,
            actor: caller.actor(),
            reason: reason(&message.reason)?,
            expected_epoch,
            request_id: request_id(&message.request_id)?,
            kind: RequestKind::AssumeFenced,
        })
    }

    async fn automation(
        &self,
        caller: Caller,
        message: AutomationRequest,
        pause: bool,
    ) -> Answered<AutomationReply> {
        if let Way::There(mut client) = self.way(&caller)? {
            let request = auth::on_behalf(message, &caller.actor())?;
            let call =
                async { if pause { client.pause(request).await } else { client.resume(request).await } };
            return self.in_time(RELAY_TIMEOUT, call).await;
        }
        let cluster = cluster_name(&message.cluster)?;
        let request = OperatorRequest {
            cluster: cluster.clone(),
            actor: caller.actor(),
            reason: reason(&message.reason)?,
            expected_epoch: Epoch(message.expected_epoch),
            request_id: request_id(&message.request_id)?,
            kind: if pause { RequestKind::Pause } else { RequestKind::Resume },
        };
        let leadership = self.confirmed().await?;
        let repeated = {
            let inner = self.node.shared.lock();
            let known = inner.state.clusters.get(&cluster);
            known.is_some_and(|known| known.requests.iter().any(|(id, _)| *id == request.request_id))
        };
        let mut changed = !repeated;
        let epoch = if message.dry_run {
            let proposal = self.node.proposer.proposal(Body::Request(request));
            let answer = self.node.shared.lock().state.dry_run(leadership, &proposal);
            match answer {
                Ok(applied) => applied.epoch,
                Err(regent_core::Rejection::AlreadyThere { .. }) => {
                    changed = false;
                    Epoch(message.expected_epoch)
                }
                Err(rejection) => return Err(view::rejected(&rejection)),
            }
        } else {
            self.propose(request).await?.epoch
        };
        let resumed = {
            let inner = self.node.shared.lock();
            let known = inner.state.clusters.get(&cluster);
            known.map_or(regent_types::Automation::Automatic, |known| known.resumed)
        };
        let automation = if pause { regent_types::Automation::Paused } else { resumed };
        let automation = view::automation(automation) as i32;
        Ok(Response::new(AutomationReply { automation, epoch: epoch.0, changed }))
    }
}

pub(super) fn cluster_name(value: &str) -> Result<ClusterName, Status> {
    ClusterName::new(value).map_err(|error| Status::invalid_argument(format!("cluster: {error}")))
}

pub(super) fn member_name(field: &str, value: Option<&str>) -> Result<Option<MemberName>, Status> {
    let parsed = value.map(MemberName::new).transpose();
    parsed.map_err(|error| Status::invalid_argument(format!("{field}: {error}")))
}

pub(super) fn request_id(value: &str) -> Result<RequestId, Status> {
    RequestId::new(value).map_err(|error| Status::invalid_argument(format!("request_id: {error}")))
}

pub(super) fn reason(value: &str) -> Result<String, Status> {
    let reason = value.trim();
    if reason.is_empty() {
        return Err(Status::invalid_argument("reason: is empty; say why, it is kept with the operation"));
    }
    if reason.len() > REASON_BYTES_MAX {
        let text = format!("reason: {} bytes, at most {REASON_BYTES_MAX} are kept", reason.len());
        return Err(Status::invalid_argument(text));
    }
    Ok(reason.to_owned())
}

#[tonic::async_trait]
impl OperatorService for Operators {
    async fn get_status(&self, request: Request<StatusRequest>) -> Answered<StatusReply> {
        let caller = self.gate.viewer(&request)?;
        let message = request.into_inner();
        if let Some(name) = &message.cluster {
            cluster_name(name)?;
        }
        if let Ok(Way::There(mut client)) = self.way(&caller) {
            let request = auth::on_behalf(message.clone(), &caller.actor())?;
            if let Some(answer) = self.leaders_answer(client.get_status(request)).await {
                return answer;
            }
        }
        let mut reply = view::status(&self.node, message.cluster.as_deref());
        if reply.leader.is_some() && self.confirmed().await.is_err() {
            // It believes to lead and cannot prove it: what it says may be old.
            reply.leader = None;
        }
        match message.cluster {
            Some(name) if reply.clusters.is_empty() => {
                Err(Status::not_found(format!("there is no cluster {name}")))
            }
            _ => Ok(Response::new(reply)),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<Event, Status>> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Answered<Self::WatchStream> {
        self.gate.viewer(&request)?;
        let message = request.into_inner();
        let only = message.cluster.as_deref().map(cluster_name).transpose()?;
        let (tx, rx) = mpsc::channel(64);
        let node = self.node.clone();
        tokio::spawn(async move {
            let mut changes = node.shared.changes();
            let mut next = message.from_sequence;
            loop {
                changes.borrow_and_update();
                let new: Vec<_> = {
                    let inner = node.shared.lock();
                    let events = inner.state.events.iter().filter(|event| event.sequence >= next);
                    events.cloned().collect()
                };
                for event in new {
                    next = event.sequence + 1;
                    let wanted = only.as_ref().is_none_or(|only| *only == event.cluster);
                    if wanted && tx.send(Ok(view::event(&event))).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return },
                    () = tx.closed() => return,
                    () = node.stop.cancelled() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }

    async fn trigger_failover(&self, request: Request<FailoverRequest>) -> Answered<FailoverReply> {
        let caller = self.gate.operator(&request)?;
        let message = request.into_inner();
        if let Way::There(mut client) = self.way(&caller)? {
            let request = auth::on_behalf(message, &caller.actor())?;
            return self.in_time(RELAY_TIMEOUT, client.trigger_failover(request)).await;
        }
        let request = self.failover_request(&caller, &message).await?;
        if message.dry_run {
            let leadership = self.confirmed().await?;
            let proposal = self.node.proposer.proposal(Body::Request(request.clone()));
            let inner = self.node.shared.lock();
            let now_ns = self.node.clock.now_ns();
            let plan = view::plan(&inner, leadership, &proposal, &request, now_ns);
            let plan = plan.map_err(|rejection| view::rejected(&rejection))?;
            return Ok(Response::new(FailoverReply { answer: Some(Answer::Plan(plan)) }));
        }
        let (cluster, id) = (request.cluster.clone(), request.request_id.clone());
        let applied = self.propose(request).await?;
        // Of a repeated request the first answer counts, whatever runs by now.
        let remembered = {
            let inner = self.node.shared.lock();
            let known = inner.state.clusters.get(&cluster);
            known.and_then(|known| {
                known.requests.iter().find(|(known, _)| *known == id).and_then(|(_, op)| *op)
            })
        };
        let operation = remembered.or(applied.operation);
        let operation = operation.ok_or_else(|| Status::internal("the failover started no operation"))?;
        Ok(Response::new(FailoverReply { answer: Some(Answer::Operation(operation.0)) }))
    }

    async fn pause(&self, request: Request<AutomationRequest>) -> Answered<AutomationReply> {
        let caller = self.gate.operator(&request)?;
        self.automation(caller, request.into_inner(), true).await
    }

    async fn resume(&self, request: Request<AutomationRequest>) -> Answered<AutomationReply> {
        let caller = self.gate.operator(&request)?;
        self.automation(caller, request.into_inner(), false).await
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Answered<ExplainReply> {
        let caller = self.gate.viewer(&request)?;
        self.explanation(caller, request.into_inner()).await
    }

    async fn set_automation(&self, request: Request<SetAutomationRequest>) -> Answered<SetAutomationReply> {
        let caller = self.gate.operator(&request)?;
        self.set_mode(caller, request.into_inner()).await
    }

    async fn acknowledge(&self, request: Request<AcknowledgeRequest>) -> Answered<AcknowledgeReply> {
        let caller = self.gate.operator(&request)?;
        self.take_note(caller, request.into_inner()).await
    }

    async fn approve(&self, request: Request<ApproveRequest>) -> Answered<ApproveReply> {
        let caller = self.gate.operator(&request)?;
        self.say_go(caller, request.into_inner()).await
    }

    async fn assume_fenced(&self, request: Request<AssumeFencedRequest>) -> Answered<AssumeFencedReply> {
        let caller = self.gate.operator(&request)?;
        let message = request.into_inner();
        if let Way::There(mut client) = self.way(&caller)? {
            let request = auth::on_behalf(message, &caller.actor())?;
            return self.in_time(RELAY_TIMEOUT, client.assume_fenced(request)).await;
        }
        let request = self.assume_fenced_request(&caller, &message)?;
        let applied = if message.dry_run {
            let leadership = self.confirmed().await?;
            let proposal = self.node.proposer.proposal(Body::Request(request));
            let answer = self.node.shared.lock().state.dry_run(leadership, &proposal);
            answer.map_err(|rejection| view::rejected(&rejection))?
        } else {
            self.propose(request).await?
        };
        let operation = applied.operation.ok_or_else(|| Status::internal("no operation was waiting"))?;
        Ok(Response::new(AssumeFencedReply { operation: operation.0, epoch: applied.epoch.0 }))
    }

    async fn import_cluster(&self, request: Request<ImportClusterRequest>) -> Answered<ChangeReply> {
        let caller = self.gate.operator(&request)?;
        self.cluster_import(caller, request.into_inner()).await
    }

    async fn restart(&self, request: Request<RestartRequest>) -> Answered<RestartReply> {
        let caller = self.gate.operator(&request)?;
        self.restart_member(caller, request.into_inner()).await
    }

    async fn drill(&self, request: Request<v1::DrillRequest>) -> Answered<v1::DrillReply> {
        let caller = self.gate.operator(&request)?;
        self.rehearse(caller, request.into_inner()).await
    }

    async fn get_history(&self, request: Request<HistoryRequest>) -> Answered<HistoryReply> {
        let caller = self.gate.viewer(&request)?;
        let message = request.into_inner();
        let name = cluster_name(&message.cluster)?;
        if let Ok(Way::There(mut client)) = self.way(&caller) {
            let request = auth::on_behalf(message.clone(), &caller.actor())?;
            if let Some(answer) = self.leaders_answer(client.get_history(request)).await {
                return answer;
            }
        }
        let limit = if message.limit == 0 { HISTORY_DEFAULT } else { message.limit as usize };
        let inner = self.node.shared.lock();
        let cluster = inner.state.clusters.get(&name);
        let cluster = cluster.ok_or_else(|| Status::not_found(format!("there is no cluster {name}")))?;
        let wall_ms = self.node.clock.wall_ms();
        let parked = cluster.rehearsal.iter().map(|rehearsal| &*rehearsal.drill);
        let would = cluster.observed.iter().filter_map(|seen| seen.would.as_deref());
        let newest_first =
            cluster.operation.iter().chain(parked).chain(would).chain(cluster.finished.iter().rev());
        let operations = newest_first.take(limit).map(|one| view::summary(cluster, one, wall_ms)).collect();
        Ok(Response::new(HistoryReply { operations }))
    }

    async fn get_operation(&self, request: Request<OperationRequest>) -> Answered<OperationReport> {
        let caller = self.gate.viewer(&request)?;
        let message = request.into_inner();
        let name = cluster_name(&message.cluster)?;
        if let Ok(Way::There(mut client)) = self.way(&caller) {
            let request = auth::on_behalf(message.clone(), &caller.actor())?;
            if let Some(answer) = self.leaders_answer(client.get_operation(request)).await {
                return answer;
            }
        }
        let inner = self.node.shared.lock();
        let cluster = inner.state.clusters.get(&name);
        let cluster = cluster.ok_or_else(|| Status::not_found(format!("there is no cluster {name}")))?;
        let missing = || {
            let newest = cluster.next_operation;
            Status::not_found(format!(
                "cluster {name} has no operation {} (the newest is {newest})",
                message.id
            ))
        };
        let operation = cluster.operation(OperationId(message.id)).ok_or_else(missing)?;
        let report = view::report(cluster, operation, self.node.clock.wall_ms());
        Ok(Response::new(super::explain::with_evidence(&self.node, cluster, operation, report)))
    }

    async fn switchover(&self, request: Request<SwitchoverRequest>) -> Answered<SwitchoverReply> {
        let caller = self.gate.operator(&request)?;
        self.switch_over(caller, request.into_inner()).await
    }

    async fn abort(&self, request: Request<AbortRequest>) -> Answered<AbortReply> {
        let caller = self.gate.operator(&request)?;
        self.stop_planned(caller, request.into_inner()).await
    }

    async fn get_policy(&self, request: Request<v1::PolicyRequest>) -> Answered<v1::PolicyReply> {
        let caller = self.gate.viewer(&request)?;
        self.policy(caller, request.into_inner()).await
    }

    async fn set_policy(&self, request: Request<v1::SetPolicyRequest>) -> Answered<v1::ChangeReply> {
        let caller = self.gate.operator(&request)?;
        self.change_policy(caller, request.into_inner()).await
    }

    async fn list_members(&self, request: Request<v1::MembersRequest>) -> Answered<v1::MembersReply> {
        let caller = self.gate.viewer(&request)?;
        self.members(caller, request.into_inner()).await
    }

    async fn change_member(&self, request: Request<v1::ChangeMemberRequest>) -> Answered<v1::ChangeReply> {
        let caller = self.gate.operator(&request)?;
        self.member_change(caller, request.into_inner()).await
    }

    async fn create_cluster(&self, request: Request<v1::CreateClusterRequest>) -> Answered<v1::ChangeReply> {
        let caller = self.gate.operator(&request)?;
        self.cluster_create(caller, request.into_inner()).await
    }

    async fn forget_cluster(&self, request: Request<v1::ForgetClusterRequest>) -> Answered<v1::ChangeReply> {
        let caller = self.gate.operator(&request)?;
        self.cluster_forget(caller, request.into_inner()).await
    }

    async fn list_coordinators(
        &self,
        request: Request<v1::CoordinatorsRequest>,
    ) -> Answered<v1::CoordinatorsReply> {
        let caller = self.gate.viewer(&request)?;
        self.coordinators(caller, request.into_inner()).await
    }

    async fn change_coordinators(
        &self,
        request: Request<v1::ChangeCoordinatorsRequest>,
    ) -> Answered<v1::ChangeReply> {
        let caller = self.gate.operator(&request)?;
        self.coordinators_change(caller, request.into_inner()).await
    }

    async fn get_parameters(&self, request: Request<v1::ParametersRequest>) -> Answered<v1::ParametersReply> {
        let caller = self.gate.viewer(&request)?;
        self.parameters(caller, request.into_inner()).await
    }

    async fn set_parameters(
        &self,
        request: Request<v1::SetParametersRequest>,
    ) -> Answered<v1::SetParametersReply> {
        let caller = self.gate.operator(&request)?;
        self.change_parameters(caller, request.into_inner()).await
    }
}
