//! Decides what becomes of one call: pass, wait, or fail with an errno.

use std::ffi::{CStr, CString, c_int};
use std::sync::OnceLock;

use crate::raw::{PathBuffer, descriptor_link, errno, nap, read_small, set_errno};

/// The kinds of call that the control file can name.
#[derive(Clone, Copy)]
pub enum Operation {
    /// fsync, fdatasync, sync_file_range, syncfs.
    Fsync,
    /// write and its kin, truncation, allocation.
    Write,
    /// Opens that create, truncate or ask for synchronous writes; rename, unlink, mkdir.
    Open,
}

impl Operation {
    fn word(self) -> &'static [u8] {
        match self {
            Self::Fsync => b"fsync",
            Self::Write => b"write",
            Self::Open => b"open",
        }
    }
}

struct Settings {
    prefix: Vec<u8>,
    control: CString,
}

static SETTINGS: OnceLock<Option<Settings>> = OnceLock::new();

fn settings() -> Option<&'static Settings> {
    // Before the constructor ran (another library's constructor writes): pass through.
    SETTINGS.get()?.as_ref()
}

extern "C" fn construct() {
    SETTINGS.get_or_init(|| {
        let prefix = variable(c"REGENT_SHIM_PATH")?.to_bytes();
        let control = variable(c"REGENT_SHIM_CONTROL")?.to_owned();
        let prefix = prefix.strip_suffix(b"/").unwrap_or(prefix);
        (!prefix.is_empty()).then(|| Settings { prefix: prefix.to_vec(), control })
    });
}

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCT: extern "C" fn() = construct;

fn variable(name: &CStr) -> Option<&'static CStr> {
    // SAFETY: getenv returns NULL or a NUL-terminated string that lives as long as the environment; it is
    // copied at once.
    unsafe {
        let value = libc::getenv(name.as_ptr());
        (!value.is_null()).then(|| CStr::from_ptr(value))
    }
}

enum Verdict {
    Pass,
    Wait,
    Fail(c_int),
}

fn verdict(settings: &Settings, operation: Operation) -> Verdict {
    let mut buffer = [0u8; 128];
    let Some(text) = read_small(&settings.control, &mut buffer) else { return Verdict::Pass };
    let mut words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let mode = words.next().unwrap_or(b"ok");
    let mut named = words.peekable();
    if named.peek().is_some() && !named.any(|word| word == operation.word()) {
        return Verdict::Pass;
    }
    match mode {
        b"ok" => Verdict::Pass,
        b"stall" => Verdict::Wait,
        b"erofs" => Verdict::Fail(libc::EROFS),
        b"enospc" => Verdict::Fail(libc::ENOSPC),
        // `eio`, and any word not understood.
        _ => Verdict::Fail(libc::EIO),
    }
}

fn below(path: &[u8], prefix: &[u8]) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// Judges a call on an open descriptor: `Ok` when it may go on (perhaps after a stall), else the errno.
pub fn judge_descriptor(fd: c_int, operation: Operation) -> Result<(), c_int> {
    let Some(settings) = settings() else { return Ok(()) };
    keeping_errno(|| {
        let mut link = [0u8; 48];
        let mut path = PathBuffer::new();
        let known = descriptor_link(fd, &mut link).is_some_and(|link| path.read_link(link));
        if known && below(path.as_bytes(), &settings.prefix) { obey(settings, operation) } else { Ok(()) }
    })
}

/// Judges a call on a path, relative to the directory `dirfd`.
///
/// # Safety
/// `name` is NULL or NUL-terminated.
pub unsafe fn judge_path(dirfd: c_int, name: *const libc::c_char, operation: Operation) -> Result<(), c_int> {
    let Some(settings) = settings() else { return Ok(()) };
    if name.is_null() {
        return Ok(());
    }
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes();
    keeping_errno(|| {
        let mut path = PathBuffer::new();
        if !name.starts_with(b"/") {
            let mut link = [0u8; 48];
            let base = if dirfd == libc::AT_FDCWD {
                path.read_link(c"/proc/self/cwd")
            } else {
                descriptor_link(dirfd, &mut link).is_some_and(|link| path.read_link(link))
            };
            if !base || !path.push(b"/") {
                return Ok(());
            }
        }
        if path.push(name) && below(path.as_bytes(), &settings.prefix) {
            obey(settings, operation)
        } else {
            Ok(())
        }
    })
}

fn keeping_errno(judge: impl FnOnce() -> Result<(), c_int>) -> Result<(), c_int> {
    let before = errno();
    let judged = judge();
    set_errno(before);
    judged
}

fn obey(settings: &Settings, operation: Operation) -> Result<(), c_int> {
    match verdict(settings, operation) {
        Verdict::Pass => Ok(()),
        Verdict::Fail(errno) => Err(errno),
        Verdict::Wait => stall(settings, operation),
    }
}

fn stall(settings: &Settings, operation: Operation) -> Result<(), c_int> {
    // SAFETY: both sets are initialised by the calls that fill them.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let judged = loop {
            match verdict(settings, operation) {
                Verdict::Wait => nap(),
                Verdict::Pass => break Ok(()),
                Verdict::Fail(errno) => break Err(errno),
            }
        };
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        judged
    }
}
