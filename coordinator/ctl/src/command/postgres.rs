//! `regentctl postgres`: PostgreSQL's own parameters, set for a whole cluster, and what each member has made of them.

use std::{collections::BTreeMap, time::Duration};

use clap::{Args, Subcommand};
use regent_proto::v1::{
    MemberParameters, ParametersReply, ParametersRequest, SetParametersReply, SetParametersRequest,
};
use regent_types::ClusterName;
use tokio::time::{Instant, sleep};

use super::change::{self, Mutation};
use crate::{
    Failure,
    cli::Format,
    client::Client,
    output::{Column, Output, Paint, Table, Tone},
};

const POLL: Duration = Duration::from_millis(300);

#[derive(Debug, Subcommand)]
pub(crate) enum PostgresCommand {
    /// Show the parameters that are set, and what each member has made of them.
    #[command(after_help = "Examples:\n  regentctl postgres show gravl\n  \
                            regentctl postgres show gravl -o json | jq '.members[] | {member, p: .facts.pending_restart}'")]
    Show {
        /// Which cluster.
        cluster: ClusterName,
    },
    /// Set parameters on every member; all of them or none.
    #[command(after_help = "Examples:\n  \
                            regentctl postgres set gravl work_mem=16MB --reason 'sorts spill' --dry-run\n  \
                            regentctl postgres set gravl max_connections=300 --reason 'more pods'\n  \
                            regentctl postgres set gravl max_slot_wal_keep_size=50GB --reason 'bigger disk'\n\n\
                            Each member asks its own binaries whether they take the value; what they refuse is left out and\n\
                            reported (exit code 1). Nothing is restarted: what takes a restart is shown as pending, and\n\
                            `regentctl restart CLUSTER --if-pending` does it in the right order.")]
    Set(SetArgs),
    /// Take parameters back: the members' own files say again.
    #[command(after_help = "Example:\n  regentctl postgres unset gravl work_mem --reason 'not needed'")]
    Unset(UnsetArgs),
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    #[command(flatten)]
    pub mutation: Mutation,
    /// Refuse when the cluster is at another epoch [default: read the status first].
    #[arg(long, value_name = "EPOCH")]
    pub expected_epoch: Option<u64>,
    /// Give up waiting for the members (not the change) after this time.
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub wait_timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// Which cluster.
    pub cluster: ClusterName,
    /// NAME=VALUE, as in postgresql.conf, without its quotes.
    #[arg(required = true, value_parser = pair)]
    pub values: Vec<(String, String)>,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct UnsetArgs {
    /// Which cluster.
    pub cluster: ClusterName,
    /// Names.
    #[arg(required = true)]
    pub names: Vec<String>,
    #[command(flatten)]
    pub common: Common,
}

/// An empty value is one: `log_line_prefix=`.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_lowercase(), value.to_owned())),
        _ => Err("not of the form name=value".to_owned()),
    }
}

pub(super) async fn run(client: &Client, output: &Output, command: PostgresCommand) -> Result<(), Failure> {
    match command {
        PostgresCommand::Show { cluster } => output.print(&look(client, &cluster).await?, show),
        PostgresCommand::Set(args) => {
            let mut set = BTreeMap::new();
            for (name, value) in args.values {
                if let Some(before) = set.insert(name.clone(), value.clone()) {
                    return Err(Failure::Usage(format!("{name}: {before:?} and {value:?} are both given")));
                }
            }
            change(client, output, &args.cluster, set, Vec::new(), args.common).await
        }
        PostgresCommand::Unset(args) => {
            let names = args.names.iter().map(|name| name.to_lowercase()).collect();
            change(client, output, &args.cluster, BTreeMap::new(), names, args.common).await
        }
    }
}

pub(super) async fn look(client: &Client, cluster: &ClusterName) -> Result<ParametersReply, Failure> {
    let request = ParametersRequest { cluster: cluster.to_string() };
    client.call(async |operators| operators.get_parameters(request.clone()).await).await
}

