//! Restart and reload: the call of `everyday.proto`. Decides nothing.

use regent_core::RequestKind;
use regent_proto::v1::{RestartReply, RestartRequest};
use tonic::{Response, Status};

use super::{
    auth::{self, Caller},
    judge::Common,
    operator::{Answered, Operators, RELAY_TIMEOUT, Way, member_name},
};

impl Operators {
    pub(super) async fn restart_member(
        &self,
        caller: Caller,
        message: RestartRequest,
    ) -> Answered<RestartReply> {
        if let Way::There(mut client) = self.way(&caller)? {
            let request = auth::on_behalf(message, &caller.actor())?;
            return self.in_time(RELAY_TIMEOUT, client.restart(request)).await;
        }
        let member = member_name("member", Some(&message.member))?
            .ok_or_else(|| Status::invalid_argument("member: is missing"))?;
        let common = Common {
            cluster: &message.cluster,
            reason: &message.reason,
            expected_epoch: message.expected_epoch,
            request_id: &message.request_id,
            dry_run: message.dry_run,
        };
        let behind = self.behind(&message.cluster)?;
        let kind = RequestKind::Restart { member: member.clone(), reload_only: message.reload_only, behind };
        let request = self.request(&caller, &common, kind)?;
        let (cluster, id) = (request.cluster.clone(), request.request_id.clone());
        let applied = self.ask(request, common.dry_run).await?;
        // Of a repeated request the first answer counts, whatever runs by now.
        let (remembered, primary) = self.known(&cluster, |known| {
            let first = known.requests.iter().find(|(known, _)| *known == id);
            let primary = known.appointment.as_ref().is_some_and(|appointment| appointment.member == member);
            (first.and_then(|(_, operation)| *operation), primary)
        })?;
        let operation = remembered.or(applied.operation);
        let operation = operation.ok_or_else(|| Status::internal("the restart started no operation"))?;
        Ok(Response::new(RestartReply { operation: operation.0, epoch: applied.epoch.0, primary }))
    }
}
