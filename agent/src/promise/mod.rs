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
use regent_types::{Epoch, LeaseDecision, LeaseRefusal, MemberName, PromiseFacts, PromisedLease};

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
    /// When a leader answered last, CLOCK_BOOTTIME ns; 0 for never in this run.
    answered_ns: AtomicU64,
    /// Its answer was that it does not know this cluster or member.
    unknown: AtomicBool,
    extended: Mutex<Option<Extended>>,
    /// The latest deadline that promises gave, CLOCK_BOOTTIME ns; never falls.
    promised_until_ns: AtomicU64,
    /// A promiser has said that this epoch has ended.
    ended: Mutex<Option<Epoch>>,
}

impl Promises {
    /// With the list that an earlier run has left on disk.
    pub fn open(state_dir: &std::path::Path) -> Self {
        Self { list: Mutex::new(list::read(state_dir)), ..Self::default() }
    }

    /// A leader has answered a heartbeat, with a lease or a refusal.
    pub fn answered(&self, lease: &LeaseDecision) {
        self.answered_ns.store(boottime_ns(), SeqCst);
        let unknown = matches!(
            lease,
            LeaseDecision::Refused(LeaseRefusal::Unknown { .. } | LeaseRefusal::Removed { .. })
        );
        self.unknown.store(unknown, SeqCst);
    }

    /// When a leader answered last, CLOCK_BOOTTIME ns; 0 for never in this run.
    pub fn coordinator_heard_ns(&self) -> u64 {
        self.answered_ns.load(SeqCst)
    }

    /// A coordinator has granted the lease.
    pub fn granted(&self) {
        *self.extended.lock().expect("no panic while held") = None;
    }

    /// Whether no promise by an earlier list lasts longer than one by this list would. Interleaving: by the earlier one a
    /// promise of 270 s was given; the policy is shortened to 60 s and a member added; named at once, the new list would have
    /// that member promoted when the shorter lease is over.
    fn covers(&self, list: &PromiseList, now_ns: u64) -> bool {
        let own_ns = list.view.terms.ttl_ms.saturating_mul(1_000_000);
        self.promised_until_ns.load(SeqCst) <= now_ns.saturating_add(own_ns)
    }

    fn list(&self) -> Option<PromiseList> {
        self.list.lock().expect("no panic while held").clone()
    }

    /// What a heartbeat says: `given` is the guard's to know. The list is named only once it is on disk.
    pub fn facts(&self, given: PromiseFacts, lease_deadline_ns: Option<u64>) -> PromiseFacts {
        let extended = self.extended.lock().expect("no panic while held").clone();
        let now_ns = boottime_ns();
        PromiseFacts {
            list: self.list().filter(|list| self.covers(list, now_ns)).map(|l| (l.epoch, l.view.version)),
            extended: extended.filter(|one| lease_deadline_ns == Some(one.deadline_ns)).and_then(|one| {
                let left_ns = one.deadline_ns.checked_sub(now_ns)?;
                Some(PromisedLease { epoch: one.epoch, by: one.by, remaining_ms: left_ns / 1_000_000 })
            }),
            ..given
        }
    }
}