async fn change(
    client: &Client,
    output: &Output,
    cluster: &ClusterName,
    set: BTreeMap<String, String>,
    unset: Vec<String>,
    common: Common,
) -> Result<(), Failure> {
    let request = SetParametersRequest {
        cluster: cluster.to_string(),
        set,
        unset,
        reason: common.mutation.reason.clone(),
        expected_epoch: change::epoch(client, cluster, common.expected_epoch).await?,
        request_id: common.mutation.id(),
        dry_run: common.mutation.dry_run,
    };
    let reply = client.call(async |operators| operators.set_parameters(request.clone()).await).await?;
    if reply.dry_run {
        return output.print(&reply, changed);
    }
    // In JSON there is one answer: how it stands afterwards.
    if output.format == Format::Table {
        output.text(&changed(&reply, &output.paint))?;
    }
    let after = taken(client, cluster, reply.version, common.wait_timeout).await?;
    output.print(&after, show)?;
    let refused: Vec<String> = after.members.iter().flat_map(refusals).collect();
    if refused.is_empty() {
        return Ok(());
    }
    let text = format!(
        "{}; the members go on without it: `regentctl postgres unset {cluster} NAME`, or set another value",
        refused.join("; ")
    );
    Err(Failure::Refused(text))
}

fn refusals(member: &MemberParameters) -> Vec<String> {
    let facts = member.facts.iter();
    facts
        .flat_map(|facts| &facts.refused)
        .map(|(name, why)| format!("{} refuses {name}: {why}", member.member))
        .collect()
}

/// Waits until every member that is heard has read the version.
async fn taken(
    client: &Client,
    cluster: &ClusterName,
    version: u64,
    patience: Duration,
) -> Result<ParametersReply, Failure> {
    let give_up = Instant::now() + patience;
    loop {
        let now = look(client, cluster).await?;
        let late: Vec<&str> = now
            .members
            .iter()
            .filter(|member| member.facts.as_ref().is_some_and(|facts| facts.version < version))
            .map(|member| member.member.as_str())
            .collect();
        if late.is_empty() {
            return Ok(now);
        }
        if Instant::now() >= give_up {
            let late = late.join(", ");
            return Err(Failure::Waiting(format!(
                "version {version} is in force; not read yet by {late}: regentctl postgres show {cluster}"
            )));
        }
        sleep(POLL).await;
    }
}

fn changed(reply: &SetParametersReply, _: &Paint) -> String {
    let mut text = String::new();
    if reply.changes.is_empty() {
        text.push_str("nothing has changed: the same request was answered before\n");
    }
    for change in &reply.changes {
        let verb = if reply.dry_run { "would change" } else { "changed" };
        text.push_str(&format!("{verb}: {change}\n"));
    }
    for note in &reply.notes {
        text.push_str(&format!("  - {note}\n"));
    }
    text
}

fn show(reply: &ParametersReply, paint: &Paint) -> String {
    let mut text = format!("parameters of {}, version {}\n", reply.cluster, reply.version);
    if reply.values.is_empty() {
        text.push_str("  none is set\n");
    } else {
        let mut table = Table::new(2, &[Column::Left("PARAMETER"), Column::Left("VALUE")]);
        for (name, value) in &reply.values {
            table.plain([name.clone(), value.clone()]);
        }
        text.push_str(&table.render(paint));
    }
    for member in &reply.members {
        let role = if member.primary { " (primary)" } else { "" };
        let Some(facts) = &member.facts else {
            text.push_str(&paint.tone(Tone::Warn, &format!("  {}{role}: not heard", member.member)));
            text.push('\n');
            continue;
        };
        let (tone, state) = match (facts.version == reply.version, facts.pending_restart.is_empty()) {
            (false, _) => (Tone::Warn, format!("has read version {}", facts.version)),
            (true, true) => (Tone::Good, "in force".to_owned()),
            (true, false) => {
                (Tone::Warn, format!("restart pending for {}", facts.pending_restart.join(", ")))
            }
        };
        text.push_str(&paint.tone(tone, &format!("  {}{role}: {state}", member.member)));
        text.push('\n');
        for (name, why) in &facts.refused {
            text.push_str(&paint.tone(Tone::Bad, &format!("  ! {} refuses {name}: {why}", member.member)));
            text.push('\n');
        }
    }
    text
}
