//! One simulated agent: a real gRPC session with a made-up PostgreSQL behind it. It obeys directives at once, so that
//! its cluster is bootstrapped, and stamps every heartbeat.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use regent_pki::TlsFiles;
use regent_proto::{
    FromAgent, FromCoordinator, Hello, PROTOCOL_VERSION,
    v1::{AgentMessage, agent_service_client::AgentServiceClient},
};
use regent_types::*;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use super::child::Recorder;

/// As the real agent has it by default: an unanswered session is given up.
const SESSION_TIMEOUT: Duration = Duration::from_secs(3);
const QUEUE: usize = 32;

/// Who it speaks for, and where to.
pub struct Agent {
    /// The cluster.
    pub cluster: ClusterName,
    /// The member; `m1` is appointed first.
    pub member: MemberName,
    /// Coordinators with their addresses, the own region's first.
    pub coordinators: Vec<(u64, String)>,
    /// Its certificate.
    pub tls: TlsFiles,
    /// Between two heartbeats.
    pub interval: Duration,
    /// Before the first connection.
    pub delay: Duration,
    /// Index at the recorder.
    pub index: usize,
}

/// What the made-up PostgreSQL is.
struct Made {
    instance: InstanceId,
    form: DataForm,
    state: PostgresState,
    lineage: Epoch,
    fenced: Epoch,
    timeline: Timeline,
}

const LSN: Lsn = Lsn(0x100_0000);

fn boot() -> BootId {
    BootId("00000000-0000-4000-8000-000000000000".into())
}

/// CLOCK_BOOTTIME, ns.
pub fn boottime_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the timespec lives through the call.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    assert_eq!(done, 0, "clock_gettime(CLOCK_BOOTTIME) failed");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Runs for ever.
pub async fn run(agent: Agent, recorder: Arc<Recorder>) {
    sleep(agent.delay).await;
    let mut made = Made {
        instance: InstanceId(rand::random()),
        form: DataForm::Empty,
        state: PostgresState::Stopped,
        lineage: Epoch::NONE,
        fenced: Epoch::NONE,
        timeline: Timeline(1),
    };
    for (id, url) in agent.coordinators.iter().cycle() {
        if let Err(error) = session(&agent, &mut made, &recorder, *id, url).await {
            recorder.lost(agent.index, format!("{}/{} at {url}: {error:#}", agent.cluster, agent.member));
        }
        sleep(Duration::from_millis(rand::random_range(100..300))).await;
    }
}

async fn connect(agent: &Agent, url: &str) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(url.to_owned())?
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .tls_config(agent.tls.load()?.client())?;
    timeout(Duration::from_secs(10), endpoint.connect()).await?.context("connecting")
}

