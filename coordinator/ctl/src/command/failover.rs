//! `regentctl failover`: look first, ask, then act once.
//!
//! Invariant: what is sent was shown. When no expected epoch was given, the one that was read and shown is sent, so a
//! cluster that has moved on in the meantime refuses.

use std::io::{self, BufRead, IsTerminal, Write};

use regent_proto::v1::{FailoverPlan, FailoverReply, FailoverRequest, failover_reply::Answer};
use serde::Serialize;

use super::{cluster_status, follow, request_id};
use crate::{
    Failure,
    cli::{FailoverArgs, Format},
    client::Client,
    output::{Output, plan},
};

#[derive(Serialize)]
struct Started {
    cluster: String,
    operation: u64,
    request_id: String,
    expected_epoch: u64,
}

pub(super) async fn run(client: &Client, output: &Output, args: FailoverArgs) -> Result<(), Failure> {
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
    let request = FailoverRequest {
        cluster: args.cluster.to_string(),
        target: args.to.as_ref().map(ToString::to_string),
        reason: args.reason.clone(),
        expected_epoch,
        request_id: request_id(args.request_id.clone()).to_string(),
        consent_to_loss: args.consent_to_loss.as_ref().map(ToString::to_string),
        dry_run: false,
    };
    if args.dry_run {
        let planned = dry_run(client, &request).await?;
        output.print(&planned, plan)?;
        return blocked(&planned);
    }
    // Given both, the caller has decided: nothing to look at, nothing to ask.
    if !args.yes || args.expected_epoch.is_none() {
        let planned = dry_run(client, &request).await?;
        if output.format == Format::Table || !args.yes {
            eprint!("{}", plan(&planned, &output.paint_errors));
        }
        if !args.yes {
            blocked(&planned)?;
            confirm(&planned.cluster, &mut io::stdin().lock())?;
        }
    }
    let started = Started {
        cluster: request.cluster.clone(),
        operation: start(client, &request).await?,
        request_id: request.request_id,
        expected_epoch,
    };
    if !args.wait {
        return output.print(&started, |started, _| {
            let Started { cluster, operation, .. } = started;
            format!(
                "operation {operation} of {cluster} is started: regentctl history {cluster} {operation}\n"
            )
        });
    }
    eprintln!("operation {} of {} is started", started.operation, started.cluster);
    follow::to_its_end(client, output, &started.cluster, started.operation, args.wait_timeout).await
}

async fn dry_run(client: &Client, request: &FailoverRequest) -> Result<FailoverPlan, Failure> {
    let request = FailoverRequest { dry_run: true, ..request.clone() };
    match trigger(client, &request).await?.answer {
        Some(Answer::Plan(plan)) => Ok(plan),
        Some(Answer::Operation(id)) => {
            Err(Failure::Refused(format!("a dry run was answered with operation {id}: look at it")))
        }
        None => Err(Failure::Unreachable("the coordinator's answer to the dry run is empty".to_owned())),
    }
}

async fn start(client: &Client, request: &FailoverRequest) -> Result<u64, Failure> {
    // A lost answer is not a lost request: say how to ask again without starting a second one.
    let again = |failure| match failure {
        Failure::Unreachable(text) => Failure::Unreachable(format!(
            "{text}\nwhether the failover was started is not known; repeat it with --request-id {} \
             --expected-epoch {}",
            request.request_id, request.expected_epoch
        )),
        other => other,
    };
    match trigger(client, request).await.map_err(again)?.answer {
        Some(Answer::Operation(id)) => Ok(id),
        Some(Answer::Plan(_)) => {
            Err(Failure::Refused("the coordinator answered with a plan only".to_owned()))
        }
        None => Err(again(Failure::Unreachable("the coordinator's answer is empty".to_owned()))),
    }
}

async fn trigger(client: &Client, request: &FailoverRequest) -> Result<FailoverReply, Failure> {
    client.call(async |operators| operators.trigger_failover(request.clone()).await).await
}

fn blocked(plan: &FailoverPlan) -> Result<(), Failure> {
    match plan.blockers.as_slice() {
        [] => Ok(()),
        blockers => Err(Failure::Refused(format!("it would not start: {}", blockers.join("; ")))),
    }
}

/// The name of the cluster and nothing else: a `y` is typed too easily.
pub(super) fn confirm(cluster: &str, answers: &mut impl BufRead) -> Result<(), Failure> {
    eprint!("Type the name of the cluster to go ahead, anything else to leave it: ");
    io::stderr().flush()?;
    let mut line = String::new();
    answers.read_line(&mut line)?;
    if line.trim() == cluster {
        return Ok(());
    }
    Err(Failure::Usage("not confirmed, nothing was changed".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_clusters_name_confirms() {
        let answer =
            |text: &str| confirm("gravl", &mut text.as_bytes()).map_err(|failure| failure.exit_code());
        assert_eq!(answer("gravl\n"), Ok(()));
        for text in ["", "y\n", "yes\n", "Gravl\n", "gravl x\n"] {
            assert_eq!(answer(text), Err(2));
        }
    }
}
