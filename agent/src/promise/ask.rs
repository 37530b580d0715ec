//! The primary's side: asks everybody who could be promoted, and hands the guard a later deadline when all have promised.

use std::{sync::Arc, sync::atomic::Ordering::SeqCst, time::Duration};

use regent_agent_core::promise::{Asking, Holder, asking, promised_deadline_ns};
use regent_guard::wire::Request;
use regent_proto::v1::{PromiseRequest, agent_peer_service_client::AgentPeerServiceClient, promise_reply};
use regent_types::{Epoch, LeaseTerms, MemberName};
use tokio::{task::JoinSet, time::sleep};

use super::Extended;
use crate::{
    app::App,
    clock::{boottime_ns, ms},
    observer, session, transport,
};

/// Between two looks at the lease.
const LOOK: Duration = Duration::from_millis(200);
/// Longest wait for a round; also a quarter of a promise at most, so that three rounds fit into what is left.
const ROUND_AT_MOST: Duration = Duration::from_secs(5);
const GUARD_LIMIT: Duration = Duration::from_secs(3);

/// Runs for ever.
pub async fn run(app: Arc<App>) {
    let mut said = String::new();
    loop {
        sleep(LOOK).await;
        let (epoch, members, terms) = match decide(&app) {
            Asking::No => {
                say(&app, &mut said, String::new());
                continue;
            }
            Asking::Cannot(why) => {
                say(&app, &mut said, format!("no promise is asked for: {why}"));
                continue;
            }
            Asking::Ask { epoch, members, terms } => (epoch, members, terms),
        };
        match round(&app, epoch, members, terms).await {
            Ok(()) => say(&app, &mut said, String::new()),
            Err(why) => say(&app, &mut said, format!("the lease was not extended by promises: {why}")),
        }
        // A refusal is asked again, but not in a spin.
        sleep(Duration::from_millis(terms.ttl_ms / 16).min(Duration::from_secs(2))).await;
    }
}

/// Says a complaint once, and keeps it for whoever asks this agent; an empty one is the end of it.
fn say(app: &App, said: &mut String, text: String) {
    if *said != text {
        if !text.is_empty() {
            tracing::warn!("{text}");
        }
        app.promises.why_not.lock().expect("no panic while held").clone_from(&text);
        *said = text;
    }
}

fn decide(app: &App) -> Asking {
    let lease = {
        let seen = app.observed();
        let status = seen.guard.as_ref().map(|(status, _)| status);
        status.and_then(|status| Some((Epoch(status.lease_epoch?), status.lease_deadline_ns?)))
    };
    let now_ns = boottime_ns();
    let answered_ns = app.promises.answered_ns.load(SeqCst);
    let list = app.promises.list();
    asking(&Holder {
        member: &app.config.member,
        now_ns,
        lease: lease.filter(|(_, deadline_ns)| *deadline_ns > now_ns),
        answered_ns: Some(answered_ns).filter(|at_ns| *at_ns > 0),
        heartbeat_interval_ms: ms(session::heartbeat_interval(app)),
        ended: *app.promises.ended.lock().expect("no panic while held"),
        list: list.as_ref(),
    })
}

async fn round(
    app: &Arc<App>,
    epoch: Epoch,
    members: Vec<(MemberName, String)>,
    terms: LeaseTerms,
) -> Result<(), String> {
    let instance = {
        let seen = app.observed();
        seen.guard.as_ref().map(|(status, _)| status.instance).ok_or("the guard is not known")?
    };
    let limit = ROUND_AT_MOST.min(Duration::from_millis(terms.ttl_ms / 4));
    // Before the first request leaves: the extension counts from here.
    let sent_ns = boottime_ns();
    let deadline_ns = promised_deadline_ns(sent_ns, terms);
    // Known and on disk before it may be in force, beside the asking: a disk costs the round no time.
    app.promises.promised_until_ns.fetch_max(deadline_ns, SeqCst);
    let (keeper, until_ns) = (app.clone(), app.promises.promised_until_ns.load(SeqCst));
    let kept = tokio::task::spawn_blocking(move || {
        super::until::keep(&keeper.config.state_dir, &keeper.boot, until_ns)
    });
    let by: Vec<MemberName> = members.iter().map(|(member, _)| member.clone()).collect();
    let mut asked = JoinSet::new();
    for (member, address) in members {
        let app = app.clone();
        asked.spawn(async move {
            let answer = tokio::time::timeout(limit, one(&app, epoch, &member, &address, terms)).await;
            let silent = || Err(format!("{member} has not answered within {} ms", ms(limit)));
            answer.unwrap_or_else(|_| silent())
        });
    }
    let mut answers = Ok(());
    while let Some(answer) = asked.join_next().await {
        answers = answer.map_err(|error| error.to_string()).flatten();
        if answers.is_err() {
            break;
        }
    }
    let kept = kept.await.map_err(|error| error.to_string())?;
    // Awaited first: two rounds must not write side by side.
    answers?;
    kept.map_err(|error| format!("promised.until is not on disk: {error}"))?;
    let extend = Request::Extend { epoch: epoch.0, instance, deadline_ns };
    app.guard.ask(&extend, GUARD_LIMIT).await.map_err(|error| error.to_string())?;
    let first = {
        let mut extended = app.promises.extended.lock().expect("no panic while held");
        extended.replace(Extended { epoch, by: by.clone(), deadline_ns }).is_none()
    };
    if first {
        let names: Vec<&str> = by.iter().map(MemberName::as_str).collect();
        let by = names.join(", ");
        tracing::warn!(%epoch, by, promise_ms = terms.ttl_ms, "no coordinator answers: writes go on by promise");
    }
    app.counters.promises_received.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    observer::look_at_guard(app).await;
    Ok(())
}

/// Asks one member.
async fn one(
    app: &App,
    epoch: Epoch,
    member: &MemberName,
    address: &str,
    terms: LeaseTerms,
) -> Result<(), String> {
    let channel = transport::connect_peer(app, member, address).await.map_err(|e| e.to_string())?;
    let request = PromiseRequest {
        cluster: app.config.cluster.to_string(),
        member: app.config.member.to_string(),
        epoch: epoch.0,
        duration_ms: terms.ttl_ms,
        rho_ppm: terms.rho_ppm,
        kill_ms: terms.kill_ms,
        promiser: member.to_string(),
    };
    let answer = AgentPeerServiceClient::new(channel).promise(request).await;
    let reply = answer.map_err(|status| format!("{member}: {} ({:?})", status.message(), status.code()))?;
    match reply.into_inner().answer {
        Some(promise_reply::Answer::Promised(_)) => Ok(()),
        Some(promise_reply::Answer::Refused(refused)) => {
            if refused.epoch_ended {
                *app.promises.ended.lock().expect("no panic while held") = Some(epoch);
            }
            Err(format!("{member} refuses: {}", refused.reason))
        }
        None => Err(format!("{member}: an answer that says nothing")),
    }
}
