//! `regentctl switchover` and `regentctl failback`: look first, ask, act once, follow it to its end.
//!
//! Invariant: what is sent was shown. When no expected epoch was given, the one that was read and shown is sent, so a
//! cluster that has moved on in the meantime refuses.

use std::{
    io::{self, IsTerminal},
    time::{SystemTime, UNIX_EPOCH},
};

use regent_proto::v1::{SwitchoverPlan, SwitchoverReply, SwitchoverRequest, switchover_reply::Answer};
use serde::Serialize;

use super::{cluster_status, failover::confirm, follow, request_id};
use crate::{
    Failure,
    cli::{Format, PlannedArgs, SwitchoverArgs},
    client::Client,
    output::{Output, planned_move, wall},
};

#[derive(Serialize)]
struct Started {
    cluster: String,
    operation: Option<u64>,
    scheduled_at_wall_ms: Option<u64>,
    request_id: String,
    expected_epoch: u64,
}

pub(super) async fn switchover(
    client: &Client,
    output: &Output,
    args: SwitchoverArgs,
) -> Result<(), Failure> {
    let at_wall_ms = args.at.map(wall_ms).transpose()?;
    let request = SwitchoverRequest {
        target: args.to.as_ref().map(ToString::to_string),
        at_wall_ms,
        ..SwitchoverRequest::default()
    };
    run(client, output, args.planned, request).await
}

pub(super) async fn failback(client: &Client, output: &Output, args: PlannedArgs) -> Result<(), Failure> {
    let request = SwitchoverRequest { failback: true, ..SwitchoverRequest::default() };
    run(client, output, args, request).await
}

fn wall_ms(at: SystemTime) -> Result<u64, Failure> {
    let since = at.duration_since(UNIX_EPOCH);
    let since = since.map_err(|_| Failure::Usage("--at: a time before 1970".to_owned()))?;
    u64::try_from(since.as_millis()).map_err(|_| Failure::Usage("--at: too far away".to_owned()))
}

async fn run(
    client: &Client,
    output: &Output,
    args: PlannedArgs,
    request: SwitchoverRequest,
) -> Result<(), Failure> {
    let may_ask = io::stdin().is_terminal() && io::stderr().is_terminal();
    if !args.dry_run && !args.yes && !may_ask {
        return Err(Failure::Usage(
            "this is not a terminal, so nobody can be asked to confirm: use --yes, or --dry-run to look"
                .to_owned(),
        ));
    }
    let expected_epoch = match args.expected_epoch {
        Some(epoch) => epoch,
        None => cluster_status(client, &args.cluster).await?.epoch,
    };
    let request = SwitchoverRequest {
        cluster: args.cluster.to_string(),
        reason: args.reason.clone(),
        expected_epoch,
        request_id: request_id(args.request_id.clone()).to_string(),
        ..request
    };
    if args.dry_run {
        let planned = dry_run(client, &request).await?;
        output.print(&planned, planned_move)?;
        return blocked(&planned);
    }
    // Given both, the caller has decided: nothing to look at, nothing to ask.
    if !args.yes || args.expected_epoch.is_none() {
        let planned = dry_run(client, &request).await?;
        if output.format == Format::Table || !args.yes {
            eprint!("{}", planned_move(&planned, &output.paint_errors));
        }
        if !args.yes {
            blocked(&planned)?;
            confirm(&planned.cluster, &mut io::stdin().lock())?;
        }
    }
    let answer = start(client, &request).await?;
    let (operation, scheduled_at_wall_ms) = match answer {
        Answer::Operation(id) => (Some(id), None),
        Answer::ScheduledAtWallMs(at) => (None, Some(at)),
        Answer::Plan(_) => {
            return Err(Failure::Refused("the coordinator answered with a plan only".to_owned()));
        }
    };
    let started = Started {
        cluster: request.cluster,
        operation,
        scheduled_at_wall_ms,
        request_id: request.request_id,
        expected_epoch,
    };
    match operation.filter(|_| !args.no_wait) {
        Some(operation) => {
            eprintln!("operation {operation} of {} is started", started.cluster);
            follow::to_its_end(client, output, &started.cluster, operation, args.wait_timeout).await
        }
        None => output.print(&started, |started, _| {
            let cluster = &started.cluster;
            match (started.operation, started.scheduled_at_wall_ms) {
                (Some(operation), _) => format!(
                    "operation {operation} of {cluster} is started: regentctl history {cluster} {operation}\n"
                ),
                (None, at) => format!(
                    "the switchover of {cluster} is scheduled for {}; regentctl abort {cluster} takes it back\n",
                    at.map(wall).unwrap_or_default()
                ),
            }
        }),
    }
}

async fn dry_run(client: &Client, request: &SwitchoverRequest) -> Result<SwitchoverPlan, Failure> {
    let request = SwitchoverRequest { dry_run: true, ..request.clone() };
    match trigger(client, &request).await?.answer {
        Some(Answer::Plan(plan)) => Ok(plan),
        Some(_) => {
            Err(Failure::Refused("a dry run was answered with a start: look at the history".to_owned()))
        }
        None => Err(Failure::Unreachable("the coordinator's answer to the dry run is empty".to_owned())),
    }
}

async fn start(client: &Client, request: &SwitchoverRequest) -> Result<Answer, Failure> {
    // A lost answer is not a lost request: say how to ask again without starting a second one.
    let again = |failure| match failure {
        Failure::Unreachable(text) => Failure::Unreachable(format!(
            "{text}\nwhether it was started is not known; repeat it with --request-id {} --expected-epoch {}",
            request.request_id, request.expected_epoch
        )),
        other => other,
    };
    let reply = trigger(client, request).await.map_err(again)?;
    reply.answer.ok_or_else(|| again(Failure::Unreachable("the coordinator's answer is empty".to_owned())))
}

async fn trigger(client: &Client, request: &SwitchoverRequest) -> Result<SwitchoverReply, Failure> {
    client.call(async |operators| operators.switchover(request.clone()).await).await
}

fn blocked(plan: &SwitchoverPlan) -> Result<(), Failure> {
    match plan.blockers.as_slice() {
        [] => Ok(()),
        blockers => Err(Failure::Refused(format!("it would not start: {}", blockers.join("; ")))),
    }
}
