//! A scripted agent: a real gRPC client with a made-up PostgreSQL behind it. It does what a directive asks and says so;
//! a test can make it silent, give it another instance id, or have it leave directives unanswered.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use regent_proto::{
    FromAgent, FromCoordinator, Hello, PROTOCOL_VERSION, v1::agent_service_client::AgentServiceClient,
};
use regent_types::*;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

pub const SYSTEM: SystemId = SystemId(77);
const HEARTBEAT: Duration = Duration::from_millis(200);
const SESSION_TIMEOUT: Duration = Duration::from_millis(1400);

/// What a test may read and change.
pub struct Agent {
    pub instance: InstanceId,
    /// Neither sends nor answers.
    pub silent: bool,
    /// Names of directives that are left unanswered.
    pub ignore: Vec<&'static str>,
    pub form: DataForm,
    pub postgres: PostgresState,
    pub lineage: Epoch,
    pub timeline: Timeline,
    pub lsn: Lsn,
    pub fenced: Epoch,
    pub not_accepting_for_ms: u64,
    pub members_version: u64,
    /// Everything that happened, oldest first.
    pub granted: Vec<(Grant, Instant)>,
    pub refused: Vec<LeaseRefusal>,
    pub directives: Vec<(EffectKey, Directive, Option<Grant>)>,
    pub goodbyes: Vec<String>,
    pub statuses: Vec<tonic::Status>,
    /// When the last acknowledgement of any kind came.
    pub acknowledged: Option<Instant>,
}

pub struct Handle {
    state: Arc<Mutex<Agent>>,
    task: JoinHandle<()>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn cluster() -> ClusterName {
    ClusterName::new("c").unwrap()
}

fn boot() -> BootId {
    BootId("boot-1".into())
}

pub fn now_ns() -> u64 {
    regent_coordinator::clock::Clock::system().now_ns()
}

impl Handle {
    /// An empty data directory, in plain text.
    pub fn start(member: &str, instance: u128, coordinators: Vec<String>) -> Self {
        Self::start_with(member, instance, coordinators, None)
    }

    pub fn start_with(
        member: &str,
        instance: u128,
        coordinators: Vec<String>,
        tls: Option<ClientTlsConfig>,
    ) -> Self {
        let member = MemberName::new(member).unwrap();
        let state = Arc::new(Mutex::new(Agent {
            instance: InstanceId(instance),
            silent: false,
            ignore: Vec::new(),
            form: DataForm::Empty,
            postgres: PostgresState::Stopped,
            lineage: Epoch::NONE,
            timeline: Timeline(1),
            lsn: Lsn(0x100_0000),
            fenced: Epoch::NONE,
            not_accepting_for_ms: 0,
            members_version: 0,
            granted: Vec::new(),
            refused: Vec::new(),
            directives: Vec::new(),
            goodbyes: Vec::new(),
            statuses: Vec::new(),
            acknowledged: None,
        }));
        let task = tokio::spawn(run(member, state.clone(), coordinators, tls));
        Self { state, task }
    }

    pub fn lock(&self) -> MutexGuard<'_, Agent> {
        self.state.lock().unwrap()
    }

    pub fn directives(&self, name: &str) -> usize {
        self.lock().directives.iter().filter(|(_, directive, _)| directive.name() == name).count()
    }
}

