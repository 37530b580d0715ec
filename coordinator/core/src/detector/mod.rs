//! The detector: a leader's memory of who was heard when, and what should be proposed because of it.
//!
//! It never decides: the core checks every proposal again. Times are nanoseconds on the leader's monotonic clock,
//! handed in. A member that nobody has told of counts as heard at the beginning of the leadership: the mistake is a
//! later failover, never a needless one.

mod alert;
mod drill;
mod explain;
mod gaps;
mod hearing;
mod import;
mod members;
mod observe;
mod overdue;
mod planned;
mod position;
mod sync;
mod synchronous;
mod trigger;

use std::collections::BTreeMap;

use regent_types::{ClusterName, CoordinatorId, DataForm, Epoch, Heartbeat, InstanceId, MemberName};

use crate::{Body, Cluster, DeclareEvidence, LagEvidence, Leadership, Proposal, State};
pub use explain::{Condition, Expected, Explanation, Fitness, HeardBy, Shell};
pub use gaps::{GAP_THRESHOLDS_MS, GapCounts, Gaps};
pub use hearing::Hearing;
use overdue::{Progress, StepWatch};
use position::Position;
pub use position::PositionAges;

/// A relay that has not reported for this long does not count for the quorum of relays, ns.
const RELAY_FRESH_NS: u64 = 4_000_000_000;
/// Heartbeat intervals that a new leader listens before it declares a partition.
const LISTEN_INTERVALS: u64 = 3;
/// Figures of a primary that were older than this when it was heard last, in heartbeat intervals, say nothing of its end.
const FROZEN_INTERVALS: u64 = 10;
/// Heartbeat intervals within which a member counts as heard.
const FRESH_INTERVALS: u64 = 5;

/// What is remembered of one member.
#[derive(Debug, Clone, Default)]
struct Memory {
    /// When anybody heard it last; signed, because an inherited age may reach back before this clock's zero.
    heard_ns: Option<i128>,
    /// The last heartbeat that reached this leader, and when.
    last: Option<(Heartbeat, u64)>,
    /// Since when it has been in sync.
    in_sync_since_ns: Option<u64>,
    /// The instance heard before `last`'s, and when it was heard last.
    other: Option<(InstanceId, u64)>,
    /// No rejoin is declared before this.
    rejoin_not_before_ns: u64,
    /// Rejoins declared since it was last in sync.
    rejoins: u32,
    /// Where its WAL stood when it was primary.
    position: Option<Position>,
    /// Since when a confirmed standby has been without its stream.
    not_streaming_since_ns: Option<u64>,
    /// Since when commits could not wait for it while the primary worked.
    no_stream_since_ns: Option<u64>,
    /// Since when the primary has not had what it needs.
    wal_gone_since_ns: Option<u64>,
    /// What it had got done at its last progress, and when that was.
    progress: Option<(Progress, u64)>,
}

/// See the module's documentation.
#[derive(Debug, Clone, Default)]
pub struct Detector {
    led: Option<(Leadership, u64)>,
    members: BTreeMap<(ClusterName, MemberName), Memory>,
    relays_ns: BTreeMap<CoordinatorId, u64>,
    watches: BTreeMap<ClusterName, StepWatch>,
    refusals: BTreeMap<ClusterName, String>,
    /// Since when a member of the preferred region has been in sync, at which epoch.
    preferred_since: BTreeMap<ClusterName, (Epoch, u64)>,
    /// What each follower told last of whom it heard itself, and when it arrived.
    told: BTreeMap<CoordinatorId, (u64, Vec<Hearing>)>,
    /// Kept from one leadership to the next, and by the shell from one process to the next.
    gaps: Gaps,
    /// Second detectors of drills.
    shadows: BTreeMap<ClusterName, drill::Shadow>,
    /// Full drills on their way.
    tours: BTreeMap<ClusterName, drill::TourWatch>,
}

impl Detector {
    /// A detector of a node that does not lead.
    pub fn new() -> Self {
        Self::default()
    }

    /// This node leads now. `inherited` are ages as of `now_ns`: the last leader's report plus the time since.
    pub fn begin_leadership(&mut self, leadership: Leadership, now_ns: u64, inherited: Vec<Hearing>) {
        let gaps = std::mem::take(&mut self.gaps);
        *self = Self { led: Some((leadership, now_ns)), gaps, ..Self::default() };
        self.merge(now_ns, inherited);
    }

    /// This node leads no more.
    pub fn end_leadership(&mut self) {
        *self = Self { gaps: std::mem::take(&mut self.gaps), ..Self::default() };
    }

    /// The silences counted so far.
    pub fn gaps(&self) -> &Gaps {
        &self.gaps
    }

    /// Goes on from what an earlier process counted.
    pub fn restore_gaps(&mut self, gaps: Gaps) {
        self.gaps = gaps;
    }

