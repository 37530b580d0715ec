//! The promises as machines over facts: one property a file. They know nothing of the simulation: whoever can tell the
//! facts (a run in virtual time, or real processes and a log of what was seen) can have them judged.
//!
//! Each says how it was seen to fail: by a bug made on purpose (`regent_types::mutant`), kept and tried again by
//! `tests/mutants.rs`.

mod dns_forward;
mod epoch_monotone;
mod fence_first;
mod lease_first;
mod no_silent_loss;
mod one_history;
mod promise_respected;
mod replicas_agree;
mod salvage_first;
mod single_writer;

use std::net::IpAddr;

use regent_types::MemberName;

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// From now on this member could commit a client's write.
    WriterBegins {
        /// Who.
        member: MemberName,
        /// At which epoch it was started or promoted.
        epoch: u64,
    },
    /// It cannot any more.
    WriterEnds {
        /// Who.
        member: MemberName,
    },
    /// A guard holds a lease.
    LeaseHeld {
        /// Whose.
        member: MemberName,
        /// For which epoch.
        epoch: u64,
    },
    /// `FenceDecided` through this epoch was committed.
    FenceDecided {
        /// The epoch.
        epoch: u64,
    },
    /// A proof was committed.
    FenceProven {
        /// For which epoch.
        epoch: u64,
        /// Which kind.
        how: &'static str,
    },
    /// An appointment was committed.
    Appointed {
        /// The epoch.
        epoch: u64,
        /// Whom.
        member: MemberName,
        /// Bound to.
        instance: u128,
    },
    /// PostgreSQL has left recovery.
    Promoted {
        /// Where.
        member: MemberName,
        /// Under the lease of.
        epoch: u64,
    },
    /// A guard has emptied its namespace and refuses this epoch and below for ever.
    Fenced {
        /// Whose.
        member: MemberName,
        /// The epoch.
        epoch: u64,
    },
    /// A guard is dead, and all that it had started with it.
    GuardDied {
        /// Whose.
        member: MemberName,
    },
    /// A lease runs on by the promises of everybody who could be promoted.
    Extended {
        /// Whose.
        member: MemberName,
        /// For which epoch.
        epoch: u64,
        /// Until then, by the observer's clock, ns.
        until_ns: u64,
    },
    /// A client was told that its write is committed.
    Acknowledged {
        /// By whom.
        member: MemberName,
        /// At which epoch.
        epoch: u64,
        /// Which.
        write: u32,
    },
    /// A promotion was verified, and acknowledged writes are missing that it had to have.
    LostByPromotion {
        /// The new epoch.
        epoch: u64,
        /// It was a planned move.
        planned: bool,
        /// Which.
        writes: Vec<u32>,
    },
    /// A directory was replaced though only it had these acknowledged writes.
    Discarded {
        /// Whose.
        member: MemberName,
        /// Which.
        writes: Vec<u32>,
    },
    /// PostgreSQL starts on a directory with acknowledged writes that its upstream does not have and no salvage.
    StartedDivergent {
        /// Whose.
        member: MemberName,
        /// Which.
        writes: Vec<u32>,
    },
    /// A standby streams into WAL that is not a part of its upstream's.
    ForeignHistory {
        /// Which.
        member: MemberName,
    },
    /// The record that clients see has changed.
    RecordShown {
        /// The epoch beside it.
        epoch: u64,
        /// Where it leads.
        address: IpAddr,
    },
    /// Everything has come to rest; these acknowledged writes are nowhere.
    Settled {
        /// Which.
        lost: Vec<u32>,
    },
    /// Coordinators that applied the same entries have the same state.
    Replicas {
        /// Or not.
        same: bool,
    },
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub invariant: &'static str,
    /// What was seen, with both sides.
    pub what: String,
}

/// One property.
pub trait Invariant {
    /// Its name.
    fn name(&self) -> &'static str;
    /// Takes a fact in, in the order of time.
    fn observe(&mut self, now_ns: u64, fact: &Fact) -> Result<(), String>;
}

/// All of them.
pub struct Judges(Vec<Box<dyn Invariant>>);

impl Default for Judges {
    fn default() -> Self {
        Self(vec![
            Box::new(single_writer::SingleWriter::default()),
            Box::new(lease_first::LeaseFirst::default()),
            Box::new(epoch_monotone::EpochMonotone::default()),
            Box::new(fence_first::FenceFirst::default()),
            Box::new(promise_respected::PromiseRespected::default()),
            Box::new(no_silent_loss::NoSilentLoss),
            Box::new(salvage_first::SalvageFirst),
            Box::new(one_history::OneHistory),
            Box::new(dns_forward::DnsForward::default()),
            Box::new(replicas_agree::ReplicasAgree),
        ])
    }
}

impl Judges {
    /// The first one that is broken by this fact.
    pub fn observe(&mut self, now_ns: u64, fact: &Fact) -> Result<(), Broken> {
        let mut first = Ok(());
        for judge in &mut self.0 {
            if let Err(what) = judge.observe(now_ns, fact)
                && first.is_ok()
            {
                first = Err(Broken { invariant: judge.name(), what });
            }
        }
        first
    }
}
