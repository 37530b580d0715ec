//! Counters of the agent and their Prometheus text. Gauges are read from the report when asked for, so no figure is ever
//! older than its source.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use regent_types::{DiskProbe, PostgresState, Report};

/// Upper bounds of the acknowledgement latency buckets, ms.
const BUCKETS_MS: [u64; 9] = [5, 10, 25, 50, 100, 250, 500, 1000, 2500];

/// Counted since the agent's start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Heartbeats handed to the transport.
    pub heartbeats_sent: AtomicU64,
    /// Acknowledgements that named one of them.
    pub heartbeats_acknowledged: AtomicU64,
    /// Coordinators left for another.
    pub sessions_lost: AtomicU64,
    /// Leases handed to the guard.
    pub leases_extended: AtomicU64,
    /// Rounds of promises that extended the lease.
    pub promises_received: AtomicU64,
    /// Promises given to another member.
    pub promises_given: AtomicU64,
    /// Failures to reach the guard.
    pub guard_errors: AtomicU64,
    ack_buckets: [AtomicU64; BUCKETS_MS.len()],
    ack_sum_us: AtomicU64,
}

impl Counters {
    /// An acknowledgement took `us` from sending.
    pub fn acknowledged(&self, us: u64) {
        self.heartbeats_acknowledged.fetch_add(1, Relaxed);
        self.ack_sum_us.fetch_add(us, Relaxed);
        for (bound_ms, bucket) in BUCKETS_MS.iter().zip(&self.ack_buckets) {
            if us <= bound_ms * 1000 {
                bucket.fetch_add(1, Relaxed);
            }
        }
    }

