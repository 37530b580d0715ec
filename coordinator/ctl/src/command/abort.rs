//! `regentctl abort`: stops a switchover or failback before its appointment, or takes a scheduled one back.

use regent_proto::v1::{AbortReply, AbortRequest};

use super::{cluster_status, request_id};
use crate::{
    Failure,
    cli::AutomationArgs,
    client::Client,
    output::{Output, Paint},
};

pub(super) async fn run(client: &Client, output: &Output, args: AutomationArgs) -> Result<(), Failure> {
    let expected_epoch = match args.expected_epoch {
        Some(epoch) => epoch,
        None => cluster_status(client, &args.cluster).await?.epoch,
    };
    let request = AbortRequest {
        cluster: args.cluster.to_string(),
        reason: args.reason.clone(),
        expected_epoch,
        request_id: request_id(args.request_id.clone()).to_string(),
        dry_run: args.dry_run,
    };
    let reply = client.call(async |operators| operators.abort(request.clone()).await).await?;
    let render = |reply: &AbortReply, _: &Paint| {
        let verb = if args.dry_run { "would be" } else { "is being" };
        format!("{} {verb} stopped\n", reply.what)
    };
    output.print(&reply, render)
}
