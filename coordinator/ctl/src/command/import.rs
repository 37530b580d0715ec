//! `regentctl import`: a cluster of a group that is lost for good is taken over by a new one.

use std::path::PathBuf;

use clap::Args;
use regent_proto::v1::ImportClusterRequest;
use regent_types::{ClusterName, MemberName};

use super::change::{self, Mutation};
use crate::{Failure, client::Client, output::Output};

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Which cluster.
    pub cluster: ClusterName,
    /// File with one [[cluster]] table [default: what the new coordinators' own files say].
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Who is to be primary [default: who holds the lease, else the configured initial primary].
    #[arg(long, value_name = "MEMBER")]
    pub primary: Option<MemberName>,
    /// Take the cluster over without this member's word: an exception to promise 1, recorded. Make sure that it cannot write.
    #[arg(long = "unheard", value_name = "MEMBER")]
    pub unheard: Vec<MemberName>,
    /// Refuse when the highest epoch that a member knows is another one.
    #[arg(long, value_name = "EPOCH")]
    pub expected_epoch: Option<u64>,
    #[command(flatten)]
    pub mutation: Mutation,
}

pub(super) async fn run(client: &Client, output: &Output, args: ImportArgs) -> Result<(), Failure> {
    let toml = args.file.as_ref().map(|file| {
        std::fs::read_to_string(file)
            .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", file.display())))
    });
    let request = ImportClusterRequest {
        cluster: args.cluster.to_string(),
        toml: toml.transpose()?,
        primary: args.primary.map(Into::into),
        unheard: args.unheard.into_iter().map(Into::into).collect(),
        reason: args.mutation.reason.clone(),
        expected_epoch: args.expected_epoch,
        request_id: args.mutation.id(),
        dry_run: args.mutation.dry_run,
    };
    let reply = client.call(async |operators| operators.import_cluster(request.clone()).await).await?;
    output.print(&reply, change::show)
}
