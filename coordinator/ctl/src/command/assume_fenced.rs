//! `regentctl assume-fenced`: an operator's word instead of a fence proof.

use regent_proto::v1::{AssumeFencedReply, AssumeFencedRequest};

use super::request_id;
use crate::{
    Failure,
    cli::AssumeFencedArgs,
    client::Client,
    output::{Output, Paint},
};

pub(super) async fn run(client: &Client, output: &Output, args: AssumeFencedArgs) -> Result<(), Failure> {
    let request = AssumeFencedRequest {
        cluster: args.cluster.to_string(),
        member: args.member.to_string(),
        reason: args.reason.clone(),
        expected_epoch: args.expected_epoch,
        request_id: request_id(args.request_id.clone()).to_string(),
        dry_run: args.dry_run,
    };
    let reply = client.call(async |operators| operators.assume_fenced(request.clone()).await).await?;
    let render = |reply: &AssumeFencedReply, _: &Paint| {
        let verb = if args.dry_run { "would be" } else { "is" };
        format!(
            "{} {verb} taken for dead at epoch {}; operation {} goes on: regentctl history {} {}\n",
            args.member, args.expected_epoch, reply.operation, args.cluster, reply.operation
        )
    };
    output.print(&reply, render)
}
