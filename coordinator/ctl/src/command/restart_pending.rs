//! `regentctl restart --if-pending`: one member after the other, only those whose server waits for a restart, standbys first.
//!
//! Standbys first is right both ways: a raised value they must have before their primary, and a lowered one is not pending on
//! them before their primary runs with it, which the next round finds.

use regent_proto::v1::{MemberParameters, OperationRequest, OperationState, ParametersReply, RestartRequest};
use regent_types::{ClusterName, MemberName};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{follow::POLL, postgres::look, request_id};
use crate::{Failure, cli::RestartArgs, client::Client, output::Output};

/// Rounds at most: raised and lowered values at once take two restarts of a standby.
const RESTARTS_PER_MEMBER: usize = 2;

#[derive(Debug, Serialize)]
struct Restarted {
    member: String,
    primary: bool,
    pending: Vec<String>,
    /// Absent in a dry run.
    operation: Option<u64>,
}

pub(super) async fn run(client: &Client, output: &Output, args: &RestartArgs) -> Result<(), Failure> {
    let give_up = Instant::now() + args.wait_timeout;
    let mut done: Vec<Restarted> = Vec::new();
    loop {
        let now = settled(client, &args.cluster, give_up).await?;
        let mut pending = pending(&now, args.member.as_ref());
        if args.dry_run {
            done.extend(pending.into_iter().map(|member| restarted(member, None)));
            break;
        }
        if pending.is_empty() {
            break;
        }
        let next = pending.remove(0);
        let name = next.member.as_str();
        if done.iter().filter(|one| one.member == name).count() >= RESTARTS_PER_MEMBER {
            let what = next.facts.as_ref().map(|facts| facts.pending_restart.join(", ")).unwrap_or_default();
            return Err(Failure::Refused(format!(
                "{name} was restarted {RESTARTS_PER_MEMBER} times and still waits for a restart because of {what}"
            )));
        }
        let operation = restart(client, args, &now, name).await?;
        eprintln!("operation {operation}: restart of {name}");
        ended(client, &args.cluster, operation, give_up).await?;
        forgotten(client, &args.cluster, next, give_up).await?;
        done.push(restarted(next, Some(operation)));
    }
    output.print(&done, |done, _| {
        if done.is_empty() {
            return "no member waits for a restart\n".to_owned();
        }
        let verb = if args.dry_run { "would restart" } else { "restarted" };
        let line = |one: &Restarted| {
            let role = if one.primary { "the primary" } else { "a standby" };
            format!("{verb} {}, {role}: {}\n", one.member, one.pending.join(", "))
        };
        done.iter().map(line).collect()
    })
}

fn restarted(member: &MemberParameters, operation: Option<u64>) -> Restarted {
    Restarted {
        member: member.member.clone(),
        primary: member.primary,
        pending: member.facts.as_ref().map(|facts| facts.pending_restart.clone()).unwrap_or_default(),
        operation,
    }
}

/// Those that wait, the primary last.
fn pending<'r>(now: &'r ParametersReply, only: Option<&MemberName>) -> Vec<&'r MemberParameters> {
    let waits = |member: &&MemberParameters| {
        only.is_none_or(|only| only.as_str() == member.member)
            && member.facts.as_ref().is_some_and(|facts| !facts.pending_restart.is_empty())
    };
    let mut found: Vec<_> = now.members.iter().filter(waits).collect();
    found.sort_by_key(|member| member.primary);
    found
}

/// As [`look`], once everybody who is heard has read what is set.
async fn settled(
    client: &Client,
    cluster: &ClusterName,
    give_up: Instant,
) -> Result<ParametersReply, Failure> {
    loop {
        let now = look(client, cluster).await?;
        let late = now.members.iter().find(|member| {
            member.facts.as_ref().is_some_and(|facts| now.version > 0 && facts.version != now.version)
        });
        let Some(late) = late else { return Ok(now) };
        if Instant::now() >= give_up {
            return Err(Failure::Waiting(format!(
                "{} has not read version {} yet",
                late.member, now.version
            )));
        }
        sleep(POLL).await;
    }
}

async fn restart(
    client: &Client,
    args: &RestartArgs,
    now: &ParametersReply,
    member: &str,
) -> Result<u64, Failure> {
    let request = RestartRequest {
        cluster: args.cluster.to_string(),
        member: member.to_owned(),
        reason: args.reason.clone(),
        expected_epoch: args.expected_epoch.unwrap_or(now.epoch),
        // One of its own each: they are several requests.
        request_id: request_id(None).to_string(),
        dry_run: false,
        reload_only: false,
    };
    let reply = client.call(async |operators| operators.restart(request.clone()).await).await?;
    Ok(reply.operation)
}

async fn ended(client: &Client, cluster: &ClusterName, id: u64, give_up: Instant) -> Result<(), Failure> {
    let request = OperationRequest { cluster: cluster.to_string(), id };
    loop {
        let report = client.call(async |operators| operators.get_operation(request.clone()).await).await?;
        let summary = report.summary.unwrap_or_default();
        match summary.state() {
            OperationState::Done => return Ok(()),
            OperationState::Aborted | OperationState::RolledBack => {
                let reason = summary.reason.unwrap_or_default();
                return Err(Failure::Refused(format!("the restart (operation {id}) was aborted: {reason}")));
            }
            _ if Instant::now() >= give_up => {
                return Err(Failure::Waiting(format!("operation {id} has not ended yet")));
            }
            _ => sleep(POLL).await,
        }
    }
}

/// Waits until the member has looked again: before that it says what was true before its restart.
async fn forgotten(
    client: &Client,
    cluster: &ClusterName,
    before: &MemberParameters,
    give_up: Instant,
) -> Result<(), Failure> {
    loop {
        let now = look(client, cluster).await?;
        let same = now.members.iter().any(|member| {
            member.member == before.member
                && member.facts.as_ref().map(|facts| &facts.pending_restart)
                    == before.facts.as_ref().map(|facts| &facts.pending_restart)
        });
        if !same {
            return Ok(());
        }
        if Instant::now() >= give_up {
            let name = &before.member;
            return Err(Failure::Waiting(format!(
                "{name} was restarted and still says that it waits for one"
            )));
        }
        sleep(POLL).await;
    }
}
