//! `regent-bench`: measures what issue and documentation promise, on the binaries that lie beside it.
//!
//! Decides nothing about Regent and asserts no goal: it prints medians with their spread, the machine's load, and the
//! goal for comparison, and writes the same as JSON into `target/bench/`. What was seen is in `docs/benchmarks.md`.

mod gap;
mod heartbeats;
mod memory;
mod output;
mod proc;
mod promotion;
mod stats;
mod switchover;
mod writing;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};

const EXAMPLES: &str = "Examples:
  regent-bench heartbeats --members 100,1000 --seconds 20
  regent-bench memory --idle 60
  regent-bench promotion --postgres 18
  regent-bench gap --timeout 60 --runs 3
  regent-bench switchover --runs 4
  regent-bench all --runs 3

Each prints a table and writes target/bench/<name>.json. Run it from a release build, on an idle machine.";

/// Benchmarks of Regent on real processes.
#[derive(Parser)]
#[command(name = "regent-bench", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Heartbeat capacity over real gRPC with mutual TLS: latency, CPU and memory.
    Heartbeats(HeartbeatsArgs),
    /// Idle memory of coordinator, agent and guard.
    Memory {
        /// Fresh deployments.
        #[arg(long, default_value_t = 10)]
        runs: usize,
        /// Seconds between the end of the bootstrap and the reading.
        #[arg(long, default_value_t = 60)]
        idle: u64,
    },
    /// From the fence proof to the first write, beside a bare pg_promote().
    Promotion {
        /// Pairs.
        #[arg(long, default_value_t = 10)]
        runs: usize,
        /// 15 or 18.
        #[arg(long, default_value_t = 15)]
        postgres: u32,
    },
    /// The write gap that clients see when the primary's region is lost, at 110 ms round trip.
    Gap {
        /// Partition timeout, seconds.
        #[arg(long, default_value_t = 60)]
        timeout: u64,
        /// Runs of each kind of loss.
        #[arg(long, default_value_t = 10)]
        runs: usize,
        /// Deployments at a time: faster, and noisier.
        #[arg(long, default_value_t = 1)]
        parallel: usize,
        /// Kinds of loss.
        #[arg(long, value_enum, value_delimiter = ',', default_values_t = [gap::Loss::Cut, gap::Loss::Crash, gap::Loss::Leader])]
        losses: Vec<gap::Loss>,
    },
    /// The write downtime of switchovers there and back, at 110 ms round trip, beside a bare shutdown and promotion.
    Switchover {
        /// Switchovers.
        #[arg(long, default_value_t = 10)]
        runs: usize,
    },
    /// All of them, one after the other.
    All(AllArgs),
    /// A child of `heartbeats`: simulated agents, told by standard input when to measure.
    #[command(hide = true)]
    SimulateAgents {
        /// JSON: which agents, and where the coordinators are.
        #[arg(long, value_name = "FILE")]
        plan: std::path::PathBuf,
    },
}

#[derive(Args)]
struct HeartbeatsArgs {
    /// Numbers of members, two in each cluster.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000])]
    members: Vec<usize>,
    /// Length of one measured run.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Runs at each size, after one warm-up; all at the same group of coordinators.
    #[arg(long, default_value_t = 10)]
    runs: usize,
    /// Processes that the agents are spread over.
    #[arg(long, default_value_t = 4)]
    processes: usize,
}

#[derive(Args)]
struct AllArgs {
    /// Runs of each.
    #[arg(long, default_value_t = 10)]
    runs: usize,
}

impl HeartbeatsArgs {
    fn options(self) -> Result<heartbeats::Options> {
        ensure!(self.runs > 0, "--runs 0: at least one");
        ensure!(self.seconds > 0, "--seconds 0: at least one");
        ensure!((1..=16).contains(&self.processes), "--processes {}: 1 to 16", self.processes);
        for members in &self.members {
            ensure!(
                *members >= 2 && members % 2 == 0 && *members <= 10_000,
                "--members {members}: an even number from 2 to 10000, two members make a cluster"
            );
        }
        Ok(heartbeats::Options {
            members: self.members,
            length: Duration::from_secs(self.seconds),
            runs: self.runs,
            processes: self.processes,
        })
    }
}

fn main() -> ExitCode {
    regent_pki::install_crypto();
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Heartbeats(args) => heartbeats::run(args.options()?).await,
            Command::SimulateAgents { plan } => heartbeats::child::run(&plan).await,
            Command::Memory { runs, idle } => {
                ensure!(runs > 0, "--runs 0: at least one");
                memory::run(runs, Duration::from_secs(idle)).await
            }
            Command::Promotion { runs, postgres } => {
                ensure!(runs > 0, "--runs 0: at least one");
                promotion::run(runs, postgres).await
            }
            Command::Gap { timeout, runs, parallel, losses } => {
                gap::run(gap_options(timeout, runs, parallel, losses)?).await
            }
            Command::Switchover { runs } => {
                ensure!(runs > 0, "--runs 0: at least one");
                switchover::run(runs).await
            }
            Command::All(args) => all(args.runs).await,
        }
    })
}

fn gap_options(timeout: u64, runs: usize, parallel: usize, losses: Vec<gap::Loss>) -> Result<gap::Options> {
    ensure!(runs > 0, "--runs 0: at least one");
    ensure!(parallel > 0, "--parallel 0: at least one");
    ensure!(timeout >= 15, "--timeout {timeout}: at least 15 s at this round trip");
    Ok(gap::Options { timeout: Duration::from_secs(timeout), runs, parallel, losses })
}

async fn all(runs: usize) -> Result<()> {
    ensure!(runs > 0, "--runs 0: at least one");
    let defaults = HeartbeatsArgs { members: vec![100, 1000], seconds: 20, runs, processes: 4 };
    heartbeats::run(defaults.options()?).await?;
    promotion::run(runs, 15).await?;
    promotion::run(runs, 18).await?;
    gap::run(gap_options(60, runs, 1, vec![gap::Loss::Cut, gap::Loss::Crash, gap::Loss::Leader])?).await?;
    switchover::run(runs).await?;
    memory::run(runs, Duration::from_secs(60)).await
}
