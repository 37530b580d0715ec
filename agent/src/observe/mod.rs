//! `regent-agent observe`: looks at a PostgreSQL that somebody else runs, and tells the coordinators. Read-only.
//!
//! It has no guard, no executor and no files: nothing in it could start, stop or change a server. A directive is refused, a
//! lease is not taken, a refusal fences nobody. Its role in the database needs `pg_monitor` and no more. It may run beside the
//! agent of any other tool.
//!
//! What it does not know (the disk, the data directory, slots) stays unknown in its reports.

pub mod config;
mod probe;

use std::{sync::Mutex, time::Duration};

use anyhow::Context;
use regent_agent_core::{Ending, Identity, Session, SessionTimes};
use regent_proto::{FromAgent, FromCoordinator, Hello, PROTOCOL_VERSION, v1};
use regent_types::{BootId, Epoch, Heartbeat, InstanceId, Outcome};
use tokio::{
    signal::unix,
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    clock::{boottime_ns, ms},
    transport::{self, Certificates},
};
use config::Config;
use probe::Seen;

const QUEUE: usize = 32;
const MESSAGE_BYTES_MAX: usize = 1 << 20;
const REFUSAL: &str = "this agent only observes: it changes nothing";

struct Observer {
    config: Config,
    certificates: Certificates,
    /// Of this run: there is no guard that would have one.
    instance: InstanceId,
    boot: BootId,
    seen: Mutex<Seen>,
}

/// Runs until it is told to end.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let mut terminate = unix::signal(unix::SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = unix::signal(unix::SignalKind::interrupt()).context("SIGINT")?;
    let observer = Observer {
        instance: InstanceId(rand::random()),
        boot: crate::clock::boot_id().context("boot id")?,
        certificates: Certificates::default(),
        seen: Mutex::new(Seen::new(boottime_ns())),
        config,
    };
    tracing::info!(
        cluster = %observer.config.cluster, member = %observer.config.member,
        version = env!("CARGO_PKG_VERSION"), "observing; nothing will be changed"
    );
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: the observer ends"),
        _ = interrupt.recv() => tracing::info!("SIGINT: the observer ends"),
        () = watch(&observer) => {}
        () = speak(&observer) => {}
    }
    Ok(())
}

/// Looks every interval, for ever.
async fn watch(observer: &Observer) {
    let mut tick = interval(observer.config.probe_interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut prober = probe::Prober::default();
    loop {
        tick.tick().await;
        let looked = prober.look(&observer.config).await;
        observer.seen.lock().expect("no panic while held").note(looked, boottime_ns());
    }
}

/// One coordinator at a time, for ever.
async fn speak(observer: &Observer) {
    let config = &observer.config;
    let times = SessionTimes {
        session_timeout_ms: ms(config.session_timeout()),
        backoff_min_ms: 100,
        backoff_max_ms: 300,
    };
    let mut session = Session::new(times, config.coordinators.len(), 0, rand::random::<u64>() >> 1);
    let mut last_said = String::new();
    loop {
        let url = config.coordinators[session.coordinator()].clone();
        session.begin(boottime_ns());
        let Err(reason) = one(observer, &mut session, &url).await;
        let said = format!("{url}: {reason}");
        if said != last_said {
            tracing::warn!(coordinator = %url, %reason, "session ended");
        }
        last_said = said;
        sleep(Duration::from_millis(session.lost(Ending::Failed))).await;
    }
}

async fn one(
    observer: &Observer,
    session: &mut Session,
    url: &str,
) -> Result<std::convert::Infallible, String> {
    let config = &observer.config;
    let limits = transport::Limits { connect: config.connect_timeout, session: config.session_timeout() };
    let channel = transport::connect_as(&observer.certificates, config.tls.as_ref(), url, limits).await;
    let channel = channel.map_err(|error| error.to_string())?;
    let mut client = v1::agent_service_client::AgentServiceClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
    let (out, queue) = mpsc::channel::<v1::AgentMessage>(QUEUE);
    let hello = Hello {
        protocol_version: PROTOCOL_VERSION,
        cluster: config.cluster.clone(),
        member: config.member.clone(),
        instance: observer.instance,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    push(&out, FromAgent::Hello(hello))?;
    beat(observer, session, &out)?;
    let limit = config.session_timeout();
    let answer = timeout(limit, client.session(ReceiverStream::new(queue))).await;
    let mut inbound = answer
        .map_err(|_| format!("no answer within {} ms", ms(limit)))?
        .map_err(|status| format!("{} ({:?})", status.message(), status.code()))?
        .into_inner();
    tracing::info!(coordinator = %url, "session open");
    let me = Identity { instance: observer.instance, lease_epoch: None, fenced_through: Epoch::NONE };
    let mut tick = interval(config.heartbeat_interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick.tick().await;
    loop {
        let left = Duration::from_nanos(session.leave_at_ns().saturating_sub(boottime_ns()));
        tokio::select! {
            _ = tick.tick() => beat(observer, session, &out)?,
            message = inbound.message() => {
                let message = message
                    .map_err(|status| format!("{} ({:?})", status.message(), status.code()))?
                    .ok_or("the coordinator closed the session")?;
                let refuse = |key| {
                    let outcome = Box::new(Outcome::Refused { reason: REFUSAL.to_owned() });
                    push(&out, FromAgent::Outcome { key, outcome })
                };
                match FromCoordinator::try_from(message) {
                    // What it says is nothing to act on here; that it speaks keeps the session.
                    Ok(FromCoordinator::Acknowledgement(ack)) => {
                        session.acknowledged(&ack, me, boottime_ns());
                    }
                    Ok(FromCoordinator::Directive { key, .. } | FromCoordinator::Unreadable { key, .. }) => {
                        tracing::warn!(?key, "a directive came, and is refused");
                        refuse(key)?;
                    }
                    Ok(FromCoordinator::Newer) => {}
                    Ok(FromCoordinator::Goodbye { reason }) => return Err(format!("goodbye: {reason}")),
                    Err(error) => return Err(format!("the coordinator sent what cannot be read: {error}")),
                }
            }
            () = sleep(left) => return Err(format!("no acknowledgement for {} ms", ms(limit))),
        }
    }
}

fn push(out: &mpsc::Sender<v1::AgentMessage>, message: FromAgent) -> Result<(), String> {
    out.try_send(message.into()).map_err(|_| "the connection takes no more messages".to_owned())
}

fn beat(
    observer: &Observer,
    session: &mut Session,
    out: &mpsc::Sender<v1::AgentMessage>,
) -> Result<(), String> {
    let report = observer.seen.lock().expect("no panic while held").report();
    let stamp_ns = boottime_ns();
    let heartbeat = Heartbeat {
        cluster: observer.config.cluster.clone(),
        member: observer.config.member.clone(),
        instance: observer.instance,
        boot: observer.boot.clone(),
        stamp_ns,
        nonce: session.send(stamp_ns, observer.instance),
        report,
        members_version: 0,
        group: None,
    };
    push(out, FromAgent::Heartbeat(Box::new(heartbeat)))
}
