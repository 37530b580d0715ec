//! Synchronous replication: whom commits should wait for, and whether the primary does what was logged.
//!
//! A standby is called lost only while the primary is heard and accepts connections: a primary that is dying has no streams
//! either, and leaving sync because of it would make its failover wait for a consent that nobody needs to give. A new leader
//! counts anew. The mistake is a rule that stays for too long: commits wait longer than `synchronous_timeout`.

use std::collections::{BTreeMap, BTreeSet};

use regent_types::{ClusterName, Heartbeat, Lsn, MemberName, PostgresState};

use super::{Detector, FRESH_INTERVALS};
use crate::{Body, Cluster, Shortage, SyncState, synchronous};

impl Detector {
    /// What should be logged now.
    pub(super) fn synchronous(&mut self, now_ns: u64, name: &ClusterName, cluster: &Cluster) -> Option<Body> {
        let all = &cluster.synchronous;
        if all.logged.is_empty() || self.working_primary(now_ns, cluster).is_none() {
            let own = self.members.iter_mut().filter(|((cluster, _), _)| cluster == name);
            own.for_each(|(_, memory)| memory.no_stream_since_ns = None);
            return None;
        }
        let fit = self.fit(now_ns, name, cluster);
        let primary = &cluster.appointment.as_ref()?.member;
        let eligible = cluster.config.sync_members(primary);
        let policy = &cluster.config.policy.synchronous;
        let wanted = synchronous::wanted(policy, &eligible, &fit, all.wanted());
        if wanted.as_ref() != all.wanted() {
            let missing: Vec<&str> = eligible.difference(&fit).map(MemberName::as_str).collect();
            let why = match missing.as_slice() {
                [] => "all of them stream and are in sync".to_owned(),
                missing => format!("without {}", missing.join(", ")),
            };
            let (cluster, epoch, version) = (name.clone(), cluster.epoch, all.version);
            return Some(Body::SynchronousSet { cluster, epoch, version, set: wanted, why });
        }
        self.proven(now_ns, name, cluster)
    }

    /// The primary's last report, when it is fresh and its server works.
    fn working_primary(&self, now_ns: u64, cluster: &Cluster) -> Option<&Heartbeat> {
        let (appointment, _) = cluster.established()?;
        let stale_ms = cluster.config.policy.heartbeat_interval_ms.saturating_mul(FRESH_INTERVALS);
        let (heartbeat, _) = self.fresh(now_ns, cluster, &appointment.member)?;
        let report = &heartbeat.report;
        let works = report.postgres.state == PostgresState::Primary
            && report.postgres.accepting
            && report.wal.sample_age_ms <= stale_ms
            && heartbeat.instance == appointment.instance
            && cluster.fenced_through < cluster.epoch;
        works.then_some(heartbeat)
    }

    /// What `member` has received, when it is confirmed and streams the current timeline by its own fresh report.
    fn streams(&self, now_ns: u64, cluster: &Cluster, member: &MemberName) -> Option<Lsn> {
        let (_, established) = cluster.established()?;
        let newest = cluster.history.last().map(|record| record.epoch);
        let confirmed = matches!(cluster.sync.get(member), Some(SyncState::Confirmed { epoch }) if Some(*epoch) == newest);
        let stale_ms = cluster.config.policy.heartbeat_interval_ms.saturating_mul(FRESH_INTERVALS);
        let (heartbeat, _) = self.fresh(now_ns, cluster, member).filter(|_| confirmed)?;
        let report = &heartbeat.report;
        let streams = report.wal.streaming
            && report.postgres.state == PostgresState::Standby
            && report.wal.timeline == Some(established.timeline)
            && report.wal.sample_age_ms <= stale_ms;
        report.wal.received_lsn.filter(|_| streams)
    }

