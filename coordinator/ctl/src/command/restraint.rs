//! `regentctl automation`, `acknowledge` and `approve`: what an operator says about failover that starts by itself.

use regent_proto::v1::{
    AcknowledgeReply, AcknowledgeRequest, ApproveReply, ApproveRequest, SetAutomationReply,
    SetAutomationRequest,
};

use super::{cluster_status, follow, request_id};
use crate::{
    Failure,
    cli::{ApproveArgs, AutomationArgs, SetAutomationArgs},
    client::Client,
    output::{Output, Paint},
};

async fn epoch(client: &Client, args: &AutomationArgs) -> Result<u64, Failure> {
    match args.expected_epoch {
        Some(epoch) => Ok(epoch),
        None => Ok(cluster_status(client, &args.cluster).await?.epoch),
    }
}

pub(super) async fn automation(
    client: &Client,
    output: &Output,
    args: SetAutomationArgs,
) -> Result<(), Failure> {
    let common = args.common;
    let request = SetAutomationRequest {
        cluster: common.cluster.to_string(),
        mode: args.mode.name().to_owned(),
        reason: common.reason.clone(),
        expected_epoch: epoch(client, &common).await?,
        request_id: request_id(common.request_id.clone()).to_string(),
        dry_run: common.dry_run,
    };
    let reply = client.call(async |operators| operators.set_automation(request.clone()).await).await?;
    output.print(&reply, |reply: &SetAutomationReply, _: &Paint| {
        let verb = if common.dry_run { "would be" } else { "is now" };
        format!("{} {verb} {} (was {}, epoch {})\n", common.cluster, reply.after, reply.before, reply.epoch)
    })
}

pub(super) async fn acknowledge(
    client: &Client,
    output: &Output,
    args: AutomationArgs,
) -> Result<(), Failure> {
    let request = AcknowledgeRequest {
        cluster: args.cluster.to_string(),
        reason: args.reason.clone(),
        expected_epoch: epoch(client, &args).await?,
        request_id: request_id(args.request_id.clone()).to_string(),
        dry_run: args.dry_run,
    };
    let reply = client.call(async |operators| operators.acknowledge(request.clone()).await).await?;
    output.print(&reply, |reply: &AcknowledgeReply, _: &Paint| {
        let verb = if args.dry_run { "would be" } else { "is" };
        let operation = reply.operation.map(|id| format!(" operation {id}")).unwrap_or_default();
        format!("{}:{operation} {verb} acknowledged; {}\n", args.cluster, reply.text)
    })
}

pub(super) async fn approve(client: &Client, output: &Output, args: ApproveArgs) -> Result<(), Failure> {
    let common = args.common;
    let request = ApproveRequest {
        cluster: common.cluster.to_string(),
        reason: common.reason.clone(),
        expected_epoch: epoch(client, &common).await?,
        request_id: request_id(common.request_id.clone()).to_string(),
        dry_run: common.dry_run,
    };
    let reply = client.call(async |operators| operators.approve(request.clone()).await).await?;
    if let Some(operation) = reply.operation.filter(|_| args.wait) {
        eprintln!("{}", reply.text);
        let cluster = common.cluster.as_str();
        return follow::to_its_end(client, output, cluster, operation, args.wait_timeout).await;
    }
    output.print(&reply, |reply: &ApproveReply, _: &Paint| {
        let cluster = &common.cluster;
        match reply.operation {
            Some(id) => format!("{}; follow it: regentctl history {cluster} {id}\n", reply.text),
            None if common.dry_run => format!("dry run: {}\n", reply.text),
            None => format!("{}\n", reply.text),
        }
    })
}
