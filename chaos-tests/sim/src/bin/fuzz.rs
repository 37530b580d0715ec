//! Runs many seeds, prints what breaks and how to run it again, and cuts the schedule of the first failure down.

use std::{
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Instant,
};

use clap::Parser;
use regent_sim::{Coverage, Plan, Report, run, shrink};

/// Deterministic simulation of a Regent deployment: one seed is one run, to the byte.
#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  fuzz --seeds 10000\n  fuzz --from 20000 --seeds 500\n  fuzz --seed 4711 --told\n\n\
    Exit codes: 0 every promise kept, 1 a promise was broken."
)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only this one.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Print everything that happens; with one seed only.
    #[arg(long, requires = "seed")]
    told: bool,
    /// Go on after a failure, and do not cut schedules down.
    #[arg(long)]
    keep_going: bool,
    /// Runs at a time; as many as there are cores when not given.
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A panic of the core is a finding; it is told with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(seed) = arguments.seed {
        let report = run(&Plan { seed, told: arguments.told, ..Plan::default() });
        report.lines.iter().for_each(|line| println!("{line}"));
        println!("seed {seed}: trace {:016x}, {:?}", report.hash, report.figures);
        return match report.failure {
            None => ExitCode::SUCCESS,
            Some(_) => {
                tell(seed, report, arguments.keep_going);
                ExitCode::FAILURE
            }
        };
    }
    let threads = arguments.threads.or_else(|| thread::available_parallelism().ok().map(Into::into));
    let (began, next) = (Instant::now(), AtomicU64::new(arguments.from));
    let until = arguments.from + arguments.seeds;
    let failed: Mutex<Vec<(u64, Report)>> = Mutex::default();
    let total: Mutex<(Coverage, [u64; 4])> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..threads.unwrap_or(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, SeqCst);
                    let enough = !arguments.keep_going && !failed.lock().expect("no panic").is_empty();
                    if seed >= until || enough {
                        return;
                    }
                    let report = run(&Plan { seed, ..Plan::default() });
                    let mut total = total.lock().expect("no panic");
                    total.0.merge(&report.coverage);
                    total.1.iter_mut().zip(report.figures).for_each(|(sum, one)| *sum += one);
                    drop(total);
                    if let Some(failure) = &report.failure {
                        eprintln!("seed {seed}: BROKEN PROMISE: {}: {}", failure.invariant, failure.what);
                        failed.lock().expect("no panic").push((seed, report));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().expect("no panic");
    failed.sort_by_key(|(seed, _)| *seed);
    let (coverage, [entries, epochs, writes, virtual_ms]) = total.into_inner().expect("no panic");
    println!(
        "{} seeds in {:.1} s: {:.1} virtual hours, {entries} entries, {epochs} epochs, {writes} acknowledged writes, {} failures",
        next.into_inner().min(until) - arguments.from,
        began.elapsed().as_secs_f64(),
        virtual_ms as f64 / 3_600_000.0,
        failed.len()
    );
    println!("effects: {:?}", coverage.effects);
    for (name, fate) in &coverage.directives {
        println!("directive {name:<10} {fate:?}");
    }
    let Some((seed, report)) = failed.into_iter().next() else { return ExitCode::SUCCESS };
    tell(seed, report, arguments.keep_going);
    ExitCode::FAILURE
}

fn tell(seed: u64, report: Report, as_it_is: bool) {
    let plan = Plan { seed, ..Plan::default() };
    let faults = report.faults.len();
    let report = if as_it_is { report } else { shrink(&plan, report) };
    if let Some(failure) = &report.failure {
        println!(
            "\nseed {seed} at {} ms: BROKEN PROMISE: {}: {}",
            failure.at_ms, failure.invariant, failure.what
        );
    }
    println!("a schedule that shows it ({} of {faults} faults):", report.faults.len());
    report.faults.iter().for_each(|fault| println!("  {fault}"));
    println!("reproduce: cargo run --release -p regent-sim --bin fuzz -- --seed {seed} --told");
}
