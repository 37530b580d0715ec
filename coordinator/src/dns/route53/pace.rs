//! Keeps this node below Route 53's limit of five requests a second for each AWS account (Developer Guide, "Quotas": more
//! are answered with `Throttling`). Others use the account too, so this stays below it.

use std::{sync::Mutex, time::Duration};

use crate::clock::Clock;

/// Requests that may go at once after a pause: a reading and a change.
const BURST: u32 = 2;
/// Time that earns one request: five in any second, with the burst.
const EVERY_NS: u64 = 334_000_000;

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

    /// When the requests of a caller that never pauses go, ns after the first.
    #[test]
    fn no_second_sees_more_than_five_requests() {
        let pace = Pace::new(Clock::system());
        let (start_ns, mut now_ns) = (1_000_000_000, 1_000_000_000);
        let mut gone = Vec::new();
        for _ in 0..50 {
            now_ns += pace.take(now_ns).as_nanos() as u64;
            gone.push(now_ns - start_ns);
        }
        assert_eq!(gone[..3], [0, 0, EVERY_NS]);
        for from in &gone {
            let within = gone.iter().filter(|at| (*from..*from + 1_000_000_000).contains(at)).count();
            assert!(within <= 5, "{within} requests in the second from {from}");
        }
    }

    #[test]
    fn after_throttling_nothing_goes_for_a_second() {
        let clock = Clock::system();
        let pace = Pace::new(clock.clone());
        pace.throttled();
        assert!(pace.take(clock.now_ns()) >= Duration::from_millis(900));
    }
}
