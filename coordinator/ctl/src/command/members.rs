//! `regentctl members`: members of a cluster, whole clusters, and the coordinators themselves.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Subcommand};
use regent_proto::v1::{
    ChangeCoordinatorsRequest, ChangeMemberRequest, CoordinatorsReply, CoordinatorsRequest,
    CreateClusterRequest, ForgetClusterRequest, MemberChanges, MemberDefinition, MembersReply,
    MembersRequest, change_coordinators_request, change_member_request,
};
use regent_types::{ClusterName, MemberName, Region};

use super::change::{self, Mutation};
use crate::{
    Failure,
    client::Client,
    output::{Column, Output, Paint, Table, Tone, ago, wall},
};

#[derive(Debug, Subcommand)]
pub(crate) enum MembersCommand {
    /// List a cluster's members, and those that were removed.
    #[command(after_help = "Example:\n  regentctl members list gravl")]
    List {
        /// Which cluster.
        cluster: ClusterName,
    },
    /// Add a standby; it is cloned by itself and promotable once it is sync confirmed.
    #[command(
        after_help = "Example:\n  regentctl members add gravl eu-west-1 --region eu-west-1 --host pg-ew.example.org \\\n    \
                            --client-address 203.0.113.10 --reason 'a second standby'"
    )]
    Add(AddArgs),
    /// Remove a standby: never the primary, never the last promotable one.
    #[command(
        after_help = "Example:\n  regentctl members remove gravl us-east-1 --reason 'region given up' --dry-run"
    )]
    Remove {
        /// Which cluster.
        cluster: ClusterName,
        /// Which member.
        member: MemberName,
        /// Refuse when the cluster is at another epoch [default: read the status first].
        #[arg(long, value_name = "EPOCH")]
        expected_epoch: Option<u64>,
        #[command(flatten)]
        mutation: Mutation,
    },
    /// Change a member's priority, whether it may be promoted, or where clients reach it.
    #[command(
        after_help = "Examples:\n  regentctl members set gravl us-east-1 --priority 50 --reason 'prefer the others'\n  \
                            regentctl members set gravl us-east-1 --promotable false --reason 'its disk is slow' --dry-run\n  \
                            regentctl members set gravl us-east-1 --client-address 203.0.113.11 --reason 'new load balancer'\n\n\
                            Of the primary only priority and agent address: its DNS record is of its epoch. Who becomes\n\
                            promotable counts against a primary's lease once that primary has the new list."
    )]
    Set(SetArgs),
    /// Add a cluster to the group.
    #[command(
        after_help = "Example:\n  regentctl members create --file rides.toml --reason 'new service' --dry-run\n\n\
                            The file holds one [[cluster]] table as in coordinator.toml. It begins with empty data\n\
                            directories; to take over running servers use `regentctl adopt`."
    )]
    Create {
        /// File with one [[cluster]] table.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        mutation: Mutation,
    },
    /// Take a cluster out of the group; its data directories are left as they are.
    #[command(after_help = "Example:\n  regentctl members forget rides --reason 'service is gone'\n\n\
                            Refused while its primary may hold a lease, unless you consent to its loss. The name may be\n\
                            used again; its epochs go on.")]
    Forget {
        /// Which cluster.
        cluster: ClusterName,
        /// Also with a primary that may be alive: it stops when its lease ends.
        #[arg(long)]
        consent_to_stop_primary: bool,
        /// Refuse when the cluster is at another epoch [default: read the status first].
        #[arg(long, value_name = "EPOCH")]
        expected_epoch: Option<u64>,
        #[command(flatten)]
        mutation: Mutation,
    },
    /// The coordinators themselves.
    #[command(subcommand)]
    Coordinators(CoordinatorsCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum CoordinatorsCommand {
    /// List them, with every id that was ever used.
    #[command(after_help = "Example:\n  regentctl members coordinators list")]
    List,
    /// Add one: it is fed the log first and votes when it has everything.
    #[command(
        after_help = "Example:\n  regentctl members coordinators add 4 --address c4.example.org:7400 --region eu-west-2 \\\n    \
                            --reason 'grow to five'\n\n\
                            Start the new coordinator with join = true. Go from three to five by adding two: four survive\n\
                            no more losses than three."
    )]
    Add {
        /// Its id, never used before.
        id: u64,
        /// HOST:PORT of its gRPC listener.
        #[arg(long)]
        address: String,
        /// Its failure domain.
        #[arg(long)]
        region: Region,
        /// One region may hold so many votes that its loss stops every failover.
        #[arg(long)]
        consent_to_region_majority: bool,
        /// Refuse when the group has changed [default: read the list first].
        #[arg(long, value_name = "VERSION")]
        expected_version: Option<u64>,
        #[command(flatten)]
        mutation: Mutation,
    },
    /// Remove one, alive or dead. Its id is never used again.
    #[command(after_help = "Example:\n  regentctl members coordinators remove 2 --reason 'its host is lost'")]
    Remove {
        /// Its id.
        id: u64,
        /// One region may hold so many votes that its loss stops every failover.
        #[arg(long)]
        consent_to_region_majority: bool,
        /// Refuse when the group has changed [default: read the list first].
        #[arg(long, value_name = "VERSION")]
        expected_version: Option<u64>,
        #[command(flatten)]
        mutation: Mutation,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Which cluster.
    pub cluster: ClusterName,
    /// The new member's name.
    pub member: MemberName,
    /// Its failure domain.
    #[arg(long)]
    pub region: Region,
    /// Address at which the other members reach its PostgreSQL.
    #[arg(long)]
    pub host: String,
    /// Port of its PostgreSQL.
    #[arg(long, default_value_t = 5432)]
    pub port: u16,
    /// Address that the DNS name gets when it is primary.
    #[arg(long)]
    pub client_address: IpAddr,
    /// Port for clients [default: the same as --port].
    #[arg(long)]
    pub client_port: Option<u16>,
    /// host:port at which the other members' agents ask its agent for promises; without it a lost quorum fences the primary.
    #[arg(long, value_name = "HOST:PORT")]
    pub agent_address: Option<String>,
    /// Higher is preferred between candidates with equal WAL.
    #[arg(long, default_value_t = 100)]
    pub priority: u32,
    /// It is never to be promoted.
    #[arg(long)]
    pub not_promotable: bool,
    /// Refuse when the cluster is at another epoch [default: read the status first].
    #[arg(long, value_name = "EPOCH")]
    pub expected_epoch: Option<u64>,
    #[command(flatten)]
    pub mutation: Mutation,
}

