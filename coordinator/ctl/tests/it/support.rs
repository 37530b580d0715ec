//! A coordinator's operator service with canned answers, over loopback, and the real binary run against it.

use std::{
    net::SocketAddr,
    process::{Output, Stdio},
    sync::{Arc, Mutex},
};

use regent_pki::{Identity, TlsMaterial};
use regent_proto::v1::{
    self,
    operator_service_server::{OperatorService, OperatorServiceServer},
};
use tokio::{net::TcpListener, process::Command, task::JoinHandle};
use tokio_stream::{Stream, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, transport::Server};

/// What the fake knows, and what it was asked.
#[derive(Default)]
pub struct World {
    pub status: v1::StatusReply,
    pub plan: v1::FailoverPlan,
    /// Answers of GetOperation, one after the other; the last one stays.
    pub operations: Vec<v1::OperationReport>,
    pub history: Vec<v1::OperationSummary>,
    pub events: Vec<v1::Event>,
    /// Events sent by each stream before it breaks off; absent: it stays open.
    pub events_per_stream: Option<usize>,
    /// Answer every call with this.
    pub refuse_with: Option<Status>,
    pub failovers: Vec<v1::FailoverRequest>,
    pub assumed: Vec<v1::AssumeFencedRequest>,
    pub move_plan: v1::SwitchoverPlan,
    pub moves: Vec<v1::SwitchoverRequest>,
    pub automations: Vec<(&'static str, v1::AutomationRequest)>,
    pub explained: v1::ExplainReply,
    pub modes: Vec<v1::SetAutomationRequest>,
    pub watches: Vec<v1::WatchRequest>,
    pub callers: Vec<Identity>,
    pub policy: v1::PolicyReply,
    pub members: v1::MembersReply,
    pub coordinators: v1::CoordinatorsReply,
    pub changed: v1::ChangeReply,
    pub policies: Vec<v1::SetPolicyRequest>,
    pub parameters: v1::ParametersReply,
    pub parameter_changes: Vec<v1::SetParametersRequest>,
    pub restarts: Vec<v1::RestartRequest>,
    pub member_changes: Vec<v1::ChangeMemberRequest>,
    pub imports: Vec<v1::ImportClusterRequest>,
    pub creations: Vec<v1::CreateClusterRequest>,
    pub forgotten: Vec<v1::ForgetClusterRequest>,
    pub coordinator_changes: Vec<v1::ChangeCoordinatorsRequest>,
}

#[derive(Clone)]
struct Service {
    world: Arc<Mutex<World>>,
}

impl Service {
    fn admit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let mut world = self.world.lock().unwrap();
        if let Some(certificates) = request.peer_certs() {
            world.callers.push(regent_pki::identity_of(&certificates[0]).unwrap());
        }
        world.refuse_with.clone().map_or(Ok(()), Err)
    }

    fn check_epoch(&self, cluster: &str, expected: u64) -> Result<(), Status> {
        let world = self.world.lock().unwrap();
        let current =
            world.status.clusters.iter().find(|status| status.name == cluster).map(|found| found.epoch);
        match current {
            None => Err(Status::not_found(format!("there is no cluster {cluster}"))),
            Some(current) if current != expected => {
                Err(Status::aborted(format!("epoch {expected} was expected, the current one is {current}")))
            }
            Some(_) => Ok(()),
        }
    }

    fn automation(
        &self,
        verb: &'static str,
        request: Request<v1::AutomationRequest>,
    ) -> Result<Response<v1::AutomationReply>, Status> {
        self.admit(&request)?;
        let request = request.into_inner();
        self.check_epoch(&request.cluster, request.expected_epoch)?;
        let automation = if verb == "pause" { v1::Automation::Paused } else { v1::Automation::Automatic };
        let reply = v1::AutomationReply {
            automation: automation.into(),
            epoch: request.expected_epoch,
            changed: true,
        };
        self.world.lock().unwrap().automations.push((verb, request));
        Ok(Response::new(reply))
    }
}

