//! The guard: the process that alone starts, stops and kills PostgreSQL, and enforces the lease by itself.
//!
//! It decides whether PostgreSQL may run, and whether it may be writable; it never decides *who* should be primary
//! (the coordinator does) and never talks to a network. One thread, one `poll` loop, no asynchronous runtime.
//!
//! Invariants, each with the module that keeps it:
//! - PostgreSQL is writable only while a live lease for its epoch is held ([`lease`], [`postgres`], the gate in [`gate`]).
//! - When the lease's deadline passes, every process of PostgreSQL is dead, whatever state the guard is in ([`timer`], [`helper`]).
//! - What was promised (highest epoch, fenced mark) is on disk before it is answered ([`state_file`], [`persist`]).
//! - Nothing of an earlier guard is alive when a new one starts to answer ([`procscan`], [`startup`]).
//!
//! [`wire`] and [`client`] are what other programs use.

pub mod client;
pub mod clock;
pub mod config;
pub mod control_file;
pub mod gate;
pub mod guard;
pub mod helper;
pub mod job;
pub mod lease;
pub mod log;
pub mod persist;
pub mod postgres;
pub mod procscan;
pub mod run;
pub mod server;
pub mod startup;
pub mod state_file;
pub mod sys;
pub mod timer;
pub mod watchdog;
pub mod wire;
