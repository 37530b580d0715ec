//! *Explain* (DESIGN section 7): would it fail over now, what says no, what would be lost, how long each phase would take,
//! and the evidence held. A pure function over the replicated state and the leader's memory; it changes nothing, and it
//! asks the very functions that decide, so that it cannot tell another story than they do.

use std::borrow::Cow;

use regent_types::{ClusterName, CoordinatorId, DiskProbe, Lsn, MemberName};
use serde::{Deserialize, Serialize};

use super::{Detector, FRESH_INTERVALS, GapCounts, Hearing, LISTEN_INTERVALS, RELAY_FRESH_NS};
use crate::{
    Applied, Body, Cluster, Declare, EventKind, Kind, LossUpperBound, Proposal, Rejection, State, Step,
    SyncState, Trigger,
    procedure::precedence::{self, Proposed},
};

/// One threshold or guard, with both sides' values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Its name.
    pub name: Cow<'static, str>,
    /// A trigger: its threshold is reached. A guard: it does not say no.
    pub holds: bool,
    /// With the numbers.
    pub text: String,
}

/// Whether a member could take over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fitness {
    /// Who.
    pub member: MemberName,
    /// Nothing says no, as far as can be told before it is prepared.
    pub able: bool,
    /// Why.
    pub text: String,
    /// What it lacks of the primary's WAL at last contact, bytes.
    pub lag_bytes: Option<u64>,
}

/// How long a phase would take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Its name.
    pub phase: Cow<'static, str>,
    /// The median of this cluster's failovers, ms.
    pub median_ms: Option<u64>,
    /// The longest of them, ms.
    pub longest_ms: Option<u64>,
    /// How many of them there are.
    pub samples: usize,
    /// After this the next rung is tried, ms.
    pub at_most_ms: Option<u64>,
    /// Where the figures come from.
    pub text: String,
}

/// When one coordinator heard one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeardBy {
    /// Who was heard.
    pub member: MemberName,
    /// By whom.
    pub coordinator: CoordinatorId,
    /// How long ago, ms; `None`: it never did, or has not told.
    pub age_ms: Option<u64>,
    /// How old the coordinator's own word is, ms; `None`: it has not told.
    pub told_ms: Option<u64>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// A failover would begin now by itself.
    pub would: bool,
    /// In one sentence.
    pub verdict: String,
    /// If the primary had been silent for the partition timeout: what would come of it.
    pub if_silent: String,
    /// That it would begin by itself then.
    pub would_if_silent: bool,
    /// What starts a failover.
    pub triggers: Vec<Condition>,
    /// What can hold it back.
    pub guards: Vec<Condition>,
    /// Every member but the primary.
    pub candidates: Vec<Fitness>,
    /// What a failover to the best of them would lose, at most.
    pub loss: Option<LossUpperBound>,
    /// Phases in order.
    pub phases: Vec<Expected>,
    /// Who heard whom when.
    pub heard: Vec<HeardBy>,
    /// Silences per member, by this leader.
    pub gaps: Vec<(MemberName, GapCounts)>,
}

/// What the detector does not know itself.
#[derive(Debug, Clone, Default)]
pub struct Shell {
    /// All coordinators.
    pub coordinators: Vec<CoordinatorId>,
    /// What this node heard itself.
    pub own: Vec<Hearing>,
    /// Until when a lease may be valid, ms from now.
    pub lease_left_ms: Option<u64>,
    /// What is left of the cooldown, ms.
    pub cooldown_left_ms: Option<u64>,
    /// What the veto hook said last, when it said no.
    pub veto: Option<String>,
}

