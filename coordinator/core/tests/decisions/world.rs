//! The real core with a fake clock, fake members and a fake executor that does nothing unless told.

use std::collections::BTreeMap;

use regent_core::{
    Applied, Body, Cluster, ClusterConfig, Confirmed, Cooldowns, Detector, Effect, EffectKind, FenceProof,
    Leadership, LeaseTable, MemberConfig, Policy, Position, Proposal, Reply, State,
};
use regent_types::{
    Automation, CandidateReport, ClusterName, CoordinatorId, Directive, EffectKey, Epoch, Evidence,
    FencedEvidence, InstanceId, LeaseDecision, LeaseTerms, Lsn, MemberName, Outcome, Region, StandbyFacts,
};

use super::member::{Member, SHUTDOWN_BYTES};

pub const SECOND_NS: u64 = 1_000_000_000;

pub fn cluster_name(name: &str) -> ClusterName {
    ClusterName::new(name).unwrap()
}

pub fn member_name(name: &str) -> MemberName {
    MemberName::new(name).unwrap()
}

/// Small numbers whose relations hold: 20 s lease, 30 s partition timeout.
pub fn policy() -> Policy {
    Policy {
        partition_timeout_ms: 30_000,
        lease: LeaseTerms { ttl_ms: 20_000, rho_ppm: 5_000, kill_ms: 1_000 },
        postgres_down_timeout_ms: 10_000,
        disk_stall_timeout_ms: 5_000,
        heartbeat_interval_ms: 1_000,
        fence_grace_ms: 2_000,
        promote_timeout_ms: 10_000,
        replay_timeout_ms: 5_000,
        validate_timeout_ms: 10_000,
        rejoin_timeout_ms: 60_000,
        rewind_timeout_ms: 30_000,
        sync_lag_bytes_max: 0x100,
        sync_window_ms: 3_000,
        max_lag_bytes: None,
        cooldown_ms: 0,
        max_lag_ms: None,
        disk_full_alert_ms: 0,
        switchover_timeout_ms: 20_000,
        failback: regent_core::FailbackMode::Manual,
        failback_after_ms: 10_000,
        failback_window: None,
        promise_ms: 0,
        synchronous: Default::default(),
    }
}

pub fn config(name: &str, members: &[&str]) -> ClusterConfig {
    let member = |index: usize| MemberConfig {
        region: Region::new(format!("region-{index}")).unwrap(),
        host: format!("10.0.0.{index}"),
        port: 5432,
        client_address: format!("192.0.2.{index}").parse().unwrap(),
        client_port: 5432,
        priority: 100,
        promotable: true,
        agent_address: None,
    };
    ClusterConfig {
        name: cluster_name(name),
        dns_name: format!("{name}.db.example"),
        dns_ttl_s: 5,
        dns_providers: vec!["embedded".into()],
        initial_primary: member_name(members[0]),
        members: members.iter().enumerate().map(|(i, m)| (member_name(m), member(i + 1))).collect(),
        policy: policy(),
        automation: Automation::Automatic,
        preferred_region: None,
    }
}

/// What a world did, for a script to print.
#[derive(Debug, Clone)]
pub enum Seen {
    Proposed(Box<Body>),
    Replied(Reply),
    Lease(MemberName, String),
}

pub struct World {
    pub state: State,
    pub leases: LeaseTable,
    pub detector: Detector,
    pub cooldowns: Cooldowns,
    pub leadership: Leadership,
    pub now_ns: u64,
    pub members: BTreeMap<(ClusterName, MemberName), Member>,
    pub relays: bool,
    pub seen: Vec<(u64, Seen)>,
    /// Leases that may be valid, by the worst of clocks: instance and last instant.
    pub held: BTreeMap<ClusterName, Vec<(InstanceId, u64)>>,
    /// Extra checks may be switched off by an operator's word.
    pub excepted: bool,
    instances: u128,
    answers: BTreeMap<(ClusterName, MemberName), String>,
}