async fn run(
    member: MemberName,
    state: Arc<Mutex<Agent>>,
    coordinators: Vec<String>,
    tls: Option<ClientTlsConfig>,
) {
    for url in coordinators.iter().cycle() {
        if state.lock().unwrap().silent {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        let mut endpoint =
            Endpoint::from_shared(url.clone()).unwrap().connect_timeout(Duration::from_millis(500));
        if let Some(tls) = &tls {
            endpoint = endpoint.tls_config(tls.clone()).unwrap();
        }
        if let Ok(channel) = endpoint.connect().await
            && let Err(status) = session(&member, &state, channel).await
        {
            state.lock().unwrap().statuses.push(status);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn session(member: &MemberName, state: &Mutex<Agent>, channel: Channel) -> Result<(), tonic::Status> {
    let (tx, rx) = mpsc::channel(64);
    let hello = Hello {
        protocol_version: PROTOCOL_VERSION,
        cluster: cluster(),
        member: member.clone(),
        instance: state.lock().unwrap().instance,
        agent_version: "test".into(),
    };
    tx.send(FromAgent::Hello(hello).into()).await.unwrap();
    let mut client = AgentServiceClient::new(channel);
    let mut inbound = client.session(ReceiverStream::new(rx)).await?.into_inner();
    let mut beat = tokio::time::interval(HEARTBEAT);
    let (mut nonce, mut heard) = (0, Instant::now());
    loop {
        tokio::select! {
            _ = beat.tick() => {
                if state.lock().unwrap().silent || heard.elapsed() > SESSION_TIMEOUT {
                    return Ok(());
                }
                nonce += 1;
                let heartbeat = state.lock().unwrap().heartbeat(member, nonce);
                if tx.send(FromAgent::Heartbeat(Box::new(heartbeat)).into()).await.is_err() {
                    return Ok(());
                }
            }
            message = inbound.message() => {
                let Some(message) = message? else { return Ok(()) };
                heard = Instant::now();
                match FromCoordinator::try_from(message).unwrap() {
                    FromCoordinator::Acknowledgement(ack) => state.lock().unwrap().take_ack(*ack),
                    FromCoordinator::Goodbye { reason } => {
                        state.lock().unwrap().goodbyes.push(reason);
                        return Ok(());
                    }
                    FromCoordinator::Directive { key, directive, grant } => {
                        let answer = state.lock().unwrap().obey(member, &key, *directive, grant);
                        if let Some(outcome) = answer {
                            let message = FromAgent::Outcome { key, outcome: Box::new(outcome) };
                            tx.send(message.into()).await.ok();
                        }
                    }
                    FromCoordinator::Unreadable { .. } | FromCoordinator::Newer => {}
                }
            }
        }
    }
}

impl Agent {
    fn take_ack(&mut self, ack: Acknowledgement) {
        self.acknowledged = Some(Instant::now());
        self.members_version = ack.view.as_ref().map_or(0, |view| view.members_version);
        match ack.lease {
            LeaseDecision::Granted(grant) => {
                assert_eq!(grant.instance, self.instance, "a lease for another instance");
                assert!(grant.epoch > self.fenced, "a lease for the fenced epoch {}", grant.epoch);
                self.granted.push((grant, Instant::now()));
            }
            LeaseDecision::Refused(refusal) => self.refused.push(refusal),
        }
    }

    fn obey(
        &mut self,
        member: &MemberName,
        key: &EffectKey,
        directive: Directive,
        grant: Option<Grant>,
    ) -> Option<Outcome> {
        self.directives.push((key.clone(), directive.clone(), grant));
        if self.silent || self.ignore.contains(&directive.name()) {
            return None;
        }
        Some(Outcome::Done(match directive {
            Directive::Fence { epoch, .. } => {
                self.fenced = self.fenced.max(epoch);
                if self.postgres == PostgresState::Primary {
                    self.postgres = PostgresState::Stopped;
                }
                Evidence::Fenced(FencedEvidence {
                    epoch,
                    instance: self.instance,
                    boot: boot(),
                    succeeds: Vec::new(),
                    checkpoint_lsn: Some(self.lsn),
                    timeline: Some(self.timeline),
                    clean: true,
                })
            }
            Directive::Prepare { fenced, .. } | Directive::Drain { fenced, .. } => {
                Evidence::Prepared(CandidateReport {
                    member: member.clone(),
                    instance: self.instance,
                    boot: boot(),
                    received_lsn: Some(self.lsn),
                    replayed_lsn: Some(self.lsn),
                    timeline: Some(self.timeline),
                    system_id: Some(SYSTEM),
                    form: self.form,
                    lineage: self.lineage,
                    promises_closed: fenced,
                    refused: None,
                    stamp_ns: now_ns(),
                    promise_left_ms: None,
                })
            }
            Directive::Checkpoint { epoch } => Evidence::Checkpointed(regent_types::CheckpointedEvidence {
                epoch,
                write_lsn: self.lsn,
                standbys: Vec::new(),
                elapsed_ms: 1,
            }),
            Directive::Promote { epoch, instance, .. } => {
                if instance != self.instance {
                    let reason = format!("instance {instance} was meant, this is {}", self.instance);
                    return Some(Outcome::Refused { reason });
                }
                // A primary that is started again in place goes on with its timeline.
                if self.form == DataForm::Standby {
                    self.timeline = Timeline(self.timeline.0 + 1);
                }
                (self.form, self.postgres, self.lineage) = (DataForm::Primary, PostgresState::Primary, epoch);
                Evidence::Promoted(PromotedEvidence {
                    epoch,
                    system_id: SYSTEM,
                    timeline: self.timeline,
                    switch_lsn: self.lsn,
                    elapsed_ms: 1,
                    replay_ms: 0,
                })
            }
            Directive::Restart { .. } => Evidence::Restarted { elapsed_ms: 1 },
            Directive::Adopt { .. } | Directive::Disown { .. } => {
                Evidence::Claimed { text: directive.name().into() }
            }
            Directive::Rejoin { upstream, .. } => {
                (self.form, self.postgres) = (DataForm::Standby, PostgresState::Standby);
                (self.timeline, self.lineage) = (upstream.timeline, upstream.epoch);
                Evidence::Rejoined(RejoinedEvidence {
                    method: RejoinMethod::Cloned,
                    reason: None,
                    salvage: None,
                    copied_bytes: 1,
                    elapsed_ms: 1,
                })
            }
            Directive::Validate { address, .. } => {
                Evidence::Validated { address, elapsed_ms: 1, connected_ms: Some(1) }
            }
        }))
    }

    fn heartbeat(&self, member: &MemberName, nonce: u64) -> Heartbeat {
        let primary = self.postgres == PostgresState::Primary;
        let standby = self.postgres == PostgresState::Standby;
        Heartbeat {
            cluster: cluster(),
            member: member.clone(),
            instance: self.instance,
            boot: boot(),
            stamp_ns: now_ns(),
            nonce,
            members_version: self.members_version,
            group: None,
            report: Report {
                guard: GuardFacts {
                    reachable: true,
                    refused: None,
                    highest_epoch: self.lineage,
                    fenced_through: self.fenced,
                    lease_epoch: None,
                    lease_remaining_ms: None,
                    succeeds: Vec::new(),
                    restarts: 0,
                    rogue_promotions: 0,
                    state_file: "ok".into(),
                    lease_ttl_max_ms: None,
                },
                postgres: PostgresFacts {
                    state: self.postgres,
                    accepting: (primary || standby) && self.not_accepting_for_ms == 0,
                    not_accepting_for_ms: self.not_accepting_for_ms,
                    major: Some(18),
                    logical_slots_at_risk: 0,
                },
                data: DataFacts {
                    form: self.form,
                    system_id: (self.form != DataForm::Empty).then_some(SYSTEM),
                    timeline: Some(self.timeline),
                    lineage: self.lineage,
                },
                wal: WalFacts {
                    write_lsn: primary.then_some(self.lsn),
                    received_lsn: standby.then_some(self.lsn),
                    replayed_lsn: standby.then_some(self.lsn),
                    streaming: standby,
                    timeline: standby.then_some(self.timeline),
                    replay_lag_ms: standby.then_some(0),
                    sample_age_ms: 0,
                    standbys: Vec::new(),
                    retention: None,
                },
                disk: DiskFacts {
                    probe: DiskProbe::Ok { latency_ms: 1 },
                    free_bytes: Some(1 << 30),
                    total_bytes: Some(1 << 31),
                    slot_retained_bytes: None,
                },
                job: None,
                salvages: Vec::new(),
                promise: regent_types::PromiseFacts::default(),
                parameters: regent_types::ParameterFacts::default(),
                synchronous: None,
                blocked_writes: None,
            },
        }
    }
}
