//! What a node is told at its start, and which of it cannot work.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use openraft::{Config, SnapshotPolicy};
use tonic::transport::Channel;

use crate::{StartError, gate::QUIET_LEASES};

/// Where a member of the group is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAddress {
    /// Handed to [`Connector::channel`] as it is.
    pub raft_addr: String,
}

/// Makes the connections to the other members. TLS is the implementor's.
pub trait Connector: Send + Sync + 'static {
    /// A channel that connects lazily, and again after a loss. [`crate::tuned`] sets what such an endpoint needs.
    fn channel(&self, node: u64, address: &str) -> Channel;
}

/// All that a node needs to start. `Options::new` fills in what suits links of 110 ms round trip.
#[derive(Clone)]
pub struct Options {
    /// This node. An id is never used again for a node that lost its directory.
    pub node_id: u64,
    /// Name of the group. Stored beside the log and carried by every message: logs and messages of another group are
    /// refused. A group that is formed anew after a total loss gets a new name.
    pub group: String,
    /// Every voter, this node included; the same list on every node.
    pub members: BTreeMap<u64, NodeAddress>,
    /// Log, vote and snapshot. Belongs to this node alone.
    pub data_dir: PathBuf,
    /// Refuse to start on an empty directory: the node is known to have voted, and has lost its memory of it.
    pub expect_existing: bool,
    /// The group exists: this node never founds one. It waits until the leader counts it in.
    pub join: bool,
    /// Also the deadline of an AppendEntries call, of which 3/4 are used: must exceed 4/3 of round trip plus fsync.
    pub heartbeat_interval: Duration,
    /// Lower end of the random election time-out.
    pub election_timeout_min: Duration,
    /// Upper end of the random election time-out; also the time that followers stay with a silent leader.
    pub election_timeout_max: Duration,
    /// A snapshot is taken after so many entries.
    pub snapshot_every_entries: u64,
    /// So many entries stay in the log behind a snapshot, for followers that lag a little.
    pub keep_entries: u64,
    /// Longest command accepted by `propose`.
    pub command_bytes_max: usize,
    /// Makes the connections.
    pub connector: Arc<dyn Connector>,
}

impl Options {
    /// Options with every time-out and limit at its default.
    pub fn new(
        node_id: u64,
        group: impl Into<String>,
        members: BTreeMap<u64, NodeAddress>,
        data_dir: impl Into<PathBuf>,
        connector: Arc<dyn Connector>,
    ) -> Self {
        Self {
            node_id,
            group: group.into(),
            members,
            data_dir: data_dir.into(),
            expect_existing: false,
            join: false,
            heartbeat_interval: Duration::from_millis(250),
            election_timeout_min: Duration::from_millis(1000),
            election_timeout_max: Duration::from_millis(1500),
            snapshot_every_entries: 5000,
            keep_entries: 1000,
            command_bytes_max: 512 * 1024,
            connector,
        }
    }

    pub(crate) fn check(&self) -> Result<Config, StartError> {
        let bad = |field: &'static str, value: String, reason: String| {
            Err(StartError::Option { field, value, reason })
        };
        let ms = |d: Duration| d.as_millis() as u64;
        if self.group.is_empty() || self.group.len() > 128 {
            return bad("group", format!("{:?}", self.group), "must have 1 to 128 bytes".into());
        }
        if !self.members.contains_key(&self.node_id) {
            let ids: Vec<_> = self.members.keys().collect();
            return bad("members", format!("{ids:?}"), format!("must contain this node, {}", self.node_id));
        }
        if self.members.len().is_multiple_of(2) && !self.join {
            let count = self.members.len();
            return bad(
                "members",
                format!("{count} nodes"),
                "must be an odd number: a half is no quorum".into(),
            );
        }
        let mut addresses: Vec<_> = self.members.values().map(|a| &a.raft_addr).collect();
        addresses.sort();
        if let Some(pair) = addresses.windows(2).find(|pair| pair[0] == pair[1]) {
            return bad("members", format!("{:?}", pair[0]), "is the address of two nodes".into());
        }
        let (heartbeat, min, max) =
            (ms(self.heartbeat_interval), ms(self.election_timeout_min), ms(self.election_timeout_max));
        if heartbeat < 10 {
            return bad("heartbeat_interval", format!("{heartbeat} ms"), "must be at least 10 ms".into());
        }
        if min < 3 * heartbeat {
            let reason = format!("must be at least three heartbeat intervals, {} ms", 3 * heartbeat);
            return bad("election_timeout_min", format!("{min} ms"), reason);
        }
        if max <= min {
            let reason = format!("must exceed election_timeout_min, {min} ms, or elections tie");
            return bad("election_timeout_max", format!("{max} ms"), reason);
        }
        if self.snapshot_every_entries == 0 {
            return bad("snapshot_every_entries", "0".into(), "must be at least 1".into());
        }
        if !(1..=4 * 1024 * 1024).contains(&self.command_bytes_max) {
            let value = self.command_bytes_max.to_string();
            return bad("command_bytes_max", value, "must be 1 to 4194304".into());
        }
        let config = Config {
            cluster_name: self.group.clone(),
            heartbeat_interval: heartbeat,
            election_timeout_min: min,
            election_timeout_max: max,
            // A leader that is heard but hears nobody must fall silent, or its followers never elect another
            // (openraft #2080): quiet for this long after a lease without a quorum, then one try as long.
            quorum_loss_probe_interval: Some(u64::from(QUIET_LEASES) * max),
            // A region that comes back must not depose the leader.
            enable_pre_vote: Some(true),
            // By default a restarted leader goes on under its old vote. Its memory of what it granted is gone, so it
            // must be a leadership of another name, which an election gives it.
            enable_leader_restore: Some(false),
            install_snapshot_timeout: 60_000,
            max_payload_entries: 64,
            // Above the snapshot policy, or sending a snapshot might not cure the lag it was sent for.
            replication_lag_threshold: self.snapshot_every_entries * 2 + self.keep_entries,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_every_entries),
            max_in_snapshot_log_to_keep: self.keep_entries,
            // A healed link is used within a quarter second.
            backoff: "50ms 100ms 200ms ...250ms".to_string(),
            api_channel_size: Some(4096),
            notification_channel_size: Some(4096),
            ..Config::default()
        };
        match config.validate() {
            Ok(config) => Ok(config),
            Err(error) => bad("timing", format!("{heartbeat}/{min}/{max} ms"), error.to_string()),
        }
    }
}
