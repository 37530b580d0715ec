//! Drives the session: one coordinator at a time, a heartbeat every interval, acknowledgements to the guard at once.
//!
//! Sending never waits: not for the observer (a heartbeat carries the last figures), not for the guard (a lease is handed
//! over in a task of its own), not for the transport (a full queue ends the session).

use std::{
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, SeqCst},
    },
    time::Duration,
};

use regent_agent_core::{AckAction, Ending, Identity, Obey, Session, SessionTimes, obey};
use regent_proto::{FromAgent, FromCoordinator, Hello, PROTOCOL_VERSION, v1};
use regent_types::{Acknowledgement, Epoch, GroupId, Heartbeat, InstanceId, LeaseDecision, LeaseRefusal};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    app::App,
    clock::{boottime_ns, ms},
    executor::Executor,
    promise, transport,
};

/// Longest time for a clean shutdown when a refusal, not a directive, fences: the running lease bounds it anyway.
const REFUSED_GRACE_MS: u64 = 5_000;
const QUEUE: usize = 32;
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Runs for ever.
pub async fn run(app: Arc<App>, executor: Arc<Executor>) {
    let times = SessionTimes {
        session_timeout_ms: ms(app.config.session_timeout()),
        backoff_min_ms: 100,
        backoff_max_ms: 300,
    };
    let coordinators = app.config.coordinators.len();
    let mut session = Session::new(times, coordinators, 0, rand::random::<u64>() >> 1);
    let mut last_said = String::new();
    loop {
        let url = app.config.coordinators[session.coordinator()].clone();
        session.begin(boottime_ns());
        let Err(End { ending, reason }) = one(&app, &executor, &mut session, &url).await;
        let said = format!("{url}: {reason}");
        if said == last_said {
            tracing::debug!(coordinator = %url, %reason, "session ended");
        } else {
            tracing::warn!(coordinator = %url, %reason, "session ended");
        }
        last_said = said;
        app.counters.sessions_lost.fetch_add(1, Relaxed);
        sleep(Duration::from_millis(session.lost(ending))).await;
    }
}

enum Never {}

/// How a session ended, and why.
struct End {
    ending: Ending,
    reason: String,
}

impl From<String> for End {
    fn from(reason: String) -> Self {
        Self { ending: Ending::Failed, reason }
    }
}

impl From<&str> for End {
    fn from(reason: &str) -> Self {
        reason.to_owned().into()
    }
}

