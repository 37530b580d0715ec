//! A host's monotonic clock: a rate of its own, within the bound that the lease protocol assumes, and a beginning of its own.

/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;
/// Nanoseconds in a second.
pub const S: u64 = 1_000 * MS;

/// Local time as a function of the world's time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Rate error, parts per million.
    pub drift_ppm: i64,
    /// The world's time at which the clock was zero.
    pub zero_ns: i128,
}

impl Clock {
    /// What the clock shows.
    pub fn local(&self, world_ns: u64) -> u64 {
        let elapsed = i128::from(world_ns) - self.zero_ns;
        let shown = elapsed * i128::from(1_000_000 + self.drift_ppm) / 1_000_000;
        u64::try_from(shown.max(0)).unwrap_or(u64::MAX)
    }

    /// The first instant of the world at which the clock shows `local_ns` or more.
    pub fn world(&self, local_ns: u64) -> u64 {
        let rate = i128::from(1_000_000 + self.drift_ppm);
        let elapsed = (i128::from(local_ns) * 1_000_000 + rate - 1) / rate;
        u64::try_from((self.zero_ns + elapsed).max(0)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back_is_never_early() {
        for drift_ppm in [-100_000, -5_000, 0, 333, 100_000] {
            let clock = Clock { drift_ppm, zero_ns: -7 };
            for local_ns in [1, 999, 8 * S, 8 * S + 1] {
                let at = clock.world(local_ns);
                assert!(clock.local(at) >= local_ns, "{drift_ppm} {local_ns}");
                assert!(at == 0 || clock.local(at - 1) < local_ns, "{drift_ppm} {local_ns}");
            }
        }
    }
}
