//! Deterministic simulation of a whole deployment: the decision core of the coordinators (`regent-core`), the planner of
//! the agents (`regent-agent-core`) and the guard's lease rules (`regent_guard::lease`) as they ship, around them models of
//! Raft, the network, clocks, processes, disks, PostgreSQL and DNS, in virtual time.
//!
//! One seed is one run, to the byte: nothing here reads a clock, iterates over something unordered or asks for
//! randomness other than the seed's. A crate of its own, because it needs neither an async runtime nor TLS: it builds in
//! seconds, and so do its mutants (docs/simulation.md).

pub mod invariant;

mod agent;
mod client;
mod clock;
mod config;
mod coordinator;
mod coverage;
mod dns;
mod event;
mod executor;
mod fault;
mod guard;
mod host;
mod keeper;
mod liveness;
mod net;
mod operator;
mod postgres;
mod promise;
mod raft;
mod rejoin;
mod run;
mod session;
mod shrink;
mod stream;
mod task;
mod trace;
mod work;
mod world;

pub use coverage::Coverage;
pub use fault::{Fault, FaultKind};
pub use run::{Failure, Plan, Report, run};
pub use shrink::shrink;
