//! What an operator should look at before it costs anything: a confirmed standby that does not stream, a disk that fills.
//!
//! Raised only after it has lasted, so that a restart is no alert; a new leader counts anew. The mistake is a late alert.

use regent_types::{ClusterName, Epoch, MemberName};

use super::Detector;
use crate::{AlertKind, Body, Cluster, SyncState};

/// Heartbeat intervals for which a confirmed standby may be without its stream.
const HOLD_INTERVALS: u64 = 30;

impl Detector {
    /// The next alert to raise or to end.
    pub(super) fn alert(&mut self, now_ns: u64, name: &ClusterName, cluster: &Cluster) -> Option<Body> {
        let members: Vec<MemberName> = cluster.config.members.keys().cloned().collect();
        let changed = members.iter().find_map(|member| {
            let streams = (AlertKind::NotStreaming, self.not_streaming(now_ns, name, cluster, member));
            let disk = (AlertKind::DiskFilling, self.disk_filling(now_ns, cluster, member));
            let short = (AlertKind::SynchronousShort, self.synchronous_short(now_ns, cluster, member));
            let blocked = (AlertKind::WritesBlocked, self.writes_blocked(now_ns, cluster, member));
            let mut wanted = [streams, disk, short, blocked].into_iter();
            wanted.find_map(|(kind, text)| {
                let raised = cluster.alerts.iter().any(|alert| alert.member == *member && alert.kind == kind);
                (text.is_some() != raised).then(|| (member.clone(), kind, text))
            })
        });
        // Of members that are gone.
        let gone = || {
            let mut alerts = cluster.alerts.iter();
            let over = alerts.find(|alert| !cluster.config.members.contains_key(&alert.member))?;
            Some((over.member.clone(), over.kind, None))
        };
        let (member, kind, text) = changed.or_else(gone)?;
        Some(Body::Alert { cluster: name.clone(), member, kind, text })
    }

    fn not_streaming(
        &mut self,
        now_ns: u64,
        name: &ClusterName,
        cluster: &Cluster,
        member: &MemberName,
    ) -> Option<String> {
        let newest = cluster.history.last().map_or(Epoch::NONE, |record| record.epoch);
        let confirmed =
            matches!(cluster.sync.get(member), Some(SyncState::Confirmed { epoch }) if *epoch == newest);
        let fresh = self.fresh(now_ns, cluster, member).map(|(heartbeat, _)| heartbeat.report.wal.clone());
        // Without a primary nobody streams, and an operation says so.
        let expected =
            confirmed && cluster.established().is_some_and(|(primary, _)| primary.member != *member);
        let missed = expected && !fresh.as_ref().is_some_and(|wal| wal.streaming);
        let silent_ms = self.silence_ms(now_ns, name, member);
        let memory = self.members.entry((name.clone(), member.clone())).or_default();
        if !missed {
            memory.not_streaming_since_ns = None;
            return None;
        }
        let since_ns = *memory.not_streaming_since_ns.get_or_insert(now_ns);
        let missed_ms = now_ns.saturating_sub(since_ns) / 1_000_000;
        if missed_ms < cluster.config.policy.heartbeat_interval_ms.saturating_mul(HOLD_INTERVALS) {
            return None;
        }
        Some(match fresh {
            Some(wal) => {
                let received = wal.received_lsn.map_or_else(|| "unknown".to_owned(), |lsn| lsn.to_string());
                format!("{member} is confirmed and has not streamed for {missed_ms} ms (received {received})")
            }
            None => format!("{member} is confirmed and has not been heard for {silent_ms} ms"),
        })
    }

    fn writes_blocked(&self, now_ns: u64, cluster: &Cluster, member: &MemberName) -> Option<String> {
        cluster.established().filter(|(primary, _)| primary.member == *member)?;
        let (heartbeat, _) = self.fresh(now_ns, cluster, member)?;
        let blocked = heartbeat.report.blocked_writes.as_ref()?;
        blocked.ended_ms_ago.is_none().then(|| format!("{member} refuses writes: {}", blocked.reason))
    }

    fn disk_filling(&self, now_ns: u64, cluster: &Cluster, member: &MemberName) -> Option<String> {
        let alert_s = cluster.config.policy.disk_full_alert_ms / 1_000;
        let (primary, _) = cluster.established()?;
        let raised = cluster.alerts.iter().any(|a| a.member == *member && a.kind == AlertKind::DiskFilling);
        if primary.member != *member {
            return None;
        }
        let Some((heartbeat, _)) = self.fresh(now_ns, cluster, member) else {
            // Nothing is known: an alert stays as it is.
            let mut alerts = cluster.alerts.iter();
            return alerts
                .find(|a| a.member == *member && a.kind == AlertKind::DiskFilling)
                .map(|alert| alert.text.clone());
        };
        let retention = heartbeat.report.wal.retention.as_ref()?;
        let full_in_s = retention.full_in_s?;
        // Ended well above where it was raised, or a rate near the threshold would fill the history.
        let bound_s = if raised { alert_s.saturating_add(alert_s / 2) } else { alert_s };
        (full_in_s < bound_s).then(|| {
            format!(
                "the disk of {member} is full in {full_in_s} s at the present rate ({} bytes/s, {} bytes free, {} retained \
                 for a slot)",
                retention.bytes_per_s.unwrap_or_default(),
                heartbeat.report.disk.free_bytes.unwrap_or_default(),
                heartbeat.report.disk.slot_retained_bytes.unwrap_or_default()
            )
        })
    }
}
