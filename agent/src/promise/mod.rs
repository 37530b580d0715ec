//! Promises between members: the list of who may be promoted on disk, asking for promises, and giving them.
//! What is asked and what is given is decided by `regent-agent-core`, and enforced by the two guards.

mod ask;
mod list;
mod serve;

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};

use regent_agent_core::promise::PromiseList;
use regent_types::{Epoch, MemberName, PromiseFacts, PromisedLease};

pub use ask::run as ask;
pub use list::adopt;
pub use serve::{Listener, bind};

use crate::clock::boottime_ns;

/// A lease that was extended by promises.
#[derive(Debug, Clone)]
struct Extended {
    epoch: Epoch,
    by: Vec<MemberName>,
    deadline_ns: u64,
}

/// What the agent knows of promises.
#[derive(Debug, Default)]
pub struct Promises {
    list: Mutex<Option<PromiseList>>,
    adopting: AtomicBool,
    /// When a coordinator granted last, CLOCK_BOOTTIME ns; 0 for never in this run.
    granted_ns: AtomicU64,
    extended: Mutex<Option<Extended>>,
    /// A promiser has said that this epoch has ended.
    ended: Mutex<Option<Epoch>>,
}

impl Promises {
    /// With the list that an earlier run has left on disk.
    pub fn open(state_dir: &std::path::Path) -> Self {
        Self { list: Mutex::new(list::read(state_dir)), ..Self::default() }
    }

    /// A coordinator has granted the lease.
    pub fn granted(&self) {
        self.granted_ns.store(boottime_ns(), SeqCst);
        *self.extended.lock().expect("no panic while held") = None;
    }

    fn list(&self) -> Option<PromiseList> {
        self.list.lock().expect("no panic while held").clone()
    }

    /// What a heartbeat says: `given` is the guard's to know. The list is named only once it is on disk.
    pub fn facts(&self, given: PromiseFacts, lease_deadline_ns: Option<u64>) -> PromiseFacts {
        let extended = self.extended.lock().expect("no panic while held").clone();
        let now_ns = boottime_ns();
        PromiseFacts {
            list: self.list().map(|list| (list.epoch, list.view.version)),
            extended: extended.filter(|one| lease_deadline_ns == Some(one.deadline_ns)).and_then(|one| {
                let left_ns = one.deadline_ns.checked_sub(now_ns)?;
                Some(PromisedLease { epoch: one.epoch, by: one.by, remaining_ms: left_ns / 1_000_000 })
            }),
            ..given
        }
    }
}
