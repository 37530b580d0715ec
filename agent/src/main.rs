//! `regent-agent`: the command line.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use regent_agent::{
    config::{Config, LogFormat},
    observe,
};

/// The agent beside one PostgreSQL: heartbeats, observation, directives, health endpoints.
#[derive(Parser)]
#[command(name = "regent-agent", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  regent-agent run --config /etc/regent/agent.toml --check   check the configuration and exit
  regent-agent run --config /etc/regent/agent.toml           run until SIGTERM; PostgreSQL runs on
  regent-agent observe --config /etc/regent/observe.toml     only look, beside another tool; docs/automation.md
  regent-agent status --config /etc/regent/agent.toml        ask the running agent, also when no coordinator answers

Exit codes: 0 ok, 1 operating error (status: the agent does not answer), 2 usage or configuration";

#[derive(Subcommand)]
enum Command {
    /// Run the agent.
    Run {
        /// The configuration file.
        #[arg(long, env = "REGENT_AGENT_CONFIG", value_name = "FILE")]
        config: PathBuf,
        /// Check the configuration and exit.
        #[arg(long)]
        check: bool,
    },
    /// Only look at a PostgreSQL that another tool runs, and tell the coordinators; changes nothing.
    Observe {
        /// The configuration file.
        #[arg(long, env = "REGENT_OBSERVE_CONFIG", value_name = "FILE")]
        config: PathBuf,
        /// Check the configuration and exit.
        #[arg(long)]
        check: bool,
    },
    /// Ask the agent that runs here: role, lease, coordinators, promises.
    Status {
        /// The configuration file.
        #[arg(long, env = "REGENT_AGENT_CONFIG", value_name = "FILE")]
        config: PathBuf,
        /// `human` or `json` (as `GET /health`).
        #[arg(long, short, default_value = "human")]
        output: Output,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Output {
    Human,
    Json,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run { config: path, check } => {
            let Some(config) = loaded(Config::load(&path)) else { return ExitCode::from(2) };
            if check {
                println!("{}: ok (cluster {}, member {})", path.display(), config.cluster, config.member);
                return ExitCode::SUCCESS;
            }
            let (format, level) = (config.log_format, config.log_level.clone());
            work(&path, format, &level, regent_agent::run::run(config))
        }
        Command::Observe { config: path, check } => {
            let Some(config) = loaded(observe::config::Config::load(&path)) else { return ExitCode::from(2) };
            if check {
                println!(
                    "{}: ok (observes cluster {}, member {})",
                    path.display(),
                    config.cluster,
                    config.member
                );
                return ExitCode::SUCCESS;
            }
            let (format, level) = (config.log_format, config.log_level.clone());
            work(&path, format, &level, observe::run(config))
        }
        Command::Status { config: path, output } => {
            let Some(config) = loaded(Config::load(&path)) else { return ExitCode::from(2) };
            status(&config, output)
        }
    }
}

fn status(config: &Config, output: Output) -> ExitCode {
    let asked = regent_agent::status::ask(config.http_listen);
    match asked.and_then(|health| match output {
        Output::Json => Ok(health.to_string()),
        Output::Human => regent_agent::status::words(&health),
    }) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("regent-agent: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn loaded<C>(config: Result<C, regent_agent::config::ConfigError>) -> Option<C> {
    config.inspect_err(|error| eprintln!("regent-agent: {error}")).ok()
}

fn work(
    path: &Path,
    format: LogFormat,
    level: &str,
    job: impl Future<Output = anyhow::Result<()>>,
) -> ExitCode {
    let filter = match tracing_subscriber::EnvFilter::try_new(level) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("regent-agent: {}: log_level = {level:?}: {error}", path.display());
            return ExitCode::from(2);
        }
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    regent_pki::install_crypto();
    // One thread is enough, and keeps the memory small; what blocks runs on threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let result = runtime.block_on(job);
        // A thread that is stuck in a dead disk must not keep the process.
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(1)
        }
    }
}