async fn one(
    app: &Arc<App>,
    executor: &Arc<Executor>,
    session: &mut Session,
    url: &str,
) -> Result<Never, End> {
    let Some(me) = identity(app) else {
        return Err("the guard has not said yet which instance it is".into());
    };
    let channel = transport::connect(app, url).await.map_err(|e| e.to_string())?;
    let mut client = v1::agent_service_client::AgentServiceClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
    let (out, queue) = mpsc::channel::<v1::AgentMessage>(QUEUE);
    let hello = Hello {
        protocol_version: PROTOCOL_VERSION,
        cluster: app.config.cluster.clone(),
        member: app.config.member.clone(),
        instance: me.instance,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    push(&out, FromAgent::Hello(hello))?;
    // Before the answer: some servers send their headers with the first message only.
    beat(app, session, &out, me.instance)?;
    let limit = app.config.session_timeout();
    let answer = timeout(limit, client.session(ReceiverStream::new(queue))).await;
    let mut inbound = answer
        .map_err(|_| format!("no answer within {} ms", ms(limit)))?
        .map_err(|status| format!("{} ({:?})", status.message(), status.code()))?
        .into_inner();
    tracing::info!(coordinator = %url, "session open");
    let mut every = heartbeat_interval(app);
    if every > app.config.heartbeat_interval {
        session.beats_every(ms(every));
    }
    let mut tick = beats(every);
    tick.tick().await;
    // Whose coordinator this is shows with its first acknowledgement; its directives wait for that.
    let mut heeded = app.state.get().group.is_none();
    let mut early = Vec::new();
    loop {
        let left = Duration::from_nanos(session.leave_at_ns().saturating_sub(boottime_ns()));
        tokio::select! {
            _ = tick.tick() => {
                let now = identity(app).unwrap_or(me);
                if now.instance != me.instance {
                    return Err(format!("the guard was restarted: instance {} now", now.instance).into());
                }
                beat(app, session, &out, now.instance)?;
                // The policy may have changed: what is in force counts, not what this file says.
                if heartbeat_interval(app) != every {
                    every = heartbeat_interval(app);
                    tracing::info!(interval_ms = ms(every), "heartbeat interval");
                    session.beats_every(ms(every));
                    tick = beats(every);
                    tick.tick().await;
                }
            }
            message = inbound.message() => {
                let message = message
                    .map_err(|status| format!("{} ({:?})", status.message(), status.code()))?
                    .ok_or("the coordinator closed the session")?;
                match FromCoordinator::try_from(message) {
                    Ok(FromCoordinator::Acknowledgement(ack)) => {
                        let own = app.state.get().group;
                        match obey(own, ack.group, ack.view.as_ref(), app.is_busy()) {
                            Obey::Heed => {
                                heeded = true;
                                for (key, directive, grant) in early.drain(..) {
                                    executor.submit(key, directive, grant);
                                }
                                acknowledged(app, session, &ack, me);
                            }
                            Obey::Take(group) => take_group(app, group),
                            Obey::Foreign(why) => return Err(why.into()),
                        }
                    }
                    Ok(FromCoordinator::Directive { key, directive, grant }) if heeded => {
                        executor.submit(key, *directive, grant);
                    }
                    Ok(FromCoordinator::Directive { key, directive, grant }) => {
                        early.push((key, *directive, grant));
                    }
                    Ok(FromCoordinator::Unreadable { key, reason }) => executor.refuse(key, &reason),
                    Ok(FromCoordinator::Newer) => tracing::debug!("a message of a newer coordinator passed over"),
                    Ok(FromCoordinator::Goodbye { reason }) => {
                        return Err(End { ending: Ending::Goodbye, reason: format!("goodbye: {reason}") });
                    }
                    Err(error) => {
                        return Err(format!("the coordinator sent what cannot be read: {error}").into());
                    }
                }
            }
            () = executor.outcome_ready() => {
                for (key, outcome) in executor.take_outcomes() {
                    push(&out, FromAgent::Outcome { key, outcome: Box::new(outcome) })?;
                }
            }
            () = sleep(left) => {
                return Err(format!("no acknowledgement for {} ms", ms(limit)).into());
            }
        }
    }
}

/// Obeys another group from now on: on disk first, and nothing of it is heeded before.
fn take_group(app: &Arc<App>, group: GroupId) {
    if app.taking_group.swap(true, SeqCst) {
        return;
    }
    let app = app.clone();
    tokio::task::spawn_blocking(move || {
        match app.state.change(|state| state.group = Some(group)) {
            Ok(_) => tracing::info!(%group, "this member obeys this group of coordinators"),
            Err(error) => tracing::warn!(%group, %error, "the group of coordinators is not written down"),
        }
        app.taking_group.store(false, SeqCst);
    });
}

/// The policy's interval; before a leader has told it, the configuration's.
/// The policy's, once it was told; the file's before.
pub(crate) fn heartbeat_interval(app: &App) -> Duration {
    let told = app.view().and_then(|view| view.heartbeat_interval_ms).filter(|ms| *ms > 0);
    told.map_or(app.config.heartbeat_interval, Duration::from_millis)
}

fn beats(every: Duration) -> tokio::time::Interval {
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

fn push(out: &mpsc::Sender<v1::AgentMessage>, message: FromAgent) -> Result<(), String> {
    out.try_send(message.into()).map_err(|_| "the connection takes no more messages".to_owned())
}

/// Who the guard is, as last heard.
fn identity(app: &App) -> Option<Identity> {
    let seen = app.observed();
    let (status, _) = seen.guard.as_ref()?;
    Some(Identity {
        instance: InstanceId(status.instance),
        lease_epoch: status.lease_epoch.map(Epoch),
        fenced_through: Epoch(status.fenced_through),
    })
}

fn beat(
    app: &App,
    session: &mut Session,
    out: &mpsc::Sender<v1::AgentMessage>,
    instance: InstanceId,
) -> Result<(), String> {
    let report = app.report();
    // Stamped last: the lease is counted from here.
    let stamp_ns = boottime_ns();
    let heartbeat = Heartbeat {
        cluster: app.config.cluster.clone(),
        member: app.config.member.clone(),
        instance,
        boot: app.boot.clone(),
        stamp_ns,
        nonce: session.send(stamp_ns, instance),
        report,
        members_version: app.view().map_or(0, |view| view.members_version),
        group: app.state.get().group,
    };
    app.counters.heartbeats_sent.fetch_add(1, Relaxed);
    push(out, FromAgent::Heartbeat(Box::new(heartbeat)))
}

fn acknowledged(app: &Arc<App>, session: &mut Session, ack: &Acknowledgement, me: Identity) {
    let now_ns = boottime_ns();
    let me = Identity { instance: me.instance, ..identity(app).unwrap_or(me) };
    let (action, stamp) = session.acknowledged(ack, me, now_ns);
    if let Some(stamp_ns) = stamp {
        app.counters.acknowledged(now_ns.saturating_sub(stamp_ns) / 1000);
        app.promises.answered(&ack.lease);
        if let Some(view) = &ack.view {
            *app.view.lock().expect("no panic while held") = Some(view.clone());
            promise::adopt(app, view);
            app.synchronous.heard(view.synchronous.as_ref());
        }
        let removed = match &ack.lease {
            LeaseDecision::Refused(LeaseRefusal::Removed { version, .. }) => Some(*version),
            // An unknown cluster says nothing of this member.
            LeaseDecision::Refused(LeaseRefusal::Unknown { .. }) => app.state.get().removed,
            _ => None,
        };
        *app.removed.lock().expect("no panic while held") = Some(removed);
    }
    match action {
        AckAction::Extend(grant) => {
            app.promises.granted();
            let app = app.clone();
            tokio::spawn(async move {
                match app.guard.grant(&grant).await {
                    Ok(()) => {
                        let first = app.counters.leases_extended.fetch_add(1, Relaxed) == 0;
                        if first {
                            tracing::info!(epoch = %grant.epoch, ttl_ms = grant.ttl_ms, "lease held");
                        }
                    }
                    Err(error) => tracing::warn!(epoch = %grant.epoch, %error, "lease not handed over"),
                }
            });
        }
        AckAction::Fence { through, reason } => fence(app, through, reason.to_string()),
        AckAction::NotHeld(reason) => tracing::debug!(%reason, "no lease"),
        AckAction::Ignored(why) => tracing::debug!(why, "acknowledgement ignored"),
    }
}

/// A refusal fences. Not while a directive fences already: that one knows how much time a clean shutdown has.
fn fence(app: &Arc<App>, through: Epoch, reason: String) {
    if app.fencing.swap(true, std::sync::atomic::Ordering::SeqCst) {
        return;
    }
    let app = app.clone();
    tokio::spawn(async move {
        tracing::warn!(%through, reason, "refused by the leader: fencing");
        match app.guard.fence(through, REFUSED_GRACE_MS).await {
            Ok(_) => crate::observer::look_at_guard(&app).await,
            Err(error) => tracing::error!(%through, %error, "fence failed"),
        }
        app.fencing.store(false, std::sync::atomic::Ordering::SeqCst);
    });
}
