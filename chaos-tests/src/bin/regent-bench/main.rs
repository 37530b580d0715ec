//! `regent-bench`: measures what issue and documentation promise, on the binaries that lie beside it.
//!
//! Decides nothing about Regent and asserts no goal: it prints medians with their spread, the machine's load, and the
//! goal for comparison, and writes the same as JSON into `target/bench/`. What was seen is in `docs/benchmarks.md`.

mod heartbeats;
mod output;
mod proc;
mod stats;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};

const EXAMPLES: &str = "Examples:
  regent-bench heartbeats --members 100,1000 --seconds 20
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
            Command::All(args) => {
                let defaults =
                    HeartbeatsArgs { members: vec![100, 1000], seconds: 20, runs: args.runs, processes: 4 };
                heartbeats::run(defaults.options()?).await
            }
        }
    })
}
