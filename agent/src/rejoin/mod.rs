//! Turning an old primary into a standby: read its WAL, keep what diverged, rewind or clone.

pub mod archive;
pub mod clone;
pub mod kept;
pub mod relations;
pub mod rewind;
pub mod salvage;
pub mod waldump;
