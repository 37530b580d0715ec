//! The coordinator: everything around the pure core. Raft orders proposals, the core decides, this crate carries: it
//! listens to agents and operators, confirms its leadership before it grants, performs effects and serves the zone.
//!
//! ```text
//! agents -> service::agent -> detector, confirm queue ----> acknowledgements
//!                                 |
//!                             proposals -> Raft -> shared (apply) -> executor -> directives, DNS -> outcomes, proposed
//! ```
//!
//! It decides nothing about clusters. Its own invariants are beside the modules that keep them: grants only after a
//! quorum round ([`confirm`]), one lock over state and leases ([`shared`]), memory that ends with each leadership
//! ([`leadership`]), one task per effect in the state ([`executor`]).

pub mod callout;
pub mod clock;
pub mod config;
pub mod confirm;
pub mod coordinators;
pub mod dns;
pub mod executor;
pub mod fencing;
pub mod gaps;
pub mod heard;
pub mod hooks;
mod http;
pub mod leadership;
mod levels;
pub mod metrics;
pub mod node;
pub mod peers;
mod process;
pub mod proposer;
pub mod service;
pub mod sessions;
pub mod shared;
mod tls;
