//! Bugs made on purpose, to see that the simulation catches each of them (docs/simulation.md).
//!
//! Without the feature `mutants` nothing of it is compiled: [`is_on`] is a constant `false`. With it one mutant is chosen
//! per thread at run time, and a build without debug assertions does not compile: none can ship.

#[cfg(all(feature = "mutants", not(debug_assertions)))]
compile_error!("the feature `mutants` is for tests only: it does not go with a profile that ships");

/// One bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// A leader grants without asking a quorum.
    GrantUnconfirmed,
    /// A leader grants from a state that has not applied the round's read index.
    GrantUnapplied,
    /// A fence does not keep the current epoch from being granted.
    FenceUndecided,
    /// The leader's bound forgets the time that killing takes.
    BoundWithoutKill,
    /// The leader's bound forgets that clocks drift.
    BoundWithoutStretch,
    /// A new leadership knows of no leases and assumes none.
    BoundNotFromElection,
    /// Silence is taken for a fence.
    PromoteOnSilence,
    /// A re-appointment does not raise the epoch.
    SameEpoch,
    /// The agent promotes without a lease, and the guard lets it.
    PromoteWithoutLease,
    /// The lease is counted from the answer's arrival.
    DeadlineFromReceipt,
    /// A promise is held for as long as it extends a lease, with no margin.
    PromiseWithoutMargin,
    /// A promise is answered before it is on disk.
    PromiseNotDurable,
    /// A candidate closes its promises while one is outstanding.
    PromiseForgotten,
    /// Effects live in the leader's memory only.
    EffectInLeaderMemory,
    /// A switchover's target is promoted whatever it has replayed.
    HandoverShort,
    /// Divergent WAL is rewound without a salvage.
    SalvageSkipped,
    /// Data counts as part of the upstream's history, whatever its lineage.
    LineageIgnored,
    /// DNS is changed without looking at what is there.
    DnsUpsert,
    /// Killing PostgreSQL leaves a backend alive.
    KillLeavesBackend,
}

/// Those that the simulation is known to catch.
pub const HUNTED: [Mutant; 16] = [
    Mutant::GrantUnconfirmed,
    Mutant::FenceUndecided,
    Mutant::BoundWithoutKill,
    Mutant::BoundWithoutStretch,
    Mutant::BoundNotFromElection,
    Mutant::PromoteOnSilence,
    Mutant::SameEpoch,
    Mutant::PromoteWithoutLease,
    Mutant::PromiseWithoutMargin,
    Mutant::PromiseForgotten,
    Mutant::EffectInLeaderMemory,
    Mutant::HandoverShort,
    Mutant::SalvageSkipped,
    Mutant::LineageIgnored,
    Mutant::DnsUpsert,
    Mutant::KillLeavesBackend,
];

/// Those that it has not been seen to catch; the exhaustive model has the rules of the first two (docs/simulation.md).
pub const ELUSIVE: [Mutant; 3] =
    [Mutant::GrantUnapplied, Mutant::DeadlineFromReceipt, Mutant::PromiseNotDurable];

#[cfg(feature = "mutants")]
mod chosen {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static CHOSEN: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// From now on, in this thread.
    pub fn choose(mutant: Option<Mutant>) {
        CHOSEN.set(mutant);
    }

    /// Whether this one was chosen.
    pub fn is_on(mutant: Mutant) -> bool {
        CHOSEN.get() == Some(mutant)
    }
}

#[cfg(feature = "mutants")]
pub use chosen::{choose, is_on};

/// Never.
#[cfg(not(feature = "mutants"))]
pub const fn is_on(_: Mutant) -> bool {
    false
}
