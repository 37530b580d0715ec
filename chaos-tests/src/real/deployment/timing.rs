//! Every time-out of a deployment, scaled from the partition timeout so that the relation of DESIGN section 5.8 holds:
//! `election_worst + ttl * stretch + kill <= partition_timeout`. At 5 min they are the product's defaults.

use std::time::Duration;

/// The numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Silence before a failover.
    pub partition_timeout: Duration,
    /// Lease time.
    pub lease_ttl: Duration,
    /// Between two heartbeats of an agent.
    pub heartbeat: Duration,
    /// Raft: between two heartbeats of the leader.
    pub raft_heartbeat: Duration,
    /// Raft: shortest election time-out.
    pub election_min: Duration,
    /// Raft: longest election time-out.
    pub election_max: Duration,
    /// Raft: the longest round trip that the time-outs bear.
    pub round_trip_max: Duration,
    /// PostgreSQL not accepting.
    pub postgres_down: Duration,
    /// Stalled fsync probe.
    pub disk_stall: Duration,
    /// How long the lag must be small.
    pub sync_window: Duration,
}

const KILL: Duration = Duration::from_secs(1);

fn clamp(value: Duration, low_ms: u64, high_ms: u64) -> Duration {
    value.clamp(Duration::from_millis(low_ms), Duration::from_millis(high_ms))
}

impl Timing {
    /// From the partition timeout, 8 s at least.
    pub fn scaled(partition_timeout: Duration) -> Self {
        let t = partition_timeout;
        // From 20 s on the product's own. Below, as patient as the room allows: on a busy machine a process may not run for
        // a while, and each election that it costs is noise in a scenario.
        let (hb, low, high, rtt) = match t.as_secs() {
            0..14 => (200, 700, 1100, 80),
            14..20 => (400, 1200, 1800, 250),
            _ => (250, 1000, 1500, 150),
        };
        let ms = Duration::from_millis;
        let (raft_heartbeat, election_min, election_max, round_trip_max) =
            (ms(hb), ms(low), ms(high), ms(rtt));
        let election_worst = election_max * 2 + round_trip_max * 4 + raft_heartbeat;
        // stretch at 5000 ppm is 1.01005; the rest is for rounding.
        let room = t.saturating_sub(election_worst + KILL).as_millis() as u64 * 1000 / 1011;
        let ttl_ms = room.min(t.as_millis() as u64 * 9 / 10) / 500 * 500;
        Self {
            partition_timeout: t,
            lease_ttl: ms(ttl_ms),
            heartbeat: clamp(t / 40, 100, 1000),
            raft_heartbeat,
            election_min,
            election_max,
            round_trip_max,
            postgres_down: clamp(t / 5, 6000, 60_000),
            disk_stall: clamp(t / 10, 4000, 30_000),
            sync_window: clamp(t / 30, 1000, 10_000),
        }
    }

    /// When a failover by partition must be over, generously: the machine may be busy.
    pub fn failover_at_most(&self) -> Duration {
        self.partition_timeout * 2 + Duration::from_secs(25)
    }

    /// The time after which an isolated member is certainly fenced.
    pub fn fenced_at_most(&self) -> Duration {
        self.lease_ttl + KILL + Duration::from_secs(1)
    }
}

/// As the configuration files have it.
pub(super) fn text(duration: Duration) -> String {
    format!("\"{}ms\"", duration.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relation_of_section_5_8_holds() {
        for seconds in [8, 12, 13, 14, 15, 20, 60, 300] {
            let t = Timing::scaled(Duration::from_secs(seconds));
            let worst = t.election_max * 2 + t.round_trip_max * 4 + t.raft_heartbeat;
            let bound = t.lease_ttl.mul_f64(1.005 / 0.995) + KILL;
            assert!(worst + bound <= t.partition_timeout, "{seconds} s: {t:?}");
            assert!(t.heartbeat * 3 <= t.lease_ttl, "{seconds} s: {t:?}");
            assert!(t.raft_heartbeat * 3 / 4 > t.round_trip_max, "{seconds} s: {t:?}");
            assert!(t.election_min >= t.raft_heartbeat * 3, "{seconds} s: {t:?}");
        }
    }

    #[test]
    fn twelve_seconds_give_a_lease_of_eight_and_five_minutes_the_defaults() {
        let short = Timing::scaled(Duration::from_secs(12));
        assert_eq!(short.lease_ttl, Duration::from_secs(8));
        let product = Timing::scaled(Duration::from_secs(300));
        assert_eq!(product.lease_ttl, Duration::from_secs(270));
        assert_eq!(product.heartbeat, Duration::from_secs(1));
        assert_eq!(product.postgres_down, Duration::from_secs(60));
    }
}
