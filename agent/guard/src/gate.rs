//! The gate's client: run by PostgreSQL as `recovery_end_command`, at the end of recovery, before it allows writes.
//!
//! It asks the guard. `ok` lets PostgreSQL go on; anything else (a refusal, no guard, no answer in time, a panic) must make
//! PostgreSQL end, so this process kills itself and the shell around it does the same: PostgreSQL takes a death by signal as
//! fatal and anything up to exit code 125 only as a warning. The interleaving it prevents: `pg_ctl promote` by hand on a
//! standby while the primary lives.

use crate::client::Client;
use crate::wire::{Answer, Request};
use std::path::Path;
use std::time::Duration;

/// Longer than the guard ever takes: it never blocks.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Returns only when PostgreSQL may become writable.
pub fn pass(socket: &Path) {
    let reason = match Client::new(socket).call(&Request::Gate, TIMEOUT) {
        Ok(Answer::Ok(_)) => return,
        Ok(other) => other.encode().trim_end().to_owned(),
        Err(error) => error.to_string(),
    };
    eprintln!("regent-guard gate: PostgreSQL must not leave recovery: {reason}");
    // SAFETY: signals this process; abort covers the impossible return.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    std::process::abort();
}