impl World {
    /// Led by node 1 since now.
    pub fn new(configs: Vec<ClusterConfig>) -> Self {
        let leadership = Leadership { term: 1, node: CoordinatorId(1) };
        let mut world = Self {
            state: State::default(),
            leases: LeaseTable::new(),
            detector: Detector::new(),
            cooldowns: Cooldowns::default(),
            leadership,
            now_ns: 1_000 * SECOND_NS,
            members: BTreeMap::new(),
            relays: true,
            seen: Vec::new(),
            held: BTreeMap::new(),
            excepted: false,
            instances: 0,
            answers: BTreeMap::new(),
        };
        world.leases.begin(leadership, world.now_ns);
        world.detector.begin_leadership(leadership, world.now_ns, Vec::new());
        if configs.iter().any(|config| config.policy.synchronous.on) {
            world.propose(Body::RaiseLevel { level: regent_core::FEATURE_LEVEL }).unwrap();
        }
        for config in configs {
            for member in config.members.keys() {
                let instance = world.next_instance();
                let key = (config.name.clone(), member.clone());
                world.members.insert(key, Member::new(&config.name, member, instance));
            }
            world.propose(Body::Configure(Box::new(config))).unwrap();
        }
        world
    }

    /// A cluster that runs: the first member is primary of epoch 1, every other one a confirmed standby.
    pub fn healthy(members: &[&str]) -> Self {
        Self::healthy_with(vec![config("gravl", members)])
    }

    pub fn healthy_with(configs: Vec<ClusterConfig>) -> Self {
        let mut world = Self::new(configs);
        world.settle();
        world
    }

    /// Runs with answers to everything until nothing is left to do.
    pub fn settle(&mut self) {
        let quiet = |world: &World| {
            world.state.clusters.values().all(|cluster| {
                let standbys = cluster.config.members.len() - 1;
                let confirmed =
                    cluster.sync.values().filter(|s| matches!(s, regent_core::SyncState::Confirmed { .. }));
                let synchronous = &cluster.synchronous;
                cluster.operation.is_none()
                    && (synchronous.logged.is_empty() || synchronous.is_proven())
                    && cluster.established().is_some()
                    && confirmed.count() == standbys
            })
        };
        self.second();
        for _ in 0..300 {
            if quiet(self) {
                self.seen.clear();
                return;
            }
            self.second();
            self.answer_all();
        }
        panic!("the world did not settle: {:#?}", self.state.clusters);
    }

    pub fn next_instance(&mut self) -> u128 {
        self.instances += 1;
        self.instances
    }

    pub fn cluster(&self, name: &str) -> &Cluster {
        &self.state.clusters[&cluster_name(name)]
    }

    pub fn member(&mut self, cluster: &str, name: &str) -> &mut Member {
        self.members.get_mut(&(cluster_name(cluster), member_name(name))).expect("a member of the world")
    }

    fn see(&mut self, seen: Seen) {
        self.seen.push((self.now_ns, seen));
    }

    pub fn proposal(&self, body: Body) -> Proposal {
        Proposal { wall_ms: self.now_ns / 1_000_000, proposer: self.leadership.node, body }
    }

    pub fn propose(&mut self, body: Body) -> Reply {
        let at = Position { index: self.state.applied_index + 1, leadership: self.leadership };
        let before = self.state.clone();
        let reply = self.state.apply(at, &self.proposal(body));
        if reply.is_err() {
            let untouched = State { applied_index: at.index, ..before };
            assert_eq!(self.state, untouched, "a rejection changes nothing but the applied index");
        }
        self.see(Seen::Replied(reply.clone()));
        reply
    }

