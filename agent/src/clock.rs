//! CLOCK_BOOTTIME and the boot id: the only clock that leases are counted on. It counts suspend, as a lease must.

use std::{io, time::Duration};

use regent_types::BootId;

/// CLOCK_BOOTTIME, ns.
pub fn boottime_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec that the call fills.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    assert_eq!(result, 0, "CLOCK_BOOTTIME exists on every supported kernel");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Milliseconds since `since_ns`, 0 when that is ahead.
pub fn ms_since(since_ns: u64) -> u64 {
    boottime_ns().saturating_sub(since_ns) / 1_000_000
}

/// The kernel's boot id.
pub fn boot_id() -> io::Result<BootId> {
    Ok(BootId(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned()))
}

/// `duration` in whole milliseconds.
pub fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
