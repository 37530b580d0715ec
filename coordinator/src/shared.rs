//! The replicated state and the leader's memory under one lock, and the machine that Raft drives.
//!
//! One lock, because a grant and the applying of `FenceDecided` must be ordered (DESIGN section 5.2c): with two locks a
//! lease of a fenced epoch could leave after the fence was applied. Nothing here waits for anything while it holds it.
//!
//! Invariant: a bug in `apply` ends the process, and an entry that cannot be read ends this node. A half-applied state must
//! never be served, and no entry skipped.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, MutexGuard},
};

use regent_core::{
    Confirmed, Cooldowns, Detector, Leadership, LeaseTable, Position, Proposal, Reply, State, encode_reply,
};
use regent_raft::{LeadershipId, LogPosition, Machine};
use regent_types::CoordinatorId;
use tokio::sync::watch;

use crate::hooks::StepHook;

/// What the lock holds.
pub struct Inner {
    /// Replicated.
    pub state: State,
    /// The leader's memory of leases.
    pub leases: LeaseTable,
    /// The leader's memory of who was heard.
    pub detector: Detector,
    /// This node's count of running cooldowns; kept by followers too.
    pub cooldowns: Cooldowns,
    /// This node's leadership, as far as the two above know.
    pub leadership: Option<Leadership>,
}

/// Shared by every task of a node.
pub struct Shared {
    inner: Mutex<Inner>,
    applied: watch::Sender<u64>,
    hook: Option<StepHook>,
    /// The highest feature level that this node announces and takes.
    pub level_max: u8,
}

/// A Raft leadership in the core's words.
pub fn leadership(id: LeadershipId) -> Leadership {
    Leadership { term: id.term, node: CoordinatorId(id.node) }
}

impl Shared {
    /// Empty; Raft brings it up to date.
    pub fn new(hook: Option<StepHook>, level_max: u8) -> Self {
        let inner = Inner {
            state: State::default(),
            leases: LeaseTable::new(),
            detector: Detector::new(),
            cooldowns: Cooldowns::default(),
            leadership: None,
        };
        Self { inner: Mutex::new(inner), applied: watch::Sender::new(0), hook, level_max }
    }

    /// The lock. Held for moments only, never across an await.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere under the lock is a bug that has been reported; `apply` itself never unwinds past it.
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Wakes whenever an entry was applied.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }
}

impl Inner {
    /// A finished round of Raft as the lease table wants it.
    pub fn confirmed(&self, round: &regent_raft::Confirmed) -> Confirmed {
        Confirmed { leadership: leadership(round.leadership), read_index: round.read_index }
    }
}

fn position(at: LogPosition) -> Position {
    Position { index: at.index, leadership: Leadership { term: at.term, node: CoordinatorId(at.leader) } }
}

impl Machine for Shared {
    fn apply(&self, at: LogPosition, command: &[u8]) -> Result<Vec<u8>, String> {
        let reply: Reply = match Proposal::decode_up_to(self.level_max, command) {
            Err(error) => {
                tracing::error!(index = at.index, %error, "an entry cannot be read; this node stops");
                return Err(error.to_string());
            }
            Ok(proposal) => {
                let mut inner = self.lock();
                // Its own proposal: an entry of the last leader may be applied by its successor, which lives on.
                let leads = inner.leadership == Some(position(at).leadership);
                let before = self.hook.as_ref().map(|hook| hook.before(&inner.state));
                let applied = catch_unwind(AssertUnwindSafe(|| inner.state.apply(position(at), &proposal)));
                let Ok(reply) = applied else {
                    tracing::error!(index = at.index, ?proposal, "bug: apply panicked; the process ends");
                    std::process::abort();
                };
                if let (Some(hook), Some(before)) = (&self.hook, before) {
                    hook.after(before, &inner.state, leads);
                }
                log(&reply, at.index);
                reply
            }
        };
        self.applied.send_replace(at.index);
        Ok(encode_reply(&reply))
    }

    /// Entries of Raft itself count for the applied index: a new leader's read index is at first its own blank entry's,
    /// and it would grant nothing until the next command.
    fn passed(&self, at: LogPosition) {
        self.lock().state.pass(position(at));
        self.applied.send_replace(at.index);
    }

    fn snapshot(&self) -> Vec<u8> {
        self.lock().state.encode()
    }

    fn restore(&self, at: Option<LogPosition>, snapshot: &[u8]) -> Result<(), String> {
        let state = State::decode_up_to(self.level_max, snapshot).map_err(|error| error.to_string())?;
        tracing::info!(?at, clusters = state.clusters.len(), "state restored from a snapshot");
        self.lock().state = state;
        self.applied.send_replace(at.map_or(0, |at| at.index));
        Ok(())
    }
}

fn log(reply: &Reply, index: u64) {
    match reply {
        Ok(applied) => {
            for event in &applied.events {
                tracing::info!(
                    index,
                    cluster = %event.cluster,
                    epoch = %event.epoch,
                    kind = ?event.kind,
                    rule = event.rule,
                    member = event.member.as_ref().map(|member| member.as_str()),
                    "{}",
                    event.text
                );
            }
        }
        Err(rejection) => tracing::info!(index, %rejection, "proposal rejected"),
    }
}
