//! The only place where this crate reads a clock or sleeps.
//!
//! Deadlines, ages and lease bounds are monotonic (CLOCK_BOOTTIME, which counts suspend as the agents' does); wall time
//! is for display only and decides nothing.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

/// Where time comes from.
pub trait TimeSource: Send + Sync + 'static {
    /// Monotonic, ns.
    fn now_ns(&self) -> u64;
    /// Wall time, ms since 1970.
    fn wall_ms(&self) -> u64;
}

/// The kernel's clocks.
struct System;

impl TimeSource for System {
    fn now_ns(&self) -> u64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a live timespec.
        let result = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
        assert_eq!(result, 0, "CLOCK_BOOTTIME can be read");
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }

    fn wall_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }
}

/// The clock that is handed around.
#[derive(Clone)]
pub struct Clock(Arc<dyn TimeSource>);

impl Clock {
    /// The kernel's clocks.
    pub fn system() -> Self {
        Self(Arc::new(System))
    }

    /// Another source, for tests.
    pub fn from_source(source: Arc<dyn TimeSource>) -> Self {
        Self(source)
    }

    /// Monotonic, ns.
    pub fn now_ns(&self) -> u64 {
        self.0.now_ns()
    }

    /// Monotonic, ms.
    pub fn now_ms(&self) -> u64 {
        self.now_ns() / 1_000_000
    }

    /// Wall time, ms: for display only.
    pub fn wall_ms(&self) -> u64 {
        self.0.wall_ms()
    }

    /// Sleeps.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// A deadline for regent-raft, which takes tokio's instants.
    pub fn deadline(&self, after: Duration) -> Instant {
        Instant::now() + after
    }

    /// `None` when `future` was not done in time.
    pub async fn within<F: Future>(&self, duration: Duration, future: F) -> Option<F::Output> {
        tokio::time::timeout(duration, future).await.ok()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Clock")
    }
}

/// The AWS SDK signs requests with wall time: Amazon refuses a signature that is more than five minutes off.
#[cfg(feature = "route53")]
impl aws_smithy_async::time::TimeSource for Clock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.wall_ms())
    }
}

#[cfg(feature = "route53")]
impl aws_smithy_async::rt::sleep::AsyncSleep for Clock {
    fn sleep(&self, duration: Duration) -> aws_smithy_async::rt::sleep::Sleep {
        let clock = self.clone();
        aws_smithy_async::rt::sleep::Sleep::new(async move { Clock::sleep(&clock, duration).await })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    /// Finds a clock read behind the clock's back, in every other file of this crate.
    #[test]
    fn no_other_file_reads_a_clock() {
        fn walk(folder: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                } else if !path.ends_with("src/clock.rs") {
                    let text = fs::read_to_string(&path).unwrap();
                    for banned in
                        ["Instant::now", "SystemTime", "time::sleep", "time::timeout", "clock_gettime"]
                    {
                        if text.contains(banned) {
                            found.push(format!("{}: {banned}", path.display()));
                        }
                    }
                }
            }
        }
        let mut found = Vec::new();
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        assert!(found.is_empty(), "{found:#?}");
    }
}