    /// Who should be waited for: whoever streams, and whoever is waited for and has not been without a stream for too long.
    fn fit(&mut self, now_ns: u64, name: &ClusterName, cluster: &Cluster) -> BTreeSet<MemberName> {
        let Some((appointment, _)) = cluster.established() else { return BTreeSet::new() };
        let timeout_ms = cluster.config.policy.synchronous.timeout_ms;
        // Its agent may be cut off from here while its stream is not.
        let seen: BTreeSet<MemberName> = self
            .working_primary(now_ns, cluster)
            .into_iter()
            .flat_map(|heartbeat| &heartbeat.report.wal.standbys)
            .filter(|standby| standby.state == "streaming")
            .map(|standby| standby.member.clone())
            .collect();
        let mut fit = BTreeSet::new();
        for member in cluster.config.sync_members(&appointment.member) {
            let streams = self.streams(now_ns, cluster, &member).is_some();
            let waited_for = cluster.synchronous.wanted().is_some_and(|set| set.members.contains(&member));
            let confirmed = matches!(cluster.sync.get(&member), Some(SyncState::Confirmed { .. }));
            // Its own word goes first: behind a cut that closes no socket the primary's sender streams into the void until
            // wal_sender_timeout.
            let by_sender = self.fresh(now_ns, cluster, &member).is_none() && seen.contains(&member);
            let memory = self.members.entry((name.clone(), member.clone())).or_default();
            if streams || (waited_for && confirmed && by_sender) {
                memory.no_stream_since_ns = None;
                fit.insert(member);
                continue;
            }
            let since_ns = *memory.no_stream_since_ns.get_or_insert(now_ns);
            let missed_ms = now_ns.saturating_sub(since_ns) / 1_000_000;
            if waited_for && confirmed && missed_ms < timeout_ms {
                fit.insert(member);
            }
        }
        fit
    }

    /// The primary's word on the newest rule.
    fn proven(&self, now_ns: u64, name: &ClusterName, cluster: &Cluster) -> Option<Body> {
        let all = &cluster.synchronous;
        let set = all.wanted()?;
        let facts = self.working_primary(now_ns, cluster)?.report.synchronous.as_ref()?;
        if facts.epoch != cluster.epoch || facts.version != all.version {
            return None;
        }
        let (cluster_name, epoch, version) = (name.clone(), cluster.epoch, all.version);
        if facts.names != set.names() {
            let found = facts.names.clone();
            let lost = Body::SynchronousLost { cluster: cluster_name, epoch, version, found };
            return all.is_proven().then_some(lost);
        }
        let since_lsn = facts.since_lsn.filter(|_| !all.is_proven())?;
        let received: BTreeMap<MemberName, Lsn> = set
            .members
            .iter()
            .map(|member| {
                let received = self.streams(now_ns, cluster, member).filter(|lsn| *lsn >= since_lsn)?;
                Some((member.clone(), received))
            })
            .collect::<Option<_>>()?;
        Some(Body::SynchronousProven { cluster: cluster_name, epoch, version, since_lsn, received })
    }

    /// Fewer standbys are waited for, or there to be waited for, than the policy asks for.
    pub(super) fn synchronous_short(
        &self,
        now_ns: u64,
        cluster: &Cluster,
        member: &MemberName,
    ) -> Option<String> {
        let (appointment, _) = cluster.established().filter(|(a, _)| a.member == *member)?;
        let all = &cluster.synchronous;
        let policy = &cluster.config.policy.synchronous;
        let last = all.logged.last()?;
        if self.working_primary(now_ns, cluster).is_none() {
            // Nothing is known: an alert stays as it is.
            let mut alerts = cluster.alerts.iter();
            let kind = crate::AlertKind::SynchronousShort;
            return alerts.find(|a| a.member == *member && a.kind == kind).map(|alert| alert.text.clone());
        }
        let waited_for = last.set.as_ref().map_or(0, |set| set.number);
        if waited_for < policy.standbys {
            return Some(format!(
                "commits of {} wait for {last}, {} standbys are asked for ({})",
                appointment.member, policy.standbys, last.why
            ));
        }
        // Otherwise fewer are waited for in a moment, and that is what is said.
        if policy.shortage != Shortage::Strict {
            return None;
        }
        let there = last.set.iter().flat_map(|set| &set.members);
        let missing = |member: &&MemberName| {
            let memory = self.memory(&cluster.config.name, member);
            memory
                .and_then(|memory| memory.no_stream_since_ns)
                .is_some_and(|since_ns| now_ns.saturating_sub(since_ns) / 1_000_000 >= policy.timeout_ms)
        };
        let gone = there.clone().filter(missing).count();
        let left = there.count() - gone;
        (left < usize::try_from(waited_for).unwrap_or(usize::MAX)).then(|| {
            format!("commits of {} wait: {last} is asked for, {left} of them stream", appointment.member)
        })
    }

    /// Members that would answer a failover now.
    pub(super) fn would_answer(&self, now_ns: u64, cluster: &Cluster) -> BTreeSet<MemberName> {
        let newest = cluster.history.last().map(|record| record.epoch);
        let confirmed = |member: &MemberName| matches!(cluster.sync.get(member), Some(SyncState::Confirmed { epoch }) if Some(*epoch) == newest);
        let all = cluster.config.members.keys();
        all.filter(|member| confirmed(member) && self.could_take_over(now_ns, cluster, member))
            .cloned()
            .collect()
    }
}
