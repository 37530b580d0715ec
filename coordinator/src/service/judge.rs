//! Modes of automation, approvals and acknowledgements: the calls of `judge.proto`. Decides nothing: each is one request to
//! the core, or with `dry_run` what the core would answer.

use regent_core::{Applied, Body, Cluster, OperatorRequest, RequestKind};
use regent_proto::v1::{
    AcknowledgeReply, AcknowledgeRequest, ApproveReply, ApproveRequest, SetAutomationReply,
    SetAutomationRequest,
};
use regent_types::{Automation, ClusterName, Epoch};
use tonic::{Response, Status};

use super::{
    auth::{self, Caller},
    operator::{Answered, Operators, RELAY_TIMEOUT, Way, cluster_name, reason, request_id},
    view,
};

/// What every mutating call carries.
pub(super) struct Common<'m> {
    pub cluster: &'m str,
    pub reason: &'m str,
    pub expected_epoch: u64,
    pub request_id: &'m str,
    pub dry_run: bool,
}

impl Operators {
    /// Proposes, or says what would come of it.
    pub(super) async fn ask(&self, request: OperatorRequest, dry_run: bool) -> Result<Applied, Status> {
        if !dry_run {
            return self.propose(request).await;
        }
        let leadership = self.confirmed().await?;
        let proposal = self.node.proposer.proposal(Body::Request(request));
        let answer = self.node.shared.lock().state.dry_run(leadership, &proposal);
        answer.map_err(|rejection| view::rejected(&rejection))
    }

    pub(super) fn known<T>(&self, name: &ClusterName, look: impl FnOnce(&Cluster) -> T) -> Result<T, Status> {
        let inner = self.node.shared.lock();
        let known = inner.state.clusters.get(name);
        known.map(look).ok_or_else(|| Status::not_found(format!("there is no cluster {name}")))
    }

    pub(super) fn request(
        &self,
        caller: &Caller,
        common: &Common<'_>,
        kind: RequestKind,
    ) -> Result<OperatorRequest, Status> {
        Ok(OperatorRequest {
            cluster: cluster_name(common.cluster)?,
            actor: caller.actor(),
            reason: reason(common.reason)?,
            expected_epoch: Epoch(common.expected_epoch),
            request_id: request_id(common.request_id)?,
            kind,
        })
    }

    /// `SetAutomation`.
    pub(super) async fn set_mode(
        &self,
        caller: Caller,
        message: SetAutomationRequest,
    ) -> Answered<SetAutomationReply> {
        if let Way::There(mut client) = self.way(&caller)? {
            let request = auth::on_behalf(message, &caller.actor())?;
            return self.in_time(RELAY_TIMEOUT, client.set_automation(request)).await;
        }
        let automation = mode(&message.mode)?;
        let common = Common {
            cluster: &message.cluster,
            reason: &message.reason,
            expected_epoch: message.expected_epoch,
            request_id: &message.request_id,
            dry_run: message.dry_run,
        };
        let request = self.request(&caller, &common, RequestKind::SetAutomation { automation })?;
        let before = self.known(&request.cluster, |known| known.automation)?;
        let applied = self.ask(request, common.dry_run).await?;
        Ok(Response::new(SetAutomationReply {
            before: before.name().to_owned(),
            after: automation.name().to_owned(),
            epoch: applied.epoch.0,
        }))
    }

    /// `Acknowledge`.
    pub(super) async fn take_note(
        &self,
        caller: Caller,
        message: AcknowledgeRequest,
    ) -> Answered<AcknowledgeReply> {
        if let Way::There(mut client) = self.way(&caller)? {
            let request = auth::on_behalf(message, &caller.actor())?;
            return self.in_time(RELAY_TIMEOUT, client.acknowledge(request)).await;
        }
        let common = Common {
            cluster: &message.cluster,
            reason: &message.reason,
            expected_epoch: message.expected_epoch,
            request_id: &message.request_id,
            dry_run: message.dry_run,
        };
        let request = self.request(&caller, &common, RequestKind::Acknowledge)?;
        let text = self.known(&request.cluster, |known| match &known.pending {
            Some(pending) => format!("the failover of {} begins while its reason lasts", pending.member),
            None => "the next automatic failover need not wait".to_owned(),
        })?;
        let applied = self.ask(request, common.dry_run).await?;
        let operation = applied.operation.map(|id| id.0);
        Ok(Response::new(AcknowledgeReply { operation, epoch: applied.epoch.0, text }))
    }

    /// `Approve`.
    pub(super) async fn say_go(&self, caller: Caller, message: ApproveRequest) -> Answered<ApproveReply> {
        if let Way::There(mut client) = self.way(&caller)? {
            let request = auth::on_behalf(message, &caller.actor())?;
            return self.in_time(RELAY_TIMEOUT, client.approve(request)).await;
        }
        let common = Common {
            cluster: &message.cluster,
            reason: &message.reason,
            expected_epoch: message.expected_epoch,
            request_id: &message.request_id,
            dry_run: message.dry_run,
        };
        let name = cluster_name(&message.cluster)?;
        let readiness = self.readiness(&name).await?;
        let evidence = {
            let inner = self.node.shared.lock();
            let known = inner.state.clusters.get(&name);
            let known = known.ok_or_else(|| Status::not_found(format!("there is no cluster {name}")))?;
            super::explain::evidence(&self.node, &inner, known)
        };
        let request = self.request(&caller, &common, RequestKind::Approve { evidence, readiness })?;
        let applied = self.ask(request, common.dry_run).await?;
        let text = applied.events.first().map_or_else(
            || "answered as before: the same request id was approved already".to_owned(),
            |event| event.text.clone(),
        );
        let operation = applied.operation.filter(|_| !common.dry_run).map(|id| id.0);
        Ok(Response::new(ApproveReply { operation, epoch: applied.epoch.0, text }))
    }
}

fn mode(value: &str) -> Result<Automation, Status> {
    let modes = [Automation::Automatic, Automation::Approve, Automation::Observe, Automation::Paused];
    modes.into_iter().find(|mode| mode.name() == value).ok_or_else(|| {
        Status::invalid_argument(format!("mode: {value:?} is none of automatic, approve, observe, paused"))
    })
}
