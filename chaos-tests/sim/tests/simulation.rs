//! A few hundred seeds, the same run twice, and what the agents make of every directive. Ten thousand seeds are for
//! `cargo run --release -p regent-sim --bin fuzz -- --seeds 10000`.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
};

use regent_sim::{Coverage, Plan, run};

const SEEDS: u64 = 200;

/// Every promise is kept, and what the planner makes of each directive is an end or a reason.
#[test]
fn every_promise_is_kept() {
    let next = AtomicU64::new(0);
    let coverage: Mutex<Coverage> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, SeqCst);
                    if seed >= SEEDS {
                        return;
                    }
                    let report = run(&Plan { seed, ..Plan::default() });
                    if let Some(failure) = report.failure {
                        panic!(
                            "BROKEN PROMISE: {}: {}\nreproduce: cargo run -p regent-sim --bin fuzz -- --seed {seed} --told",
                            failure.invariant, failure.what
                        );
                    }
                    coverage.lock().expect("no panic").merge(&report.coverage);
                }
            });
        }
    });
    covered(&coverage.into_inner().expect("no panic"));
}

/// Every effect that the core can emit was emitted, and every directive came to an end with the agent.
fn covered(coverage: &Coverage) {
    for effect in ["agent", "fence", "collect", "redirect", "handover"] {
        assert!(coverage.effects.contains_key(effect), "no run has emitted {effect}: {:?}", coverage.effects);
    }
    // Sent by the core itself, or by the executor for a fence, a handover or a collection.
    for directive in ["fence", "prepare", "promote", "rejoin", "validate", "checkpoint", "drain"] {
        let fate = coverage.directives.get(directive);
        let fate = fate.unwrap_or_else(|| panic!("no run has sent {directive}: {:?}", coverage.directives));
        assert!(fate.done > 0, "no {directive} has ended well: {fate:?}");
    }
    for (name, fate) in &coverage.directives {
        assert_eq!(fate.speechless, 0, "{name} was refused without a reason");
        assert!(
            fate.done + fate.refused + fate.unknown > 0,
            "{name} was emitted and never came to an end: {fate:?}"
        );
    }
}

/// One seed is one run, to the byte; another seed is another one.
#[test]
fn one_seed_is_one_run() {
    for seed in [3, 44, 4_711] {
        let [first, second] = [(); 2].map(|()| run(&Plan { seed, told: true, ..Plan::default() }));
        assert_eq!(first.lines, second.lines, "seed {seed}");
        assert_eq!(first.hash, second.hash, "seed {seed}");
        let quiet = run(&Plan { seed, ..Plan::default() });
        assert_eq!(first.hash, quiet.hash, "seed {seed}: telling changes nothing");
        assert_ne!(first.hash, run(&Plan { seed: seed + 1, ..Plan::default() }).hash);
    }
}
