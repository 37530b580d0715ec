//! The coordinators themselves: list, add, remove. Decides nothing; the core judges, `coordinators` carries it out.

use regent_core::{GroupRequest, GroupRequestKind, Standing};
use regent_proto::v1::{self, change_coordinators_request::Change};
use regent_types::{CoordinatorId, Region};
use tonic::{Response, Status};

use super::{
    auth::{self, Caller},
    operator::{Answered, Operators, RELAY_TIMEOUT, Way, reason, request_id},
};

fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Joining => "joining",
        Standing::Voter => "voter",
        Standing::Leaving => "leaving",
        Standing::Removed => "removed",
    }
}

impl Operators {
    pub(super) async fn coordinators(
        &self,
        caller: Caller,
        message: v1::CoordinatorsRequest,
    ) -> Answered<v1::CoordinatorsReply> {
        if let Ok(Way::There(mut client)) = self.way(&caller) {
            let request = auth::on_behalf(message, &caller.actor())?;
            if let Some(answer) = self.leaders_answer(client.list_coordinators(request)).await {
                return answer;
            }
        }
        let (status, membership) = (self.node.raft.status(), self.node.raft.membership());
        let inner = self.node.shared.lock();
        let group = &inner.state.group;
        let entry = |(id, one): (&CoordinatorId, &regent_core::Coordinator)| {
            let follower = status.followers.get(&id.0);
            v1::CoordinatorEntry {
                id: id.0,
                address: one.address.clone(),
                region: one.region.to_string(),
                standing: standing(one.standing).to_owned(),
                votes: membership.voters.contains(&id.0),
                matched_index: follower.and_then(|follower| follower.matched_index),
                heard_age_ms: follower.and_then(|follower| follower.heard_age_ms),
            }
        };
        let change = |one: &regent_core::GroupRecord| v1::GroupChange {
            wall_ms: one.wall_ms,
            actor: one.actor.clone(),
            reason: one.reason.clone(),
            text: one.text.clone(),
        };
        Ok(Response::new(v1::CoordinatorsReply {
            version: group.version,
            leader: inner.leadership.map(|leadership| leadership.node.0),
            coordinators: group.coordinators.iter().map(entry).collect(),
            changes: group.log.iter().map(change).collect(),
        }))
    }

    pub(super) async fn coordinators_change(
        &self,
        caller: Caller,
        message: v1::ChangeCoordinatorsRequest,
    ) -> Answered<v1::ChangeReply> {
        if let Way::There(mut client) = self.way(&caller)? {
            let request = auth::on_behalf(message, &caller.actor())?;
            return self.in_time(RELAY_TIMEOUT, client.change_coordinators(request)).await;
        }
        let (expected_version, consent) = (message.expected_version, message.consent);
        let (kind, planned, notes) = match &message.change {
            None => return Err(Status::invalid_argument("change: is missing")),
            Some(Change::Add(add)) => {
                let invalid = |field: &str, problem: String| {
                    Status::invalid_argument(format!("add.{field}: {problem}"))
                };
                if add.id == 0 {
                    return Err(invalid("id", "0 is not an id: ids start at 1".into()));
                }
                let port = add.address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
                let port = port.and_then(|(_, port)| port.parse::<u16>().ok()).filter(|port| *port != 0);
                if port.is_none() || add.address.parse::<axum::http::uri::Authority>().is_err() {
                    return Err(invalid("address", format!("{:?} is not host:port", add.address)));
                }
                let region =
                    Region::new(add.region.clone()).map_err(|error| invalid("region", error.to_string()))?;
                let id = CoordinatorId(add.id);
                let notes = vec![
                    format!("start it with node_id = {id}, join = true, an empty data_dir and the certificate coordinator/{id}"),
                    "it is fed the log first and votes when it has everything: regentctl members coordinators list".to_owned(),
                    "name it in the files of coordinators, agents and regentctl".to_owned(),
                ];
                let planned = format!("coordinator {id} in {region} ({}) would join", add.address);
                let address = add.address.clone();
                (
                    GroupRequestKind::AddCoordinator { id, address, region, expected_version, consent },
                    planned,
                    notes,
                )
            }
            Some(Change::Remove(id)) => {
                let id = CoordinatorId(*id);
                let notes = vec![
                    "it stops as soon as it hears of it; its id is never used again".to_owned(),
                    "take it out of the files of coordinators, agents and regentctl, and revoke its certificate".to_owned(),
                ];
                let planned = format!("coordinator {id} would leave");
                (GroupRequestKind::RemoveCoordinator { id, expected_version, consent }, planned, notes)
            }
        };
        let request = GroupRequest {
            actor: caller.actor(),
            reason: reason(&message.reason)?,
            request_id: request_id(&message.request_id)?,
            kind,
        };
        let mut reply = self.group(request, notes, message.dry_run).await?;
        if message.dry_run {
            reply.get_mut().changes = vec![planned];
        }
        Ok(reply)
    }
}
