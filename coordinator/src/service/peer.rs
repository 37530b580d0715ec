//! `PeerService`: the followers' side of the exchange of ages.

use std::sync::Arc;

use regent_proto::v1::{AgesReply, AgesRequest, peer_service_server::PeerService};
use tonic::{Request, Response, Status};

use super::auth::Gate;
use crate::{leadership, node::Node};

/// The service.
pub struct PeersOf {
    pub node: Arc<Node>,
    pub gate: Gate,
}

#[tonic::async_trait]
impl PeerService for PeersOf {
    async fn exchange_ages(&self, request: Request<AgesRequest>) -> Result<Response<AgesReply>, Status> {
        let proved = self.gate.peer(&request)?;
        let request = request.into_inner();
        if proved.is_some_and(|id| id != request.leader_id) {
            let text = format!("leader_id: {} is not the caller, coordinator {proved:?}", request.leader_id);
            return Err(Status::permission_denied(text));
        }
        if let Some(reason) = &request.removed {
            // A leader of an older term knows less than this node does.
            if request.leader_term >= self.node.raft.status().term {
                crate::coordinators::stop(&self.node, reason);
            }
        }
        let ages = request
            .ages
            .into_iter()
            .map(|age| {
                leadership::from_proto(age)
                    .map_err(|error| Status::invalid_argument(format!("ages: {error}")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let node = &self.node;
        let (now_ns, term) = (node.clock.now_ns(), node.raft.status().term);
        // Ages of an older leader than the one that this node knows are out of date.
        if request.leader_term >= term {
            node.heard.told(now_ns, ages);
        }
        let heard = node.heard.own(now_ns).into_iter().map(leadership::to_proto).collect();
        Ok(Response::new(AgesReply {
            node_id: node.config.node_id.0,
            term,
            heard,
            feature_level: node.shared.level_max.into(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            certificate_days_left: node.certificate_days_left(),
        }))
    }
}
