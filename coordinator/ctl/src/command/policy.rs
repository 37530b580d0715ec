//! `regentctl policy`: show the thresholds in force, and change some while the cluster runs.

use clap::{Args, Subcommand};
use regent_proto::v1::{PolicyReply, PolicyRequest, PolicyValue, SetPolicyRequest};
use regent_types::ClusterName;

use super::change::{self, Mutation};
use crate::{
    Failure,
    client::Client,
    output::{Column, Output, Paint, Table, Tone},
};

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Show every threshold in force.
    #[command(after_help = "Examples:\n  regentctl policy show gravl\n  \
                            regentctl policy show gravl -o json | jq -r '.values[] | \"\\(.key)=\\(.value)\"'")]
    Show {
        /// Which cluster.
        cluster: ClusterName,
    },
    /// Change thresholds; all of them or none.
    #[command(after_help = "Examples:\n  \
                            regentctl policy set gravl partition_timeout=2m lease_ttl=100s --reason 'faster' --dry-run\n  \
                            regentctl policy set gravl max_lag_bytes=off --reason 'no bound'\n\n\
                            Keys and values are those of coordinator.toml. Every relation between them is checked; the\n\
                            change is recorded with old and new value. A shorter lease counts for a failover only when\n\
                            the longer ones that are out have ended.")]
    Set(SetArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// Which cluster.
    pub cluster: ClusterName,
    /// KEY=VALUE, as in coordinator.toml; `off` takes a bound away.
    #[arg(required = true, value_parser = pair)]
    pub values: Vec<(String, String)>,
    #[command(flatten)]
    pub mutation: Mutation,
    /// Refuse when the cluster is at another epoch [default: read the status first].
    #[arg(long, value_name = "EPOCH")]
    pub expected_epoch: Option<u64>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() && !value.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("not of the form key=value".to_owned()),
    }
}

pub(super) async fn run(client: &Client, output: &Output, command: PolicyCommand) -> Result<(), Failure> {
    match command {
        PolicyCommand::Show { cluster } => {
            let request = PolicyRequest { cluster: cluster.to_string() };
            let reply = client.call(async |operators| operators.get_policy(request.clone()).await).await?;
            output.print(&reply, show)
        }
        PolicyCommand::Set(args) => {
            let expected_epoch = change::epoch(client, &args.cluster, args.expected_epoch).await?;
            let value =
                |(key, value): &(String, String)| PolicyValue { key: key.clone(), value: value.clone() };
            let request = SetPolicyRequest {
                cluster: args.cluster.to_string(),
                values: args.values.iter().map(value).collect(),
                reason: args.mutation.reason.clone(),
                expected_epoch,
                request_id: args.mutation.id(),
                dry_run: args.mutation.dry_run,
            };
            let reply = client.call(async |operators| operators.set_policy(request.clone()).await).await?;
            output.print(&reply, change::show)
        }
    }
}

fn show(reply: &PolicyReply, paint: &Paint) -> String {
    let mut table = Table::new(0, &[Column::Left("KEY"), Column::Left("VALUE")]);
    for one in &reply.values {
        table.plain([one.key.clone(), one.value.clone()]);
    }
    let mut text = table.render(paint);
    for difference in &reply.file_differs {
        text.push_str(&paint.tone(Tone::Warn, &format!("! the coordinator's file: {difference}")));
        text.push('\n');
    }
    if let Some(ms) = reply.leases_in_flight_ms {
        let time = crate::output::duration(ms);
        text.push_str(&format!("leases of longer terms may be out: a failover now may wait up to {time}\n"));
    }
    text
}
