//! Runs a search and judges what it found.

use stateright::{Checker, HasDiscoveries, Model};

use crate::{
    rules::Protocol,
    step::{FAILS_OVER, NEW_LEADER_GRANTS, ONE_WRITER},
    story,
};

/// Searches everything within the bounds: no two writers, and the model is not vacuous.
pub fn prove(protocol: Protocol, states_min: usize) {
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    let states = checker.unique_state_count();
    println!("{states} states, {} steps deep, all searched", checker.max_depth());
    if let Some(path) = checker.discovery(ONE_WRITER) {
        panic!("TWO WRITERS with every rule in:\n{}", story::tell(&protocol, &path.into_actions()));
    }
    assert!(checker.discovery(FAILS_OVER).is_some(), "no failover completes: the model is vacuous");
    if protocol.bounds.terms > 1 {
        assert!(checker.discovery(NEW_LEADER_GRANTS).is_some(), "no new leader grants: the model is vacuous");
    }
    assert!(states >= states_min, "{states} states are searched, at least {states_min} were expected");
}

/// Breadth first on one thread, so that the schedule is a shortest one and always the same.
pub fn find_two_writers(protocol: Protocol) {
    let checker = protocol.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let states = checker.unique_state_count();
    let broken = protocol.broken.expect("a rule is taken out");
    let Some(path) = checker.discovery(ONE_WRITER) else {
        panic!("{broken:?} is taken out, and {states} states have no two writers: the model does not see it");
    };
    println!("without {broken:?}, after {states} states:\n{}", story::tell(&protocol, &path.into_actions()));
}
