//! The answering side of the protocol. Checks who speaks and to whom, then asks Raft; decides nothing itself.

use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};
use regent_proto::raft::{
    RaftPayload, SnapshotChunk,
    raft_service_server::{RaftService, RaftServiceServer},
};
use serde::{Serialize, de::DeserializeOwned};
use tonic::{Extensions, Request, Response, Status, Streaming};

use crate::{
    codec::{Envelope, MESSAGE_BYTES_MAX, SNAPSHOT_BYTES_MAX, decode, encode},
    types::{Raft, Snapshot, SnapshotMeta, TypeConfig, Vote},
};

/// Which coordinator a caller has proved to be. Whoever terminates TLS puts it into the request's extensions; the
/// service then refuses a message that claims another sender. Without it the claim is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerNode(pub u64);

/// Answers the other members.
#[derive(Clone)]
pub struct RaftRpc {
    pub(crate) group: String,
    pub(crate) me: u64,
    pub(crate) members: Vec<u64>,
    pub(crate) join: bool,
    pub(crate) raft: Raft,
}

impl RaftRpc {
    pub(crate) fn into_service(self) -> RaftServiceServer<RaftRpc> {
        RaftServiceServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn open<T: DeserializeOwned>(&self, extensions: &Extensions, payload: &RaftPayload) -> Result<T, Status> {
        let envelope: Envelope<T> = decode(payload)?;
        if envelope.group != self.group {
            let text = format!("group = {:?}: this is a member of {:?}", envelope.group, self.group);
            return Err(Status::failed_precondition(text));
        }
        if envelope.to != self.me {
            let text = format!("to = {}: this is node {}", envelope.to, self.me);
            return Err(Status::failed_precondition(text));
        }
        if envelope.from == self.me || !self.knows(envelope.from) {
            let text = format!("from = {}: is no other member of {:?}", envelope.from, self.members);
            return Err(Status::failed_precondition(text));
        }
        if let Some(PeerNode(proved)) = extensions.get::<PeerNode>()
            && *proved != envelope.from
        {
            let text = format!("from = {}: the certificate is that of node {proved}", envelope.from);
            return Err(Status::permission_denied(text));
        }
        Ok(envelope.message)
    }
}

impl RaftRpc {
    /// Configured, or counted in since. One that joins knows nobody yet but by its certificate.
    fn knows(&self, node: u64) -> bool {
        if self.members.contains(&node) {
            return true;
        }
        let metrics = self.raft.metrics();
        let now = metrics.borrow_watched();
        let membership = now.membership_config.membership();
        let mut known = membership.nodes().map(|(id, _)| *id).peekable();
        (self.join && known.peek().is_none()) || known.any(|id| id == node)
    }
}

fn answer<T: Serialize>(result: Result<T, impl std::fmt::Display>) -> Result<Response<RaftPayload>, Status> {
    let message = result.map_err(|error| Status::unavailable(format!("this node has stopped: {error}")))?;
    encode(&message).map(Response::new)
}

#[tonic::async_trait]
impl RaftService for RaftRpc {
    async fn append_entries(&self, request: Request<RaftPayload>) -> Result<Response<RaftPayload>, Status> {
        let message: AppendEntriesRequest<TypeConfig> = self.open(request.extensions(), request.get_ref())?;
        answer(self.raft.append_entries(message).await)
    }

    async fn vote(&self, request: Request<RaftPayload>) -> Result<Response<RaftPayload>, Status> {
        let message: VoteRequest<TypeConfig> = self.open(request.extensions(), request.get_ref())?;
        answer(self.raft.vote(message).await)
    }

    async fn pre_vote(&self, request: Request<RaftPayload>) -> Result<Response<RaftPayload>, Status> {
        let message: VoteRequest<TypeConfig> = self.open(request.extensions(), request.get_ref())?;
        answer(self.raft.pre_vote(message).await)
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<RaftPayload>, Status> {
        let (_, extensions, mut chunks) = request.into_parts();
        let mut header: Option<(Vote, SnapshotMeta)> = None;
        let mut data: Vec<u8> = Vec::new();
        while let Some(chunk) = chunks.message().await? {
            match (&header, &chunk.header) {
                (None, Some(payload)) => header = Some(self.open(&extensions, payload)?),
                (None, None) => return Err(Status::invalid_argument("header is missing in the first chunk")),
                (Some(_), Some(_)) => return Err(Status::invalid_argument("header is set in a later chunk")),
                (Some(_), None) => {}
            }
            if chunk.offset_bytes != data.len() as u64 {
                let text = format!("offset_bytes = {}: expected {}", chunk.offset_bytes, data.len());
                return Err(Status::invalid_argument(text));
            }
            if data.len() as u64 + chunk.data.len() as u64 > SNAPSHOT_BYTES_MAX {
                let text = format!("snapshot exceeds {SNAPSHOT_BYTES_MAX} bytes");
                return Err(Status::resource_exhausted(text));
            }
            data.extend_from_slice(&chunk.data);
            let Some(end) = chunk.end else { continue };
            let crc32 = crc32fast::hash(&data);
            if end.length_bytes != data.len() as u64 || end.crc32 != crc32 {
                return Err(Status::data_loss(format!(
                    "snapshot arrived with {} bytes and CRC {crc32:08x}, sent were {} bytes and {:08x}",
                    data.len(),
                    end.length_bytes,
                    end.crc32
                )));
            }
            let Some((vote, meta)) = header else {
                return Err(Status::invalid_argument("header is missing"));
            };
            let snapshot = Snapshot { meta, snapshot: data };
            return answer(self.raft.install_full_snapshot(vote, snapshot).await);
        }
        Err(Status::aborted("the snapshot stream ended before its last chunk"))
    }

    async fn transfer_leader(&self, request: Request<RaftPayload>) -> Result<Response<RaftPayload>, Status> {
        let message: TransferLeaderRequest<TypeConfig> =
            self.open(request.extensions(), request.get_ref())?;
        answer(self.raft.handle_transfer_leader(message).await)
    }
}
