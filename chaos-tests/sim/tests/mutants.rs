//! Each bug made on purpose is still caught within a bounded number of seeds (`regent_types::mutant`).
//!
//! A test of its own, behind the feature `mutants`: `cargo test -p regent-sim --features mutants --test mutants`.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
};

use regent_sim::{Plan, run};
use regent_types::mutant::{ELUSIVE, HUNTED, Mutant, choose};

/// Seeds that are tried for one mutant.
const SEEDS_MAX: u64 = 1_500;

/// The first seed that breaks a promise, and what it says.
fn hunt(mutant: Mutant) -> Option<(u64, String)> {
    let (next, found): (AtomicU64, Mutex<Option<(u64, String)>>) = Default::default();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                choose(Some(mutant));
                loop {
                    let seed = next.fetch_add(1, SeqCst);
                    if seed >= SEEDS_MAX || found.lock().expect("no panic").is_some() {
                        return;
                    }
                    let Some(failure) = run(&Plan { seed, ..Plan::default() }).failure else { continue };
                    let mut found = found.lock().expect("no panic");
                    if found.as_ref().is_none_or(|(earlier, _)| seed < *earlier) {
                        *found = Some((seed, format!("{}: {}", failure.invariant, failure.what)));
                    }
                }
            });
        }
    });
    found.into_inner().expect("no panic")
}

#[test]
fn every_mutant_is_caught() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    // One by its name, to look at it alone.
    let only = std::env::var("REGENT_MUTANT").ok();
    let wanted: Vec<Mutant> = match &only {
        None => HUNTED.to_vec(),
        Some(name) => HUNTED.into_iter().chain(ELUSIVE).filter(|one| format!("{one:?}") == *name).collect(),
    };
    for mutant in wanted {
        match hunt(mutant) {
            Some((seed, what)) => println!("{mutant:?}: seed {seed}: {what}"),
            None => missed.push(mutant),
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "not caught within {SEEDS_MAX} seeds: {missed:?}");
}