    /// One second: heartbeats with their leases, relays, the detector.
    pub fn second(&mut self) {
        self.now_ns += SECOND_NS;
        let beats: Vec<_> =
            self.members.values().filter(|member| !member.silent).map(|m| m.heartbeat(self.now_ns)).collect();
        for heartbeat in beats {
            self.detector.on_heartbeat(self.now_ns, &heartbeat);
            let confirmed = Confirmed { leadership: self.leadership, read_index: self.state.applied_index };
            let acknowledgement =
                self.leases.grant(self.now_ns, &confirmed, &self.state, &heartbeat).unwrap();
            if let Some(view) = &acknowledgement.view {
                let key = (heartbeat.cluster.clone(), heartbeat.member.clone());
                self.members.get_mut(&key).expect("a member of the world").waits_as_told(view);
            }
            let answer = match acknowledgement.lease {
                LeaseDecision::Granted(grant) => {
                    self.hold(&heartbeat.cluster, grant.instance);
                    format!("lease of epoch {}", grant.epoch)
                }
                LeaseDecision::Refused(refusal) => format!("no lease: {refusal}"),
            };
            let who = (heartbeat.cluster.clone(), heartbeat.member.clone());
            if self.answers.insert(who, answer.clone()).as_ref() != Some(&answer) {
                self.see(Seen::Lease(heartbeat.member, answer));
            }
        }
        if self.relays {
            for node in (1..=3).map(CoordinatorId).filter(|node| *node != self.leadership.node) {
                self.detector.on_relay_report(self.now_ns, node, Vec::new());
            }
        }
        self.cooldowns.observe(self.now_ns, &self.state);
        let mut bodies = self.cooldowns.over(self.now_ns, &self.state);
        bodies.extend(self.leases.settled(self.now_ns, &self.state));
        bodies.extend(self.detector.tick(self.now_ns, &self.state, 3));
        bodies.extend(self.leases.acknowledged_lists(&self.state));
        bodies.extend(self.detector.planned(self.now_ns, self.now_ns / 1_000_000, &self.state));
        for body in bodies {
            self.see(Seen::Proposed(Box::new(body.clone())));
            let _ = self.propose(body);
        }
    }

    /// Promise 1: while one instance may hold a lease, no other one gets any.
    fn hold(&mut self, cluster: &ClusterName, instance: InstanceId) {
        let now_ns = self.now_ns;
        let until_ns = now_ns + self.state.clusters[cluster].config.policy.lease.bound_ns();
        let held = self.held.entry(cluster.clone()).or_default();
        held.retain(|(holder, until_ns)| *holder != instance && *until_ns >= now_ns);
        assert!(
            held.is_empty() || self.excepted,
            "{instance} gets a lease while {held:?} may be valid at {now_ns}"
        );
        held.push((instance, until_ns));
    }

    /// This instance cannot write any more: its guard has fenced, or is dead with all its processes.
    pub fn release(&mut self, cluster: &ClusterName, instance: InstanceId) {
        self.held.entry(cluster.clone()).or_default().retain(|(holder, _)| *holder != instance);
    }

    /// The member's guard starts anew.
    pub fn restart(&mut self, cluster: &str, name: &str, same_boot: bool) {
        let instance = self.next_instance();
        let gone = self.member(cluster, name).instance;
        self.release(&cluster_name(cluster), gone);
        self.member(cluster, name).restart(instance, same_boot);
    }

    /// The guard of a member fences.
    pub fn fence(&mut self, cluster: &ClusterName, name: &MemberName, epoch: Epoch) -> FencedEvidence {
        let member = self.members.get_mut(&(cluster.clone(), name.clone())).expect("a member of the world");
        let evidence = member.fence(epoch);
        self.release(cluster, evidence.instance);
        evidence
    }

    pub fn run(&mut self, seconds: u64) {
        (0..seconds).for_each(|_| self.second());
    }

    /// Another leadership begins, with the ages that the last one told.
    pub fn lead(&mut self, node: u64, inherit: bool) {
        let inherited = if inherit { self.detector.ages(self.now_ns) } else { Vec::new() };
        self.leadership = Leadership { term: self.leadership.term + 1, node: CoordinatorId(node) };
        self.leases.begin(self.leadership, self.now_ns);
        self.detector.begin_leadership(self.leadership, self.now_ns, inherited);
    }

