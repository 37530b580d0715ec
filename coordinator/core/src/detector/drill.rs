//! A drill's second detector: fed like the first one, save that it hears nothing of the lost region's members, neither itself
//! nor through relays. The first one goes on and alone decides.
//!
//! Leader's memory: it begins when this leader first sees the drill, and is gone with the leadership or with the drill. A new
//! leader begins anew, so detection takes longer than it would have: ages are inherited by the first detector only.

use std::collections::BTreeSet;

use regent_types::{ClusterName, CoordinatorId, Heartbeat, MemberName, OperationId};

use super::{Detector, Hearing, Shell, accepted};
use crate::{Body, Cluster, DrillNews, Kind, State, Step, Trigger};

/// Partition timeouts after which a drill that has found nothing ends.
const DETECT_TIMEOUTS: u64 = 2;

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(super) struct Shadow {
    operation: OperationId,
    muted: BTreeSet<MemberName>,
    since_ns: u64,
    ears: Box<Detector>,
    /// Why the declaration would be refused now.
    refusal: Option<String>,
}

impl Shadow {
    pub(super) fn on_heartbeat(&mut self, now_ns: u64, heartbeat: &Heartbeat) {
        if !self.muted.contains(&heartbeat.member) {
            self.ears.on_heartbeat(now_ns, heartbeat);
        }
    }

    pub(super) fn on_relay_report(
        &mut self,
        name: &ClusterName,
        now_ns: u64,
        from: CoordinatorId,
        heard: &[Hearing],
    ) {
        let heard = heard.iter().filter(|one| one.cluster == *name && !self.muted.contains(&one.member));
        self.ears.on_relay_report(now_ns, from, heard.cloned().collect());
    }
}

/// Since when a full drill has been in its stage, by this leader's count.
#[derive(Debug, Clone)]
pub(super) struct TourWatch {
    drill: OperationId,
    steps: usize,
    stage: std::mem::Discriminant<crate::DrillStage>,
    since_ns: u64,
}

impl Detector {
    /// What is to be said about this cluster's drill now, if it has one.
    pub(super) fn drill(
        &mut self,
        now_ns: u64,
        state: &State,
        name: &ClusterName,
        cluster: &Cluster,
        voters: usize,
    ) -> Option<Body> {
        let drilling = cluster.operation.as_ref().filter(|operation| operation.step == Step::Detect);
        let wish = match drilling.map(|operation| (operation.id, &operation.kind)) {
            Some((id, Kind::Drill { region, .. })) => {
                self.tours.remove(name);
                let begun = self.shadows.get(name).is_some_and(|shadow| shadow.operation == id);
                if !begun {
                    let members = cluster.config.members.iter();
                    let muted = members.filter(|(_, config)| config.region == *region);
                    let muted = muted.map(|(member, _)| member.clone()).collect();
                    let mut ears = Box::new(self.clone());
                    ears.shadows.clear();
                    ears.tours.clear();
                    let shadow = Shadow { operation: id, muted, since_ns: now_ns, ears, refusal: None };
                    self.shadows.insert(name.clone(), shadow);
                }
                (id, self.detect(now_ns, state, name, cluster, voters)?)
            }
            _ => {
                self.shadows.remove(name);
                let Some(rehearsal) = &cluster.rehearsal else {
                    self.tours.remove(name);
                    return None;
                };
                (rehearsal.drill.id, self.tour(now_ns, state, name, cluster)?)
            }
        };
        let (operation, news) = wish;
        Some(Body::Drill { cluster: name.clone(), operation, news })
    }

