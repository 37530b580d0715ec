//! One run: safety phase, liveness phase, what came of it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{
    clock::{MS, S},
    coverage::Coverage,
    event::Event,
    fault::{self, Fault},
    liveness::LIMIT_NS,
    world::World,
};

/// How long faults happen, ms.
const SAFETY_MS: u64 = 80_000;

/// What is run.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Everything is drawn from it.
    pub seed: u64,
    /// The schedule, in place of the seed's own.
    pub faults: Option<Vec<Fault>>,
    /// Keep the lines of the trace.
    pub told: bool,
}

/// A promise was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The invariant, `panic`, or `progress`.
    pub invariant: String,
    /// What was seen.
    pub what: String,
    /// When, ms.
    pub at_ms: u64,
}

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// Of the whole trace.
    pub hash: u64,
    /// Its lines, if they were kept.
    pub lines: Vec<String>,
    /// The schedule that was run.
    pub faults: Vec<Fault>,
    /// What went wrong.
    pub failure: Option<Failure>,
    /// Which effects and directives there were.
    pub coverage: Coverage,
    /// Entries applied, epochs reached, writes acknowledged, virtual ms until everything had settled.
    pub figures: [u64; 4],
}

/// Runs it.
pub fn run(plan: &Plan) -> Report {
    let mut world = World::new(plan.seed, plan.told);
    let faults =
        plan.faults.clone().unwrap_or_else(|| fault::schedule(plan.seed, world.setup.members, SAFETY_MS));
    world.plan_faults(faults.clone());
    let failure = match catch_unwind(AssertUnwindSafe(|| both_phases(&mut world))) {
        Ok(failure) => failure,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let what = text.unwrap_or_else(|| "no message".to_owned());
            Some(Failure { invariant: "panic".into(), what, at_ms: world.now_ns / MS })
        }
    };
    let epochs = world.nodes.iter().filter_map(|node| node.cluster()).map(|cluster| cluster.epoch.0).max();
    let acknowledged = world.writes.iter().filter(|write| write.acknowledged).count() as u64;
    let figures = [world.applied_most, epochs.unwrap_or(0), acknowledged, world.now_ns / MS];
    Report {
        hash: world.trace.hash(),
        coverage: world.coverage,
        lines: world.trace.into_lines(),
        faults,
        failure,
        figures,
    }
}

fn both_phases(world: &mut World) -> Option<Failure> {
    while world.step(SAFETY_MS * MS) {}
    if world.broken.is_none() {
        world.all_is_well();
        world.queue.at(world.now_ns + S, Event::Look);
        let until_ns = world.now_ns + LIMIT_NS;
        while world.settled.is_none() && world.step(until_ns) {}
    }
    let at_ms = world.now_ns / MS;
    if let Some(broken) = &world.broken {
        return Some(Failure { invariant: broken.invariant.to_owned(), what: broken.what.clone(), at_ms });
    }
    if world.settled.is_none() {
        let what = format!("not settled {} s after the last fault: {}", LIMIT_NS / S, world.unsettled);
        world.note(format!("BROKEN PROMISE: progress: {what}"));
        return Some(Failure { invariant: "progress".into(), what, at_ms });
    }
    None
}
