//! `AgentService.Session`: an agent's way in. The leader registers the session and feeds detector and confirm queue; a
//! follower relays it (see `relay`); without a leader the agent is told at once.
//!
//! Invariant: every message is checked against the identity that opened the session.

use std::{pin::Pin, sync::Arc, time::Duration};

use regent_proto::{
    FromAgent, FromCoordinator, Hello, PROTOCOL_VERSION,
    v1::{AgentMessage, CoordinatorMessage, agent_service_server::AgentService},
};
use regent_types::CoordinatorId;
use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::{
    auth::{Caller, Gate},
    relay,
};
use crate::{
    node::Node,
    sessions::{SESSION_QUEUE, Session, ToAgent, Who},
};

/// Longest wait of a new session for a leader, ms.
const ELECTION_WAIT_MS: u64 = 1_500;
/// Between two looks whether there is one.
const ELECTION_POLL: Duration = Duration::from_millis(20);
/// Longest wait for the first message.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// A session without any message for this long is over.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The service.
pub struct Agents {
    pub node: Arc<Node>,
    pub gate: Gate,
}

#[tonic::async_trait]
impl AgentService for Agents {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<CoordinatorMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let caller = self.gate.agent(&request)?;
        let (tx, rx) = mpsc::channel(SESSION_QUEUE);
        let (node, gate, inbound) = (self.node.clone(), self.gate.clone(), request.into_inner());
        tokio::spawn(async move {
            let stop = node.stop.clone();
            tokio::select! {
                result = open(&node, &gate, &caller, inbound, &tx) => if let Err(status) = result {
                    tx.send(Err(status)).await.ok();
                },
                () = stop.cancelled() => goodbye(&tx, "this coordinator is stopping").await,
                () = tx.closed() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }
}

pub(super) async fn goodbye(tx: &ToAgent, reason: &str) {
    let message = FromCoordinator::Goodbye { reason: reason.to_owned() };
    tx.send(Ok(message.into())).await.ok();
}

/// Resolves when `gone` holds, or when nobody tells any more.
pub(super) async fn left<T>(changes: &mut watch::Receiver<T>, gone: impl FnMut(&T) -> bool) {
    drop(changes.wait_for(gone).await);
}

pub(super) fn read(message: AgentMessage) -> Result<FromAgent, Status> {
    FromAgent::try_from(message).map_err(|error| Status::invalid_argument(error.to_string()))
}

async fn open(
    node: &Arc<Node>,
    gate: &Gate,
    caller: &Caller,
    mut inbound: Streaming<AgentMessage>,
    tx: &ToAgent,
) -> Result<(), Status> {
    let first = node.clock.within(HELLO_TIMEOUT, inbound.message()).await;
    let first = first.ok_or_else(|| Status::deadline_exceeded("no hello came"))??;
    let Some(first) = first else { return Ok(()) };
    let hello = match read(first.clone())? {
        FromAgent::Hello(hello) => hello,
        FromAgent::Heartbeat(_) | FromAgent::Outcome { .. } | FromAgent::Newer => {
            return Err(Status::invalid_argument("message: the first one must be hello"));
        }
    };
    caller.speaks_for(&hello.cluster, &hello.member)?;
    if hello.protocol_version != PROTOCOL_VERSION {
        let reason = format!(
            "hello.protocol_version: {} is not spoken here, this coordinator speaks {PROTOCOL_VERSION}",
            hello.protocol_version
        );
        goodbye(tx, &reason).await;
        return Ok(());
    }
    let who: Who = (hello.cluster.clone(), hello.member.clone());
    if node.led.borrow().is_some() {
        node.heard.touch(&who, node.clock.now_ns());
        return lead(node, gate, &who, &hello, inbound, tx).await;
    }
    if caller.relayed {
        goodbye(tx, "this coordinator does not lead").await;
        return Ok(());
    }
    if node.leader().is_none() {
        // The next leader counts on from here. While there is one, only a session that reaches it counts (see `relay`).
        node.heard.touch(&who, node.clock.now_ns());
        elected(node).await;
    }
    if node.led.borrow().is_some() {
        return lead(node, gate, &who, &hello, inbound, tx).await;
    }
    match node.leader() {
        Some(leader) if leader != node.config.node_id.0 => {
            relay::relay(node, &who, CoordinatorId(leader), first, inbound, tx).await?;
        }
        Some(_) | None => goodbye(tx, "no leader is known").await,
    }
    Ok(())
}

/// Waits for a leader, not for long. Leadership moves within a second: an agent that is sent away meanwhile goes to another
/// region's coordinator, and each directive then travels there and back.
async fn elected(node: &Node) {
    let begun_ms = node.clock.now_ms();
    while node.leader().is_none() && node.clock.now_ms().saturating_sub(begun_ms) < ELECTION_WAIT_MS {
        node.clock.sleep(ELECTION_POLL).await;
    }
}

/// Serves a session as the leader.
async fn lead(
    node: &Arc<Node>,
    gate: &Gate,
    who: &Who,
    hello: &Hello,
    mut inbound: Streaming<AgentMessage>,
    tx: &ToAgent,
) -> Result<(), Status> {
    let mut led = node.led.subscribe();
    let leadership = *led.borrow_and_update();
    if leadership.is_none() {
        goodbye(tx, "this coordinator does not lead any more").await;
        return Ok(());
    }
    let session = node.sessions.register(who.clone(), hello.instance, tx.clone());
    tracing::info!(cluster = %who.0, member = %who.1, instance = %hello.instance, "session opened");
    let result = loop {
        tokio::select! {
            message = node.clock.within(IDLE_TIMEOUT, inbound.message()) => match message {
                Some(Ok(Some(message))) => {
                    if let Err(status) = read(message).and_then(|message| take(node, gate, who, &session, message)) {
                        break Err(status);
                    }
                }
                Some(Ok(None)) => break Ok(()),
                Some(Err(status)) => {
                    tracing::debug!(cluster = %who.0, member = %who.1, %status, "session broke");
                    break Ok(());
                }
                None => break Err(Status::deadline_exceeded("no message for too long")),
            },
            () = session.end.cancelled() => {
                goodbye(tx, "this session was replaced, is too slow, or this coordinator does not lead").await;
                break Ok(());
            }
            () = left(&mut led, |now| *now != leadership) => {
                goodbye(tx, "the leadership has changed").await;
                break Ok(());
            }
        }
    };
    node.sessions.remove(who, session.id);
    tracing::info!(cluster = %who.0, member = %who.1, "session closed");
    result
}

/// One message of a registered session.
fn take(node: &Node, gate: &Gate, who: &Who, session: &Session, message: FromAgent) -> Result<(), Status> {
    match message {
        FromAgent::Hello(_) => Err(Status::invalid_argument("message: a second hello")),
        FromAgent::Newer => {
            tracing::debug!(member = %who.1, "a message of a newer agent passed over");
            Ok(())
        }
        FromAgent::Outcome { key, outcome } => {
            gate.member(&who.0, &who.1)?;
            if key.cluster != who.0 {
                let text =
                    format!("outcome.key.cluster: {} is not this session's cluster {}", key.cluster, who.0);
                return Err(Status::invalid_argument(text));
            }
            if !node.sessions.deliver(who, &key, &outcome) {
                tracing::debug!(?key, member = %who.1, "an outcome that nobody waits for");
            }
            Ok(())
        }
        FromAgent::Heartbeat(heartbeat) => {
            if heartbeat.cluster != who.0 || heartbeat.member != who.1 {
                let text = format!(
                    "heartbeat: {} of {} in the session of {} of {}",
                    heartbeat.member, heartbeat.cluster, who.1, who.0
                );
                return Err(Status::permission_denied(text));
            }
            node.metrics.heartbeats.add(1);
            let now_ns = node.clock.now_ns();
            node.heard.touch(who, now_ns);
            {
                let mut inner = node.shared.lock();
                if inner.leadership.is_some() {
                    inner.detector.on_heartbeat(now_ns, &heartbeat);
                }
            }
            if heartbeat.instance != session.instance {
                node.sessions.update_instance(who, session.id, heartbeat.instance);
            }
            node.queue.push(*heartbeat, session.clone(), now_ns);
            Ok(())
        }
    }
}
