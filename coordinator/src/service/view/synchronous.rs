//! Synchronous replication in the status.

use regent_core::Cluster;
use regent_proto::v1;

/// `None` while it is off.
pub fn synchronous(cluster: &Cluster) -> Option<v1::SynchronousStatus> {
    let all = &cluster.synchronous;
    let policy = &cluster.config.policy.synchronous;
    let last = all.logged.last()?;
    let state = match (&last.set, all.proven) {
        (Some(_), Some(since_lsn)) => format!("in force since {since_lsn}"),
        (Some(_), None) => {
            "being entered: not seen in force, or not everything is with its members".to_owned()
        }
        (None, _) => format!("commits wait for nobody: {}", last.why),
    };
    Some(v1::SynchronousStatus {
        set: last.set.clone().map(Into::into),
        version: all.version,
        proven: all.is_proven(),
        logged: all.logged.iter().map(ToString::to_string).collect(),
        state,
        shortage: policy.shortage.name().to_owned(),
    })
}
