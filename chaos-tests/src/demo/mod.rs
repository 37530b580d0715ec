//! The demonstration: a region is lost and comes back, told live; and the same deployment for trying things by hand.
//!
//! It shows what the processes themselves say (`regentctl watch`, the guard's status, DNS, what writers were told) and
//! judges with the same checker as the tests: it fails when a promise broke.

mod build;
mod events;
mod narrator;
mod run;
mod tables;
mod up;
mod watcher;

pub use run::{Interrupted, run};
pub use up::up;