    fn detect(
        &mut self,
        now_ns: u64,
        state: &State,
        name: &ClusterName,
        cluster: &Cluster,
        voters: usize,
    ) -> Option<DrillNews> {
        let (leadership, _) = self.led?;
        let shadow = self.shadows.get_mut(name)?;
        let alone = Cluster { operation: None, ..cluster.clone() };
        let wish = shadow.ears.trigger(now_ns, name, &alone, voters);
        let wish = wish.filter(|wish| matches!(wish.trigger, Trigger::Partition { .. }));
        shadow.refusal = match wish {
            None => {
                let primary = alone.appointment.as_ref().map(|appointment| &appointment.member);
                let silent_ms = primary.map_or(0, |primary| shadow.ears.silence_ms(now_ns, name, primary));
                let max_ms = alone.config.policy.partition_timeout_ms;
                Some(if silent_ms < max_ms {
                    format!("silent for {silent_ms} ms of {max_ms} ms")
                } else {
                    "too few coordinators tell whom they hear".to_owned()
                })
            }
            Some(wish) => {
                let body = Body::Declare(wish.clone());
                match accepted(leadership, state, name, &alone, &body) {
                    Ok(()) => return Some(DrillNews::WouldDeclare(Box::new(wish))),
                    Err(reason) => Some(reason),
                }
            }
        };
        let after_ms = now_ns.saturating_sub(shadow.since_ns) / 1_000_000;
        let deadline_ms = cluster.config.policy.partition_timeout_ms.saturating_mul(DETECT_TIMEOUTS);
        let why = shadow.refusal.clone().unwrap_or_default();
        (after_ms >= deadline_ms).then_some(DrillNews::Overdue { after_ms, why })
    }

    /// The next stage of a full drill, or that it does not come.
    fn tour(
        &mut self,
        now_ns: u64,
        state: &State,
        name: &ClusterName,
        cluster: &Cluster,
    ) -> Option<DrillNews> {
        let (leadership, _) = self.led?;
        let rehearsal = cluster.rehearsal.as_ref()?;
        let fresh = TourWatch {
            drill: rehearsal.drill.id,
            steps: rehearsal.drill.steps.len(),
            stage: std::mem::discriminant(&rehearsal.stage),
            since_ns: now_ns,
        };
        let watch = self.tours.entry(name.clone()).or_insert_with(|| fresh.clone());
        if (watch.drill, watch.steps, watch.stage) != (fresh.drill, fresh.steps, fresh.stage) {
            *watch = fresh;
        }
        // A move, or a rejoin, has deadlines of its own.
        if cluster.operation.as_ref().is_some_and(|operation| operation.kind.is_planned()) {
            return None;
        }
        let readiness = Box::new(self.readiness(now_ns, cluster));
        let news = DrillNews::Next { readiness };
        let operation = rehearsal.drill.id;
        let body = Body::Drill { cluster: name.clone(), operation, news: news.clone() };
        let why = match accepted(leadership, state, name, cluster, &body) {
            Ok(()) => return Some(news),
            Err(reason) => reason,
        };
        let since_ns = self.tours.get(name)?.since_ns;
        let after_ms = now_ns.saturating_sub(since_ns) / 1_000_000;
        let deadline_ms = cluster.config.policy.rejoin_timeout_ms;
        (after_ms >= deadline_ms).then_some(DrillNews::Overdue { after_ms, why })
    }

    /// Puts what is known beside a wish for a failover: for its report, and for a drill's words.
    pub fn testify(&self, now_ns: u64, state: &State, shell: &Shell, body: &mut Body) {
        match body {
            Body::Declare(declare) if super::explain::is_failover(&declare.trigger) => {
                let cluster = state.clusters.get(&declare.cluster);
                declare.evidence.snapshot = cluster.and_then(|cluster| self.snapshot(now_ns, cluster, shell));
            }
            Body::Drill { cluster: name, news: DrillNews::WouldDeclare(declare), .. } => {
                let (Some(shadow), Some(cluster)) = (self.shadows.get(name), state.clusters.get(name)) else {
                    return;
                };
                let alone = Cluster { operation: None, ..cluster.clone() };
                let heard = |one: &&Hearing| one.cluster != *name || !shadow.muted.contains(&one.member);
                let own = shell.own.iter().filter(heard).cloned().collect();
                let shell = Shell { own, ..shell.clone() };
                declare.evidence.snapshot = shadow.ears.snapshot(now_ns, &alone, &shell);
            }
            Body::Observed { cluster: name, sighting: crate::Sighting::Would { declare, .. } } => {
                let cluster = state.clusters.get(name);
                declare.evidence.snapshot = cluster.and_then(|cluster| self.snapshot(now_ns, cluster, shell));
            }
            _ => {}
        }
    }

    /// An explanation without what belongs to no moment.
    pub fn snapshot(&self, now_ns: u64, cluster: &Cluster, shell: &Shell) -> Option<Box<crate::Explanation>> {
        let mut snapshot = self.explain(now_ns, cluster, shell)?;
        snapshot.gaps.clear();
        snapshot.phases.clear();
        Some(Box::new(snapshot))
    }
}