    /// The effect that waits, by its name.
    pub fn pending(&self, cluster: &str, name: &str) -> Option<Effect> {
        self.cluster(cluster).effects().iter().find(|effect| effect_name(effect) == name).cloned()
    }

    /// The effect that waits, which the test says is there.
    pub fn effect(&self, name: &str) -> Effect {
        let effects = self.cluster("gravl").effects();
        self.pending("gravl", name).unwrap_or_else(|| panic!("no {name} among {effects:#?}"))
    }

    pub fn reports(
        &mut self,
        cluster: &ClusterName,
        members: &[MemberName],
        fenced: Epoch,
    ) -> Vec<CandidateReport> {
        let now_ns = self.now_ns;
        let present = members.iter().filter_map(|name| {
            let member = self.members.get_mut(&(cluster.clone(), name.clone()))?;
            (!member.silent).then(|| member.prepare(fenced, now_ns))
        });
        present.collect()
    }

    /// What a healthy executor and healthy members would answer; `None` while they would wait.
    pub fn answer(&mut self, effect: &Effect) -> Option<Body> {
        let cluster = effect.key.cluster.clone();
        let now_ns = self.now_ns;
        let find = |world: &mut Self, name: &MemberName| {
            world.members.get(&(cluster.clone(), name.clone())).filter(|member| !member.silent).cloned()
        };
        match &effect.kind {
            EffectKind::Fence { epoch, member, instance, candidates, .. } => {
                let mut asked = candidates.clone();
                let alive = find(self, member);
                let speaks = alive.filter(|m| m.instance == *instance || m.succeeds.contains(instance));
                let proof = if speaks.is_some() {
                    asked.push(member.clone());
                    FenceProof::Acknowledged(self.fence(&cluster, member, *epoch))
                } else {
                    self.leases.bound_passed(now_ns, self.leadership, &self.state, &cluster).ok()?
                };
                let candidates = self.reports(&cluster, &asked, *epoch);
                Some(Body::FenceProven { key: effect.key.clone(), proof, candidates })
            }
            EffectKind::Handover { epoch, member, instance, target, candidates, .. } => {
                let alive = find(self, member);
                let speaks = alive.filter(|m| m.instance == *instance || m.succeeds.contains(instance));
                let (proof, candidates) = if let Some(old) = speaks {
                    let proof = FenceProof::Acknowledged(self.fence(&cluster, member, *epoch));
                    self.drain(&cluster, target, &old);
                    let target = std::slice::from_ref(target);
                    let mut reports = self.reports(&cluster, target, *epoch);
                    if reports.is_empty() {
                        reports = self.reports(&cluster, std::slice::from_ref(member), *epoch);
                    }
                    (proof, reports)
                } else {
                    let proof =
                        self.leases.bound_passed(now_ns, self.leadership, &self.state, &cluster).ok()?;
                    (proof, self.reports(&cluster, candidates, *epoch))
                };
                Some(Body::FenceProven { key: effect.key.clone(), proof, candidates })
            }
            EffectKind::Collect { epoch, member, candidates } => {
                let mut asked = candidates.clone();
                let acknowledged = find(self, member).map(|_| {
                    asked.push(member.clone());
                    self.fence(&cluster, member, *epoch)
                });
                let candidates = self.reports(&cluster, &asked, *epoch);
                (!candidates.is_empty()).then(|| Body::CandidatesReported {
                    key: effect.key.clone(),
                    acknowledged,
                    candidates,
                })
            }
            EffectKind::Agent { member, directive } => {
                let mut alive = find(self, member)?;
                let head = self.head(&cluster);
                let evidence = match directive {
                    Directive::Promote { epoch, instance, .. } => {
                        (alive.instance == *instance).then(|| Evidence::Promoted(alive.promote(*epoch)))?
                    }
                    Directive::Rejoin { upstream, branches, .. } => {
                        Evidence::Rejoined(alive.rejoin(upstream, branches, head))
                    }
                    Directive::Validate { address, .. } => Evidence::Validated {
                        address: address.clone(),
                        elapsed_ms: 40,
                        connected_ms: Some(25),
                    },
                    Directive::Adopt { .. } => Evidence::Claimed { text: alive.adopt(directive.epoch()) },
                    Directive::Restart { .. } => Evidence::Restarted { elapsed_ms: 700 },
                    Directive::Disown { .. } => Evidence::Claimed { text: alive.disown() },
                    Directive::Checkpoint { epoch } => {
                        let standbys = self.streams(&cluster, member);
                        Evidence::Checkpointed(alive.checkpoint(*epoch, standbys))
                    }
                    Directive::Fence { .. } | Directive::Prepare { .. } | Directive::Drain { .. } => {
                        return None;
                    }
                };
                self.members.insert((cluster.clone(), member.clone()), alive);
                Some(outcome(&effect.key, Outcome::Done(evidence)))
            }
            EffectKind::Redirect { provider, .. } => {
                let evidence = Evidence::Redirected { provider: provider.clone(), changed: true };
                Some(outcome(&effect.key, Outcome::Done(evidence)))
            }
        }
    }

