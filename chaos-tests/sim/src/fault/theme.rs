//! Faults that belong together. Each theme is a schedule in which some margin of the protocol decides, and which chance
//! alone would hardly find; what exactly happens when is drawn, so that it is found from many sides.

use rand::{Rng, rngs::StdRng};

use super::{Fault, FaultKind, LEADER, PRIMARY, STANDBY};
use crate::{event::Address, operator::Wish};

/// One of them, beginning at about `at_ms`; none lasts longer than 36 s.
pub fn draw(rng: &mut StdRng, at_ms: u64) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut add = |after_ms: u64, for_ms: u64, kind: FaultKind| {
        faults.push(Fault { at_ms: at_ms + after_ms, for_ms, kind });
    };
    let mut some = |least: u64, most: u64| rng.random_range(least..most);
    match some(0, 9) {
        // The primary is cut off and its guard stands still: only the kernel's timer ends it. An operator asks at once, so
        // that the fence waits for the bound and nothing else.
        0 | 1 => {
            add(0, 24_000, FaultKind::Isolate(PRIMARY));
            add(some(0, 3_000), 20_000, FaultKind::GuardStops(PRIMARY));
            add(some(300, 5_000), 1, FaultKind::Operator(Wish::Failover));
        }
        // The same on a slow network, so that answers are old when they arrive.
        2 => {
            let slow_ms = some(600, 2_000);
            add(0, 9_000, FaultKind::Bad { loss_permille: 0, slow_ms });
            add(some(6_000, 8_500), 24_000, FaultKind::Isolate(PRIMARY));
            add(8_600, 20_000, FaultKind::GuardStops(PRIMARY));
            add(some(9_000, 11_000), 1, FaultKind::Operator(Wish::Failover));
        }
        // The primary runs on by promises, then the group decides to fence it.
        3 => {
            add(0, 30_000, FaultKind::NoCoordinators(PRIMARY));
            add(some(4_000, 9_000), 1, FaultKind::Operator(Wish::Failover));
            add(some(5_000, 11_000), 15_000, FaultKind::GuardStops(PRIMARY));
        }
        // The quorum is lost, promises are given, and a promiser loses power.
        4 => {
            add(0, some(6_000, 14_000), FaultKind::NodesDie);
            let stalls = some(3_000, 8_000);
            add(stalls, some(500, 3_000), FaultKind::DiskStalls(STANDBY));
            add(stalls + some(100, 2_500), some(300, 1_500), FaultKind::GuardDies(STANDBY));
            add(some(5_000, 14_000), 16_000, FaultKind::NoCoordinators(PRIMARY));
            add(some(10_000, 18_000), 1, FaultKind::Operator(Wish::Failover));
        }
        // DNS is late, and the primary changes twice.
        5 => {
            add(0, 30_000, FaultKind::DnsLate);
            add(some(0, 1_000), 1, FaultKind::Operator(Wish::Switchover));
            add(some(2_500, 9_000), 1, FaultKind::Operator(Wish::Failover));
            add(some(9_000, 15_000), 1, FaultKind::Operator(Wish::Failover));
        }
        // The lead changes while a fence is decided, and the new leader is behind.
        6 => {
            for node in 0..crate::config::NODES {
                add(some(0, 800), some(2_000, 9_000), FaultKind::ApplyStalls(node));
            }
            add(some(500, 1_500), 1, FaultKind::Operator(Wish::Failover));
            add(some(700, 2_500), some(2_000, 12_000), FaultKind::NodeDies(LEADER));
            add(some(0, 4_000), 12_000, FaultKind::AgentStops(STANDBY));
        }
        // The primary is cut off for longer than its lease; when it is back, the leader is another one, which lags behind
        // its log.
        7 => {
            add(0, some(16_000, 20_000), FaultKind::Isolate(PRIMARY));
            add(some(300, 1_500), 1, FaultKind::Operator(Wish::Failover));
            for node in 0..crate::config::NODES {
                add(some(1_500, 4_000), some(20_000, 30_000), FaultKind::ApplyStalls(node));
            }
            add(some(14_000, 19_000), 9_000, FaultKind::NodeDies(LEADER));
        }
        // A planned move whose target loses its stream, or does not replay.
        _ => {
            let kind = if some(0, 2) == 0 {
                FaultKind::Cut(Address::Member(PRIMARY), Address::Member(STANDBY))
            } else {
                FaultKind::ReplayStalls(STANDBY)
            };
            add(0, 1, FaultKind::Operator(Wish::Switchover));
            add(some(50, 900), some(1_000, 9_000), kind);
        }
    }
    faults
}
