//! The one clock that all evidence is stamped with, and waiting for a condition.
//!
//! All processes of a scenario run on one host, so `CLOCK_MONOTONIC` is common to them. PostgreSQL can only
//! tell its wall clock; [`WallOffset`] brings that onto the monotonic one and says when a step of the wall
//! clock made the translation worthless.

use std::time::Duration;

use anyhow::{Result, ensure};

fn read(clock: libc::clockid_t) -> i128 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the timespec lives through the call.
    let done = unsafe { libc::clock_gettime(clock, &mut time) };
    assert_eq!(done, 0, "clock_gettime({clock}) failed");
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

/// `CLOCK_MONOTONIC` in nanoseconds.
pub fn monotonic_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC) as u64
}

/// Wall clock minus monotonic clock, sampled at one moment.
#[derive(Clone, Copy, Debug)]
pub struct WallOffset {
    offset_ns: i128,
}

impl WallOffset {
    /// Samples the two clocks, the narrowest of several tries.
    pub fn sample() -> Self {
        let (_, offset_ns) = (0..5)
            .map(|_| {
                let before = read(libc::CLOCK_MONOTONIC);
                let wall = read(libc::CLOCK_REALTIME);
                let after = read(libc::CLOCK_MONOTONIC);
                (after - before, wall - (before + after) / 2)
            })
            .min()
            .expect("five samples");
        Self { offset_ns }
    }

    /// Two clocks that agree.
    #[cfg(test)]
    pub(crate) fn zero() -> Self {
        Self { offset_ns: 0 }
    }

    /// Translates microseconds since 1970 into monotonic nanoseconds.
    pub fn to_monotonic_ns(self, wall_us: i64) -> u64 {
        (i128::from(wall_us) * 1000 - self.offset_ns).max(0) as u64
    }

    /// Errs when the wall clock has moved against the monotonic one by more than `allowed` since the sample.
    pub fn ensure_steady(self, allowed: Duration) -> Result<()> {
        let moved = (Self::sample().offset_ns - self.offset_ns).unsigned_abs();
        ensure!(
            moved <= allowed.as_nanos(),
            "the wall clock was stepped by {} us during the run (allowed {} us): server times prove nothing",
            moved / 1000,
            allowed.as_micros()
        );
        Ok(())
    }
}

/// Polls `condition` until it holds or `within` has passed; the error names `what`.
pub async fn wait_until(
    what: &str,
    within: Duration,
    mut condition: impl AsyncFnMut() -> bool,
) -> Result<()> {
    let deadline = tokio::time::Instant::now() + within;
    loop {
        if condition().await {
            return Ok(());
        }
        ensure!(tokio::time::Instant::now() < deadline, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
