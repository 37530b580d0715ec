//! Planned changes of primary: what the leader knows of the members, what is due by its wall clock, and since when the
//! preferred region has been in sync. A new leader counts that time anew: a failback may come late, never early.

use regent_types::{ClusterName, MemberName, PostgresState};

use super::{Detector, FRESH_INTERVALS};
use crate::{
    Body, Cluster, FailbackMode, MemberFacts, Readiness, State, SyncState,
    procedure::precedence::{Running, running},
};

/// A scheduled switchover that could not start for this long is given up, ms.
const EXPIRES_MS: u64 = 300_000;

impl Detector {
    /// What is known of every member, for the guards of a planned change of primary.
    pub fn readiness(&self, now_ns: u64, cluster: &Cluster) -> Readiness {
        let name = &cluster.config.name;
        let fresh_ms = cluster.config.policy.heartbeat_interval_ms.saturating_mul(FRESH_INTERVALS);
        let facts = |member: &MemberName| {
            let (heartbeat, age_ms) = self.last_report(now_ns, name, member)?;
            let report = &heartbeat.report;
            let primary = report.postgres.state == PostgresState::Primary;
            Some(MemberFacts {
                member: member.clone(),
                instance: heartbeat.instance,
                age_ms: age_ms.saturating_add(report.wal.sample_age_ms),
                fresh_ms,
                guard_reachable: report.guard.reachable,
                guard_refused: report.guard.refused.clone(),
                form: report.data.form,
                accepting: report.postgres.accepting,
                streaming: report.wal.streaming,
                lsn: if primary { report.wal.write_lsn } else { report.wal.received_lsn },
                timeline: report.wal.timeline.or(report.data.timeline),
            })
        };
        Readiness {
            evidence: self.evidence(now_ns, cluster),
            members: cluster.config.members.keys().filter_map(facts).collect(),
        }
    }

    /// Planned changes of primary that should be proposed now.
    pub fn planned(&mut self, now_ns: u64, wall_ms: u64, state: &State) -> Vec<Body> {
        let Some((leadership, _)) = self.led else { return Vec::new() };
        let mut bodies = Vec::new();
        for (name, cluster) in &state.clusters {
            let wish = self
                .scheduled(now_ns, wall_ms, name, cluster)
                .or_else(|| self.failback(now_ns, wall_ms, name, cluster));
            bodies
                .extend(wish.filter(|body| super::accepted(leadership, state, name, cluster, body).is_ok()));
        }
        bodies
    }

    fn scheduled(&self, now_ns: u64, wall_ms: u64, name: &ClusterName, cluster: &Cluster) -> Option<Body> {
        let scheduled = cluster.scheduled.as_ref().filter(|scheduled| scheduled.at_wall_ms <= wall_ms)?;
        Some(Body::SwitchoverDue {
            cluster: name.clone(),
            at_wall_ms: scheduled.at_wall_ms,
            expired: wall_ms.saturating_sub(scheduled.at_wall_ms) >= EXPIRES_MS,
            readiness: Box::new(self.readiness(now_ns, cluster)),
        })
    }

    fn failback(&mut self, now_ns: u64, wall_ms: u64, name: &ClusterName, cluster: &Cluster) -> Option<Body> {
        let policy = &cluster.config.policy;
        let Some(target) = self.preferred(name, cluster) else {
            self.preferred_since.remove(name);
            return None;
        };
        let (of, since_ns) = self.preferred_since.entry(name.clone()).or_insert((cluster.epoch, now_ns));
        if *of != cluster.epoch {
            (*of, *since_ns) = (cluster.epoch, now_ns);
        }
        let waited_ms = now_ns.saturating_sub(*since_ns) / 1_000_000;
        let open = policy.failback != FailbackMode::Automatic
            || policy.failback_window.as_ref().is_none_or(|window| window.contains(wall_ms));
        if waited_ms < policy.failback_after_ms || !open || running(cluster) != Running::Nothing {
            return None;
        }
        Some(Body::FailbackReady {
            cluster: name.clone(),
            expected_epoch: cluster.epoch,
            target,
            readiness: Box::new(self.readiness(now_ns, cluster)),
        })
    }

    /// A member of the preferred region that is in sync, while the primary is elsewhere.
    fn preferred(&self, name: &ClusterName, cluster: &Cluster) -> Option<MemberName> {
        if cluster.config.policy.failback == FailbackMode::Manual {
            return None;
        }
        debug_assert_eq!(*name, cluster.config.name);
        let region = cluster.config.preferred_region()?;
        let (appointment, _) = cluster.established()?;
        let members = &cluster.config.members;
        if members.get(&appointment.member).is_some_and(|config| config.region == *region) {
            return None;
        }
        let newest = cluster.history.last().map(|record| record.epoch);
        let confirmed = |member: &MemberName| matches!(cluster.sync.get(member), Some(SyncState::Confirmed { epoch }) if Some(*epoch) == newest);
        let there = members
            .iter()
            .filter(|(member, config)| config.region == *region && config.promotable && confirmed(member));
        there
            .max_by_key(|(member, config)| (config.priority, std::cmp::Reverse(*member)))
            .map(|(member, _)| member.clone())
    }
}
