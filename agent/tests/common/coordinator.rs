//! A coordinator that decides nothing: it grants whom the test says, sends what the test says, and keeps what it hears.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use regent_proto::{FromAgent, FromCoordinator, v1};
use regent_types::{
    Acknowledgement, ClusterName, ClusterView, Directive, EffectKey, Epoch, Grant, Heartbeat, LeaseDecision,
    LeaseRefusal, MemberName, OperationId, Outcome,
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt, wrappers::TcpListenerStream, wrappers::UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::eventually;

type Out = mpsc::UnboundedSender<Result<v1::CoordinatorMessage, Status>>;

#[derive(Default)]
struct Inner {
    sessions: BTreeMap<MemberName, Out>,
    heard: BTreeMap<MemberName, Heartbeat>,
    outcomes: Vec<(EffectKey, Outcome)>,
    appointed: Option<(MemberName, Epoch)>,
    fenced_through: Epoch,
    members: Vec<MemberName>,
    silent: bool,
    step: u32,
}

#[derive(Clone)]
pub struct Coordinator {
    inner: Arc<Mutex<Inner>>,
    pub url: String,
    pub ttl_ms: u64,
}

pub fn cluster() -> ClusterName {
    ClusterName::new("test").unwrap()
}

impl Coordinator {
    pub async fn start(members: &[&str]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let inner = Inner {
            members: members.iter().map(|m| MemberName::new(*m).unwrap()).collect(),
            ..Inner::default()
        };
        let me = Self { inner: Arc::new(Mutex::new(inner)), url, ttl_ms: 20_000 };
        let service = v1::agent_service_server::AgentServiceServer::new(me.clone());
        tokio::spawn(
            Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)),
        );
        me
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// From now on this member gets leases for this epoch.
    pub fn appoint(&self, member: &str, epoch: u64) {
        self.lock().appointed = Some((MemberName::new(member).unwrap(), Epoch(epoch)));
    }

    /// From now on nobody gets leases for this epoch.
    pub fn fence_decided(&self, epoch: u64) {
        self.lock().fenced_through = Epoch(epoch);
    }

    /// Answers nothing (true) or again (false).
    pub fn silence(&self, silent: bool) {
        self.lock().silent = silent;
    }

    pub fn heard(&self, member: &str) -> Option<Heartbeat> {
        self.lock().heard.get(&MemberName::new(member).unwrap()).cloned()
    }

    pub fn forget(&self, member: &str) {
        self.lock().heard.remove(&MemberName::new(member).unwrap());
    }

    /// Waits for a heartbeat that satisfies `is_so`.
    pub async fn until(&self, member: &str, what: &str, is_so: impl Fn(&Heartbeat) -> bool) -> Heartbeat {
        let look = || async { self.heard(member).filter(|h| is_so(h)) };
        eventually(&format!("{member}: {what}"), super::LONG, look).await
    }

    /// A key that is newer than all before.
    pub fn key(&self, epoch: u64) -> EffectKey {
        let mut inner = self.lock();
        inner.step += 1;
        EffectKey { cluster: cluster(), operation: OperationId(1), step: inner.step, epoch: Epoch(epoch) }
    }

    /// Sends a directive without waiting.
    pub fn send(&self, member: &str, key: &EffectKey, directive: Directive, grant: Option<Grant>) {
        let message = FromCoordinator::Directive { key: key.clone(), directive: Box::new(directive), grant };
        let inner = self.lock();
        let session = inner.sessions.get(&MemberName::new(member).unwrap()).expect("a session");
        let _ = session.send(Ok(message.into()));
    }

    /// Waits for the outcome of `key`.
    pub async fn outcome(&self, key: &EffectKey) -> Outcome {
        let find = || async {
            let mut inner = self.lock();
            let at = inner.outcomes.iter().position(|(k, _)| k == key)?;
            Some(inner.outcomes.remove(at).1)
        };
        eventually(&format!("outcome of step {}", key.step), Duration::from_secs(180), find).await
    }

    /// Sends a directive and waits for its outcome.
    pub async fn direct(&self, member: &str, directive: Directive, grant: Option<Grant>) -> Outcome {
        let key = self.key(directive.epoch().0);
        self.send(member, &key, directive, grant);
        self.outcome(&key).await
    }

    fn acknowledge(&self, heartbeat: &Heartbeat) -> Acknowledgement {
        let inner = self.lock();
        let (holder, epoch) = match &inner.appointed {
            Some((member, epoch)) => (Some(member.clone()), *epoch),
            None => (None, Epoch::NONE),
        };
        let lease = if epoch != Epoch::NONE && epoch <= inner.fenced_through {
            LeaseDecision::Refused(LeaseRefusal::Fenced { epoch, fenced_through: inner.fenced_through })
        } else if holder.as_ref() == Some(&heartbeat.member) {
            LeaseDecision::Granted(Grant {
                epoch,
                instance: heartbeat.instance,
                stamp_ns: heartbeat.stamp_ns,
                ttl_ms: self.ttl_ms,
            })
        } else {
            LeaseDecision::Refused(LeaseRefusal::NotAppointed { epoch, holder })
        };
        let view = ClusterView {
            epoch,
            fenced_through: inner.fenced_through,
            primary: None,
            members: inner.members.clone(),
            members_version: 0,
            heartbeat_interval_ms: None,
            promises: None,
            parameters: None,
            supersedes: vec![],
            synchronous: None,
        };
        Acknowledgement { nonce: heartbeat.nonce, lease, view: Some(view), group: None }
    }
}

#[tonic::async_trait]
impl v1::agent_service_server::AgentService for Coordinator {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<v1::CoordinatorMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut inbound = request.into_inner();
        let (out, queue) = mpsc::unbounded_channel();
        let me = self.clone();
        tokio::spawn(async move {
            while let Some(Ok(message)) = inbound.next().await {
                if me.lock().silent {
                    continue;
                }
                match FromAgent::try_from(message).expect("agents send what can be read") {
                    FromAgent::Hello(hello) => {
                        assert_eq!(hello.cluster, cluster());
                        me.lock().sessions.insert(hello.member, out.clone());
                    }
                    FromAgent::Heartbeat(heartbeat) => {
                        let ack = me.acknowledge(&heartbeat);
                        let _ = out.send(Ok(FromCoordinator::Acknowledgement(Box::new(ack)).into()));
                        me.lock().heard.insert(heartbeat.member.clone(), *heartbeat);
                    }
                    FromAgent::Outcome { key, outcome } => me.lock().outcomes.push((key, *outcome)),
                    FromAgent::Newer => {}
                }
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(queue))))
    }
}
