//! The rules that can be taken out one at a time, the bounds of a search and the clocks. Decides nothing.

use regent_types::LeaseTerms;

/// One rule of DESIGN section 5, left out of the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// 2a: a leader grants without asking a quorum.
    QuorumConfirmation,
    /// 2a: a leader grants on a round that began before the heartbeat arrived.
    RoundAfterHeartbeat,
    /// 2b: a leader grants on a state that is behind the round's read index.
    AppliedIndex,
    /// 1: the guard counts the lease from the receipt of the acknowledgement.
    DeadlineFromSending,
    /// 3: the bound leaves out the time that killing takes.
    Kill,
    /// 3: the bound leaves out the drift of the clocks.
    Stretch,
    /// 3: a new leadership assumes no lease granted before its election.
    BoundFromElection,
    /// 4: the bound is looked at before `FenceDecided` is committed.
    FenceBeforeProof,
    /// 4: a bound that another leadership computed is passed off as the present one's.
    ProofOfThisLeadership,
    /// 5: the target of a promotion writes without a lease.
    LeaseGatedPromotion,
    /// 4: a driver's word for one fence is passed off as given for the one that waits.
    DriverBegunForThisFence,
    /// Section 6: a promise is answered before it is on the disk, and forgotten at a restart.
    PromiseOnDisk,
    /// Section 6: the promiser holds for as long as the primary asked, without drift and kill time.
    PromiseMargin,
    /// Section 6: the last promotable member is not asked.
    PromiseOfEverybody,
}

/// The clocks: one tick of the model is this much on each of them.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    /// On every coordinator's clock.
    pub node_tick_ms: u64,
    /// On every member's clock.
    pub member_tick_ms: u64,
    /// The lease time, on the member's clock.
    pub ttl_ms: u64,
    /// How long killing takes at worst, on the member's clock.
    pub kill_ms: u64,
    /// What the terms say about drift.
    pub rho_ppm: u64,
}

impl Clocks {
    /// Clocks that agree: a lease of one tick, a kill of one.
    pub const EQUAL: Clocks =
        Clocks { node_tick_ms: 100, member_tick_ms: 100, ttl_ms: 100, kill_ms: 100, rho_ppm: 0 };
    /// A lease of two ticks: one can be extended while it runs.
    pub const LONGER: Clocks = Clocks { ttl_ms: 200, ..Clocks::EQUAL };
    /// The worst that a drift of 10 % allows: every coordinator fast, every member slow.
    pub const DRIFTING: Clocks =
        Clocks { node_tick_ms: 110, member_tick_ms: 90, ttl_ms: 100, kill_ms: 100, rho_ppm: 100_000 };
}

/// How far a search goes.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Coordinators that may lead; the other voters only vote.
    pub nodes: usize,
    /// Members: the first is the primary of epoch 1, the others are its confirmed standbys.
    pub members: usize,
    /// Leaderships.
    pub terms: u64,
    /// Ticks.
    pub ticks: u64,
    /// The highest epoch that is appointed.
    pub epochs: u64,
    /// Restarts of the guard, per member.
    pub restarts: u8,
    /// The wishes of the detector and executor that are left out, to keep a search about one thing small.
    pub without: &'static [Without],
    /// The primary asks for promises, whether coordinators are silent or not.
    pub promises: bool,
}

/// Parts of the protocol that a search may leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    /// Fencing by acknowledgement: the guard is never reached.
    Acknowledgement,
    /// Promotions that are given up.
    Overdue,
    /// External fencing drivers.
    Drivers,
    /// Fencing by expiry.
    Expiry,
}

/// One search: what is modelled and what is taken out.
#[derive(Debug, Clone, Copy)]
pub struct Protocol {
    /// The rule that is taken out, if any.
    pub broken: Option<Rule>,
    /// The clocks.
    pub clocks: Clocks,
    /// The bounds.
    pub bounds: Bounds,
}

impl Protocol {
    /// Every rule in.
    pub fn whole(bounds: Bounds) -> Self {
        Self { broken: None, clocks: Clocks::EQUAL, bounds }
    }

    /// One rule out.
    pub fn without(rule: Rule, bounds: Bounds) -> Self {
        Self { broken: Some(rule), clocks: Clocks::EQUAL, bounds }
    }

    /// On other clocks.
    pub fn on(self, clocks: Clocks) -> Self {
        Self { clocks, ..self }
    }

    pub fn lacks(&self, rule: Rule) -> bool {
        self.broken == Some(rule)
    }

    /// For how long a promiser holds, ns.
    pub fn hold_ns(&self) -> u64 {
        let lacking = self.lacks(Rule::PromiseMargin);
        let margins =
            LeaseTerms { rho_ppm: self.clocks.rho_ppm, kill_ms: self.clocks.kill_ms, ..self.terms() };
        if lacking { self.clocks.ttl_ms * 1_000_000 } else { margins.bound_ns() }
    }

    /// What the replicated policy says; without [`Rule::Kill`] and [`Rule::Stretch`] it is not the truth.
    pub fn terms(&self) -> LeaseTerms {
        LeaseTerms {
            ttl_ms: self.clocks.ttl_ms,
            rho_ppm: if self.lacks(Rule::Stretch) { 0 } else { self.clocks.rho_ppm },
            kill_ms: if self.lacks(Rule::Kill) { 0 } else { self.clocks.kill_ms },
        }
    }
}
