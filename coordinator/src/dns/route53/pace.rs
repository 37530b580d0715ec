//! Keeps this node below Route 53's limit of five requests a second for each AWS account (Developer Guide, "Quotas": more
//! are answered with `Throttling`). Others use the account too, so this stays below it.

use std::{sync::Mutex, time::Duration};

use crate::clock::Clock;

/// Requests that may go at once after a pause.
const BURST: u32 = 4;
/// Time that earns one request.
const EVERY_NS: u64 = 250_000_000;

/// A token bucket, shared by every provider of a node: they mostly use one account.
pub struct Pace {
    clock: Clock,
    /// When the bucket will be full again.
    full_at_ns: Mutex<u64>,
}

impl Pace {
    /// A full bucket.
    pub fn new(clock: Clock) -> Self {
        Self { clock, full_at_ns: Mutex::new(0) }
    }

    /// How long the next request has to wait; it is counted.
    fn take(&self, now_ns: u64) -> Duration {
        let mut full_at_ns = self.full_at_ns.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *full_at_ns = (*full_at_ns).max(now_ns) + EVERY_NS;
        Duration::from_nanos(full_at_ns.saturating_sub(now_ns + u64::from(BURST) * EVERY_NS))
    }

    /// Returns when a request may go.
    pub async fn wait(&self) {
        let pause = self.take(self.clock.now_ns());
        if !pause.is_zero() {
            self.clock.sleep(pause).await;
        }
    }

    /// Route 53 has throttled the account: nothing more for a second.
    pub fn throttled(&self) {
        let now_ns = self.clock.now_ns();
        let mut full_at_ns = self.full_at_ns.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *full_at_ns = (*full_at_ns).max(now_ns + u64::from(BURST) * EVERY_NS) + 4 * EVERY_NS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_then_four_a_second() {
        let pace = Pace::new(Clock::system());
        let start_ns = 1_000_000_000;
        for _ in 0..BURST {
            assert_eq!(pace.take(start_ns), Duration::ZERO);
        }
        assert_eq!(pace.take(start_ns), Duration::from_millis(250));
        assert_eq!(pace.take(start_ns), Duration::from_millis(500));
        // A second later the two that waited have gone, and two more have been earned.
        let later_ns = start_ns + 1_000_000_000;
        assert_eq!(pace.take(later_ns), Duration::ZERO);
        assert_eq!(pace.take(later_ns), Duration::ZERO);
        assert_eq!(pace.take(later_ns), Duration::from_millis(250));
    }

    #[test]
    fn after_throttling_nothing_goes_for_a_second() {
        let clock = Clock::system();
        let pace = Pace::new(clock.clone());
        pace.throttled();
        assert!(pace.take(clock.now_ns()) >= Duration::from_millis(1000));
    }
}