impl Detector {
    /// See the module's documentation. `None` on a node that does not lead.
    pub fn explain(&self, now_ns: u64, cluster: &Cluster, shell: &Shell) -> Option<Explanation> {
        let (leadership, _) = self.led?;
        if let Some(image) = self.as_if(now_ns, cluster) {
            let mut explained = self.explain(now_ns, &image, shell)?;
            explained.verdict = format!("observed only, as if Regent led it: {}", explained.verdict);
            for guard in explained.guards.iter_mut().filter(|guard| guard.name == "automation") {
                (guard.holds, guard.text) =
                    (false, "observe: it is said and counted, nothing is done".into());
            }
            return Some(explained);
        }
        let name = &cluster.config.name;
        let voters = shell.coordinators.len();
        let wish = self.trigger(now_ns, name, cluster, voters).filter(|wish| is_failover(&wish.trigger));
        let tried = |trigger: Trigger| {
            let primary = &cluster.appointment.as_ref()?.member;
            let declare = Declare {
                cluster: name.clone(),
                expected_epoch: cluster.epoch,
                member: primary.clone(),
                trigger,
                evidence: self.evidence(now_ns, cluster),
            };
            let mut state = State::default();
            state.clusters.insert(name.clone(), cluster.clone());
            let body = Body::Declare(declare);
            let proposal = Proposal { wall_ms: 0, proposer: leadership.node, body };
            Some(state.dry_run(leadership, &proposal))
        };
        let (would, verdict) = match wish.map(|wish| tried(wish.trigger.clone()).map(|reply| (wish, reply))) {
            Some(Some((wish, Ok(applied)))) if begins(&applied) => match &shell.veto {
                Some(veto) => (false, format!("held back by the veto hook: {veto}")),
                None => (true, format!("a failover begins now: {}", reason_of(&wish.trigger))),
            },
            Some(Some((_, Ok(_)))) => (false, "it would wait for an operator".to_owned()),
            Some(Some((_, Err(rejection)))) => (false, format!("held back: {rejection}")),
            Some(None) | None => (false, self.quiet(cluster)),
        };
        let silent_ms = cluster.config.policy.partition_timeout_ms;
        let (would_if_silent, if_silent) = outcome_of(tried(Trigger::Partition { silent_ms }));
        let candidates = self.standings(now_ns, cluster);
        Some(Explanation {
            would,
            verdict,
            if_silent,
            would_if_silent,
            triggers: self.triggers(now_ns, cluster),
            guards: self.guards(now_ns, cluster, shell, &candidates),
            loss: self.loss(now_ns, cluster, &candidates),
            phases: phases(cluster, shell),
            heard: self.heard_by(now_ns, cluster, shell),
            gaps: self.all_gaps(name, cluster),
            candidates,
        })
    }

    fn quiet(&self, cluster: &Cluster) -> String {
        match &cluster.operation {
            Some(operation) if cluster.fenced_through == cluster.epoch => {
                format!("operation {} is at it (step {:?})", operation.id, operation.step)
            }
            _ if cluster.appointment.is_none() => "no: the cluster has no primary of Regent's".to_owned(),
            _ => "no: no trigger has reached its threshold".to_owned(),
        }
    }

    fn triggers(&self, now_ns: u64, cluster: &Cluster) -> Vec<Condition> {
        let Some(appointment) = &cluster.appointment else { return Vec::new() };
        let policy = &cluster.config.policy;
        let (name, primary) = (&cluster.config.name, &appointment.member);
        let silent_ms = self.silence_ms(now_ns, name, primary);
        let mut all = vec![Condition {
            name: "partition".into(),
            holds: silent_ms >= policy.partition_timeout_ms,
            text: format!("{primary} silent for {silent_ms} ms of {} ms", policy.partition_timeout_ms),
        }];
        let Some((heartbeat, age_ms)) = self.fresh(now_ns, cluster, primary) else {
            let text = format!("no report of {primary} within {FRESH_INTERVALS} heartbeat intervals");
            for name in ["postgres_down", "disk_failure"] {
                all.push(Condition { name: name.into(), holds: false, text: text.clone() });
            }
            return all;
        };
        let report = &heartbeat.report;
        let down_ms = report.postgres.not_accepting_for_ms;
        all.push(Condition {
            name: "postgres_down".into(),
            holds: !report.postgres.accepting && down_ms >= policy.postgres_down_timeout_ms,
            text: if report.postgres.accepting {
                format!("accepts connections (reported {age_ms} ms ago)")
            } else {
                format!("no connection accepted for {down_ms} ms of {} ms", policy.postgres_down_timeout_ms)
            },
        });
        let (holds, text) = match &report.disk.probe {
            DiskProbe::Ok { latency_ms } => (false, format!("the last fsync took {latency_ms} ms")),
            DiskProbe::Stalled { for_ms } => {
                let stalled_ms = for_ms.saturating_add(age_ms);
                let max_ms = policy.disk_stall_timeout_ms;
                (stalled_ms >= max_ms, format!("an fsync has hung for {stalled_ms} ms of {max_ms} ms"))
            }
            DiskProbe::Failed { error } => (true, format!("an fsync failed: {error}")),
            DiskProbe::NotProbed => (false, "not probed".to_owned()),
        };
        all.push(Condition { name: "disk_failure".into(), holds, text });
        if heartbeat.instance != appointment.instance {
            let text = format!(
                "epoch {} is bound to {}, {} lives",
                cluster.epoch, appointment.instance, heartbeat.instance
            );
            all.push(Condition { name: "guard_restarted".into(), holds: true, text });
        }
        all
    }

