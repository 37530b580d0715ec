//! A hardware (or `softdog`) watchdog behind the kernel timer: it resets the machine when the guard stops saying that all
//! is well.
//!
//! It closes the case in which the kernel's timer does not act in time because the kernel itself does not: a machine that
//! hangs with PostgreSQL's last writes on their way. What it decides is when a ping may be sent; the rule is tied to the
//! kernel timer and to nothing else:
//!
//! - the timer is armed for a deadline D: a ping is sent only while `now + timeout <= D`. Whatever happens afterwards, the
//!   machine is reset by D, the instant from which the coordinators may name another primary;
//! - the timer is disarmed: nothing that may be writable is alive, so the device is closed in the way that stops it (the
//!   magic character). A device that cannot be stopped (`nowayout`) stays open and is pinged.
//!
//! Interleaving to fear: the device is armed after the lease is held, and the guard hangs in between. So it is armed, and
//! pinged once, before the kernel timer is. The other mistake, a reset without need, is prevented by the relation checked
//! in the configuration: the timeout is at most half of the lease time, so an orderly shutdown ends before the silence does.

use crate::clock::MS;
use crate::sys;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// `_IOR('W', 0, struct watchdog_info)`.
const GET_SUPPORT: libc::c_ulong = 0x8028_5700;
/// `_IOWR('W', 6, int)`.
const SET_TIMEOUT: libc::c_ulong = 0xC004_5706;
/// `_IOR('W', 7, int)`.
const GET_TIMEOUT: libc::c_ulong = 0x8004_5707;
/// `WDIOF_SETTIMEOUT` and `WDIOF_MAGICCLOSE`.
const OPTION_SETTIMEOUT: u32 = 0x0080;
const OPTION_MAGICCLOSE: u32 = 0x0100;

#[repr(C)]
struct Info {
    options: u32,
    firmware_version: u32,
    identity: [u8; 32],
}

/// The device and how it is used.
#[derive(Debug)]
pub struct Watchdog {
    path: PathBuf,
    timeout_ns: u64,
    is_double: bool,
    device: Option<Device>,
    /// Why it is of no use, for grants and status.
    broken: Option<String>,
}

#[derive(Debug)]
struct Device {
    file: File,
    can_stop: bool,
    pinged_ns: u64,
}

impl Watchdog {
    /// Opens the device once to see that it can do what is needed. `timeout_ms` is in whole seconds.
    pub fn new(path: PathBuf, timeout_ms: u64, is_double: bool) -> Self {
        let mut made = Self { path, timeout_ns: timeout_ms * MS, is_double, device: None, broken: None };
        made.broken = made.open().map(|device| made.device = Some(device)).err().map(|e| made.named(&e));
        made.disarm();
        made
    }

    fn named(&self, error: &io::Error) -> String {
        format!("watchdog {}: {error}", self.path.display())
    }

    /// `Err` with the reason while it cannot be relied upon: then no grant is taken.
    pub fn usable(&self) -> Result<(), String> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// Before a lease is held: armed and pinged, or an error.
    pub fn arm(&mut self, now_ns: u64) -> Result<(), String> {
        if self.device.is_none() {
            self.device = Some(self.open().map_err(|error| self.named(&error))?);
            self.broken = None;
        }
        self.ping(now_ns);
        self.usable()
    }

    /// Pings if one is due and allowed. `deadline_ns` is the kernel timer's, while it is armed.
    pub fn keep(&mut self, now_ns: u64, deadline_ns: Option<u64>) {
        let Some(device) = &self.device else { return };
        let due = now_ns >= device.pinged_ns + self.timeout_ns / 8;
        if due && may_ping(now_ns, self.timeout_ns, deadline_ns) {
            self.ping(now_ns);
        }
    }

    fn ping(&mut self, now_ns: u64) {
        let Some(device) = &mut self.device else { return };
        match device.file.write_all(b"P") {
            Ok(()) => device.pinged_ns = now_ns,
            Err(error) => self.broken = Some(self.named(&error)),
        }
    }

    /// Nothing that may be writable is alive: stops the device, if it can be stopped.
    pub fn disarm(&mut self) {
        let Some(device) = self.device.take() else { return };
        if !device.can_stop {
            self.device = Some(device);
            return;
        }
        let mut file = device.file;
        if let Err(error) = file.write_all(b"V") {
            self.broken = Some(self.named(&error));
        }
    }