    /// The text of `/metrics`.
    pub fn render(&self, report: &Report, certificate: Option<(i64, bool)>) -> String {
        let mut out = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, value: Option<String>| {
            if let Some(value) = value {
                let _ = writeln!(out, "# HELP regent_agent_{name} {help}\n# TYPE regent_agent_{name} {kind}");
                let _ = writeln!(out, "regent_agent_{name} {value}");
            }
        };
        let seconds = |ms: u64| format!("{}", ms as f64 / 1000.0);
        let flag = |on: bool| Some(u8::from(on).to_string());
        for (name, help, counter) in [
            ("heartbeats_sent_total", "Heartbeats sent.", &self.heartbeats_sent),
            ("heartbeats_acknowledged_total", "Heartbeats acknowledged.", &self.heartbeats_acknowledged),
            ("sessions_lost_total", "Coordinators left for another.", &self.sessions_lost),
            ("leases_extended_total", "Leases handed to the guard.", &self.leases_extended),
            ("promises_received_total", "Extensions of the lease by promises.", &self.promises_received),
            ("promises_given_total", "Promises given to another member.", &self.promises_given),
            ("guard_errors_total", "Failed requests to the guard.", &self.guard_errors),
        ] {
            metric(name, "counter", help, Some(counter.load(Relaxed).to_string()));
        }
        let guard = &report.guard;
        metric("guard_reachable", "gauge", "The guard answers.", flag(guard.reachable));
        let left = guard.lease_remaining_ms.unwrap_or(0);
        metric("lease_remaining_seconds", "gauge", "What is left of the lease.", Some(seconds(left)));
        metric("lease_epoch", "gauge", "Epoch of the live lease.", guard.lease_epoch.map(|e| e.to_string()));
        let promise = &report.promise;
        let left = promise.extended.as_ref().map_or(0, |extended| extended.remaining_ms);
        metric(
            "promised_lease_seconds",
            "gauge",
            "What is left of a lease by promises.",
            Some(seconds(left)),
        );
        let left = promise.given.as_ref().map_or(0, |given| given.remaining_ms);
        let help = "For how much longer this member has promised not to be promoted.";
        metric("promise_given_seconds", "gauge", help, Some(seconds(left)));
        let fenced = Some(guard.fenced_through.to_string());
        metric("fenced_through", "gauge", "Every epoch up to this one is refused.", fenced);
        let rogue = Some(guard.rogue_promotions.to_string());
        metric("rogue_promotions_total", "counter", "Promotions without a lease, prevented.", rogue);
        let postgres = &report.postgres;
        metric("postgres_accepting", "gauge", "The last probe was answered.", flag(postgres.accepting));
        let is = |state| flag(postgres.state == state);
        metric("postgres_primary", "gauge", "PostgreSQL is primary.", is(PostgresState::Primary));
        metric("postgres_standby", "gauge", "PostgreSQL is a standby.", is(PostgresState::Standby));
        metric("streaming", "gauge", "The standby streams.", flag(report.wal.streaming));
        let lag =
            report.wal.received_lsn.zip(report.wal.replayed_lsn).map(|(r, p)| r.bytes_since(p).to_string());
        metric("replay_lag_bytes", "gauge", "Received and not replayed.", lag);
        let lag = report.wal.replay_lag_ms.map(seconds);
        metric("replay_lag_seconds", "gauge", "Age of the newest replayed commit while behind.", lag);
        metric(
            "sample_age_seconds",
            "gauge",
            "Age of the WAL figures.",
            Some(seconds(report.wal.sample_age_ms)),
        );
        let disk = &report.disk;
        let latency = match &disk.probe {
            DiskProbe::Ok { latency_ms } => Some(seconds(*latency_ms)),
            DiskProbe::Stalled { for_ms } => Some(seconds(*for_ms)),
            DiskProbe::Failed { .. } | DiskProbe::NotProbed => None,
        };
        metric("disk_probe_seconds", "gauge", "Time of the fsync probe.", latency);
        let failed = flag(matches!(disk.probe, DiskProbe::Failed { .. }));
        metric("disk_probe_failed", "gauge", "The fsync probe failed.", failed);
        metric("disk_free_bytes", "gauge", "Free for PostgreSQL.", disk.free_bytes.map(|b| b.to_string()));
        let retained = disk.slot_retained_bytes.map(|b| b.to_string());
        metric("slot_retained_bytes", "gauge", "WAL retained for the largest slot.", retained);
        let left = certificate.map(|(left_s, _)| left_s.to_string());
        metric("certificate_expires_seconds", "gauge", "Until the agent's certificate expires.", left);
        let refused = certificate.and_then(|(_, refused)| flag(refused));
        metric("certificate_refused", "gauge", "Newer certificate files are refused.", refused);
        let retention = report.wal.retention.as_ref();
        let number = |value: Option<u64>| value.map(|value| value.to_string());
        let rate = number(retention.and_then(|kept| kept.bytes_per_s));
        metric("wal_bytes_per_second", "gauge", "WAL that the primary writes, over a minute.", rate);
        let full = number(retention.and_then(|kept| kept.full_in_s));
        metric("disk_full_in_seconds", "gauge", "Until WAL kept for a slot fills the disk.", full);
        let salvages = Some(report.salvages.len().to_string());
        metric("salvages", "gauge", "Salvages kept on this host, the newest ones.", salvages);
        let blocked = report.blocked_writes.as_ref().is_some_and(|blocked| blocked.ended_ms_ago.is_none());
        let help = "Writes are refused by rpo_limit, rpo_limit_bytes or isolation_read_only_after.";
        metric("writes_blocked", "gauge", help, flag(blocked));
        self.render_latency(&mut out);
        out
    }

    fn render_latency(&self, out: &mut String) {
        let name = "regent_agent_acknowledgement_seconds";
        let count = self.heartbeats_acknowledged.load(Relaxed);
        let _ = writeln!(out, "# HELP {name} From sending a heartbeat to its acknowledgement.");
        let _ = writeln!(out, "# TYPE {name} histogram");
        for (bound_ms, bucket) in BUCKETS_MS.iter().zip(&self.ack_buckets) {
            let le = *bound_ms as f64 / 1000.0;
            let _ = writeln!(out, "{name}_bucket{{le=\"{le}\"}} {}", bucket.load(Relaxed));
        }
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}");
        let sum = self.ack_sum_us.load(Relaxed) as f64 / 1_000_000.0;
        let _ = writeln!(out, "{name}_sum {sum}\n{name}_count {count}");
    }
}
