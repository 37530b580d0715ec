//! Real processes, real PostgreSQL, faulty links, client writers and the checker of what they were told.
//!
//! Everything here is a tool without a scenario: it decides nothing about Regent, imports none of its
//! code, and so cannot share its mistakes. A scenario starts with a [`world::World`], which owns the
//! directory, the links and the sweep that leaves nothing running.

pub mod address;
pub mod cache;
pub mod checker;
pub mod clock;
pub mod deployment;
pub mod dirs;
pub mod link;
pub mod pg;
pub mod pg_server;
pub mod process;
pub mod resolver;
pub mod shim;
pub mod sweep;
pub mod user;
pub mod workload;
pub mod world;
