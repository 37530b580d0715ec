//! `regentctl salvage`: what the agents say is kept, and rows from it.

pub(crate) mod args;
mod extract;
mod server;

use regent_proto::v1::SalvageSummary;
use regent_types::{ClusterName, MemberName};
use serde::Serialize;

use self::args::SalvageCommand;
use super::{cluster_status, connect};
use crate::{
    Failure,
    cli::Global,
    client::Client,
    output::{Output, salvage, salvages},
};

/// One salvage and where it is.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Kept {
    /// On whose host.
    pub member: String,
    /// How long ago that member was heard; what it keeps may have changed since.
    pub heard_age_ms: Option<u64>,
    #[serde(flatten)]
    pub salvage: SalvageSummary,
}

#[derive(Debug, Serialize)]
pub(crate) struct List {
    pub cluster: String,
    pub salvages: Vec<Kept>,
}

pub(super) async fn run(global: &Global, output: &Output, command: SalvageCommand) -> Result<(), Failure> {
    match command {
        SalvageCommand::List { cluster } => {
            let salvages = kept(&connect(global)?, &cluster).await?;
            output.print(&List { cluster: cluster.to_string(), salvages }, self::salvages)
        }
        SalvageCommand::Show { cluster, member, folder } => {
            let found = kept(&connect(global)?, &cluster).await?;
            output.print(&pick(found, &cluster, &member, folder.as_deref())?, salvage)
        }
        SalvageCommand::Extract(args) => extract::run(output, args).await,
    }
}

async fn kept(client: &Client, cluster: &ClusterName) -> Result<Vec<Kept>, Failure> {
    let status = cluster_status(client, cluster).await?;
    let members = status.members.into_iter().flat_map(|member| {
        let (name, heard_age_ms) = (member.name, member.heard_age_ms);
        member.salvages.into_iter().map(move |salvage| Kept { member: name.clone(), heard_age_ms, salvage })
    });
    Ok(members.collect())
}

/// The one that is meant: the newest of the member, or the one whose folder ends so.
fn pick(
    found: Vec<Kept>,
    cluster: &ClusterName,
    member: &MemberName,
    folder: Option<&str>,
) -> Result<Kept, Failure> {
    let own = found.into_iter().filter(|kept| kept.member == member.as_str());
    let mut fitting = own.filter(|kept| folder.is_none_or(|wanted| kept.salvage.folder.ends_with(wanted)));
    fitting.next_back().ok_or_else(|| {
        let which = folder.map_or_else(String::new, |folder| format!(" in a folder {folder:?}"));
        Failure::Refused(format!(
            "not found: member {member} of cluster {cluster} reports no salvage{which} (its agent names the newest ones)"
        ))
    })
}
