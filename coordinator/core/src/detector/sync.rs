//! *Sync confirmed*: the same history, and a lag below the bound for a sustained window.

use regent_types::{ClusterName, Lsn, MemberName, PostgresState};

use super::Detector;
use crate::{Body, Cluster, Step};

impl Detector {
    pub(super) fn sync_confirmed(
        &mut self,
        now_ns: u64,
        name: &ClusterName,
        cluster: &Cluster,
    ) -> Option<Body> {
        let confirming = cluster.operation.as_ref().filter(|operation| operation.step == Step::Confirm);
        let Some(operation) = confirming else {
            // A window counts within one operation only.
            let own = self.members.iter_mut().filter(|((cluster, _), _)| cluster == name);
            own.for_each(|(_, memory)| memory.in_sync_since_ns = None);
            return None;
        };
        let member = operation.target.as_ref()?;
        let in_sync = self.in_sync(now_ns, name, cluster, member);
        let memory = self.members.get_mut(&(name.clone(), member.clone()))?;
        let Some(received_lsn) = in_sync else {
            memory.in_sync_since_ns = None;
            return None;
        };
        let since_ns = *memory.in_sync_since_ns.get_or_insert(now_ns);
        if now_ns.saturating_sub(since_ns) / 1_000_000 < cluster.config.policy.sync_window_ms {
            return None;
        }
        Some(Body::SyncConfirmed {
            cluster: name.clone(),
            member: member.clone(),
            epoch: cluster.epoch,
            received_lsn,
        })
    }

    /// What the member has received, when it streams the current timeline with a small lag by fresh reports of both.
    fn in_sync(
        &self,
        now_ns: u64,
        name: &ClusterName,
        cluster: &Cluster,
        member: &MemberName,
    ) -> Option<Lsn> {
        let (appointment, established) = cluster.established()?;
        let (primary, _) = self.fresh(now_ns, cluster, &appointment.member)?;
        let (standby, _) = self.fresh(now_ns, cluster, member)?;
        // A sample that has stopped being refreshed is not a small lag.
        let stale_ms = cluster.config.policy.heartbeat_interval_ms.saturating_mul(super::FRESH_INTERVALS);
        let report = &standby.report;
        let streams = report.wal.streaming
            && report.postgres.state == PostgresState::Standby
            && report.wal.timeline == Some(established.timeline)
            && report.data.system_id == Some(established.system_id)
            && report.wal.sample_age_ms <= stale_ms
            && primary.report.wal.sample_age_ms <= stale_ms
            && primary.instance == appointment.instance;
        let received = report.wal.received_lsn.filter(|_| streams)?;
        let written = primary.report.wal.write_lsn?;
        debug_assert_eq!(*name, cluster.config.name);
        (written.bytes_since(received) <= cluster.config.policy.sync_lag_bytes_max).then_some(received)
    }
}
