//! `regentctl restart` and `regentctl reload`: PostgreSQL on one member, in its present role.

use regent_proto::v1::{RestartReply, RestartRequest};

use super::{cluster_status, follow, request_id};
use crate::{
    Failure,
    cli::RestartArgs,
    client::Client,
    output::{Output, Paint},
};

pub(super) async fn restart(client: &Client, output: &Output, args: RestartArgs) -> Result<(), Failure> {
    if args.if_pending {
        return super::restart_pending::run(client, output, &args).await;
    }
    run(client, output, &args, false).await
}

pub(super) async fn reload(client: &Client, output: &Output, args: RestartArgs) -> Result<(), Failure> {
    if args.if_pending {
        return Err(Failure::Usage("--if-pending: a reload needs none; name the member".to_owned()));
    }
    run(client, output, &args, true).await
}

async fn run(client: &Client, output: &Output, args: &RestartArgs, reload_only: bool) -> Result<(), Failure> {
    let Some(member) = &args.member else {
        return Err(Failure::Usage("which member? Name it, or say --if-pending".to_owned()));
    };
    let expected_epoch = match args.expected_epoch {
        Some(epoch) => epoch,
        None => cluster_status(client, &args.cluster).await?.epoch,
    };
    let request = RestartRequest {
        cluster: args.cluster.to_string(),
        member: member.to_string(),
        reason: args.reason.clone(),
        expected_epoch,
        request_id: request_id(args.request_id.clone()).to_string(),
        dry_run: args.dry_run,
        reload_only,
    };
    let reply = client.call(async |operators| operators.restart(request.clone()).await).await?;
    let what = if reload_only { "reload" } else { "restart" };
    if args.dry_run || !args.wait {
        let render = |reply: &RestartReply, _: &Paint| {
            let role = if reply.primary { "the primary" } else { "a standby" };
            let cost = match (reload_only, reply.primary) {
                (true, _) => "no connection is closed",
                (false, true) => "its clients are disconnected, lease and epoch stay",
                (false, false) => "its readers are disconnected",
            };
            let (cluster, id) = (&args.cluster, reply.operation);
            if args.dry_run {
                return format!("would {what} {member}, {role}: {cost}\n");
            }
            format!("{what} of {member}, {role}: {cost}; regentctl history {cluster} {id}\n")
        };
        return output.print(&reply, render);
    }
    eprintln!("operation {} of {} is started", reply.operation, args.cluster);
    follow::to_its_end(client, output, args.cluster.as_str(), reply.operation, args.wait_timeout).await
}
