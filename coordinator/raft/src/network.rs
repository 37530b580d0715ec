//! The calling side of the protocol. Every call has its deadline; openraft repeats what failed.

use std::{future::Future, sync::Arc, time::Duration};

use futures::stream;
use openraft::{
    BasicNode, OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use regent_proto::raft::{RaftPayload, SnapshotChunk, SnapshotEnd, raft_service_client::RaftServiceClient};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Instant, timeout};
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    Connector, Options,
    codec::{CHUNK_BYTES, Envelope, MESSAGE_BYTES_MAX, decode, encode},
    gate::QuorumGate,
    types::{Snapshot, TypeConfig, Vote},
};

type Client = RaftServiceClient<Channel>;
type Rpc<T> = Result<T, RPCError<TypeConfig>>;

/// An endpoint with what a link between regions needs: no Nagle, and a connection that went dead without a word is
/// given up within seconds, not when TCP's own patience ends (after a long cut, minutes after the heal).
pub fn tuned(endpoint: Endpoint) -> Endpoint {
    endpoint
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true)
}

/// Makes one peer after another for openraft.
pub(crate) struct Network {
    options: Options,
    gate: Arc<QuorumGate>,
}

impl Network {
    pub(crate) fn new(options: Options, gate: Arc<QuorumGate>) -> Self {
        Self { options, gate }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    /// Each client of openraft's (entries, heartbeats, snapshots) gets a connection of its own: a snapshot that
    /// crawls over a slow link must not hold up a heartbeat.
    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        // The configured address wins over the one in the log, so that a node can move.
        let address = self.options.members.get(&target).map_or(&node.addr, |member| &member.raft_addr);
        let connector: &dyn Connector = &*self.options.connector;
        let client = RaftServiceClient::new(connector.channel(target, address))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Peer {
            group: self.options.group.clone(),
            me: self.options.node_id,
            target,
            client,
            gate: self.gate.clone(),
        }
    }
}

/// One other member.
pub(crate) struct Peer {
    group: String,
    me: u64,
    target: u64,
    client: Client,
    gate: Arc<QuorumGate>,
}

impl Peer {
    fn envelope<T>(&self, message: T) -> Envelope<T> {
        Envelope { group: self.group.clone(), from: self.me, to: self.target, message }
    }

    async fn call<T, R, F>(
        &self,
        action: RPCTypes,
        deadline: Duration,
        message: T,
        send: impl FnOnce(Client, RaftPayload) -> F,
    ) -> Rpc<R>
    where
        T: Serialize,
        R: DeserializeOwned,
        F: Future<Output = Result<Response<RaftPayload>, Status>>,
    {
        let payload = encode(&self.envelope(message)).map_err(|status| self.failed(&status))?;
        match timeout(deadline, send(self.client.clone(), payload)).await {
            Ok(Ok(answer)) => decode(answer.get_ref()).map_err(|status| self.failed(&status)),
            Ok(Err(status)) => Err(self.failed(&status)),
            Err(_) => Err(Timeout { action, id: self.me, target: self.target, timeout: deadline }.into()),
        }
    }

    fn failed(&self, status: &Status) -> RPCError<TypeConfig> {
        let text = format!("node {}: {}", self.target, describe(status));
        match status.code() {
            // These do not go away by asking again at once.
            Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::InvalidArgument => {
                tracing::warn!("{text}");
                Unreachable::from_string(text).into()
            }
            Code::Unavailable => Unreachable::from_string(text).into(),
            _ => NetworkError::from_string(text).into(),
        }
    }

    fn chunks(&self, vote: Vote, snapshot: Snapshot) -> Result<Vec<SnapshotChunk>, RPCError<TypeConfig>> {
        let header = encode(&self.envelope((vote, snapshot.meta))).map_err(|status| self.failed(&status))?;
        let data = snapshot.snapshot;
        let mut chunks: Vec<SnapshotChunk> = data
            .chunks(CHUNK_BYTES)
            .enumerate()
            .map(|(i, piece)| SnapshotChunk {
                offset_bytes: (i * CHUNK_BYTES) as u64,
                data: piece.to_vec(),
                ..Default::default()
            })
            .collect();
        if chunks.is_empty() {
            chunks.push(SnapshotChunk::default());
        }
        let end = SnapshotEnd { length_bytes: data.len() as u64, crc32: crc32fast::hash(&data) };
        if let Some(last) = chunks.last_mut() {
            last.end = Some(end);
        }
        chunks[0].header = Some(header);
        Ok(chunks)
    }
}

fn describe(status: &Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<TypeConfig>> {
        // Heartbeats, which carry no entries, are silenced by openraft itself.
        if !request.entries.is_empty() && !self.gate.is_open(Instant::now()) {
            return Err(Unreachable::from_string("silent for want of a quorum").into());
        }
        self.call(RPCTypes::AppendEntries, option.soft_ttl(), request, |mut client, payload| async move {
            client.append_entries(payload).await
        })
        .await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        self.call(RPCTypes::Vote, option.soft_ttl(), request, |mut client, payload| async move {
            client.vote(payload).await
        })
        .await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        self.call(RPCTypes::Vote, option.soft_ttl(), request, |mut client, payload| async move {
            client.pre_vote(payload).await
        })
        .await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        if !self.gate.is_open(Instant::now()) {
            return Err(Unreachable::from_string("silent for want of a quorum").into());
        }
        let deadline = option.soft_ttl();
        let chunks = self.chunks(vote, snapshot)?;
        let mut client = self.client.clone();
        let sent = timeout(deadline, client.install_snapshot(stream::iter(chunks)));
        let answer = tokio::select! {
            closed = cancel => return Err(closed.into()),
            answer = sent => answer,
        };
        match answer {
            Ok(Ok(answer)) => decode(answer.get_ref()).map_err(|status| self.failed(&status).into()),
            Ok(Err(status)) => Err(self.failed(&status).into()),
            Err(_) => Err(StreamingError::Timeout(Timeout {
                action: RPCTypes::InstallSnapshot,
                id: self.me,
                target: self.target,
                timeout: deadline,
            })),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<TypeConfig>> {
        let action = RPCTypes::TransferLeader;
        self.call(action, option.soft_ttl(), request, |mut client, payload| async move {
            client.transfer_leader(payload).await
        })
        .await
    }
}
