//! `regent-demo`: the command line of the demonstration.

use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use regent_chaos::demo;
use regent_chaos::real::deployment::DeploymentOptions;

const EXAMPLES: &str = "Examples:
  regent-demo run                              lose a region and get it back (about a minute)
  regent-demo run --partition-timeout 5m       with the product's own time-outs
  regent-demo run --partition-timeout 15s --delay 55ms   over links of 110 ms round trip
  regent-demo run --postgres 15                on PostgreSQL 15
  regent-demo up                               the same deployment, to try things by hand; ^C ends it

Exit codes: 0 every promise was kept; 1 a promise broke, or it could not run; 2 wrong usage; 130 interrupted.";

/// Regent on one machine: three regions, real PostgreSQL, faulty links.
#[derive(Parser)]
#[command(name = "regent-demo", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lose a region and get it back, told live.
    #[command(after_help = EXAMPLES)]
    Run(Choices),
    /// Start the same deployment in the foreground.
    #[command(after_help = EXAMPLES)]
    Up(Choices),
}

#[derive(Args)]
struct Choices {
    /// Silence after which a region counts as lost; every other time-out is scaled from it.
    #[arg(long, default_value = "12s", value_name = "TIME", value_parser = timeout)]
    partition_timeout: Duration,
    /// Major version of PostgreSQL.
    #[arg(long, default_value_t = 18, value_parser = clap::value_parser!(u32).range(15..=18), value_name = "MAJOR")]
    postgres: u32,
    /// One-way delay of the links between regions.
    #[arg(long, default_value = "0ms", value_name = "TIME", value_parser = delay)]
    delay: Duration,
}

impl Choices {
    fn options(self, name: &str) -> DeploymentOptions {
        let short = self.partition_timeout < Duration::from_secs(14);
        if short && self.delay > Duration::from_millis(30) {
            let text = format!(
                "--delay {:?}: with a partition timeout of {:?} the coordinators' time-outs bear 80 ms of round trip; use \
                 --partition-timeout 14s or more",
                self.delay, self.partition_timeout
            );
            Cli::command().error(ErrorKind::ArgumentConflict, text).exit();
        }
        DeploymentOptions::new(name)
            .partition_timeout(self.partition_timeout)
            .postgres(self.postgres)
            .link_delay(self.delay)
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if !(Duration::from_secs(8)..=Duration::from_secs(3600)).contains(&parsed) {
        return Err("use 8s to 1h".to_owned());
    }
    Ok(parsed)
}

fn delay(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if parsed > Duration::from_millis(70) {
        return Err("use at most 70ms: the time-outs bear 150 ms of round trip".to_owned());
    }
    Ok(parsed)
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("regent-demo: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        match command {
            Command::Run(choices) => demo::run(choices.options("demo")).await,
            Command::Up(choices) => demo::up(choices.options("up")).await,
        }
    });
    // A read of the terminal is still pending.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("regent-demo: {error:#}");
            if error.is::<demo::Interrupted>() { ExitCode::from(130) } else { ExitCode::FAILURE }
        }
    }
}
