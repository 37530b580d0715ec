//! Observation of a cluster that another tool leads: an image of it as if Regent led it, and what would be wished for then.
//!
//! The image is made for one look and thrown away. In it, whoever was seen as primary last holds epoch 1, and a standby is
//! *in sync* when it had, at the last contact with that primary, received all but `sync_lag_bytes_max` of its WAL. Guards
//! are not asked for: there are none. A mistake falls on "would not": a standby whose position was never compared counts as not
//! in sync.

use regent_types::{
    Automation, BootId, ClusterName, Epoch, InstanceId, Lsn, MemberName, PostgresState, SystemId, Timeline,
};

use super::Detector;
use crate::{Appointment, Body, Cluster, EpochRecord, Established, Sighting, State, SyncState};

impl Detector {
    /// What has been seen of it that is not recorded yet.
    pub(super) fn observe(
        &self,
        now_ns: u64,
        state: &State,
        name: &ClusterName,
        cluster: &Cluster,
        voters: usize,
    ) -> Option<Body> {
        if cluster.automation != Automation::Observe || cluster.appointment.is_some() {
            return None;
        }
        let sighting = self
            .primary_seen(now_ns, cluster)
            .or_else(|| self.well(now_ns, cluster))
            .or_else(|| self.would(now_ns, state, name, cluster, voters))?;
        Some(Body::Observed { cluster: name.clone(), sighting })
    }

    /// Another member than before is primary; of several the one on the newest timeline.
    fn primary_seen(&self, now_ns: u64, cluster: &Cluster) -> Option<Sighting> {
        let members = cluster.config.members.keys();
        let primaries = members.filter_map(|member| {
            let (heartbeat, _) = self.fresh(now_ns, cluster, member)?;
            let report = &heartbeat.report;
            let primary = report.postgres.accepting && report.postgres.state == PostgresState::Primary;
            primary.then_some((report.data.timeline, report.wal.write_lsn, member))
        });
        let (timeline, lsn, member) = primaries.max()?;
        let known = cluster.observed.as_ref().is_some_and(|seen| seen.primary == *member);
        let timeline = timeline.map_or("unknown".to_owned(), |timeline| timeline.to_string());
        let lsn = lsn.map_or("unknown".to_owned(), |lsn| lsn.to_string());
        let found = format!("out of recovery on timeline {timeline}, WAL at {lsn}");
        (!known).then(|| Sighting::Primary { member: member.clone(), found })
    }

    fn well(&self, now_ns: u64, cluster: &Cluster) -> Option<Sighting> {
        let seen = cluster.observed.as_ref().filter(|seen| seen.would.is_some())?;
        let (heartbeat, age_ms) = self.fresh(now_ns, cluster, &seen.primary)?;
        let report = &heartbeat.report;
        let well = report.postgres.accepting && report.postgres.state == PostgresState::Primary;
        let found = format!("heard {age_ms} ms ago, PostgreSQL accepts connections");
        well.then_some(Sighting::Well { found })
    }

    fn would(
        &self,
        now_ns: u64,
        state: &State,
        name: &ClusterName,
        cluster: &Cluster,
        voters: usize,
    ) -> Option<Sighting> {
        if cluster.observed.as_ref()?.would.is_some() {
            return None;
        }
        let (leadership, _) = self.led?;
        let image = self.as_if(now_ns, cluster)?;
        let wish = self.trigger(now_ns, name, &image, voters);
        let wish = wish.filter(|wish| super::explain::is_failover(&wish.trigger))?;
        super::accepted(leadership, state, name, &image, &Body::Declare(wish.clone())).ok()?;
        let able = self.standings(now_ns, &image).into_iter().filter(|one| one.able);
        let candidate = able.min_by_key(|one| one.lag_bytes).map(|one| one.member);
        Some(Sighting::Would { declare: Box::new(wish), candidate })
    }

    /// The observed cluster as if Regent led it; `None` for any other.
    pub(super) fn as_if(&self, now_ns: u64, cluster: &Cluster) -> Option<Cluster> {
        if cluster.automation != Automation::Observe || cluster.appointment.is_some() {
            return None;
        }
        let primary = &cluster.observed.as_ref()?.primary;
        let last = self.last_report(now_ns, &cluster.config.name, primary).map(|(heartbeat, _)| heartbeat);
        let established = Established {
            timeline: last.and_then(|last| last.report.data.timeline).unwrap_or(Timeline(1)),
            switch_lsn: Lsn(0),
            system_id: last.and_then(|last| last.report.data.system_id).unwrap_or(SystemId(0)),
        };
        let epoch = Epoch::NONE.next();
        let mut image = cluster.clone();
        image.automation = Automation::Automatic;
        image.epoch = epoch;
        image.appointment = Some(Appointment {
            epoch,
            member: primary.clone(),
            instance: last.map_or(InstanceId(0), |last| last.instance),
            boot: last.map_or_else(|| BootId(String::new()), |last| last.boot.clone()),
            established: Some(established),
            promotable_acknowledged: 0,
        });
        // The agents of such members name no epoch, so neither does their history.
        let record = EpochRecord { epoch: Epoch::NONE, member: primary.clone(), established };
        image.history = vec![record];
        let written = self.evidence(now_ns, &image).primary_lsn;
        let others = cluster.config.members.keys().filter(|member| *member != primary);
        image.sync =
            others.map(|member| (member.clone(), self.had(now_ns, &image, member, written))).collect();
        Some(image)
    }

    fn had(&self, now_ns: u64, image: &Cluster, member: &MemberName, written: Option<Lsn>) -> SyncState {
        let last = self.last_report(now_ns, &image.config.name, member);
        let received = last.and_then(|(heartbeat, _)| heartbeat.report.wal.received_lsn);
        let max = image.config.policy.sync_lag_bytes_max;
        match (written, received) {
            (Some(written), Some(received)) if written.bytes_since(received) <= max => {
                SyncState::Confirmed { epoch: Epoch::NONE }
            }
            (Some(written), Some(received)) => {
                let lag = written.bytes_since(received);
                SyncState::Unconfirmed { why: format!("lacks {lag} bytes, {max} are allowed") }
            }
            _ => SyncState::Unconfirmed { why: "its position, or the primary's, is not known".into() },
        }
    }
}