    /// For status.
    pub fn state(&self) -> String {
        let (path, timeout_ms) = (self.path.display(), self.timeout_ns / MS);
        match (&self.broken, &self.device) {
            (Some(reason), _) => format!("broken: {reason}"),
            (None, Some(_)) => format!("armed: {path}, {timeout_ms} ms"),
            (None, None) => format!("ready: {path}, {timeout_ms} ms"),
        }
    }

    fn open(&self) -> io::Result<Device> {
        let file = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(&self.path)?;
        if self.is_double {
            return Ok(Device { file, can_stop: true, pinged_ns: 0 });
        }
        if !file.metadata()?.file_type().is_char_device() {
            return Err(io::Error::other("is no character device"));
        }
        let mut device = Device { file, can_stop: false, pinged_ns: 0 };
        let prepared = self.prepare(&mut device);
        if prepared.is_err() && device.can_stop {
            // It runs since it was opened.
            let _ = device.file.write_all(b"V");
        }
        prepared.map(|()| device)
    }

    fn prepare(&self, device: &mut Device) -> io::Result<()> {
        let fd = device.file.as_raw_fd();
        let mut info = Info { options: 0, firmware_version: 0, identity: [0; 32] };
        // SAFETY: the request writes a `struct watchdog_info`, which `Info` is.
        sys::check(unsafe { libc::ioctl(fd, GET_SUPPORT as _, &raw mut info) })
            .map_err(|error| io::Error::other(format!("is no watchdog ({error})")))?;
        device.can_stop = info.options & OPTION_MAGICCLOSE != 0 && !has_no_way_out(&self.path);
        let wanted_s = libc::c_int::try_from(self.timeout_ns / MS / 1000).unwrap_or(libc::c_int::MAX);
        let mut found_s = wanted_s;
        if info.options & OPTION_SETTIMEOUT != 0 {
            // SAFETY: the request reads and writes an int.
            sys::check(unsafe { libc::ioctl(fd, SET_TIMEOUT as _, &raw mut found_s) }).map_err(|error| {
                io::Error::other(format!("does not take a timeout of {wanted_s} s: {error}"))
            })?;
        }
        // SAFETY: the request writes an int.
        sys::check(unsafe { libc::ioctl(fd, GET_TIMEOUT as _, &raw mut found_s) })?;
        if found_s != wanted_s {
            return Err(io::Error::other(format!(
                "`watchdog_timeout` is {wanted_s} s, the device's is {found_s} s: set `watchdog_timeout` to that"
            )));
        }
        Ok(())
    }
}

impl Drop for Watchdog {
    /// A clean end: by then nothing that may be writable is alive.
    fn drop(&mut self) {
        self.disarm();
    }
}

/// The rule: a machine that hears nothing after this ping must be reset by the deadline.
fn may_ping(now_ns: u64, timeout_ns: u64, deadline_ns: Option<u64>) -> bool {
    deadline_ns.is_none_or(|deadline_ns| now_ns.saturating_add(timeout_ns) <= deadline_ns)
}

/// `/dev/watchdog` is the same device as `/dev/watchdog0`.
fn has_no_way_out(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = if name == "watchdog" { "watchdog0".into() } else { name };
    let told = std::fs::read_to_string(format!("/sys/class/watchdog/{name}/nowayout"));
    told.is_ok_and(|told| told.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ping_leaves_time_for_a_reset_before_the_deadline() {
        assert!(may_ping(100, 10, None));
        assert!(may_ping(100, 10, Some(110)));
        assert!(!may_ping(101, 10, Some(110)));
        assert!(!may_ping(200, 10, Some(110)));
    }

    #[test]
    fn what_is_no_watchdog_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        for (path, part) in [
            (file, "is no character device"),
            (PathBuf::from("/dev/null"), "is no watchdog"),
            (dir.path().join("none"), "No such file"),
        ] {
            let watchdog = Watchdog::new(path.clone(), 2000, false);
            let reason = watchdog.usable().unwrap_err();
            assert!(reason.contains(part) && reason.contains(path.to_str().unwrap()), "{reason}");
            assert!(watchdog.state().starts_with("broken: "));
        }
    }
}
