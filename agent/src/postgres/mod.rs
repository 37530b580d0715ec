//! PostgreSQL through its socket and its files. Starting, stopping and killing it is the guard's alone.

pub mod block;
pub mod conf;
pub mod connect;
pub mod hba;
pub mod primary;
pub mod probe;
pub mod synchronous;
