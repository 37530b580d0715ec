//! The symbols that take the place of libc's. Each asks `control`, then makes the system call itself.

use std::ffi::{c_char, c_int, c_long, c_uint, c_void};

use libc::{iovec, mode_t, off_t, size_t, ssize_t};

use crate::control::{Operation, judge_descriptor, judge_path};
use crate::raw::set_errno;

const OPENS_FOR_WRITING: c_int = libc::O_CREAT | libc::O_TRUNC | libc::O_SYNC | libc::O_DSYNC;

fn refuse(errno: c_int) -> c_long {
    set_errno(errno);
    -1
}

fn on_descriptor(fd: c_int, operation: Operation, call: impl FnOnce() -> c_long) -> c_long {
    judge_descriptor(fd, operation).map_or_else(refuse, |()| call())
}

/// # Safety
/// `path` is NULL or NUL-terminated.
unsafe fn on_path(
    dirfd: c_int,
    path: *const c_char,
    operation: Operation,
    call: impl FnOnce() -> c_long,
) -> c_long {
    // SAFETY: the caller's promise.
    unsafe { judge_path(dirfd, path, operation) }.map_or_else(refuse, |()| call())
}

/// # Safety
/// As `openat(2)`.
unsafe fn open_at(dirfd: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: arguments passed on as they came.
    let call = || unsafe { libc::syscall(libc::SYS_openat, dirfd, path, flags, mode as c_uint) };
    let opened = if flags & OPENS_FOR_WRITING != 0 {
        // SAFETY: the caller's promise.
        unsafe { on_path(dirfd, path, Operation::Open, call) }
    } else {
        call()
    };
    opened as c_int
}

// C declares `mode` variadic; on x86-64 and aarch64 Linux it travels in the same register, and it is
// ignored by the kernel when the flags do not create.
macro_rules! opens {
    ($($name:ident),*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
            // SAFETY: the C caller's promise.
            unsafe { open_at(libc::AT_FDCWD, path, flags, mode) }
        }
    )*};
}
opens!(open, open64);

macro_rules! opens_at {
    ($($name:ident),*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(dirfd: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
            // SAFETY: the C caller's promise.
            unsafe { open_at(dirfd, path, flags, mode) }
        }
    )*};
}
opens_at!(openat, openat64);

#[unsafe(no_mangle)]
unsafe extern "C" fn creat(path: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: the C caller's promise.
    unsafe { open_at(libc::AT_FDCWD, path, libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC, mode) }
}

/// A libc function on a descriptor which is one system call with the same arguments.
macro_rules! descriptor_calls {
    ($($operation:ident $number:ident $name:ident ($($arg:ident: $type:ty),*) -> $result:ty;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(fd: c_int $(, $arg: $type)*) -> $result {
            // SAFETY: arguments passed on as they came from the C caller.
            let call = || unsafe { libc::syscall(libc::$number, fd $(, $arg)*) };
            on_descriptor(fd, Operation::$operation, call) as $result
        }
    )*};
}

descriptor_calls! {
    Fsync SYS_fsync fsync () -> c_int;
    Fsync SYS_fdatasync fdatasync () -> c_int;
    Fsync SYS_syncfs syncfs () -> c_int;
    Fsync SYS_sync_file_range sync_file_range (offset: off_t, len: off_t, flags: c_uint) -> c_int;
    Write SYS_write write (data: *const c_void, len: size_t) -> ssize_t;
    Write SYS_pwrite64 pwrite (data: *const c_void, len: size_t, offset: off_t) -> ssize_t;
    Write SYS_pwrite64 pwrite64 (data: *const c_void, len: size_t, offset: off_t) -> ssize_t;
    Write SYS_writev writev (parts: *const iovec, count: c_int) -> ssize_t;
    Write SYS_ftruncate ftruncate (len: off_t) -> c_int;
    Write SYS_ftruncate ftruncate64 (len: off_t) -> c_int;
    Write SYS_fallocate fallocate (mode: c_int, offset: off_t, len: off_t) -> c_int;
    Write SYS_fallocate fallocate64 (mode: c_int, offset: off_t, len: off_t) -> c_int;
}

macro_rules! vectored_writes {
    ($($name:ident),*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(fd: c_int, parts: *const iovec, count: c_int, offset: off_t) -> ssize_t {
            // The kernel takes the offset in two halves; the low one holds all of it on 64-bit.
            // SAFETY: arguments passed on as they came from the C caller.
            let call = || unsafe { libc::syscall(libc::SYS_pwritev, fd, parts, count, offset, 0) };
            on_descriptor(fd, Operation::Write, call) as ssize_t
        }
    )*};
}
vectored_writes!(pwritev, pwritev64);

/// Returns the error number instead of setting errno, as POSIX wants.
fn allocate(fd: c_int, offset: off_t, len: off_t) -> c_int {
    if let Err(errno) = judge_descriptor(fd, Operation::Write) {
        return errno;
    }
    // SAFETY: plain numbers.
    match unsafe { libc::syscall(libc::SYS_fallocate, fd, 0, offset, len) } {
        0 => 0,
        // PostgreSQL treats EOPNOTSUPP as the caller's cue to write zeros instead.
        _ => crate::raw::errno(),
    }
}

#[unsafe(no_mangle)]
extern "C" fn posix_fallocate(fd: c_int, offset: off_t, len: off_t) -> c_int {
    allocate(fd, offset, len)
}

#[unsafe(no_mangle)]
extern "C" fn posix_fallocate64(fd: c_int, offset: off_t, len: off_t) -> c_int {
    allocate(fd, offset, len)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: arguments passed on as they came from the C caller.
    unsafe {
        let call = || libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0);
        on_path(libc::AT_FDCWD, to, Operation::Open, call) as c_int
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: arguments passed on as they came from the C caller.
    unsafe {
        let call = || libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, 0);
        on_path(libc::AT_FDCWD, path, Operation::Open, call) as c_int
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mkdir(path: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: arguments passed on as they came from the C caller.
    unsafe {
        let call = || libc::syscall(libc::SYS_mkdirat, libc::AT_FDCWD, path, mode);
        on_path(libc::AT_FDCWD, path, Operation::Open, call) as c_int
    }
}
