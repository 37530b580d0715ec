//! What the commands that change lists and policies have in common: their flags, and how the answer reads.

use clap::Args;
use regent_proto::v1::ChangeReply;
use regent_types::{ClusterName, RequestId};

use super::{cluster_status, request_id};
use crate::{Failure, cli, client::Client, output::Paint};

#[derive(Debug, Args)]
pub(crate) struct Mutation {
    /// Why; recorded.
    #[arg(long, value_parser = cli::reason)]
    pub reason: String,
    /// Names this request: a second call with it changes nothing [default: random].
    #[arg(long, value_name = "ID", value_parser = cli::request_id)]
    pub request_id: Option<RequestId>,
    /// Say what would change and change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

impl Mutation {
    pub fn id(&self) -> String {
        request_id(self.request_id.clone()).to_string()
    }
}

/// The epoch that was named, or the present one.
pub(super) async fn epoch(
    client: &Client,
    cluster: &ClusterName,
    named: Option<u64>,
) -> Result<u64, Failure> {
    match named {
        Some(epoch) => Ok(epoch),
        None => Ok(cluster_status(client, cluster).await?.epoch),
    }
}

pub(super) fn show(reply: &ChangeReply, _: &Paint) -> String {
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
