//! `regent-coordinator`: the command line.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use regent_coordinator::{clock::Clock, config::Config, node::Running};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

const EXAMPLES: &str = "Examples:
  regent-coordinator run --config /etc/regent/coordinator.toml
  regent-coordinator run --config /etc/regent/coordinator.toml --check
  RUST_LOG=regent_coordinator=debug regent-coordinator run --config coordinator.toml --log-format json

Exit codes: 0 ended by a signal, or the configuration is good; 1 it ended by itself; 2 bad configuration or usage.";

/// Regent's coordinator: one voter of the group that decides about failovers.
#[derive(Parser)]
#[command(name = "regent-coordinator", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run in the foreground until SIGTERM or SIGINT.
    #[command(after_help = EXAMPLES)]
    Run {
        /// The configuration file (a commented example: deploy/config/coordinator.toml).
        #[arg(long, value_name = "FILE", env = "REGENT_COORDINATOR_CONFIG")]
        config: PathBuf,
        /// Only check the configuration.
        #[arg(long)]
        check: bool,
        /// How to log.
        #[arg(long, value_enum, default_value_t = LogFormat::Text)]
        log_format: LogFormat,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> ExitCode {
    regent_pki::install_crypto();
    let Command::Run { config: path, check, log_format } = Cli::parse().command;
    init_log(log_format);
    let config = match Config::load(&path) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("error: {:#}", anyhow::Error::from(error));
            return ExitCode::from(2);
        }
    };
    if check {
        println!("{}: ok (node {}, {} clusters)", path.display(), config.node_id, config.clusters.len());
        return ExitCode::SUCCESS;
    }
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What is logged unless RUST_LOG says otherwise.
const LOG_DEFAULT: &str = "info,openraft=warn,hickory_server=warn";

/// The AWS SDK traces whole requests, session token included: whatever RUST_LOG says about its crates is left out.
fn log_filter(wanted: &str) -> EnvFilter {
    let crates =
        ["aws_config", "aws_credential_types", "aws_runtime", "aws_sdk_route53", "aws_sdk_sts", "aws_sigv4"];
    let smithy =
        ["aws_smithy_http_client", "aws_smithy_runtime", "aws_smithy_runtime_api", "aws_smithy_http"];
    let kept: Vec<&str> =
        wanted.split(',').filter(|directive| !directive.trim().starts_with("aws_")).collect();
    let filter = EnvFilter::try_new(kept.join(",")).unwrap_or_else(|_| EnvFilter::new(LOG_DEFAULT));
    crates.iter().chain(&smithy).fold(filter, |filter, name| {
        filter.add_directive(format!("{name}=warn").parse().expect("a crate's name and a level"))
    })
}

fn init_log(format: LogFormat) {
    let filter = log_filter(&std::env::var("RUST_LOG").unwrap_or_else(|_| LOG_DEFAULT.to_owned()));
    let colour = std::io::stderr().is_terminal();
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen to SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen to SIGINT")?;
        let running = Running::start(config, Clock::system()).await?;
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
                _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
            }
        };
        running.until(stop).await?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rust_log_turns_on_the_traces_of_the_aws_sdk() {
        for wanted in
            ["trace", "aws_smithy_runtime=trace", "info,aws_smithy_runtime::client=trace, aws_sigv4=debug"]
        {
            let filter = log_filter(wanted).to_string();
            let sdk: Vec<&str> =
                filter.split(',').filter(|directive| directive.starts_with("aws_")).collect();
            assert!(
                sdk.len() == 10 && sdk.iter().all(|directive| directive.ends_with("=warn")),
                "{wanted}: {filter}"
            );
        }
        assert!(log_filter("regent_coordinator=debug").to_string().contains("regent_coordinator=debug"));
    }
}
