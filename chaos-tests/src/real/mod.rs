//! Real processes, real PostgreSQL, faulty links, client writers and the checker of what they were told.
//!
//! Everything here is a tool without a scenario: it decides nothing about Regent, imports none of its
//! code, and so cannot share its mistakes. A scenario starts with a [`world::World`], which owns the
//! directory, the links and the sweep that leaves nothing running.

pub mod address;
pub mod cache;
pub mod clock;
pub mod dirs;
pub mod link;
pub mod pg;
pub mod process;
pub mod shim;
pub mod sweep;
pub mod user;
pub mod world;
