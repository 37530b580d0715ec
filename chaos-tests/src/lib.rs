//! Tools and scenarios that put Regent under faults: [`real`] runs real binaries and real PostgreSQL, [`demo`] tells
//! the story of a lost region on them.

pub mod demo;
pub mod real;
