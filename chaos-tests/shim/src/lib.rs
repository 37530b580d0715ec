//! A disk that fails on command: an `LD_PRELOAD` library for any dynamically linked program.
//!
//! Writes, fsyncs and writing opens below `REGENT_SHIM_PATH` obey the control file named by
//! `REGENT_SHIM_CONTROL`. Everything else passes through, and so does everything when either variable is
//! unset. It never touches reads, so a stalled disk still serves what PostgreSQL has cached, as a real
//! one does.
//!
//! The control file holds `MODE [OP...]`: a mode is `ok`, `stall`, `eio`, `erofs` or `enospc`; the
//! operations are `fsync`, `write`, `open`, and naming none means all. A missing or unreadable file means
//! `ok`; an unknown word means `eio`, so that a typing error is a loud failure and not a silent pass.
//!
//! Invariants: no allocation and no lock after the constructor ran (callers may be in a signal handler or
//! between fork and exec); a stalled call keeps every signal blocked, as an uninterruptible disk wait
//! does, so only SIGKILL ends it. Both paths must be canonical: descriptors are resolved by the kernel.

mod control;
mod interpose;
mod raw;