#[tonic::async_trait]
impl OperatorService for Service {
    async fn get_status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        self.admit(&request)?;
        let mut reply = self.world.lock().unwrap().status.clone();
        if let Some(cluster) = &request.get_ref().cluster {
            reply.clusters.retain(|status| status.name == *cluster);
            if reply.clusters.is_empty() {
                return Err(Status::not_found(format!("there is no cluster {cluster}")));
            }
        }
        Ok(Response::new(reply))
    }

    type WatchStream = std::pin::Pin<Box<dyn Stream<Item = Result<v1::Event, Status>> + Send>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.admit(&request)?;
        let mut world = self.world.lock().unwrap();
        let from = request.get_ref().from_sequence;
        world.watches.push(request.into_inner());
        let mut events: Vec<_> =
            world.events.iter().filter(|event| event.sequence >= from).cloned().map(Ok).collect();
        let open = match world.events_per_stream {
            Some(count) => {
                events.truncate(count);
                events.push(Err(Status::unavailable("this coordinator is going down")));
                false
            }
            None => true,
        };
        let canned = tokio_stream::iter(events);
        if open {
            let stream = tokio_stream::StreamExt::chain(canned, tokio_stream::pending());
            return Ok(Response::new(Box::pin(stream)));
        }
        Ok(Response::new(Box::pin(canned)))
    }

    async fn trigger_failover(
        &self,
        request: Request<v1::FailoverRequest>,
    ) -> Result<Response<v1::FailoverReply>, Status> {
        use v1::failover_reply::Answer;
        self.admit(&request)?;
        let request = request.into_inner();
        self.check_epoch(&request.cluster, request.expected_epoch)?;
        let mut world = self.world.lock().unwrap();
        let answer = if request.dry_run { Answer::Plan(world.plan.clone()) } else { Answer::Operation(7) };
        world.failovers.push(request);
        Ok(Response::new(v1::FailoverReply { answer: Some(answer) }))
    }

    async fn pause(
        &self,
        request: Request<v1::AutomationRequest>,
    ) -> Result<Response<v1::AutomationReply>, Status> {
        self.automation("pause", request)
    }

    async fn resume(
        &self,
        request: Request<v1::AutomationRequest>,
    ) -> Result<Response<v1::AutomationReply>, Status> {
        self.automation("resume", request)
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainReply>, Status> {
        self.admit(&request)?;
        Ok(Response::new(self.world.lock().unwrap().explained.clone()))
    }

    async fn set_automation(
        &self,
        request: Request<v1::SetAutomationRequest>,
    ) -> Result<Response<v1::SetAutomationReply>, Status> {
        self.admit(&request)?;
        let request = request.into_inner();
        self.check_epoch(&request.cluster, request.expected_epoch)?;
        let (before, after) = ("automatic".to_owned(), request.mode.clone());
        let reply = v1::SetAutomationReply { before, after, epoch: request.expected_epoch };
        self.world.lock().unwrap().modes.push(request);
        Ok(Response::new(reply))
    }

    async fn acknowledge(
        &self,
        request: Request<v1::AcknowledgeRequest>,
    ) -> Result<Response<v1::AcknowledgeReply>, Status> {
        self.admit(&request)?;
        let request = request.into_inner();
        self.check_epoch(&request.cluster, request.expected_epoch)?;
        let text = "the next automatic failover need not wait".to_owned();
        Ok(Response::new(v1::AcknowledgeReply { operation: Some(5), epoch: request.expected_epoch, text }))
    }

    async fn approve(
        &self,
        request: Request<v1::ApproveRequest>,
    ) -> Result<Response<v1::ApproveReply>, Status> {
        self.admit(&request)?;
        let request = request.into_inner();
        self.check_epoch(&request.cluster, request.expected_epoch)?;
        let operation = (!request.dry_run).then_some(7);
        let text = "alice approves the failover of eu-north-1".to_owned();
        Ok(Response::new(v1::ApproveReply { operation, epoch: request.expected_epoch, text }))
    }

    async fn restart(
        &self,
        request: Request<v1::RestartRequest>,
    ) -> Result<Response<v1::RestartReply>, Status> {
        self.admit(&request)?;
        let request = request.into_inner();
        self.check_epoch(&request.cluster, request.expected_epoch)?;
        let primary = request.member == "eu-north-1";
        let reply = v1::RestartReply { operation: 7, epoch: request.expected_epoch, primary };
        let mut world = self.world.lock().unwrap();
        // Restarted, it waits for nothing any more.
        for member in world.parameters.members.iter_mut().filter(|one| one.member == request.member) {
            member.facts.get_or_insert_default().pending_restart.clear();
        }
        world.restarts.push(request);
        Ok(Response::new(reply))
    }

    async fn drill(&self, request: Request<v1::DrillRequest>) -> Result<Response<v1::DrillReply>, Status> {
        self.admit(&request)?;
        let request = request.into_inner();
        self.check_epoch(&request.cluster, request.expected_epoch)?;
        let answer = if request.dry_run {
            v1::drill_reply::Answer::Plan(v1::DrillPlan {
                cluster: request.cluster,
                epoch: request.expected_epoch,
                full: request.full,
                region: "eu-north-1".into(),
                from_member: Some("eu-north-1".into()),
                to_member: Some("us-east-1".into()),
                blockers: request
                    .reason
                    .contains("blocked")
                    .then(|| "guard cooldown: operation 5 is not acknowledged".into())
                    .into_iter()
                    .collect(),
                steps: vec![v1::DrillStep {
                    name: "detect".into(),
                    text: "eu-north-1 counts as silent".into(),
                    at_most_ms: Some(600_000),
                }],
            })
        } else {
            v1::drill_reply::Answer::Operation(7)
        };
        Ok(Response::new(v1::DrillReply { answer: Some(answer) }))
    }

    async fn assume_fenced(
        &self,
        request: Request<v1::AssumeFencedRequest>,
    ) -> Result<Response<v1::AssumeFencedReply>, Status> {
        self.admit(&request)?;
        let request = request.into_inner();
        self.check_epoch(&request.cluster, request.expected_epoch)?;
        let reply = v1::AssumeFencedReply { operation: 7, epoch: request.expected_epoch };
        self.world.lock().unwrap().assumed.push(request);
        Ok(Response::new(reply))
    }

    async fn get_policy(
        &self,
        request: Request<v1::PolicyRequest>,
    ) -> Result<Response<v1::PolicyReply>, Status> {
        self.admit(&request)?;
        Ok(Response::new(self.world.lock().unwrap().policy.clone()))
    }

    async fn set_policy(
        &self,
        request: Request<v1::SetPolicyRequest>,
    ) -> Result<Response<v1::ChangeReply>, Status> {
        self.admit(&request)?;
        let mut world = self.world.lock().unwrap();
        let reply = v1::ChangeReply { dry_run: request.get_ref().dry_run, ..world.changed.clone() };
        world.policies.push(request.into_inner());
        Ok(Response::new(reply))
    }

    async fn get_parameters(
        &self,
        request: Request<v1::ParametersRequest>,
    ) -> Result<Response<v1::ParametersReply>, Status> {
        self.admit(&request)?;
        Ok(Response::new(self.world.lock().unwrap().parameters.clone()))
    }

    async fn set_parameters(
        &self,
        request: Request<v1::SetParametersRequest>,
    ) -> Result<Response<v1::SetParametersReply>, Status> {
        self.admit(&request)?;
        let request = request.into_inner();
        self.check_epoch(&request.cluster, request.expected_epoch)?;
        let mut world = self.world.lock().unwrap();
        let reply = v1::SetParametersReply {
            changes: request.set.iter().map(|(name, value)| format!("{name} not set -> {value:?}")).collect(),
            version: world.parameters.version,
            epoch: request.expected_epoch,
            dry_run: request.dry_run,
            notes: vec!["takes restarts".into()],
        };
        world.parameter_changes.push(request);
        Ok(Response::new(reply))
    }

    async fn list_members(
        &self,
        request: Request<v1::MembersRequest>,
    ) -> Result<Response<v1::MembersReply>, Status> {
        self.admit(&request)?;
        Ok(Response::new(self.world.lock().unwrap().members.clone()))
    }

    async fn change_member(
        &self,
        request: Request<v1::ChangeMemberRequest>,
    ) -> Result<Response<v1::ChangeReply>, Status> {
        self.admit(&request)?;
        let mut world = self.world.lock().unwrap();
        let reply = v1::ChangeReply { dry_run: request.get_ref().dry_run, ..world.changed.clone() };
        world.member_changes.push(request.into_inner());
        Ok(Response::new(reply))
    }

    async fn create_cluster(
        &self,
        request: Request<v1::CreateClusterRequest>,
    ) -> Result<Response<v1::ChangeReply>, Status> {
        self.admit(&request)?;
        let mut world = self.world.lock().unwrap();
        let reply = v1::ChangeReply { dry_run: request.get_ref().dry_run, ..world.changed.clone() };
        world.creations.push(request.into_inner());
        Ok(Response::new(reply))
    }

    async fn import_cluster(
        &self,
        request: Request<v1::ImportClusterRequest>,
    ) -> Result<Response<v1::ChangeReply>, Status> {
        self.admit(&request)?;
        let mut world = self.world.lock().unwrap();
        let reply = v1::ChangeReply { dry_run: request.get_ref().dry_run, ..world.changed.clone() };
        world.imports.push(request.into_inner());
        Ok(Response::new(reply))
    }

    async fn forget_cluster(
        &self,
        request: Request<v1::ForgetClusterRequest>,
    ) -> Result<Response<v1::ChangeReply>, Status> {
        self.admit(&request)?;
        let mut world = self.world.lock().unwrap();
        let reply = v1::ChangeReply { dry_run: request.get_ref().dry_run, ..world.changed.clone() };
        world.forgotten.push(request.into_inner());
        Ok(Response::new(reply))
    }

    async fn list_coordinators(
        &self,
        request: Request<v1::CoordinatorsRequest>,
    ) -> Result<Response<v1::CoordinatorsReply>, Status> {
        self.admit(&request)?;
        Ok(Response::new(self.world.lock().unwrap().coordinators.clone()))
    }

    async fn change_coordinators(
        &self,
        request: Request<v1::ChangeCoordinatorsRequest>,
    ) -> Result<Response<v1::ChangeReply>, Status> {
        self.admit(&request)?;
        let mut world = self.world.lock().unwrap();
        let reply = v1::ChangeReply { dry_run: request.get_ref().dry_run, ..world.changed.clone() };
        world.coordinator_changes.push(request.into_inner());
        Ok(Response::new(reply))
    }

    async fn get_history(
        &self,
        request: Request<v1::HistoryRequest>,
    ) -> Result<Response<v1::HistoryReply>, Status> {
        self.admit(&request)?;
        let mut operations = self.world.lock().unwrap().history.clone();
        operations.truncate(request.get_ref().limit as usize);
        Ok(Response::new(v1::HistoryReply { operations }))
    }

    async fn get_operation(
        &self,
        request: Request<v1::OperationRequest>,
    ) -> Result<Response<v1::OperationReport>, Status> {
        self.admit(&request)?;
        let mut world = self.world.lock().unwrap();
        match world.operations.len() {
            0 => Err(Status::not_found(format!("there is no operation {}", request.get_ref().id))),
            1 => Ok(Response::new(world.operations[0].clone())),
            _ => Ok(Response::new(world.operations.remove(0))),
        }
    }

    async fn switchover(
        &self,
        request: Request<v1::SwitchoverRequest>,
    ) -> Result<Response<v1::SwitchoverReply>, Status> {
        use v1::switchover_reply::Answer;
        self.admit(&request)?;
        let request = request.into_inner();
        self.check_epoch(&request.cluster, request.expected_epoch)?;
        let mut world = self.world.lock().unwrap();
        let answer = match (request.dry_run, request.at_wall_ms) {
            (true, _) => Answer::Plan(world.move_plan.clone()),
            (false, Some(at)) => Answer::ScheduledAtWallMs(at),
            (false, None) => Answer::Operation(7),
        };
        world.moves.push(request);
        Ok(Response::new(v1::SwitchoverReply { answer: Some(answer) }))
    }

    async fn abort(&self, request: Request<v1::AbortRequest>) -> Result<Response<v1::AbortReply>, Status> {
        self.admit(&request)?;
        let request = request.into_inner();
        self.check_epoch(&request.cluster, request.expected_epoch)?;
        let what = "operation 7 (step fence)".to_owned();
        Ok(Response::new(v1::AbortReply { what, operation: Some(7), epoch: request.expected_epoch }))
    }
}

