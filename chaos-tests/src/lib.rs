//! Tools and scenarios that put Regent under faults: [`real`] runs real binaries and real PostgreSQL.

pub mod real;
