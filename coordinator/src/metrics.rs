//! Counters and the text that Prometheus reads. Kept by hand: a node has a dozen of them, and tests run several nodes in
//! one process.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// Upper bounds of the acknowledgement histogram, ms.
const BUCKETS_MS: [u64; 10] = [5, 10, 25, 50, 100, 200, 400, 800, 1600, 3200];

/// Counts up.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
    /// Reads.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
    /// For a gauge.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }
}

/// A histogram in ms.
#[derive(Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS_MS.len()],
    count: AtomicU64,
    sum_ms: AtomicU64,
}

impl Histogram {
    /// Adds one observation.
    pub fn observe(&self, ms: u64) {
        for (bound, bucket) in BUCKETS_MS.iter().zip(&self.buckets) {
            if ms <= *bound {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

/// What this node counts.
#[derive(Default)]
pub struct Metrics {
    /// Heartbeats that arrived while leading.
    pub heartbeats: Counter,
    /// Leases granted or extended.
    pub leases_granted: Counter,
    /// Quorum rounds that confirmed the leadership.
    pub rounds: Counter,
    /// Rounds that did not.
    pub rounds_failed: Counter,
    /// Sessions relayed to the leader now.
    pub relays: Counter,
    /// DNS questions answered.
    pub dns_queries: Counter,
    /// Of which from a state that may be old, for want of a leader.
    pub dns_stale: Counter,
    /// Attempts of a DNS provider that failed.
    pub redirect_failures: Counter,
    /// New certificate files that were refused.
    pub certificates_refused: Counter,
    /// Runs of external fencing drivers.
    pub fencing_runs: Counter,
    /// Of which proved nothing.
    pub fencing_failures: Counter,
    /// Runs of the veto hook.
    pub vetoes_asked: Counter,
    /// Of which with an objection.
    pub vetoes: Counter,
    /// Of which failed.
    pub vetoes_failed: Counter,
    /// Events that the event hook has taken.
    pub events_told: Counter,
    /// Its runs that failed.
    pub events_failed: Counter,
    /// Events that were given up.
    pub events_given_up: Counter,
    /// From a heartbeat's arrival to its acknowledgement.
    pub acknowledgement_ms: Histogram,
    /// How each DNS provider has answered this node.
    pub dns_providers: Mutex<BTreeMap<String, DnsAttempts>>,
}

/// How one DNS provider has answered.
#[derive(Debug, Clone, Copy, Default)]
pub struct DnsAttempts {
    /// The last time.
    pub ok: bool,
    /// Failures so far.
    pub failures: u64,
}

impl Metrics {
    /// A DNS provider has answered, or has not.
    pub fn dns_attempt(&self, provider: &str, ok: bool) {
        let mut all = self.dns_providers.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let one = all.entry(provider.to_owned()).or_default();
        one.ok = ok;
        one.failures += u64::from(!ok);
    }
}

/// Writes the text format.
#[derive(Default)]
pub struct Text(String);

impl Text {
    /// One sample without a head.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    /// Help and type.
    pub fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A head and its only sample.
    pub fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, kind, help);
        self.sample(name, &[], value);
    }

    /// A histogram, in seconds.
    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        for (bound, count) in BUCKETS_MS.iter().zip(&histogram.buckets) {
            let le = (*bound as f64 / 1000.0).to_string();
            self.sample(&bucket, &[("le", &le)], count.load(Ordering::Relaxed));
        }
        let count = histogram.count.load(Ordering::Relaxed);
        self.sample(&bucket, &[("le", "+Inf")], count);
        self.sample(&format!("{name}_sum"), &[], histogram.sum_ms.load(Ordering::Relaxed) as f64 / 1000.0);
        self.sample(&format!("{name}_count"), &[], count);
    }

    /// The whole.
    pub fn finish(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_heads_labels_and_cumulative_buckets() {
        let histogram = Histogram::default();
        histogram.observe(7);
        histogram.observe(5000);
        let mut text = Text::default();
        text.one("a_total", "counter", "Help.", 3);
        text.sample("b", &[("cluster", "x")], 1);
        text.histogram("h_seconds", "Help.", &histogram);
        let text = text.finish();
        assert!(text.contains("# TYPE a_total counter\na_total 3\n"), "{text}");
        assert!(text.contains("b{cluster=\"x\"} 1\n"));
        assert!(text.contains("h_seconds_bucket{le=\"0.005\"} 0\nh_seconds_bucket{le=\"0.01\"} 1\n"));
        assert!(text.contains("h_seconds_bucket{le=\"+Inf\"} 2\nh_seconds_sum 5.007\nh_seconds_count 2\n"));
    }
}
