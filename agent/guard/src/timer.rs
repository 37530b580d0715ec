//! The kernel enforces the deadline: a CLOCK_BOOTTIME timer that delivers SIGKILL to the guard itself.
//!
//! The interleaving it prevents: the guard is stopped (SIGSTOP, a debugger, swapped out) just before the deadline, the
//! lease runs out, another member is promoted, the guard resumes a minute later. The timer kills a stopped process too,
//! and with the guard dies its helper and with that the whole namespace.
//!
//! Invariant: armed before a grant is answered, and disarmed only when nothing that may be writable is alive.

use crate::sys;
use std::io;
use std::mem;

/// The timer; there is one a process.
#[derive(Debug)]
pub struct KernelTimer {
    id: libc::timer_t,
    armed_ns: Option<u64>,
}

impl KernelTimer {
    /// Makes the timer and proves on a child that the kernel acts on it. Fails where the timer would be useless:
    /// PID 1 of a namespace ignores a SIGKILL that comes from inside it.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no arguments.
        if unsafe { libc::getpid() } == 1 {
            return Err(io::Error::other(
                "the guard is PID 1 of its namespace, which no signal of its own can kill: run it under an init",
            ));
        }
        prove()?;
        Self::create()
    }

    fn create() -> io::Result<Self> {
        // SAFETY: sigevent is plain data, for which zero is valid.
        let mut event: libc::sigevent = unsafe { mem::zeroed() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = libc::SIGKILL;
        let mut id: libc::timer_t = std::ptr::null_mut();
        // SAFETY: both pointers are valid for the call.
        sys::check(unsafe { libc::timer_create(libc::CLOCK_BOOTTIME, &raw mut event, &raw mut id) })?;
        Ok(Self { id, armed_ns: None })
    }

    /// SIGKILL at `deadline_ns` (CLOCK_BOOTTIME); a time in the past kills at once.
    pub fn arm(&mut self, deadline_ns: u64) -> io::Result<()> {
        assert!(deadline_ns > 0, "zero would disarm");
        self.set(deadline_ns)?;
        self.armed_ns = Some(deadline_ns);
        Ok(())
    }

    /// No SIGKILL.
    pub fn disarm(&mut self) -> io::Result<()> {
        if self.armed_ns.is_some() {
            self.set(0)?;
            self.armed_ns = None;
        }
        Ok(())
    }

    /// The deadline in force.
    pub fn armed_ns(&self) -> Option<u64> {
        self.armed_ns
    }

    fn set(&self, at_ns: u64) -> io::Result<()> {
        let value = libc::itimerspec { it_interval: sys::timespec(0), it_value: sys::timespec(at_ns) };
        // SAFETY: the id is a live timer's, `value` is valid, the old value is not asked for.
        sys::check(unsafe {
            libc::timer_settime(self.id, libc::TIMER_ABSTIME, &raw const value, std::ptr::null_mut())
        })
        .map(|_| ())
    }
}

/// A child arms the timer for now and must die of it.
fn prove() -> io::Result<()> {
    // SAFETY: the guard is single-threaded, so the child may run any code; it leaves through _exit.
    let child = sys::check(unsafe { libc::fork() })?;
    if child == 0 {
        let armed = KernelTimer::create().and_then(|mut timer| timer.arm(1));
        let code = match armed {
            Ok(()) => {
                // SAFETY: plain sleep, ended by SIGKILL.
                unsafe { libc::sleep(2) };
                0
            }
            Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
        };
        // SAFETY: ends the child without running the parent's destructors.
        unsafe { libc::_exit(code) };
    }
    let status = sys::wait_for(child)?;
    if libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL {
        return Ok(());
    }
    match libc::WEXITSTATUS(status) {
        0 => Err(io::Error::other("a CLOCK_BOOTTIME timer was made but its SIGKILL did not come")),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}