    /// A heartbeat arrived, directly or through a relay.
    pub fn on_heartbeat(&mut self, now_ns: u64, heartbeat: &Heartbeat) {
        if let Some(shadow) = self.shadows.get_mut(&heartbeat.cluster) {
            shadow.on_heartbeat(now_ns, heartbeat);
        }
        let memory = self.members.entry((heartbeat.cluster.clone(), heartbeat.member.clone())).or_default();
        hear(memory, &mut self.gaps, &heartbeat.cluster, &heartbeat.member, i128::from(now_ns));
        if let Some((last, at_ns)) = &memory.last {
            // Overtaken on another way through a relay: what it says is old, and an instance that is gone would look
            // like a restart of the guard.
            if last.boot == heartbeat.boot && last.stamp_ns > heartbeat.stamp_ns {
                return;
            }
            if last.instance != heartbeat.instance {
                memory.other = Some((last.instance, *at_ns));
            }
        }
        memory.position = Position::observe(memory.position.take(), heartbeat, now_ns);
        Progress::observe(&mut memory.progress, heartbeat, now_ns);
        memory.last = Some((heartbeat.clone(), now_ns));
    }

    /// A voter said whom it has heard.
    pub fn on_relay_report(&mut self, now_ns: u64, from: CoordinatorId, heard: Vec<Hearing>) {
        for (name, shadow) in &mut self.shadows {
            shadow.on_relay_report(name, now_ns, from, &heard);
        }
        self.relays_ns.insert(from, now_ns);
        self.on_learner_report(now_ns, from, heard);
    }

    /// A coordinator without a vote said whom it has heard. It keeps a failover away, but is no part of the quorum of relays
    /// that begins one: two learners beside an isolated leader must not stand for the voters that it cannot reach.
    pub fn on_learner_report(&mut self, now_ns: u64, from: CoordinatorId, heard: Vec<Hearing>) {
        self.told.insert(from, (now_ns, heard.clone()));
        self.merge(now_ns, heard);
    }

    fn merge(&mut self, now_ns: u64, heard: Vec<Hearing>) {
        for hearing in heard {
            let Hearing { cluster, member, age_ms, position } = hearing;
            let heard_ns = i128::from(now_ns) - i128::from(age_ms) * 1_000_000;
            let memory = self.members.entry((cluster.clone(), member.clone())).or_default();
            hear(memory, &mut self.gaps, &cluster, &member, heard_ns);
            memory.position = Position::merge(memory.position.take(), position.as_ref(), now_ns);
        }
    }

    /// The last report of a member that reached this leader, and its age in ms.
    pub fn last_report(
        &self,
        now_ns: u64,
        cluster: &ClusterName,
        member: &MemberName,
    ) -> Option<(&Heartbeat, u64)> {
        let memory = self.members.get(&(cluster.clone(), member.clone()))?;
        memory.last.as_ref().map(|(heartbeat, at_ns)| (heartbeat, now_ns.saturating_sub(*at_ns) / 1_000_000))
    }

    /// Why the last wish for an operation of this cluster was not granted by the core.
    pub fn refusal(&self, cluster: &ClusterName) -> Option<&str> {
        self.refusals.get(cluster).map(String::as_str)
    }

    /// What should be proposed now. `voters` is the number of coordinators.
    ///
    /// Wishes that the core would reject are kept back, with the reason in [`Detector::refusal`]: the log stays empty
    /// while nothing can be done.
    pub fn tick(&mut self, now_ns: u64, state: &State, voters: usize) -> Vec<Body> {
        let Some((leadership, _)) = self.led else { return Vec::new() };
        let mut bodies = Vec::new();
        for (name, cluster) in &state.clusters {
            self.watch_wal(now_ns, cluster);
            let mut wishes: Vec<Body> = self.overdue(now_ns, name, cluster).into_iter().collect();
            wishes.extend(self.sync_confirmed(now_ns, name, cluster));
            wishes.extend(self.withdraw(now_ns, cluster));
            wishes.extend(self.members_acknowledged(now_ns, name, cluster));
            let drill = self.drill(now_ns, state, name, cluster, voters);
            // That a drill's move has ended is noted before the rejoin that follows it begins.
            let (noted, drill) = if cluster.rehearsal.is_some() { (drill, None) } else { (None, drill) };
            wishes.extend(noted);
            wishes.extend(self.import_acknowledged(now_ns, name, cluster));
            wishes.extend(self.trigger(now_ns, name, cluster, voters).map(Body::Declare));
            wishes.extend(drill);
            wishes.extend(self.observe(now_ns, state, name, cluster, voters));
            self.refusals.remove(name);
            for body in wishes {
                match accepted(leadership, state, name, cluster, &body) {
                    Ok(()) => {
                        self.proposed(now_ns, &body, cluster);
                        bodies.push(body);
                        break;
                    }
                    Err(reason) => {
                        self.refusals.insert(name.clone(), reason);
                    }
                }
            }
        }
        for (name, cluster) in &state.clusters {
            let understood = state.level() >= crate::level::SYNCHRONOUS;
            let synchronous = understood.then(|| self.synchronous(now_ns, name, cluster)).flatten();
            bodies
                .extend(synchronous.filter(|body| accepted(leadership, state, name, cluster, body).is_ok()));
            let alert = self.alert(now_ns, name, cluster);
            bodies.extend(alert.filter(|body| accepted(leadership, state, name, cluster, body).is_ok()));
        }
        bodies
    }

