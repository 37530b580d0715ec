//! Local facts: everything a plan may depend on. `None` means *not known*; a plan waits for what it needs.

use std::collections::BTreeMap;

use regent_types::{
    BootId, DataForm, Epoch, FencedEvidence, Grant, InstanceId, Lsn, MemberName, PostgresState, RejoinMethod,
    SalvageSummary, SystemId, Timeline,
};
use serde::{Deserialize, Serialize};

use crate::plan::Wait;

/// The guard, as it answered just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardView {
    /// Its instance id.
    pub instance: InstanceId,
    /// Its boot.
    pub boot: BootId,
    /// Highest epoch in its state file.
    pub highest_epoch: Epoch,
    /// Everything up to here is refused for ever.
    pub fenced_through: Epoch,
    /// No promise outstanding for this epoch and below.
    pub promises_closed: Epoch,
    /// Epoch of the live lease.
    pub lease_epoch: Option<Epoch>,
    /// What PostgreSQL is doing.
    pub run: PostgresState,
    /// When the running server was started, CLOCK_BOOTTIME ns; `None` when none runs.
    pub started_at_ns: Option<u64>,
    /// A tool job is running.
    pub job_running: bool,
    /// Why automatic failover is refused here, if it is.
    pub refused: Option<String>,
    /// Earlier instances it may speak for.
    pub succeeds: Vec<InstanceId>,
    /// A promise not to be promoted that it has given, or may have given and lost.
    pub promise: Option<GuardPromise>,
}

/// A promise as the guard has it on its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuardPromise {
    /// To which epoch; `None` when the file that said so is lost.
    pub epoch: Option<Epoch>,
    /// Held until then, CLOCK_BOOTTIME.
    pub until_ns: u64,
}

/// The data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataView {
    /// What it is, marks included.
    pub form: DataForm,
    /// From `pg_control`.
    pub system_id: Option<SystemId>,
    /// Newest timeline known locally.
    pub timeline: Option<Timeline>,
    /// Latest checkpoint.
    pub checkpoint_lsn: Option<Lsn>,
    /// Shut down cleanly.
    pub clean: bool,
    /// Host and port that the include file streams from; `None` when detached.
    pub upstream: Option<(String, u16)>,
    /// Where `timeline` left its parent, from its history file; `None` on the first timeline.
    pub switch_lsn: Option<Lsn>,
    /// The include file has a `restore_command`: WAL comes from the archive too.
    pub archive: bool,
}

/// The running server, as probed just now; absent when it does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `pg_is_in_recovery()`.
    pub in_recovery: bool,
    /// Highest LSN received or replayed (standby), flushed (primary).
    pub lsn: Option<Lsn>,
    /// Replayed (standby).
    pub replayed: Option<Lsn>,
    /// Replay is paused.
    pub replay_paused: bool,
    /// Replay has reached the end of what is there locally.
    pub replay_idle: bool,
    /// A WAL receiver process exists.
    pub receiver: bool,
    /// It is streaming.
    pub streaming: bool,
    /// The timeline written (primary) or received/replayed (standby).
    pub timeline: Option<Timeline>,
    /// Where `timeline` left its parent, from its history file; `None` on the first timeline.
    pub switch_lsn: Option<Lsn>,
}

/// A directory that is being rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// `pg_rewind` has begun.
    Rewinding,
    /// A clone has begun.
    Cloning,
}

/// A promotion that has begun: tells a restarted agent what it finds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promoting {
    /// The epoch.
    pub epoch: Epoch,
    /// The timeline before it.
    pub from_timeline: Timeline,
}

/// A rejoin that has got somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejoining {
    /// The upstream's epoch.
    pub epoch: Epoch,
    /// How the data was made fit to follow; `None` while undecided or under way.
    pub method: Option<RejoinMethod>,
    /// Why only a clone will do.
    pub clone_reason: Option<String>,
    /// Bytes copied.
    pub copied_bytes: u64,
    /// [`AgentView::salvage`] was made for this rejoin.
    pub salvaged: bool,
    /// The directory is a clone of our own, of this rejoin or an earlier one; stays true until the lineage is known again.
    #[serde(default)]
    pub cloned: bool,
    /// The directory was of primary form when it was found fit to follow as it is. Its judgement may have been wrong: a
    /// clone that follows keeps it aside.
    #[serde(default)]
    pub was_primary: bool,
}

impl Rejoining {
    /// Nothing decided yet.
    pub fn begin(epoch: Epoch) -> Self {
        Self {
            epoch,
            method: None,
            clone_reason: None,
            copied_bytes: 0,
            salvaged: false,
            cloned: false,
            was_primary: false,
        }
    }
}

