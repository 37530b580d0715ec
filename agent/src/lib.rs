//! The agent of one member: heartbeats, observation, directives, health endpoints.
//!
//! It never starts, signals or stops PostgreSQL itself: the guard does, and the guard enforces the lease without the agent.
//! What to do is decided by `regent-agent-core`; this crate looks, asks, and carries out. It can be killed at any time:
//! PostgreSQL runs on, and everything is learnt again from the guard, the data directory and the state file.

pub mod app;
pub mod bootstrap;
pub mod checked;
pub mod clock;
pub mod config;
pub mod data;
pub mod disk;
pub mod dns;
pub mod durable;
pub mod executor;
pub mod guard;
pub mod http;
pub mod jobs;
pub mod keeper;
pub mod limits;
pub mod metrics;
pub mod observe;
pub mod observer;
pub mod parameters;
pub mod postgres;
pub mod promise;
pub mod rejoin;
pub mod report;
pub mod run;
pub mod runs;
pub mod session;
pub mod state;
pub mod status;
pub mod synchronous;
pub mod transport;
pub mod validate;
