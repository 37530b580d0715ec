//! A member of a cluster that comes from another group obeys this one: told to the core once for each instance.

use regent_types::{ClusterName, Epoch, Heartbeat};

use super::Detector;
use crate::{Body, Cluster, ImportedMember};

impl ImportedMember {
    /// What a heartbeat says.
    pub fn of(heartbeat: &Heartbeat) -> Self {
        let report = &heartbeat.report;
        let (guard, data) = (&report.guard, &report.data);
        let lease = guard.lease_epoch.unwrap_or(Epoch::NONE);
        Self {
            instance: heartbeat.instance,
            boot: heartbeat.boot.clone(),
            highest_epoch: guard.highest_epoch.max(guard.fenced_through).max(data.lineage).max(lease),
            lease_epoch: guard.lease_epoch,
            form: data.form,
            lineage: data.lineage,
            system_id: data.system_id,
            timeline: report.wal.timeline.or(data.timeline),
            group: heartbeat.group,
            asks: report.promise.list.map(|(epoch, _)| (epoch, report.promise.asks.clone())),
            lease_ttl_max_ms: guard.lease_ttl_max_ms,
        }
    }
}

impl Detector {
    pub(super) fn import_acknowledged(
        &self,
        now_ns: u64,
        name: &ClusterName,
        cluster: &Cluster,
    ) -> Option<Body> {
        let import = cluster.arriving()?;
        cluster.config.members.keys().find_map(|member| {
            let (heartbeat, _) = self.fresh(now_ns, cluster, member)?;
            let known = import.said.get(member).map(|said| said.instance);
            let news = import.waiting.contains(member)
                || known.is_some_and(|known| {
                    known != heartbeat.instance && heartbeat.report.guard.succeeds.contains(&known)
                });
            // An agent whose guard does not answer cannot say which epochs it knows.
            let group = heartbeat.group.filter(|group| *group == import.group)?;
            (news && heartbeat.report.guard.reachable).then(|| Body::ImportAcknowledged {
                cluster: name.clone(),
                member: member.clone(),
                group,
                said: Box::new(ImportedMember::of(heartbeat)),
                succeeds: heartbeat.report.guard.succeeds.clone(),
            })
        })
    }
}
