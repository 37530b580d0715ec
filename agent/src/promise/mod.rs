//! Promises between members: the list of who may be promoted on disk, asking for promises, and giving them.
//! What is asked and what is given is decided by `regent-agent-core`, and enforced by the two guards.

mod ask;
mod list;
mod serve;
mod until;

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};

use regent_agent_core::promise::PromiseList;
use regent_types::{BootId, Epoch, LeaseDecision, LeaseRefusal, MemberName, PromiseFacts, PromisedLease};

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
    /// Set when an earlier run's file is damaged: this run's start, CLOCK_BOOTTIME ns. What was promised before it lasts no
    /// longer than the longest lease that the guard takes.
    unknown_since_ns: Option<u64>,
    /// Why the lease is not extended now, though no coordinator answers; empty when there is nothing to say.
    why_not: Mutex<String>,
    /// A promiser has said that this epoch has ended.
    ended: Mutex<Option<Epoch>>,
}

impl Promises {
    /// With what an earlier run has left on disk.
    pub fn open(state_dir: &std::path::Path, boot: &BootId) -> Self {
        let (until_ns, unknown_since_ns) = match until::read(state_dir, boot) {
            until::Found::Until(until_ns) => (until_ns, None),
            until::Found::Damaged => (0, Some(boottime_ns())),
        };
        Self {
            list: Mutex::new(list::read(state_dir)),
            promised_until_ns: AtomicU64::new(until_ns),
            unknown_since_ns,
            ..Self::default()
        }
    }

    /// For how long no leader has answered, ms; `None` when none has in this run.
    pub fn silent_ms(&self) -> Option<u64> {
        let at_ns = self.answered_ns.load(SeqCst);
        (at_ns > 0).then(|| boottime_ns().saturating_sub(at_ns) / 1_000_000)
    }

    /// Why the lease is not extended now, though no coordinator answers.
    pub fn why_not(&self) -> Option<String> {
        Some(self.why_not.lock().expect("no panic while held").clone()).filter(|why| !why.is_empty())
    }

    /// A leader has answered a heartbeat, with a lease or a refusal. One whose group is still taking this cluster over can give
    /// no lease: the old one runs on by promises until it can.
    pub fn answered(&self, lease: &LeaseDecision) {
        if matches!(lease, LeaseDecision::Refused(LeaseRefusal::Importing { .. })) {
            self.unknown.store(false, SeqCst);
            return;
        }
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
    fn covers(&self, list: &PromiseList, now_ns: u64, lease_max_ms: Option<u64>) -> bool {
        let own_ns = list.view.terms.ttl_ms.saturating_mul(1_000_000);
        let known_ns = self.promised_until_ns.load(SeqCst);
        let until_ns = match (self.unknown_since_ns, lease_max_ms) {
            (None, _) => known_ns,
            (Some(since_ns), Some(max_ms)) => {
                known_ns.max(since_ns.saturating_add(max_ms.saturating_mul(1_000_000)))
            }
            (Some(_), None) => return false,
        };
        until_ns <= now_ns.saturating_add(own_ns)
    }

    fn list(&self) -> Option<PromiseList> {
        self.list.lock().expect("no panic while held").clone()
    }

    /// What a heartbeat says: `given` is the guard's to know, as is the longest lease that it takes. The list is named only
    /// once it is on disk.
    pub fn facts(
        &self,
        given: PromiseFacts,
        lease_deadline_ns: Option<u64>,
        lease_max_ms: Option<u64>,
    ) -> PromiseFacts {
        let extended = self.extended.lock().expect("no panic while held").clone();
        let now_ns = boottime_ns();
        let asks = self.list().map(|list| list.view.promotable.into_iter().map(|one| one.member).collect());
        PromiseFacts {
            asks: asks.unwrap_or_default(),
            list: self
                .list()
                .filter(|list| self.covers(list, now_ns, lease_max_ms))
                .map(|l| (l.epoch, l.view.version)),
            extended: extended.filter(|one| lease_deadline_ns == Some(one.deadline_ns)).and_then(|one| {
                let left_ns = one.deadline_ns.checked_sub(now_ns)?;
                Some(PromisedLease { epoch: one.epoch, by: one.by, remaining_ms: left_ns / 1_000_000 })
            }),
            ..given
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use regent_types::{LeaseTerms, PromiseView};

    #[test]
    fn a_list_is_named_once_no_longer_promise_can_last_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let boot = BootId("here".into());
        let terms = LeaseTerms { ttl_ms: 60_000, rho_ppm: 0, kill_ms: 0 };
        let view = PromiseView { version: 2, promotable: vec![], terms };
        let list = PromiseList { epoch: Epoch(4), view };
        let now_ns = boottime_ns();
        until::keep(dir.path(), &boot, now_ns + 270_000_000_000).unwrap();
        let again = Promises::open(dir.path(), &boot);
        assert!(!again.covers(&list, now_ns, None), "270 s were promised by another list");
        assert!(again.covers(&list, now_ns + 210_000_000_000, None));
        std::fs::write(dir.path().join("promised.until"), "gone").unwrap();
        let damaged = Promises::open(dir.path(), &boot);
        let now_ns = boottime_ns();
        assert!(!damaged.covers(&list, now_ns, Some(300_000)));
        assert!(!damaged.covers(&list, u64::MAX / 2, None), "the guard has not said how long a lease may be");
        assert!(damaged.covers(&list, now_ns + 300_000_000_000, Some(300_000)));
    }
}