    fn memory(&self, cluster: &ClusterName, member: &MemberName) -> Option<&Memory> {
        self.members.get(&(cluster.clone(), member.clone()))
    }

    /// The last heartbeat, if it is fresh.
    fn fresh(&self, now_ns: u64, cluster: &Cluster, member: &MemberName) -> Option<(&Heartbeat, u64)> {
        let (heartbeat, age_ms) = self.last_report(now_ns, &cluster.config.name, member)?;
        let fresh_ms = cluster.config.policy.heartbeat_interval_ms.saturating_mul(FRESH_INTERVALS);
        (age_ms <= fresh_ms).then_some((heartbeat, age_ms))
    }

    /// Whether it makes sense to judge by reports: every member's is there, or a new leadership has listened for them.
    pub fn has_listened(&self, now_ns: u64, cluster: &Cluster) -> bool {
        let Some((_, began_ns)) = self.led else { return true };
        let listen_ns =
            cluster.config.policy.heartbeat_interval_ms.saturating_mul(LISTEN_INTERVALS * 1_000_000);
        now_ns.saturating_sub(began_ns) >= listen_ns
            || cluster.config.members.keys().all(|member| self.fresh(now_ns, cluster, member).is_some())
    }

    /// It is heard, and neither its guard nor its data forbid a promotion: a primary is not fenced for anybody else.
    fn could_take_over(&self, now_ns: u64, cluster: &Cluster, member: &MemberName) -> bool {
        self.fresh(now_ns, cluster, member).is_some_and(|(heartbeat, _)| {
            let report = &heartbeat.report;
            // Of a cluster that is only observed nobody has a guard, and nobody is promoted.
            let guarded =
                cluster.observed.is_some() || (report.guard.reachable && report.guard.refused.is_none());
            guarded && report.data.form == DataForm::Standby
        })
    }

    /// What is known now, for a declaration.
    pub fn evidence(&self, now_ns: u64, cluster: &Cluster) -> DeclareEvidence {
        let name = &cluster.config.name;
        let primary = cluster.appointment.as_ref().map(|appointment| &appointment.member);
        let newest = cluster.history.last().map(|record| record.epoch);
        let position = primary
            .and_then(|member| self.memory(name, member)?.position.as_ref())
            .filter(|position| Some(position.epoch) == newest);
        let seen = position.and_then(Position::newest);
        let lags = cluster.config.members.keys().filter(|member| Some(*member) != primary);
        let lags = lags.filter_map(|member| {
            let (heartbeat, _) = self.fresh(now_ns, cluster, member)?;
            let lag_ms = position?.lag_ms(heartbeat.report.wal.received_lsn?)?;
            Some((member.clone(), lag_ms))
        });
        let frozen_max_ms = cluster.config.policy.heartbeat_interval_ms.saturating_mul(FROZEN_INTERVALS);
        let members = cluster.config.members.keys().filter(|member| Some(*member) != primary);
        DeclareEvidence {
            instance: None,
            primary_lsn: seen.map(|(lsn, _)| lsn),
            primary_age_ms: seen.map(|(_, at_ns)| {
                u64::try_from((i128::from(now_ns) - at_ns).max(0) / 1_000_000).unwrap_or(u64::MAX)
            }),
            lag: Box::new(LagEvidence {
                frozen_ms: position
                    .map(|position| position.frozen_ms)
                    .filter(|frozen_ms| *frozen_ms > frozen_max_ms),
                by_member_ms: lags.collect(),
            }),
            heard: members.filter(|member| self.could_take_over(now_ns, cluster, member)).cloned().collect(),
            empty: false,
            lineage: Epoch::NONE,
            snapshot: None,
        }
    }
}

/// A member was heard at `heard_ns`; the silence before that is counted.
fn hear(memory: &mut Memory, gaps: &mut Gaps, cluster: &ClusterName, member: &MemberName, heard_ns: i128) {
    if let Some(gap_ns) = memory.heard_ns.map(|before_ns| heard_ns - before_ns).filter(|gap_ns| *gap_ns > 0) {
        gaps.add(cluster, member, u64::try_from(gap_ns / 1_000_000).unwrap_or(u64::MAX));
    }
    memory.heard_ns = memory.heard_ns.max(Some(heard_ns));
}

/// Whether the core would accept `body`, tried on a copy of this one cluster.
fn accepted(
    leadership: Leadership,
    known: &State,
    name: &ClusterName,
    cluster: &Cluster,
    body: &Body,
) -> Result<(), String> {
    let mut state = State { feature_level: known.feature_level, ..State::default() };
    state.clusters.insert(name.clone(), cluster.clone());
    let proposal = Proposal { wall_ms: 0, proposer: leadership.node, body: body.clone() };
    state.dry_run(leadership, &proposal).map(|_| ()).map_err(|rejection| rejection.to_string())
}
