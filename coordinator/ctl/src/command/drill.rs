//! `regentctl drill`: look first, ask, act once, follow it to its end.

use std::io::{self, IsTerminal};

use clap::Args;
use regent_proto::v1::{DrillPlan, DrillReply, DrillRequest, drill_reply::Answer};
use serde::Serialize;

use super::{cluster_status, failover::confirm, follow, request_id};
use crate::{
    Failure,
    cli::PlannedArgs,
    client::Client,
    output::{Column, Output, Paint, Table, Tone, duration},
};

#[derive(Debug, Args)]
pub(crate) struct DrillArgs {
    #[command(flatten)]
    pub planned: PlannedArgs,
    /// Stop when the failover would begin: nothing is fenced and nothing moves. The default.
    #[arg(long, conflicts_with = "full")]
    pub stop_before_promotion: bool,
    /// Then move the primary to the other region and back, by switchovers, with sync confirmed in between.
    #[arg(long)]
    pub full: bool,
}

#[derive(Serialize)]
struct Started {
    cluster: String,
    operation: u64,
    request_id: String,
    expected_epoch: u64,
}

pub(super) async fn run(client: &Client, output: &Output, args: DrillArgs) -> Result<(), Failure> {
    let planned = args.planned;
    let may_ask = io::stdin().is_terminal() && io::stderr().is_terminal();
    // The default touches nothing, so there is nothing to confirm.
    let asks = args.full && !planned.yes && !planned.dry_run;
    if asks && !may_ask {
        return Err(Failure::Usage(
            "this is not a terminal, so nobody can be asked to confirm: use --yes, or --dry-run to look"
                .to_owned(),
        ));
    }
    let expected_epoch = match planned.expected_epoch {
        Some(epoch) => epoch,
        None => cluster_status(client, &planned.cluster).await?.epoch,
    };
    let request = DrillRequest {
        cluster: planned.cluster.to_string(),
        reason: planned.reason.clone(),
        expected_epoch,
        request_id: request_id(planned.request_id.clone()).to_string(),
        dry_run: false,
        full: args.full,
    };
    if planned.dry_run {
        let plan = look(client, &request).await?;
        output.print(&plan, render)?;
        return blocked(&plan);
    }
    if asks {
        let plan = look(client, &request).await?;
        eprint!("{}", render(&plan, &output.paint_errors));
        blocked(&plan)?;
        confirm(&plan.cluster, &mut io::stdin().lock())?;
    }
    let reply = call(client, &request).await.map_err(|failure| match failure {
        Failure::Unreachable(text) => Failure::Unreachable(format!(
            "{text}\nwhether it was started is not known; repeat it with --request-id {} --expected-epoch {}",
            request.request_id, request.expected_epoch
        )),
        other => other,
    })?;
    let Some(Answer::Operation(operation)) = reply.answer else {
        return Err(Failure::Refused("the coordinator answered with a plan only".to_owned()));
    };
    let started =
        Started { cluster: request.cluster, operation, request_id: request.request_id, expected_epoch };
    if planned.no_wait {
        return output.print(&started, |started, _| {
            let Started { cluster, operation, .. } = started;
            format!("drill {operation} of {cluster} is started: regentctl history {cluster} {operation}\n")
        });
    }
    eprintln!("drill {operation} of {} is started; regentctl abort stops it", started.cluster);
    follow::to_its_end(client, output, &started.cluster, operation, planned.wait_timeout).await
}

async fn look(client: &Client, request: &DrillRequest) -> Result<DrillPlan, Failure> {
    let request = DrillRequest { dry_run: true, ..request.clone() };
    match call(client, &request).await?.answer {
        Some(Answer::Plan(plan)) => Ok(plan),
        Some(_) => {
            Err(Failure::Refused("a dry run was answered with a start: look at the history".to_owned()))
        }
        None => Err(Failure::Unreachable("the coordinator's answer to the dry run is empty".to_owned())),
    }
}

async fn call(client: &Client, request: &DrillRequest) -> Result<DrillReply, Failure> {
    client.call(async |operators| operators.drill(request.clone()).await).await
}

fn blocked(plan: &DrillPlan) -> Result<(), Failure> {
    match plan.blockers.as_slice() {
        [] => Ok(()),
        blockers => Err(Failure::Refused(format!("it would not start: {}", blockers.join("; ")))),
    }
}

fn render(plan: &DrillPlan, paint: &Paint) -> String {
    let what = if plan.full { "full drill" } else { "drill, stopped before promotion," };
    let headline =
        format!("{what} of {} at epoch {}: region {} counts as lost", plan.cluster, plan.epoch, plan.region);
    let mut text = format!("{}\n", paint.tone(Tone::Heading, &headline));
    for blocker in &plan.blockers {
        text.push_str(&paint.tone(Tone::Bad, &format!("  ! would not start: {blocker}")));
        text.push('\n');
    }
    if plan.steps.is_empty() {
        return text;
    }
    let mut table = Table::new(2, &[Column::Left("STEP"), Column::Right("AT MOST"), Column::Left("WHAT")]);
    for step in &plan.steps {
        let limit = step.at_most_ms.map(duration).unwrap_or_default();
        table.plain([step.name.clone(), limit, step.text.clone()]);
    }
    text + "\n" + &table.render(paint)
}
