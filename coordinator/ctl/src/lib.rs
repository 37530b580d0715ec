//! `regentctl`, the operator's command line.
//!
//! It decides nothing about clusters: it asks a coordinator, any of them, and prints the answer for people or, with
//! `--output json`, for scripts. What it owns is how an answer reads, which question is asked before something is
//! changed, and the exit code:
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | done |
//! | 1 | refused by the cluster, or an operation that was waited for was aborted or rolled back |
//! | 2 | usage or configuration, nothing was asked of the cluster; or an argument that the cluster finds malformed |
//! | 3 | no coordinator could be reached, or none of them has a leader |
//! | 4 | still waiting when the time was up |

mod cli;
mod client;
mod command;
mod config;
mod failure;
mod live;
mod output;

use std::process::ExitCode;

use clap::Parser;

pub use cli::Cli;
pub use config::{FileConfig, Settings, read_file};
pub use failure::Failure;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let format = cli.global.output;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("regentctl: cannot start: {error}");
            return ExitCode::from(2);
        }
    };
    match runtime.block_on(command::run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print(format);
            ExitCode::from(failure.exit_code())
        }
    }
}