    fn guards(
        &self,
        now_ns: u64,
        cluster: &Cluster,
        shell: &Shell,
        candidates: &[Fitness],
    ) -> Vec<Condition> {
        let mut all = Vec::new();
        let mut guard = |name: &'static str, holds, text: String| {
            all.push(Condition { name: name.into(), holds, text });
        };
        let by = cluster.paused_by.as_ref().map(|by| format!(" ({by})")).unwrap_or_default();
        let automatic = cluster.automation == regent_types::Automation::Automatic;
        guard("automation", automatic, format!("{}{by}", cluster.automation));
        match &cluster.cooldown {
            None => guard("cooldown", true, "no automatic failover lately".to_owned()),
            Some(cooldown) => {
                let left_ms = shell.cooldown_left_ms.unwrap_or_default();
                let text = format!("operation {} was automatic; {left_ms} ms are left", cooldown.operation);
                guard("cooldown", false, text);
            }
        }
        match &cluster.operation {
            Some(operation) => {
                let text = format!("operation {} is in step {:?}", operation.id, operation.step);
                let gives_way = precedence::check(cluster, Proposed::AutomaticFailover).is_ok();
                guard("operation", gives_way, text);
            }
            None => guard("operation", true, "none is running".to_owned()),
        }
        let relays =
            self.relays_ns.values().filter(|at_ns| now_ns.saturating_sub(**at_ns) <= RELAY_FRESH_NS).count();
        let led_ms = self.led.map_or(0, |(_, began_ns)| now_ns.saturating_sub(began_ns) / 1_000_000);
        let listen_ms = cluster.config.policy.heartbeat_interval_ms.saturating_mul(LISTEN_INTERVALS);
        let voters = shell.coordinators.len();
        guard(
            "listened",
            led_ms >= listen_ms && relays + 1 > voters / 2,
            format!(
                "this leader has listened for {led_ms} ms of {listen_ms} ms; {} of {voters} coordinators tell whom they hear",
                relays + 1
            ),
        );
        let able = candidates.iter().filter(|standing| standing.able).count();
        guard("candidate", able > 0, format!("{able} of {} members could take over", candidates.len()));
        if !cluster.synchronous.logged.is_empty() {
            match crate::synchronous::outlook(cluster, &self.would_answer(now_ns, cluster)) {
                Ok(text) => guard("synchronous", true, text),
                Err(text) => guard("synchronous", false, format!("it would wait for consent: {text}")),
            }
        }
        match &shell.veto {
            Some(veto) => guard("veto", false, veto.clone()),
            None => guard("veto", true, "the hook, if there is one, has not said no".to_owned()),
        }
        all
    }

    pub(super) fn standings(&self, now_ns: u64, cluster: &Cluster) -> Vec<Fitness> {
        let primary = cluster.appointment.as_ref().map(|appointment| &appointment.member);
        let newest = cluster.history.last().map(|record| record.epoch);
        let written = self.evidence(now_ns, cluster).primary_lsn;
        let others = cluster.config.members.iter().filter(|(name, _)| Some(*name) != primary);
        others
            .map(|(member, config)| {
                let last = self.last_report(now_ns, &cluster.config.name, member);
                let received = last.and_then(|(heartbeat, _)| heartbeat.report.wal.received_lsn);
                let lag_bytes =
                    written.zip(received).map(|(written, received)| written.bytes_since(received));
                let (able, text) = if !config.promotable {
                    (false, "not promotable by configuration".to_owned())
                } else if let Some(refused) = last.and_then(|(h, _)| h.report.guard.refused.clone()) {
                    (false, format!("its guard refuses: {refused}"))
                } else if !self.could_take_over(now_ns, cluster, member) {
                    let age_ms = last.map(|(_, age_ms)| age_ms);
                    let text = age_ms.map_or("never heard".to_owned(), |age_ms| {
                        format!("last heard {age_ms} ms ago; not a guarded standby that is heard")
                    });
                    (false, text)
                } else {
                    match cluster.sync.get(member) {
                        Some(SyncState::Confirmed { epoch }) if Some(*epoch) == newest => {
                            self.within_lag(cluster, lag_bytes)
                        }
                        Some(SyncState::Confirmed { epoch }) => {
                            (false, format!("in sync with epoch {epoch} only"))
                        }
                        Some(SyncState::Unconfirmed { why }) => (false, format!("not in sync ({why})")),
                        None => (false, "never in sync".to_owned()),
                    }
                };
                Fitness { member: member.clone(), able, text, lag_bytes }
            })
            .collect()
    }

    fn within_lag(&self, cluster: &Cluster, lag_bytes: Option<u64>) -> (bool, String) {
        match (cluster.config.policy.max_lag_bytes, lag_bytes) {
            (Some(max), Some(lag)) if lag > max => {
                (false, format!("in sync, but lacks {lag} bytes, {max} are allowed without consent"))
            }
            (Some(max), None) => {
                (false, format!("in sync, but its lag is not known, {max} bytes are allowed without consent"))
            }
            (_, Some(lag)) => (true, format!("in sync, lacks {lag} bytes at last contact")),
            (None, None) => (true, "in sync, its lag is not known".to_owned()),
        }
    }

    fn loss(&self, now_ns: u64, cluster: &Cluster, candidates: &[Fitness]) -> Option<LossUpperBound> {
        let best = candidates.iter().filter(|standing| standing.able).min_by_key(|s| s.lag_bytes)?;
        let evidence = self.evidence(now_ns, cluster);
        let received: Option<Lsn> = self
            .last_report(now_ns, &cluster.config.name, &best.member)
            .and_then(|(heartbeat, _)| heartbeat.report.wal.received_lsn);
        let lease_ms = cluster.config.policy.lease.bound_ns().div_ceil(1_000_000);
        Some(LossUpperBound {
            primary_lsn: evidence.primary_lsn,
            received_lsn: received,
            bytes_at_last_contact: best.lag_bytes,
            // Cut off, the primary accepts writes until its lease ends.
            exposed_ms: evidence.primary_age_ms.unwrap_or_default().saturating_add(lease_ms),
        })
    }

    fn heard_by(&self, now_ns: u64, cluster: &Cluster, shell: &Shell) -> Vec<HeardBy> {
        let leader = self.led.map(|(leadership, _)| leadership.node);
        let name = &cluster.config.name;
        let find = |heard: &[Hearing], member: &MemberName| {
            let known = heard.iter().find(|one| one.cluster == *name && one.member == *member);
            known.map(|one| one.age_ms)
        };
        let mut all = Vec::new();
        for member in cluster.config.members.keys() {
            for coordinator in &shell.coordinators {
                let (age_ms, told_ms) = if Some(*coordinator) == leader {
                    (find(&shell.own, member), Some(0))
                } else {
                    let told = self.told.get(coordinator);
                    let told_ms = told.map(|(at_ns, _)| now_ns.saturating_sub(*at_ns) / 1_000_000);
                    let age_ms = told.and_then(|(_, heard)| find(heard, member));
                    (age_ms.map(|age_ms| age_ms + told_ms.unwrap_or_default()), told_ms)
                };
                all.push(HeardBy { member: member.clone(), coordinator: *coordinator, age_ms, told_ms });
            }
        }
        all
    }

    fn all_gaps(&self, name: &ClusterName, cluster: &Cluster) -> Vec<(MemberName, GapCounts)> {
        let members = cluster.config.members.keys();
        members.filter_map(|member| Some((member.clone(), self.gaps.of(name, member)?.clone()))).collect()
    }
}

