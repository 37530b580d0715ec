//! The triggers of DESIGN section 7, and the wishes that keep a cluster whole: bootstrap and rejoin.

use regent_types::{
    ClusterName, DataForm, DiskProbe, Epoch, Heartbeat, InstanceId, Lsn, MemberName, PostgresState,
};

use super::{Detector, FRESH_INTERVALS, LISTEN_INTERVALS, RELAY_FRESH_NS};
use crate::{
    Appointment, Body, Cluster, Declare, SyncState, Trigger,
    procedure::precedence::{Running, running},
};

/// Heartbeat intervals from one wish for a rejoin to the next one.
const REJOIN_INTERVALS: u64 = 5;
/// How often that is doubled at most.
const REJOIN_DOUBLINGS: u32 = 5;

impl Detector {
    /// The most urgent operation that this cluster needs now.
    pub(super) fn trigger(
        &self,
        now_ns: u64,
        name: &ClusterName,
        cluster: &Cluster,
        voters: usize,
    ) -> Option<Declare> {
        let Some(appointment) = &cluster.appointment else {
            return self.bootstrap(now_ns, cluster);
        };
        // Nothing new to fence: a running operation sees to it.
        if cluster.fenced_through == cluster.epoch {
            return None;
        }
        self.primary_trouble(now_ns, name, cluster, appointment, voters)
            .map(|trigger| self.declare(now_ns, cluster, &appointment.member, trigger))
            .or_else(|| self.rejoin(now_ns, cluster))
    }

    /// The primary of a pending failover is heard and well.
    pub(super) fn withdraw(&self, now_ns: u64, cluster: &Cluster) -> Option<Body> {
        let pending = cluster.pending.as_ref()?;
        let appointment = cluster.leasable()?;
        let policy = &cluster.config.policy;
        let (heartbeat, age_ms) = self.fresh(now_ns, cluster, &appointment.member)?;
        let report = &heartbeat.report;
        let well = heartbeat.instance == appointment.instance
            && report.postgres.accepting
            && local_trouble(
                heartbeat,
                age_ms,
                policy.disk_stall_timeout_ms,
                policy.postgres_down_timeout_ms,
            )
            .is_none();
        well.then(|| Body::Withdraw {
            cluster: cluster.config.name.clone(),
            epoch: pending.epoch,
            found: format!("heard {age_ms} ms ago, PostgreSQL accepts connections"),
        })
    }

    fn declare(&self, now_ns: u64, cluster: &Cluster, member: &MemberName, trigger: Trigger) -> Declare {
        Declare {
            cluster: cluster.config.name.clone(),
            expected_epoch: cluster.epoch,
            member: member.clone(),
            trigger,
            evidence: self.evidence(now_ns, cluster),
        }
    }

    fn bootstrap(&self, now_ns: u64, cluster: &Cluster) -> Option<Declare> {
        let member = &cluster.config.initial_primary;
        let (heartbeat, _) = self.fresh(now_ns, cluster, member)?;
        let report = &heartbeat.report;
        let ready = report.guard.reachable
            && report.guard.refused.is_none()
            && match cluster.arriving() {
                // It runs, most likely: it is appointed in place.
                Some(import) => {
                    import.waiting.is_empty()
                        && matches!(report.data.form, DataForm::Primary | DataForm::Standby)
                }
                None => {
                    report.postgres.state == PostgresState::Stopped
                        && matches!(report.data.form, DataForm::Empty | DataForm::Primary)
                }
            };
        if !ready {
            return None;
        }
        let mut declare = self.declare(now_ns, cluster, member, Trigger::Bootstrap);
        declare.evidence.instance = Some((heartbeat.instance, heartbeat.boot.clone()));
        declare.evidence.empty = report.data.form == DataForm::Empty;
        Some(declare)
    }

    fn primary_trouble(
        &self,
        now_ns: u64,
        name: &ClusterName,
        cluster: &Cluster,
        appointment: &Appointment,
        voters: usize,
    ) -> Option<Trigger> {
        let policy = &cluster.config.policy;
        let silent_ms = self.silence_ms(now_ns, name, &appointment.member);
        if silent_ms >= policy.partition_timeout_ms {
            return self.listened(now_ns, cluster, voters).then_some(Trigger::Partition { silent_ms });
        }
        let (heartbeat, age_ms) = self.fresh(now_ns, cluster, &appointment.member)?;
        if heartbeat.instance != appointment.instance {
            let (bound, found) = (appointment.instance, heartbeat.instance);
            let guard = &heartbeat.report.guard;
            let restarted = guard.reachable
                && ((heartbeat.boot == appointment.boot && guard.succeeds.contains(&bound))
                    || !self.heard_as(now_ns, cluster, &appointment.member, bound));
            return restarted.then_some(Trigger::InstanceChanged { bound, found });
        }
        appointment.established?;
        let restarting = crate::procedure::restart::is_restarting(cluster, &appointment.member);
        local_trouble(heartbeat, age_ms, policy.disk_stall_timeout_ms, policy.postgres_down_timeout_ms)
            .filter(|trouble| !(restarting && matches!(trouble, Trigger::PostgresDown { .. })))
    }

