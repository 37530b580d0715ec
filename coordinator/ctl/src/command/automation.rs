//! `regentctl pause` and `regentctl resume`.

use regent_proto::v1::{AutomationReply, AutomationRequest};

use super::{cluster_status, request_id};
use crate::{
    Failure,
    cli::AutomationArgs,
    client::Client,
    output::{Output, Paint},
};

pub(super) async fn pause(client: &Client, output: &Output, args: AutomationArgs) -> Result<(), Failure> {
    let request = request(client, &args).await?;
    let reply = client.call(async |operators| operators.pause(request.clone()).await).await?;
    print(output, &args, &reply)
}

pub(super) async fn resume(client: &Client, output: &Output, args: AutomationArgs) -> Result<(), Failure> {
    let request = request(client, &args).await?;
    let reply = client.call(async |operators| operators.resume(request.clone()).await).await?;
    print(output, &args, &reply)
}

async fn request(client: &Client, args: &AutomationArgs) -> Result<AutomationRequest, Failure> {
    let expected_epoch = match args.expected_epoch {
        Some(epoch) => epoch,
        None => cluster_status(client, &args.cluster).await?.epoch,
    };
    Ok(AutomationRequest {
        cluster: args.cluster.to_string(),
        reason: args.reason.clone(),
        expected_epoch,
        request_id: request_id(args.request_id.clone()).to_string(),
        dry_run: args.dry_run,
    })
}

fn print(output: &Output, args: &AutomationArgs, reply: &AutomationReply) -> Result<(), Failure> {
    let render = |reply: &AutomationReply, _: &Paint| {
        let verb = match (args.dry_run, reply.changed) {
            (true, true) => "would be",
            (false, true) => "is now",
            (_, false) => "was already",
        };
        format!("{} {verb} {} (epoch {})\n", args.cluster, reply.automation(), reply.epoch)
    };
    output.print(reply, render)
}
