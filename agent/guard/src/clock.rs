//! The clocks the guard reads. Deadlines are CLOCK_BOOTTIME, which counts suspend and never steps; wall time is for logs
//! and for noticing that the two have come apart.

use std::io;

/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;

fn read(clock: libc::clockid_t) -> i128 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec to write to.
    let rc = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(rc, 0, "clock_gettime({clock}) cannot fail: {}", io::Error::last_os_error());
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

/// CLOCK_BOOTTIME.
pub fn boottime_ns() -> u64 {
    u64::try_from(read(libc::CLOCK_BOOTTIME)).expect("time since boot is not negative")
}

/// CLOCK_REALTIME minus CLOCK_BOOTTIME: constant but for steps of the wall clock and pauses of the whole machine.
pub fn wall_minus_boot_ns() -> i128 {
    read(libc::CLOCK_REALTIME) - read(libc::CLOCK_BOOTTIME)
}

/// The kernel's id of this boot.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
