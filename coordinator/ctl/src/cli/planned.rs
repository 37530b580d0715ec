//! Arguments of `switchover` and `failback`.

use std::time::{Duration, SystemTime};

use clap::Args;
use regent_types::{ClusterName, MemberName, RequestId};

use super::{reason, request_id};

#[derive(Debug, Args)]
pub(crate) struct SwitchoverArgs {
    #[command(flatten)]
    pub planned: PlannedArgs,
    /// Whom to promote [default: the confirmed standby that has most].
    #[arg(long, value_name = "MEMBER")]
    pub to: Option<MemberName>,
    /// Not now but at this time, e.g. 2026-11-23T02:00:00Z; `regentctl abort` takes it back.
    #[arg(long, value_name = "RFC3339", value_parser = humantime::parse_rfc3339)]
    pub at: Option<SystemTime>,
}

#[derive(Debug, Args)]
pub(crate) struct PlannedArgs {
    /// Which cluster.
    pub cluster: ClusterName,
    /// Why; recorded with the operation.
    #[arg(long, value_parser = reason)]
    pub reason: String,
    /// Refuse when the cluster is at another epoch [default: read the status first].
    #[arg(long, value_name = "EPOCH")]
    pub expected_epoch: Option<u64>,
    /// Names this request: a second call with it returns the first answer [default: random].
    #[arg(long, value_name = "ID", value_parser = request_id)]
    pub request_id: Option<RequestId>,
    /// Say what would be done and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Return when it is started, without following it to its end.
    #[arg(long)]
    pub no_wait: bool,
    /// Give up following (not the operation) after this time.
    #[arg(long, default_value = "30m", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub wait_timeout: Duration,
    /// Do not ask for confirmation.
    #[arg(long, short)]
    pub yes: bool,
}