pub(super) fn is_failover(trigger: &Trigger) -> bool {
    !matches!(trigger, Trigger::Bootstrap | Trigger::NotInSync { .. } | Trigger::Operator)
}

fn begins(applied: &Applied) -> bool {
    applied.events.iter().any(|event| event.kind == EventKind::FenceDecided)
}

fn reason_of(trigger: &Trigger) -> String {
    match trigger {
        Trigger::Partition { silent_ms } => format!("partition, silent for {silent_ms} ms"),
        Trigger::PostgresDown { down_ms } => format!("PostgreSQL down for {down_ms} ms"),
        Trigger::DiskFailure { probe } => format!("disk failure: {probe}"),
        Trigger::InstanceChanged { .. } => "the guard restarted".to_owned(),
        other => format!("{other:?}"),
    }
}

fn outcome_of(reply: Option<Result<Applied, Rejection>>) -> (bool, String) {
    match reply {
        None => (false, "there is no primary".to_owned()),
        Some(Ok(applied)) if begins(&applied) => (true, "a failover would begin".to_owned()),
        Some(Ok(applied)) => {
            let text = applied.events.first().map(|event| event.text.clone()).unwrap_or_default();
            (false, format!("it would wait for an operator: {text}"))
        }
        Some(Err(rejection)) => (false, format!("it would be held back: {rejection}")),
    }
}

