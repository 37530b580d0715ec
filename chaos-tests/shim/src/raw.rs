//! System calls made directly, so that the library never runs into its own interposed symbols, and errno.

use std::ffi::{CStr, c_int};

/// Longest path looked at; longer ones pass through.
pub const PATH_BYTES_MAX: usize = 4096;

/// A path resolved into a caller's stack buffer.
pub struct PathBuffer {
    bytes: [u8; PATH_BYTES_MAX],
    len: usize,
}

impl PathBuffer {
    /// An empty path.
    pub fn new() -> Self {
        Self { bytes: [0; PATH_BYTES_MAX], len: 0 }
    }

    /// The bytes so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Appends; false when it does not fit.
    pub fn push(&mut self, more: &[u8]) -> bool {
        if self.len + more.len() > PATH_BYTES_MAX {
            return false;
        }
        self.bytes[self.len..self.len + more.len()].copy_from_slice(more);
        self.len += more.len();
        true
    }

    /// Replaces the content by what the symbolic link `link` points at.
    pub fn read_link(&mut self, link: &CStr) -> bool {
        // SAFETY: the buffer is as long as said and the link is NUL-terminated.
        let len = unsafe {
            libc::syscall(
                libc::SYS_readlinkat,
                libc::AT_FDCWD,
                link.as_ptr(),
                self.bytes.as_mut_ptr(),
                PATH_BYTES_MAX,
            )
        };
        self.len = usize::try_from(len).unwrap_or(0);
        len > 0
    }
}

/// Writes `/proc/self/fd/N` for a descriptor into `buffer` and returns it as a C string.
pub fn descriptor_link(fd: c_int, buffer: &mut [u8; 48]) -> Option<&CStr> {
    const PREFIX: &[u8] = b"/proc/self/fd/";
    let mut digits = [0u8; 12];
    let mut rest = u32::try_from(fd).ok()?;
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let digits = &digits[at..];
    buffer.fill(0);
    buffer[..PREFIX.len()].copy_from_slice(PREFIX);
    buffer[PREFIX.len()..PREFIX.len() + digits.len()].copy_from_slice(digits);
    CStr::from_bytes_until_nul(buffer).ok()
}

/// Reads the start of a small file; `None` when it cannot be opened.
pub fn read_small<'a>(path: &CStr, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    // SAFETY: the path is NUL-terminated and the buffer as long as said.
    unsafe {
        let fd = libc::syscall(
            libc::SYS_openat,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC,
            0,
        );
        if fd < 0 {
            return None;
        }
        let len = libc::syscall(libc::SYS_read, fd, buffer.as_mut_ptr(), buffer.len());
        libc::syscall(libc::SYS_close, fd);
        usize::try_from(len).ok().map(|len| &buffer[..len])
    }
}

/// Sleeps about 5 ms.
pub fn nap() {
    let time = libc::timespec { tv_sec: 0, tv_nsec: 5_000_000 };
    // SAFETY: the timespec lives through the call.
    unsafe {
        libc::syscall(libc::SYS_nanosleep, &time, 0);
    }
}

/// The calling thread's errno.
pub fn errno() -> c_int {
    // SAFETY: glibc returns a valid thread-local pointer.
    unsafe { *libc::__errno_location() }
}

/// Sets the calling thread's errno.
pub fn set_errno(value: c_int) {
    // SAFETY: glibc returns a valid thread-local pointer.
    unsafe { *libc::__errno_location() = value }
}