#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// Which cluster.
    pub cluster: ClusterName,
    /// Which member.
    pub member: MemberName,
    #[command(flatten)]
    pub changes: Changes,
    /// Refuse when the cluster is at another epoch [default: read the status first].
    #[arg(long, value_name = "EPOCH")]
    pub expected_epoch: Option<u64>,
    #[command(flatten)]
    pub mutation: Mutation,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Changes {
    /// Higher is preferred between candidates with equal WAL.
    #[arg(long)]
    pub priority: Option<u32>,
    /// Whether it may ever be promoted.
    #[arg(long, value_name = "true|false")]
    pub promotable: Option<bool>,
    /// Address that the DNS name gets when it is primary.
    #[arg(long)]
    pub client_address: Option<IpAddr>,
    /// Port for clients.
    #[arg(long)]
    pub client_port: Option<u16>,
    /// host:port at which the other members' agents ask its agent for promises.
    #[arg(long, value_name = "HOST:PORT")]
    pub agent_address: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AdoptArgs {
    /// File with one [[cluster]] table that names the running servers as its members.
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// The database's system identifier (pg_controldata) [default: what the primary's agent reports].
    #[arg(long, value_name = "ID")]
    pub system_id: Option<u64>,
    #[command(flatten)]
    pub mutation: Mutation,
}

pub(super) async fn run(client: &Client, output: &Output, command: MembersCommand) -> Result<(), Failure> {
    match command {
        MembersCommand::List { cluster } => {
            let request = MembersRequest { cluster: cluster.to_string() };
            let reply = client.call(async |operators| operators.list_members(request.clone()).await).await?;
            output.print(&reply, list)
        }
        MembersCommand::Add(args) => {
            let definition = MemberDefinition {
                name: args.member.to_string(),
                region: args.region.to_string(),
                host: args.host.clone(),
                port: args.port.into(),
                client_address: args.client_address.to_string(),
                client_port: args.client_port.unwrap_or(args.port).into(),
                priority: args.priority,
                promotable: !args.not_promotable,
                agent_address: args.agent_address,
            };
            let change = change_member_request::Change::Add(definition);
            member(client, output, &args.cluster, args.expected_epoch, &args.mutation, change).await
        }
        MembersCommand::Set(args) => {
            let changes = MemberChanges {
                name: args.member.to_string(),
                priority: args.changes.priority,
                promotable: args.changes.promotable,
                client_address: args.changes.client_address.map(|address| address.to_string()),
                client_port: args.changes.client_port.map(u32::from),
                agent_address: args.changes.agent_address,
            };
            let change = change_member_request::Change::Set(changes);
            member(client, output, &args.cluster, args.expected_epoch, &args.mutation, change).await
        }
        MembersCommand::Remove { cluster, member: name, expected_epoch, mutation } => {
            let change = change_member_request::Change::Remove(name.to_string());
            member(client, output, &cluster, expected_epoch, &mutation, change).await
        }
        MembersCommand::Create { file, mutation } => create(client, output, &file, &mutation, None).await,
        MembersCommand::Forget { cluster, consent_to_stop_primary, expected_epoch, mutation } => {
            let request = ForgetClusterRequest {
                cluster: cluster.to_string(),
                consent: consent_to_stop_primary,
                reason: mutation.reason.clone(),
                expected_epoch: change::epoch(client, &cluster, expected_epoch).await?,
                request_id: mutation.id(),
                dry_run: mutation.dry_run,
            };
            let reply =
                client.call(async |operators| operators.forget_cluster(request.clone()).await).await?;
            output.print(&reply, change::show)
        }
        MembersCommand::Coordinators(command) => coordinators(client, output, command).await,
    }
}

/// `regentctl adopt`.
pub(super) async fn adopt(client: &Client, output: &Output, args: AdoptArgs) -> Result<(), Failure> {
    create(client, output, &args.file, &args.mutation, Some(args.system_id)).await
}

async fn create(
    client: &Client,
    output: &Output,
    file: &std::path::Path,
    mutation: &Mutation,
    adopt: Option<Option<u64>>,
) -> Result<(), Failure> {
    let toml = std::fs::read_to_string(file)
        .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", file.display())))?;
    let request = CreateClusterRequest {
        toml,
        reason: mutation.reason.clone(),
        request_id: mutation.id(),
        dry_run: mutation.dry_run,
        adopt: adopt.is_some(),
        system_id: adopt.flatten(),
    };
    let reply = client.call(async |operators| operators.create_cluster(request.clone()).await).await?;
    output.print(&reply, change::show)
}

async fn member(
    client: &Client,
    output: &Output,
    cluster: &ClusterName,
    expected_epoch: Option<u64>,
    mutation: &Mutation,
    change: change_member_request::Change,
) -> Result<(), Failure> {
    let request = ChangeMemberRequest {
        cluster: cluster.to_string(),
        change: Some(change),
        reason: mutation.reason.clone(),
        expected_epoch: change::epoch(client, cluster, expected_epoch).await?,
        request_id: mutation.id(),
        dry_run: mutation.dry_run,
    };
    let reply = client.call(async |operators| operators.change_member(request.clone()).await).await?;
    output.print(&reply, change::show)
}

async fn coordinators(client: &Client, output: &Output, command: CoordinatorsCommand) -> Result<(), Failure> {
    let ask = async || {
        client.call(async |operators| operators.list_coordinators(CoordinatorsRequest {}).await).await
    };
    let (change, consent, version, mutation) = match command {
        CoordinatorsCommand::List => return output.print(&ask().await?, group),
        CoordinatorsCommand::Add {
            id,
            address,
            region,
            consent_to_region_majority,
            expected_version,
            mutation,
        } => {
            let add = change_coordinators_request::Add { id, address, region: region.to_string() };
            let change = change_coordinators_request::Change::Add(add);
            (change, consent_to_region_majority, expected_version, mutation)
        }
        CoordinatorsCommand::Remove { id, consent_to_region_majority, expected_version, mutation } => {
            let change = change_coordinators_request::Change::Remove(id);
            (change, consent_to_region_majority, expected_version, mutation)
        }
    };
    let expected_version = match version {
        Some(version) => version,
        None => ask().await?.version,
    };
    let request = ChangeCoordinatorsRequest {
        change: Some(change),
        consent,
        reason: mutation.reason.clone(),
        expected_version,
        request_id: mutation.id(),
        dry_run: mutation.dry_run,
    };
    let reply = client.call(async |operators| operators.change_coordinators(request.clone()).await).await?;
    output.print(&reply, change::show)
}

fn list(reply: &MembersReply, paint: &Paint) -> String {
    let mut text = format!("{} at epoch {}, member list {}\n", reply.cluster, reply.epoch, reply.version);
    let columns =
        ["MEMBER", "REGION", "ADDRESS", "CLIENTS", "PROMOTABLE", "KNOWS LIST", "STATE"].map(Column::Left);
    let mut table = Table::new(2, &columns);
    for one in &reply.members {
        let Some(definition) = &one.definition else { continue };
        let state = match (one.primary, one.sync_confirmed, &one.not_known) {
            (true, ..) => ("primary".to_owned(), Some(Tone::Good)),
            (false, true, None) => ("sync confirmed".to_owned(), Some(Tone::Good)),
            (false, true, Some(why)) => {
                (format!("sync confirmed, not promotable yet: {why}"), Some(Tone::Warn))
            }
            (false, false, _) => {
                let why = one.sync_reason.clone().unwrap_or_default();
                (format!("not in sync: {why}"), Some(Tone::Warn))
            }
        };
        table.row([
            (definition.name.clone(), None),
            (definition.region.clone(), None),
            (format!("{}:{}", definition.host, definition.port), None),
            (format!("{}:{}", definition.client_address, definition.client_port), None),
            (if definition.promotable { "yes" } else { "never" }.to_owned(), None),
            (one.acknowledged_version.to_string(), None),
            state,
        ]);
    }
    text.push_str(&table.render(paint));
    for one in &reply.removed {
        text.push_str(&format!("  removed: {} with list {} ({})\n", one.name, one.version, one.by));
    }
    text
}

fn group(reply: &CoordinatorsReply, paint: &Paint) -> String {
    let mut text = format!("group version {}\n", reply.version);
    let columns = ["ID", "REGION", "ADDRESS", "STANDING", "VOTES", "HEARD"].map(Column::Left);
    let mut table = Table::new(2, &columns);
    for one in &reply.coordinators {
        let leads = reply.leader == Some(one.id);
        let standing = if leads { format!("{}, leader", one.standing) } else { one.standing.clone() };
        table.plain([
            one.id.to_string(),
            one.region.clone(),
            one.address.clone(),
            standing,
            if one.votes { "yes" } else { "no" }.to_owned(),
            one.heard_age_ms.map(ago).unwrap_or_default(),
        ]);
    }
    text.push_str(&table.render(paint));
    for one in &reply.changes {
        let why = if one.reason.is_empty() { String::new() } else { format!(": {}", one.reason) };
        text.push_str(&format!("  {}  {} ({}{why})\n", wall(one.wall_ms), one.text, one.actor));
    }
    text
}
