//! A follower's part of an agent's session: every message goes on to the leader and back, unread but for the count of
//! who was heard. It ends with a Goodbye when the leader changes or the relay stalls, so that the agent moves on.
//!
//! Invariant: an agent counts as heard only while the leader takes its session. One that cannot reach the leader gets no
//! lease, and counting it as heard would keep its cluster from ever failing over.

use std::{sync::Arc, time::Duration};

use regent_pki::Identity;
use regent_proto::v1::{AgentMessage, agent_message::Message, agent_service_client::AgentServiceClient};
use regent_types::CoordinatorId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{
    agent::{goodbye, left},
    auth,
};
use crate::{
    node::Node,
    sessions::{SESSION_QUEUE, ToAgent, Who},
};

/// Longest wait for the leader to take the session.
const OPEN_TIMEOUT: Duration = Duration::from_millis(1500);
/// A leader that answers nothing for this long after a heartbeat is not reached any more.
const STALL_TIMEOUT: Duration = Duration::from_secs(3);
/// How often that is looked at.
const STALL_TICK: Duration = Duration::from_millis(250);

/// Relays until something ends.
pub async fn relay(
    node: &Arc<Node>,
    who: &Who,
    leader: CoordinatorId,
    hello: AgentMessage,
    mut inbound: Streaming<AgentMessage>,
    tx: &ToAgent,
) -> Result<(), Status> {
    let Some(channel) = node.peers.channel(leader) else {
        goodbye(tx, "the leader is not in this coordinator's peers list").await;
        return Ok(());
    };
    let identity = Identity::Agent { cluster: who.0.clone(), member: who.1.clone() };
    let (up, up_rx) = mpsc::channel(SESSION_QUEUE);
    up.try_send(hello).map_err(|_| Status::internal("a new channel is full"))?;
    let request = auth::on_behalf(ReceiverStream::new(up_rx), &identity.to_string())?;
    let mut client = AgentServiceClient::new(channel);
    let mut down = match node.clock.within(OPEN_TIMEOUT, client.session(request)).await {
        Some(Ok(response)) => response.into_inner(),
        Some(Err(status)) => {
            goodbye(tx, &format!("leader {leader} does not take the session: {}", status.message())).await;
            return Ok(());
        }
        None => {
            goodbye(tx, &format!("leader {leader} is not reached")).await;
            return Ok(());
        }
    };
    node.heard.touch(who, node.clock.now_ns());
    node.metrics.relays.add(1);
    tracing::info!(cluster = %who.0, member = %who.1, %leader, "session relayed");
    let mut leadership = node.raft.leadership();
    // When the oldest unanswered heartbeat was forwarded, monotonic ms.
    let mut unanswered_ms: Option<u64> = None;
    loop {
        tokio::select! {
            message = inbound.message() => {
                let Ok(Some(message)) = message else { return Ok(()) };
                let now_ns = node.clock.now_ns();
                node.heard.touch(who, now_ns);
                if matches!(message.message, Some(Message::Heartbeat(_))) {
                    unanswered_ms.get_or_insert(now_ns / 1_000_000);
                }
                if up.try_send(message).is_err() {
                    goodbye(tx, "the way to the leader is jammed").await;
                    return Ok(());
                }
            }
            message = down.message() => match message {
                Ok(Some(message)) => {
                    unanswered_ms = None;
                    if tx.try_send(Ok(message)).is_err() {
                        return Err(Status::resource_exhausted("the agent does not read its session"));
                    }
                }
                Ok(None) => {
                    goodbye(tx, "the leader ended the session").await;
                    return Ok(());
                }
                Err(status) => {
                    goodbye(tx, &format!("leader {leader}: {}", status.message())).await;
                    return Ok(());
                }
            },
            () = left(&mut leadership, |now| now.leader != Some(leader.0)) => {
                goodbye(tx, "the leader has changed").await;
                return Ok(());
            }
            () = node.clock.sleep(STALL_TICK) => {
                let stalled = unanswered_ms
                    .is_some_and(|since| node.clock.now_ms().saturating_sub(since) > STALL_TIMEOUT.as_millis() as u64);
                if stalled {
                    goodbye(tx, &format!("leader {leader} does not answer")).await;
                    return Ok(());
                }
            }
        }
    }
}