/// The agent's own state file.
///
/// A field that may be forgotten by an older agent is added with `#[serde(default)]`; one that must not be raises the
/// version in the file's head, which an older agent refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentView {
    /// Highest epoch obeyed.
    pub highest_epoch: Epoch,
    /// The newest epoch whose history the data descends from; 0 is *unknown*.
    pub lineage: Epoch,
    /// What is being done to the directory.
    pub mark: Option<Mark>,
    /// A promotion under way.
    pub promoting: Option<Promoting>,
    /// A rejoin under way.
    pub rejoining: Option<Rejoining>,
    /// The salvage of the last divergence: kept so that there is exactly one per divergence.
    pub salvage: Option<SalvageSummary>,
    /// An operator has removed this member from its cluster, and the member list's version since when. PostgreSQL stays
    /// stopped until a coordinator calls it a member again.
    #[serde(default)]
    pub removed: Option<u64>,
    /// The group of coordinators that this member obeys.
    #[serde(default)]
    pub group: Option<regent_types::GroupId>,
}

/// End of the valid WAL of a stopped server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WalEnd {
    /// Here.
    At(Lsn),
    /// It could not be read.
    Unreadable(String),
}

/// What the upstream says of its WAL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamWal {
    /// Its oldest segment begins here.
    From(Lsn),
    /// It could not be asked.
    Unreachable(String),
}

/// What was found out or done during this run of the directive. Lost at a restart, and then found out again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Worked {
    /// The guard's answer to this directive's fence.
    pub fenced: Option<FencedEvidence>,
    /// End of the local WAL while stopped.
    pub wal_end: Option<WalEnd>,
    /// The receiver was detached by this run.
    pub detached: bool,
    /// The grant was handed over.
    pub granted: bool,
    /// A fast stop did not end in time: the next one is harder.
    pub stop_failed: bool,
    /// Roles and slots are in place.
    pub configured: bool,
    /// When each kind of waiting began, CLOCK_BOOTTIME ns.
    pub waiting_since_ns: BTreeMap<Wait, u64>,
    /// Time spent waiting for replay, ms.
    pub replay_ms: u64,
    /// The name's validation.
    pub validated: Option<NameSeen>,
    /// The checkpoint's result.
    pub checkpointed: Option<regent_types::CheckpointedEvidence>,
    /// Which run of the server was there when the directive began: its start, if one ran. `None` before the first look.
    pub run_at_begin: Option<Option<u64>>,
    /// The configuration was read again.
    pub reloaded: bool,
    /// An operator restarts this server: it may take parameters that were raised.
    pub restarting: bool,
    /// The last step's failure.
    pub error: Option<String>,
    /// The upstream's word, and when it was asked, CLOCK_BOOTTIME ns.
    pub upstream: Option<(UpstreamWal, u64)>,
    /// How far the standby was replayed when it last got on, and when that was, CLOCK_BOOTTIME ns.
    pub replayed: Option<(Lsn, u64)>,
}

impl Worked {
    /// Takes in what was seen just now.
    pub fn observe(&mut self, server: Option<&Server>, now_ns: u64) {
        let Some(at) = server.and_then(|server| server.replayed) else { return };
        if self.replayed.is_none_or(|(last, _)| at > last) {
            self.replayed = Some((at, now_ns));
        }
    }
}

/// What a client that knows only the name met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameSeen {
    /// Address that the name resolved to.
    pub address: String,
    /// From the first question until a connection was open, ms.
    pub connected_ms: u64,
    /// From the first question until the marker row was read back, ms.
    pub elapsed_ms: u64,
}

/// A directive at work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// The directive.
    pub directive: regent_types::Directive,
    /// The lease sent along, if any.
    pub grant: Option<Grant>,
    /// When it began, CLOCK_BOOTTIME ns.
    pub started_ns: u64,
}

/// Everything a plan depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// This member.
    pub member: MemberName,
    /// CLOCK_BOOTTIME, ns.
    pub now_ns: u64,
    /// The guard.
    pub guard: GuardView,
    /// The data directory.
    pub data: DataView,
    /// The server.
    pub server: Option<Server>,
    /// The agent's state file.
    pub agent: AgentView,
    /// This run.
    pub worked: Worked,
    /// A WAL archive is configured.
    pub archive: bool,
}

impl Facts {
    /// The highest epoch that any local file knows.
    pub fn seen(&self) -> Epoch {
        self.agent.highest_epoch.max(self.guard.highest_epoch).max(self.guard.fenced_through)
    }
}
