//! What an agent observes about its member and reports with each heartbeat. A field is `None` when it is not known:
//! unknown is never reported as zero.

use serde::{Deserialize, Serialize};

use crate::{
    Epoch, InstanceId, Lsn, MemberName, ParameterFacts, PromiseFacts, SalvageSummary, SynchronousFacts,
    SystemId, Timeline,
};

/// Everything an agent knows about its member at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The guard and its lease.
    pub guard: GuardFacts,
    /// The server.
    pub postgres: PostgresFacts,
    /// The data directory.
    pub data: DataFacts,
    /// WAL positions and replication.
    pub wal: WalFacts,
    /// The disk below the data directory.
    pub disk: DiskFacts,
    /// A long piece of work under way.
    pub job: Option<JobProgress>,
    /// The newest salvages on its host, oldest first.
    #[serde(default)]
    pub salvages: Vec<SalvageSummary>,
    /// Promises given and received.
    #[serde(default)]
    pub promise: PromiseFacts,
    /// What it has made of the cluster's PostgreSQL parameters.
    #[serde(default)]
    pub parameters: ParameterFacts,
    /// Primary: whom its commits wait for.
    #[serde(default)]
    pub synchronous: Option<SynchronousFacts>,
    /// Primary: the last time that it refused writes by a limit of its own.
    #[serde(default)]
    pub blocked_writes: Option<BlockedWrites>,
}

/// A primary refuses writes, or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedWrites {
    /// By which limit, with both sides' numbers.
    pub reason: String,
    /// For how long, ms.
    pub for_ms: u64,
    /// How long ago it ended, ms; `None` while it lasts.
    pub ended_ms_ago: Option<u64>,
}

/// The guard as the agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardFacts {
    /// The guard answered within its deadline.
    pub reachable: bool,
    /// Why automatic failover is refused for this member (no PID namespace, no kernel timer), if it is.
    pub refused: Option<String>,
    /// Highest epoch in its state file.
    pub highest_epoch: Epoch,
    /// This epoch and all below are refused for ever.
    pub fenced_through: Epoch,
    /// Epoch of the live lease.
    pub lease_epoch: Option<Epoch>,
    /// What is left of the lease, ms.
    pub lease_remaining_ms: Option<u64>,
    /// Earlier instances of this boot and state directory that this guard has emptied, newest first: it may speak
    /// for their death (DESIGN section 5.7).
    pub succeeds: Vec<InstanceId>,
    /// Local restarts of PostgreSQL under the running lease.
    pub restarts: u64,
    /// Promotions without a lease that the guard prevented.
    pub rogue_promotions: u64,
    /// The state file as found at start: `ok`, `missing`, `damaged` or `other-boot`.
    pub state_file: String,
    /// The longest lease that this guard takes (its own `lease_ttl_max`), ms; `None` from a guard that does not say.
    #[serde(default)]
    pub lease_ttl_max_ms: Option<u64>,
}

/// What PostgreSQL is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PostgresState {
    /// The guard could not be asked.
    Unknown,
    /// No process of the data directory is alive.
    Stopped,
    /// The postmaster runs and does not accept connections yet.
    Starting,
    /// In recovery.
    Standby,
    /// Out of recovery.
    Primary,
    /// Shutting down.
    Stopping,
}

/// The server as probed through its socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresFacts {
    /// What it is doing.
    pub state: PostgresState,
    /// A probe connection was answered.
    pub accepting: bool,
    /// How long no probe has been answered, ms; 0 while `accepting`.
    pub not_accepting_for_ms: u64,
    /// Major version, e.g. 18.
    pub major: Option<u32>,
    /// Primary: logical slots that a failover would lose.
    #[serde(default)]
    pub logical_slots_at_risk: u32,
}

/// What the data directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataForm {
    /// Missing or empty.
    Empty,
    /// Last ran, or could run, as a primary: nothing starts on it without a lease or a rejoin.
    Primary,
    /// Has `standby.signal`.
    Standby,
    /// A rewind was interrupted: only a clone may follow.
    Rewinding,
    /// A clone was interrupted: only a clone may follow.
    Cloning,
    /// Neither empty nor a PostgreSQL data directory.
    Unusable,
}

/// The data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFacts {
    /// What it is.
    pub form: DataForm,
    /// From `pg_control`.
    pub system_id: Option<SystemId>,
    /// Latest timeline known locally.
    pub timeline: Option<Timeline>,
    /// The newest epoch whose history this data is known to descend from: persisted by the agent when it is
    /// promoted, or when it has rejoined.
    pub lineage: Epoch,
}

/// One standby as the primary sees it (`pg_stat_replication`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyFacts {
    /// `application_name`, the member's name.
    pub member: MemberName,
    /// `streaming`, `catchup`, ...
    pub state: String,
    /// Flushed at the standby.
    pub flush_lsn: Option<Lsn>,
    /// Replayed at the standby.
    pub replay_lsn: Option<Lsn>,
}

/// WAL positions and replication.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalFacts {
    /// Primary: `pg_current_wal_flush_lsn()`.
    pub write_lsn: Option<Lsn>,
    /// Standby: highest LSN received and flushed (or restored).
    pub received_lsn: Option<Lsn>,
    /// Standby: replayed.
    pub replayed_lsn: Option<Lsn>,
    /// Standby: the WAL receiver is streaming.
    pub streaming: bool,
    /// Standby: the timeline that is being received or replayed.
    pub timeline: Option<Timeline>,
    /// Standby: age of the newest replayed commit while behind, ms; 0 when everything received is replayed.
    pub replay_lag_ms: Option<u64>,
    /// How old these figures are, ms: a frozen LSN is not a small lag.
    pub sample_age_ms: u64,
    /// Primary: what it sees of its standbys.
    pub standbys: Vec<StandbyFacts>,
    /// Primary: what its WAL does to its disk.
    #[serde(default)]
    pub retention: Option<WalRetention>,
}

/// How much WAL a primary writes and keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalRetention {
    /// Start of the oldest segment in `pg_wal`: who needs anything before it cannot stream from here.
    pub oldest_lsn: Option<Lsn>,
    /// WAL written per second, over the last minute.
    pub bytes_per_s: Option<u64>,
    /// `max_slot_wal_keep_size`, bytes; `None` when a slot may retain without limit.
    pub slot_keep_max_bytes: Option<u64>,
    /// When the disk would be full at the present rate, s; `None` when nothing grows or the bound stops it before.
    pub full_in_s: Option<u64>,
}

/// The fsync probe in the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskProbe {
    /// The last probe came back.
    Ok {
        /// How long it took, ms.
        latency_ms: u64,
    },
    /// A probe has not come back yet.
    Stalled {
        /// For how long, ms.
        for_ms: u64,
    },
    /// A probe failed.
    Failed {
        /// `EIO`, `EROFS`, ...
        error: String,
    },
    /// There is no data directory to probe.
    NotProbed,
}

/// The disk below the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskFacts {
    /// Outcome of the fsync probe.
    pub probe: DiskProbe,
    /// Free bytes for unprivileged users.
    pub free_bytes: Option<u64>,
    /// Size of the file system.
    pub total_bytes: Option<u64>,
    /// WAL retained for replication slots, bytes, the largest slot.
    pub slot_retained_bytes: Option<u64>,
}

/// Progress of a clone, rewind or salvage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobProgress {
    /// `salvage`, `rewind`, `clone`, `catch-up`.
    pub kind: String,
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes in all, when known.
    pub total_bytes: Option<u64>,
}
