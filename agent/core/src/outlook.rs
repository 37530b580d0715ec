//! What a primary's WAL will do to its disk: the rate at which it is written, and when the disk would be full.
//!
//! A mistake towards *soon* is an alert too many. A rate over a minute says nothing of a bulk load that has just begun.

use std::collections::VecDeque;

use regent_types::Lsn;

const WINDOW_NS: u64 = 60_000_000_000;
/// Over less than this a rate says nothing.
const WINDOW_MIN_NS: u64 = 3_000_000_000;
/// Samples kept.
const SAMPLES_MAX: usize = 128;

/// The last minute of a primary's WAL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rate {
    samples: VecDeque<(u64, Lsn)>,
}

impl Rate {
    /// The WAL ended at `lsn`.
    pub fn observe(&mut self, now_ns: u64, lsn: Lsn) {
        // Backwards: another history.
        if self.samples.back().is_some_and(|(at_ns, last)| *last > lsn || *at_ns > now_ns) {
            self.samples.clear();
        }
        self.samples.push_back((now_ns, lsn));
        while self.samples.len() > SAMPLES_MAX
            || self.samples.front().is_some_and(|(at_ns, _)| now_ns - at_ns > WINDOW_NS)
        {
            self.samples.pop_front();
        }
    }

    /// Bytes per second.
    pub fn bytes_per_s(&self) -> Option<u64> {
        let ((from_ns, from), (to_ns, to)) = (self.samples.front()?, self.samples.back()?);
        let span_ns = to_ns - from_ns;
        if span_ns < WINDOW_MIN_NS {
            return None;
        }
        u64::try_from(u128::from(to.bytes_since(*from)) * 1_000_000_000 / u128::from(span_ns)).ok()
    }
}

/// When the disk is full, s. `idle_retained` is what the furthest slot without a connection keeps, `keep_max` is
/// `max_slot_wal_keep_size`. `None` when nothing grows, or when the bound stops it while there is room.
pub fn full_in_s(
    free_bytes: u64,
    bytes_per_s: u64,
    idle_retained: Option<u64>,
    keep_max: Option<u64>,
) -> Option<u64> {
    let retained = idle_retained?;
    let bounded = keep_max.is_some_and(|keep_max| keep_max.saturating_sub(retained) < free_bytes);
    (bytes_per_s > 0 && !bounded).then(|| free_bytes / bytes_per_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn the_rate_is_of_the_last_minute_and_of_one_history() {
        let mut rate = Rate::default();
        rate.observe(S, Lsn(1_000));
        assert_eq!(rate.bytes_per_s(), None, "one sample");
        rate.observe(11 * S, Lsn(2_000));
        assert_eq!(rate.bytes_per_s(), Some(100));
        rate.observe(100 * S, Lsn(2_000));
        rate.observe(110 * S, Lsn(2_000));
        assert_eq!(rate.bytes_per_s(), Some(0), "what was written before the window does not count");
        rate.observe(111 * S, Lsn(500));
        assert_eq!(rate.bytes_per_s(), None, "another history");
    }

    #[test]
    fn the_disk_fills_only_while_a_slot_without_a_connection_retains() {
        assert_eq!(full_in_s(1_000, 10, None, None), None, "everybody streams");
        assert_eq!(full_in_s(1_000, 10, Some(5), None), Some(100));
        assert_eq!(full_in_s(1_000, 0, Some(5), None), None, "nothing is written");
        assert_eq!(full_in_s(1_000, 10, Some(5), Some(900)), None, "the bound comes first");
        assert_eq!(full_in_s(1_000, 10, Some(5), Some(9_000)), Some(100), "the bound comes too late");
    }
}