/// From the thresholds, and from what this cluster's failovers took (wall time: display only).
fn phases(cluster: &Cluster, shell: &Shell) -> Vec<Expected> {
    let policy = &cluster.config.policy;
    let failovers: Vec<_> =
        cluster.finished.iter().filter(|operation| operation.kind == Kind::Failover).collect();
    let expected = |phase: &'static str, steps: &[Step], at_most_ms: Option<u64>, text: String| {
        let mut taken: Vec<u64> = failovers
            .iter()
            .filter_map(|operation| {
                let records = operation.steps.iter().filter(|record| steps.contains(&record.step));
                let times = records
                    .filter_map(|r| r.ended_wall_ms.map(|ended| ended.saturating_sub(r.began_wall_ms)));
                times.reduce(|a, b| a + b)
            })
            .collect();
        taken.sort_unstable();
        Expected {
            phase: phase.into(),
            median_ms: taken.get(taken.len() / 2).copied(),
            longest_ms: taken.last().copied(),
            samples: taken.len(),
            at_most_ms,
            text,
        }
    };
    let bound_ms = policy.lease.bound_ns().div_ceil(1_000_000);
    let left =
        shell.lease_left_ms.map_or("none is known to be held".to_owned(), |ms| format!("{ms} ms are left"));
    let mut all = vec![Expected {
        phase: "detection".into(),
        median_ms: None,
        longest_ms: None,
        samples: 0,
        at_most_ms: Some(policy.partition_timeout_ms),
        text: format!(
            "partition {} ms; PostgreSQL down {} ms; disk stalled {} ms",
            policy.partition_timeout_ms, policy.postgres_down_timeout_ms, policy.disk_stall_timeout_ms
        ),
    }];
    let text = format!("the guard's answer, or the end of the lease ({left})");
    all.push(expected("fence", &[Step::Fence, Step::Choose], Some(bound_ms), text));
    let text = "replay, pg_promote, verified".to_owned();
    all.push(expected("promote", &[Step::Promote], Some(policy.promote_timeout_ms), text));
    let text = format!(
        "providers: {}; clients keep a record for {} s",
        cluster.config.dns_providers.join(", "),
        cluster.config.dns_ttl_s
    );
    all.push(expected("redirect", &[Step::Redirect], None, text));
    let text = "a marker row through the name".to_owned();
    all.push(expected("validate", &[Step::Validate], Some(policy.validate_timeout_ms), text));
    all
}