    /// The member has also been heard as `instance` lately: two machines with one identity (a restored snapshot). The
    /// second one must not cost the first its lease.
    fn heard_as(&self, now_ns: u64, cluster: &Cluster, member: &MemberName, instance: InstanceId) -> bool {
        let fresh_ms = cluster.config.policy.heartbeat_interval_ms.saturating_mul(FRESH_INTERVALS);
        let other = self.memory(&cluster.config.name, member).and_then(|memory| memory.other);
        other.is_some_and(|(other, at_ns)| {
            other == instance && now_ns.saturating_sub(at_ns) / 1_000_000 <= fresh_ms
        })
    }

    /// A new leader has listened for some intervals, and a quorum of relays has reported.
    fn listened(&self, now_ns: u64, cluster: &Cluster, voters: usize) -> bool {
        let Some((_, began_ns)) = self.led else { return false };
        let listen_ns =
            cluster.config.policy.heartbeat_interval_ms.saturating_mul(LISTEN_INTERVALS * 1_000_000);
        let fresh =
            self.relays_ns.values().filter(|at_ns| now_ns.saturating_sub(**at_ns) <= RELAY_FRESH_NS).count();
        now_ns.saturating_sub(began_ns) >= listen_ns && fresh + 1 > voters / 2
    }

    fn rejoin(&self, now_ns: u64, cluster: &Cluster) -> Option<Declare> {
        let (appointment, _) = cluster.established()?;
        if !matches!(running(cluster), Running::Nothing | Running::Drilling | Running::Touring) {
            return None;
        }
        let members = cluster.config.members.keys().filter(|member| **member != appointment.member);
        // Whoever was tried least comes first: one that never gets done must not take every turn.
        let mut members: Vec<_> = members.collect();
        members.sort_by_key(|member| {
            self.memory(&cluster.config.name, member).map_or(0, |memory| memory.rejoins)
        });
        members.into_iter().find_map(|member| {
            let (heartbeat, _) = self.fresh(now_ns, cluster, member)?;
            let memory = self.memory(&cluster.config.name, member)?;
            if now_ns < memory.rejoin_not_before_ns || !heartbeat.report.guard.reachable {
                return None;
            }
            let why = not_in_sync(cluster, member, heartbeat)
                .or_else(|| self.wal_gone(now_ns, cluster, member, memory.wal_gone_since_ns))?;
            let mut declare = self.declare(now_ns, cluster, member, Trigger::NotInSync { why });
            declare.evidence.lineage = heartbeat.report.data.lineage;
            Some(declare)
        })
    }

    /// Remembers since when each confirmed standby needs WAL that the primary has no more.
    ///
    /// Never because of a mere cut: it takes the primary's own word on its oldest segment, beside a standby that is heard and
    /// does not stream. A standby that takes it from the archive gets on, and is left alone.
    pub(super) fn watch_wal(&mut self, now_ns: u64, cluster: &Cluster) {
        for member in cluster.config.members.keys() {
            let gone = self.needs_more(now_ns, cluster, member).is_some();
            let memory = self.members.entry((cluster.config.name.clone(), member.clone())).or_default();
            let since = gone.then(|| memory.wal_gone_since_ns.unwrap_or(now_ns));
            let progress_ns = memory.progress.as_ref().map(|(_, at_ns)| *at_ns).unwrap_or_default();
            memory.wal_gone_since_ns = since.map(|since_ns| since_ns.max(progress_ns));
        }
    }