async fn session(agent: &Agent, made: &mut Made, recorder: &Recorder, id: u64, url: &str) -> Result<()> {
    let mut client = AgentServiceClient::new(connect(agent, url).await?);
    let (out, queue) = mpsc::channel::<AgentMessage>(QUEUE);
    let hello = Hello {
        protocol_version: PROTOCOL_VERSION,
        cluster: agent.cluster.clone(),
        member: agent.member.clone(),
        instance: made.instance,
        agent_version: "simulated".into(),
    };
    out.try_send(FromAgent::Hello(hello).into())?;
    let mut nonce = 1;
    let mut sent = vec![beat(agent, made, recorder, nonce, &out)?];
    let answer = timeout(SESSION_TIMEOUT, client.session(ReceiverStream::new(queue))).await;
    let mut inbound = answer.context("the session was not opened in time")??.into_inner();
    let mut tick = interval(agent.interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick.tick().await;
    loop {
        tokio::select! {
            _ = tick.tick() => {
                nonce += 1;
                sent.push(beat(agent, made, recorder, nonce, &out)?);
            }
            message = timeout(SESSION_TIMEOUT, inbound.message()) => {
                let message = message.context("nothing came for too long")??;
                let message = message.context("the coordinator closed the session")?;
                match FromCoordinator::try_from(message)? {
                    FromCoordinator::Acknowledgement(ack) => {
                        let now_ns = boottime_ns();
                        if let Some(at) = sent.iter().position(|(nonce, _)| *nonce == ack.nonce) {
                            let (_, stamp_ns) = sent.swap_remove(at);
                            recorder.acknowledged(id, stamp_ns, now_ns);
                        }
                        let granted = matches!(ack.lease, LeaseDecision::Granted(_));
                        // A primary is settled when it holds a lease, a standby when it has joined.
                        let settled = granted || made.form == DataForm::Standby;
                        recorder.settled(agent.index, id, settled);
                    }
                    FromCoordinator::Goodbye { reason } => bail!("goodbye: {reason}"),
                    FromCoordinator::Unreadable { .. } | FromCoordinator::Newer => {}
                    FromCoordinator::Directive { key, directive, .. } => {
                        let outcome = Box::new(made.obey(&agent.member, *directive));
                        out.try_send(FromAgent::Outcome { key, outcome }.into())?;
                    }
                }
            }
        }
    }
}

fn beat(
    agent: &Agent,
    made: &Made,
    recorder: &Recorder,
    nonce: u64,
    out: &mpsc::Sender<AgentMessage>,
) -> Result<(u64, u64)> {
    let report = made.report();
    let stamp_ns = boottime_ns();
    let heartbeat = Heartbeat {
        cluster: agent.cluster.clone(),
        member: agent.member.clone(),
        instance: made.instance,
        boot: boot(),
        stamp_ns,
        nonce,
        report,
        members_version: 0,
        group: None,
    };
    recorder.sent(stamp_ns);
    out.try_send(FromAgent::Heartbeat(Box::new(heartbeat)).into())?;
    Ok((nonce, stamp_ns))
}

impl Made {
    fn obey(&mut self, member: &MemberName, directive: Directive) -> Outcome {
        Outcome::Done(match directive {
            Directive::Fence { epoch, .. } => {
                self.fenced = self.fenced.max(epoch);
                if self.state == PostgresState::Primary {
                    self.state = PostgresState::Stopped;
                }
                Evidence::Fenced(FencedEvidence {
                    epoch,
                    instance: self.instance,
                    boot: boot(),
                    succeeds: Vec::new(),
                    checkpoint_lsn: Some(LSN),
                    timeline: Some(self.timeline),
                    clean: true,
                })
            }
            Directive::Prepare { fenced, .. } | Directive::Drain { fenced, .. } => {
                Evidence::Prepared(CandidateReport {
                    member: member.clone(),
                    instance: self.instance,
                    boot: boot(),
                    received_lsn: Some(LSN),
                    replayed_lsn: Some(LSN),
                    timeline: Some(self.timeline),
                    system_id: Some(SystemId(77)),
                    form: self.form,
                    lineage: self.lineage,
                    promises_closed: fenced,
                    refused: None,
                    stamp_ns: boottime_ns(),
                    promise_left_ms: None,
                })
            }
            Directive::Checkpoint { epoch } => Evidence::Checkpointed(regent_types::CheckpointedEvidence {
                epoch,
                write_lsn: LSN,
                standbys: Vec::new(),
                elapsed_ms: 1,
            }),
            Directive::Promote { epoch, instance, .. } => {
                if instance != self.instance {
                    let reason = format!("instance {instance} was meant, this is {}", self.instance);
                    return Outcome::Refused { reason };
                }
                (self.form, self.state, self.lineage) = (DataForm::Primary, PostgresState::Primary, epoch);
                Evidence::Promoted(PromotedEvidence {
                    epoch,
                    system_id: SystemId(77),
                    timeline: self.timeline,
                    switch_lsn: LSN,
                    elapsed_ms: 1,
                    replay_ms: 0,
                })
            }
            Directive::Restart { .. } => Evidence::Restarted { elapsed_ms: 1 },
            Directive::Adopt { .. } | Directive::Disown { .. } => {
                Evidence::Claimed { text: directive.name().into() }
            }
            Directive::Rejoin { upstream, .. } => {
                (self.form, self.state) = (DataForm::Standby, PostgresState::Standby);
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
        })
    }

    fn report(&self) -> Report {
        let (primary, standby) = (self.state == PostgresState::Primary, self.state == PostgresState::Standby);
        Report {
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
                state: self.state,
                accepting: primary || standby,
                not_accepting_for_ms: 0,
                major: Some(18),
                logical_slots_at_risk: 0,
            },
            data: DataFacts {
                form: self.form,
                system_id: (self.form != DataForm::Empty).then_some(SystemId(77)),
                timeline: Some(self.timeline),
                lineage: self.lineage,
            },
            wal: WalFacts {
                write_lsn: primary.then_some(LSN),
                received_lsn: standby.then_some(LSN),
                replayed_lsn: standby.then_some(LSN),
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
        }
    }
}
