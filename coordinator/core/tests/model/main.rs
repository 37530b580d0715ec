//! Exhaustive search for two writers over the compiled core (DESIGN section 5, docs/model.md).
//!
//! The core is the production one: `State::apply` (and with it the fences, proofs and appointments), `LeaseTable`,
//! `FenceProof`, `LeaseTerms`. Modelled are the shells around it: coordinators with a Raft log, members with their guards,
//! time, and messages that are delayed or lost. With every rule in, no reachable state has two writable members; with any
//! one rule taken out the search finds a schedule that has. A search is exhaustive within its bounds, and the bounds are
//! small: a lease of one or two ticks, a kill of one, four or five ticks, two or three leaderships, two or three epochs.
//! The acknowledged fence, given-up promotions and guard restarts are searched under one leadership; the interplay of
//! leaderships is searched with fencing by expiry, which is the rung that depends on it.

mod guard;
mod propose;
mod rules;
mod search;
mod seed;
mod step;
mod story;
mod world;

use rules::{Bounds, Clocks, Protocol, Rule, Without};
use search::{find_two_writers, prove};

/// Two leaderships, fencing by expiry.
const LEADERS: Bounds = Bounds {
    nodes: 2,
    members: 2,
    terms: 2,
    ticks: 4,
    epochs: 2,
    restarts: 0,
    without: &[Without::Acknowledgement, Without::Overdue, Without::Drivers],
    promises: false,
};
/// One leadership, one failover by expiry.
const ONE_LEADER: Bounds = Bounds { nodes: 1, terms: 1, ..LEADERS };
/// One leadership, every way to fence, promotions that fail and a second failover.
const RUNGS: Bounds = Bounds { epochs: 3, without: &[Without::Drivers], ..ONE_LEADER };
/// One leadership, fencing by drivers only: each failover needs a driver's word of its own.
const DRIVEN: Bounds =
    Bounds { members: 3, ticks: 1, without: &[Without::Acknowledgement, Without::Expiry], ..RUNGS };

/// One leadership, fencing by expiry, and a primary that asks for promises: on clocks on which a lease can be extended.
const PROMISES: Bounds = Bounds { ticks: 6, promises: true, ..ONE_LEADER };

#[test]
fn two_leaderships_never_make_two_writers() {
    prove(Protocol::whole(LEADERS), 50_000);
}

#[test]
fn drifting_clocks_never_make_two_writers() {
    prove(Protocol::whole(Bounds { epochs: 2, ..RUNGS }).on(Clocks::DRIFTING), 10_000);
}

#[test]
fn a_lease_that_is_extended_never_makes_two_writers() {
    prove(Protocol::whole(Bounds { ticks: 5, ..LEADERS }).on(Clocks::LONGER), 200_000);
}

#[test]
fn failed_promotions_never_make_two_writers() {
    prove(Protocol::whole(RUNGS), 50_000);
}

#[test]
fn a_third_member_never_makes_two_writers() {
    prove(Protocol::whole(Bounds { members: 3, ..RUNGS }), 50_000);
}

#[test]
fn restarted_guards_never_make_two_writers() {
    prove(Protocol::whole(Bounds { epochs: 2, restarts: 1, ..RUNGS }), 20_000);
}

#[test]
fn external_drivers_never_make_two_writers() {
    prove(Protocol::whole(DRIVEN), 1_000);
}

/// A guard that restarts is another instance, and not the one that the driver was told to fence.
#[test]
fn drivers_beside_restarted_guards_never_make_two_writers() {
    let without = &[Without::Expiry, Without::Overdue];
    prove(Protocol::whole(Bounds { members: 2, epochs: 2, restarts: 1, without, ..DRIVEN }), 1_000);
}

/// A driver needs no bound and no leadership of its own: its word is as good under the next leader.
#[test]
fn a_drivers_word_under_another_leader_never_makes_two_writers() {
    let without = &[Without::Acknowledgement, Without::Overdue];
    prove(Protocol::whole(Bounds { without, ticks: 3, ..LEADERS }), 20_000);
}

#[test]
fn with_a_drivers_word_for_another_fence() {
    find_two_writers(Protocol::without(Rule::DriverBegunForThisFence, DRIVEN));
}

#[test]
fn without_quorum_confirmation() {
    find_two_writers(Protocol::without(Rule::QuorumConfirmation, LEADERS));
}

#[test]
fn with_a_round_older_than_the_heartbeat() {
    find_two_writers(Protocol::without(Rule::RoundAfterHeartbeat, LEADERS));
}

#[test]
fn without_the_applied_index() {
    find_two_writers(Protocol::without(Rule::AppliedIndex, LEADERS));
}

#[test]
fn with_a_deadline_from_receipt() {
    find_two_writers(Protocol::without(Rule::DeadlineFromSending, ONE_LEADER));
}

#[test]
fn without_the_time_that_killing_takes() {
    find_two_writers(Protocol::without(Rule::Kill, ONE_LEADER));
}

#[test]
fn without_the_drift_of_clocks() {
    find_two_writers(Protocol::without(Rule::Stretch, ONE_LEADER).on(Clocks::DRIFTING));
}

#[test]
fn without_the_lease_assumed_at_an_election() {
    find_two_writers(Protocol::without(Rule::BoundFromElection, LEADERS));
}

#[test]
fn with_a_proof_begun_before_fence_decided() {
    find_two_writers(Protocol::without(Rule::FenceBeforeProof, ONE_LEADER));
}

#[test]
fn with_a_bound_of_another_leadership() {
    find_two_writers(Protocol::without(Rule::ProofOfThisLeadership, LEADERS));
}

#[test]
fn without_a_lease_before_promotion() {
    find_two_writers(Protocol::without(Rule::LeaseGatedPromotion, RUNGS));
}

/// The primary runs on by promises for as long as it likes; the quorum that has decided to fence it waits for the last one.
#[test]
fn promises_never_make_two_writers() {
    prove(Protocol::whole(PROMISES).on(Clocks::LONGER), 200_000);
}

#[test]
fn with_a_promise_that_is_not_on_disk() {
    let bounds = Bounds { ticks: 5, restarts: 1, ..PROMISES };
    find_two_writers(Protocol::without(Rule::PromiseOnDisk, bounds).on(Clocks::LONGER));
}

#[test]
fn with_a_promise_without_its_margin() {
    find_two_writers(Protocol::without(Rule::PromiseMargin, PROMISES).on(Clocks::LONGER));
}

#[test]
fn with_one_promotable_member_that_is_not_asked() {
    let bounds = Bounds { members: 3, ticks: 5, ..PROMISES };
    find_two_writers(Protocol::without(Rule::PromiseOfEverybody, bounds).on(Clocks::LONGER));
}