    /// What it has received, and where the primary's WAL begins, when that is behind it.
    fn needs_more(&self, now_ns: u64, cluster: &Cluster, member: &MemberName) -> Option<(Lsn, Lsn)> {
        let (appointment, _) = cluster.established()?;
        if *member == appointment.member {
            return None;
        }
        let (primary, _) = self.fresh(now_ns, cluster, &appointment.member)?;
        let (standby, _) = self.fresh(now_ns, cluster, member)?;
        let wal = &standby.report.wal;
        let stale_ms = cluster.config.policy.heartbeat_interval_ms.saturating_mul(FRESH_INTERVALS);
        let known = !wal.streaming
            && standby.report.postgres.state == PostgresState::Standby
            && wal.sample_age_ms <= stale_ms
            && primary.report.wal.sample_age_ms <= stale_ms
            && primary.report.data.lineage == appointment.epoch;
        let received = wal.received_lsn.filter(|_| known)?;
        let oldest = primary.report.wal.retention.as_ref()?.oldest_lsn?;
        (received < oldest).then_some((received, oldest))
    }

    fn wal_gone(
        &self,
        now_ns: u64,
        cluster: &Cluster,
        member: &MemberName,
        since_ns: Option<u64>,
    ) -> Option<String> {
        let hold_ms = cluster.config.policy.heartbeat_interval_ms.saturating_mul(FRESH_INTERVALS);
        if now_ns.saturating_sub(since_ns?) / 1_000_000 < hold_ms {
            return None;
        }
        let (received, oldest) = self.needs_more(now_ns, cluster, member)?;
        Some(format!("it has received {received}, and the primary's WAL begins at {oldest}"))
    }

    /// A proposal leaves: a rejoin of the same member is not wished for again at once, and later each time that it did
    /// not lead to sync confirmed: a member that cannot rejoin must not fill the log.
    pub(super) fn proposed(&mut self, now_ns: u64, body: &Body, cluster: &Cluster) {
        let name = cluster.config.name.clone();
        match body {
            Body::Declare(Declare { member, trigger: Trigger::NotInSync { .. }, .. }) => {
                let memory = self.members.entry((name, member.clone())).or_default();
                let intervals = REJOIN_INTERVALS << memory.rejoins.min(REJOIN_DOUBLINGS);
                let pause_ms = cluster.config.policy.heartbeat_interval_ms.saturating_mul(intervals);
                memory.rejoin_not_before_ns = now_ns.saturating_add(pause_ms.saturating_mul(1_000_000));
                memory.rejoins = memory.rejoins.saturating_add(1);
            }
            Body::SyncConfirmed { member, .. } => {
                self.members.entry((name, member.clone())).or_default().rejoins = 0;
            }
            _ => {}
        }
    }
}

fn local_trouble(heartbeat: &Heartbeat, age_ms: u64, stall_max_ms: u64, down_max_ms: u64) -> Option<Trigger> {
    let report = &heartbeat.report;
    match &report.disk.probe {
        // A full disk is no broken one: PostgreSQL may live with it for the moment that it lasts, and if it does not, it is
        // down. The mistake is a later failover, never a needless one.
        DiskProbe::Failed { error } if error == "ENOSPC" || error == "EDQUOT" => {}
        DiskProbe::Failed { error } => return Some(Trigger::DiskFailure { probe: error.clone() }),
        DiskProbe::Stalled { for_ms } if for_ms.saturating_add(age_ms) >= stall_max_ms => {
            let stalled_ms = for_ms.saturating_add(age_ms);
            return Some(Trigger::DiskFailure {
                probe: format!("an fsync has not come back for {stalled_ms} ms"),
            });
        }
        DiskProbe::Stalled { .. } | DiskProbe::Ok { .. } | DiskProbe::NotProbed => {}
    }
    let down_ms = report.postgres.not_accepting_for_ms;
    (!report.postgres.accepting && down_ms >= down_max_ms).then_some(Trigger::PostgresDown { down_ms })
}

fn not_in_sync(cluster: &Cluster, member: &MemberName, heartbeat: &Heartbeat) -> Option<String> {
    match cluster.sync.get(member) {
        None => Some("never in sync".into()),
        Some(SyncState::Unconfirmed { why }) => Some(why.clone()),
        // Confirmed for an older epoch: the history went on without it being seen.
        Some(SyncState::Confirmed { epoch }) if *epoch < newest(cluster) => {
            Some(format!("confirmed for epoch {epoch} only"))
        }
        Some(SyncState::Confirmed { .. }) => {
            let form = heartbeat.report.data.form;
            (form != DataForm::Standby).then(|| format!("its data directory is {form:?}"))
        }
    }
}

fn newest(cluster: &Cluster) -> Epoch {
    cluster.history.last().map_or(Epoch::NONE, |record| record.epoch)
}
