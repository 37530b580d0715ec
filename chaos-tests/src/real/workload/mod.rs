//! Client writers, as applications are: each numbers its rows, never reuses a number, and notes what it was
//! told about each one.
//!
//! Invariants: an [`Attempt`] is *acknowledged* only when PostgreSQL confirmed the commit without a warning
//! about synchronous replication, *failed* only when the row certainly was not committed, and *unknown*
//! otherwise. Instants are `CLOCK_MONOTONIC`.

mod journal;
mod looping;
mod session;
mod writer;

pub use journal::{Attempt, Journal, Outcome, SessionKind};
pub use looping::LoopProcedure;
pub use session::{FoundRow, Login, Session, connect, install_schema, read_rows};
pub use writer::{Endpoint, RunningWriter, WriterSpec};