    /// What the primary sees of its standbys.
    fn streams(&self, cluster: &ClusterName, primary: &MemberName) -> Vec<StandbyFacts> {
        let others = self.members.iter().filter(|((of, name), _)| of == cluster && name != primary);
        others
            .filter(|(_, member)| member.streaming && !member.silent)
            .map(|((_, name), member)| StandbyFacts {
                member: name.clone(),
                state: "streaming".into(),
                flush_lsn: Some(member.lsn),
                replay_lsn: Some(member.lsn),
            })
            .collect()
    }

    /// The target has what the old primary sent before its end, unless it is told to miss it.
    fn drain(&mut self, cluster: &ClusterName, target: &MemberName, old: &Member) {
        let target = self.members.get_mut(&(cluster.clone(), target.clone())).expect("a member of the world");
        if target.streaming && !target.silent && !target.misses_shutdown {
            target.lsn = Lsn(old.lsn.0 + SHUTDOWN_BYTES);
        }
    }

    /// The end of the primary's WAL.
    fn head(&self, cluster: &ClusterName) -> Lsn {
        let appointment = self.state.clusters[cluster].appointment.as_ref();
        let primary = appointment.and_then(|a| self.members.get(&(cluster.clone(), a.member.clone())));
        primary.map_or(Lsn(0), |member| member.lsn)
    }

    /// Answers the effect of that name as a healthy member would.
    pub fn answer_now(&mut self, name: &str) -> Reply {
        let effect = self.effect(name);
        let body = self.answer(&effect).unwrap_or_else(|| panic!("nobody answers {effect:?}"));
        self.propose(body)
    }

    /// The same, for an answer that must be accepted.
    pub fn applied(&mut self, name: &str) -> Applied {
        self.answer_now(name).unwrap_or_else(|rejection| panic!("{name}: {rejection}"))
    }

    pub fn answer_all(&mut self) {
        let names: Vec<ClusterName> = self.state.clusters.keys().cloned().collect();
        for name in names {
            let effects = self.state.clusters[&name].effects().to_vec();
            for effect in effects {
                if let Some(body) = self.answer(&effect) {
                    let _ = self.propose(body);
                }
            }
        }
    }
}

pub fn outcome(key: &EffectKey, outcome: Outcome) -> Body {
    Body::Outcome { key: key.clone(), outcome }
}

/// `fence`, `collect`, `promote`, `rejoin`, `validate` or the DNS provider's name.
pub fn effect_name(effect: &Effect) -> String {
    match &effect.kind {
        EffectKind::Fence { .. } => "fence".into(),
        EffectKind::Collect { .. } => "collect".into(),
        EffectKind::Handover { .. } => "handover".into(),
        EffectKind::Agent { directive, .. } => directive.name().into(),
        EffectKind::Redirect { provider, .. } => provider.clone(),
    }
}
