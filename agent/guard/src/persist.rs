//! Makes the state durable without ever blocking the loop: a short-lived child writes and fsyncs the file.
//!
//! `wanted` is what refusals are judged by, the moment it is asked for; `durable` is what may be obeyed and answered. The
//! interleaving it prevents: an answer leaves, the host loses power, and the state comes back without what was answered. A
//! disk that hangs blocks the child, not the guard: deadlines, shutdown and status go on.
//!
//! The child keeps the lock descriptor: a stuck write of a dead guard's cannot come back over a newer guard's file.

use crate::state_file::{self, State};
use crate::sys;
use crate::{helper, log, wire::Fields};
use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// The state on disk and on its way there.
#[derive(Debug)]
pub struct Persist {
    dir: PathBuf,
    lock: RawFd,
    durable: State,
    wanted: State,
    writer: Option<(libc::pid_t, State)>,
    failed: Option<String>,
}

impl Persist {
    /// `state` is on disk already.
    pub fn new(dir: PathBuf, lock: RawFd, state: State) -> Self {
        Self { dir, lock, durable: state.clone(), wanted: state, writer: None, failed: None }
    }

    /// What may be obeyed.
    pub fn durable(&self) -> &State {
        &self.durable
    }

    /// What refusals are judged by.
    pub fn wanted(&self) -> &State {
        &self.wanted
    }

    /// Why the last write failed, until the next one is asked for.
    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Asks for a change. Numbers only rise.
    pub fn raise(&mut self, change: impl FnOnce(&mut State)) {
        let before = self.wanted.clone();
        change(&mut self.wanted);
        assert!(
            self.wanted.highest_epoch >= before.highest_epoch
                && self.wanted.fenced_through >= before.fenced_through
                && self.wanted.promises_closed >= before.promises_closed,
            "the state only rises: {before:?} to {:?}",
            self.wanted
        );
        self.failed = None;
        self.kick();
    }

    /// Tries again what failed: for a request that asks anew for what could not be written before.
    pub fn retry(&mut self) {
        self.failed = None;
        self.kick();
    }

    fn kick(&mut self) {
        if self.writer.is_some() || self.failed.is_some() || self.wanted == self.durable {
            return;
        }
        // SAFETY: the guard is single-threaded; the child writes the file and leaves through _exit.
        match sys::check(unsafe { libc::fork() }) {
            Ok(0) => {
                helper::close_all_but(&mut vec![2, self.lock]);
                let code = match state_file::store(&self.dir, &self.wanted) {
                    Ok(()) => 0,
                    Err(error) => error.raw_os_error().filter(|code| (1..255).contains(code)).unwrap_or(255),
                };
                // SAFETY: ends the child without the guard's destructors.
                unsafe { libc::_exit(code) }
            }
            Ok(pid) => self.writer = Some((pid, self.wanted.clone())),
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &io::Error) {
        let text = format!("the state file could not be written: {error}");
        log::error(&text, Fields::new().with("dir", self.dir.display()));
        self.failed = Some(text);
    }

    /// A child ended; true when it was the writer.
    pub fn on_exit(&mut self, pid: libc::pid_t, status: libc::c_int) -> bool {
        let Some((_, written)) = self.writer.take_if(|(writer, _)| *writer == pid) else { return false };
        if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 {
            self.durable = written;
        } else if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) != 255 {
            self.fail(&io::Error::from_raw_os_error(libc::WEXITSTATUS(status)));
        } else {
            self.fail(&io::Error::other(sys::describe_exit(status)));
        }
        self.kick();
        true
    }
}