/// A running fake; ends when dropped.
pub struct Fake {
    pub address: SocketAddr,
    pub world: Arc<Mutex<World>>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub async fn start(world: World) -> Self {
        Self::serve(world, None).await
    }

    /// Demands a certificate, as a coordinator does.
    pub async fn start_tls(world: World, material: &TlsMaterial) -> Self {
        Self::serve(world, Some(material)).await
    }

    async fn serve(world: World, material: Option<&TlsMaterial>) -> Self {
        let world = Arc::new(Mutex::new(world));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = Server::builder();
        if let Some(material) = material {
            server = server.tls_config(material.server().unwrap()).unwrap();
        }
        let router = server.add_service(OperatorServiceServer::new(Service { world: world.clone() }));
        let task = tokio::spawn(async move {
            router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { address, world, task }
    }

    /// Runs regentctl in plain text against this fake.
    pub async fn ctl(&self, arguments: &[&str]) -> Ran {
        let address = self.address.to_string();
        let mut all = vec!["--plaintext", "--endpoint", &address];
        all.extend(arguments);
        ctl(&all).await
    }
}

/// What a run of the binary left behind.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs the real binary, without the environment of whoever runs the tests and without a terminal.
pub async fn ctl(arguments: &[&str]) -> Ran {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_regentctl"))
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    Ran {
        code: status.code().expect("regentctl was killed"),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

impl Ran {
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        assert!(self.err.contains(text) || self.out.contains(text), "{text:?} is missing in {self:#?}");
        self
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}
