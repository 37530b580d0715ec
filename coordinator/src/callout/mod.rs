//! Commands of the operator's own: a veto before an automatic failover, and events as they happen. The contract (arguments,
//! JSON on standard input, exit codes, time-outs) is in docs/hooks.md.
//!
//! Decides only what an exit code means. Never in the way of an operator's failover, and never of a lease: nothing here
//! holds the lock over the state while a command runs.

pub mod events;
mod run;
pub mod veto;

use std::time::Duration;

/// What a command that cannot answer counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// No objection: the mistake is a failover that the command would have prevented.
    Allow,
    /// An objection: the mistake is a failover that never comes while the command is broken.
    Deny,
}

/// As configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooks {
    /// Asked before an automatic failover; command and arguments.
    pub veto: Vec<String>,
    /// It is killed after this.
    pub veto_timeout: Duration,
    /// It is asked again after this when it said no.
    pub veto_retry: Duration,
    /// What counts when it cannot be run, is killed, or ends in another way than the contract's.
    pub veto_on_failure: OnFailure,
    /// Told each event; command and arguments.
    pub event: Vec<String>,
    /// It is killed after this.
    pub event_timeout: Duration,
    /// How often an event is tried before it is given up.
    pub event_attempts: u32,
}
