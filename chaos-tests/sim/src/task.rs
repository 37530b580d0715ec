//! One effect at work. Each follows a file of `coordinator/src/executor`: it asks, waits, and proposes what came of it;
//! it decides nothing.

use regent_core::{Body, DnsRecord, Effect, EffectKind, FenceProof};
use regent_types::{
    CandidateReport, Directive, EffectKey, Epoch, Evidence, FencedEvidence, Grant, MemberName, Outcome,
};

use crate::{
    clock::{MS, S},
    config,
    event::ToAgent,
    world::World,
};

const RESEND_NS: u64 = 3 * S;
const CANDIDATES_NS: u64 = 10 * S;
const AFTER_FIRST_NS: u64 = 1_500 * MS;
const COLLECT_NS: u64 = S;
const REPEAT_NS: u64 = 5 * S;

/// A question to an agent, sent until it is answered (executor/ask.rs).
#[derive(Debug, Clone)]
pub struct Ask {
    member: MemberName,
    key: EffectKey,
    directive: Directive,
    grant: Option<Grant>,
    sent: Option<(u64, u64)>,
    not_before_ns: u64,
}

impl Ask {
    fn new(member: &MemberName, key: EffectKey, directive: Directive) -> Self {
        Self { member: member.clone(), key, directive, grant: None, sent: None, not_before_ns: 0 }
    }
}

/// executor/ask.rs, `sub_key`.
fn sub_key(key: &EffectKey, term: u64, n: u32) -> EffectKey {
    let step = (key.step & 0xFFF) << 20 | ((term & 0xFF) as u32) << 12 | (n & 0xFFF);
    EffectKey { step, ..key.clone() }
}

/// Candidates that are asked at once (executor/prepare.rs).
#[derive(Debug, Clone)]
pub struct Preparation {
    asks: Vec<Ask>,
    reports: Vec<CandidateReport>,
    ends_ns: u64,
}

/// What is to be fenced, and how often it was tried.
#[derive(Debug, Clone)]
pub struct Order {
    epoch: Epoch,
    member: MemberName,
    candidates: Vec<MemberName>,
    grace_ms: u64,
    attempt: u32,
    planned: Option<Move>,
}

/// A switchover's part.
#[derive(Debug, Clone)]
struct Move {
    target: MemberName,
    timeout_ns: u64,
    drain: Ask,
    report: Option<CandidateReport>,
}

/// How far a fence is.
#[derive(Debug, Clone)]
pub enum Fencing {
    /// Nothing is proved yet.
    Proving { guard: Option<Ask> },
    /// The target's report is waited for.
    Draining { proof: FenceProof, until_ns: u64 },
    /// A proof is in hand.
    Preparing { proof: FenceProof, preparation: Preparation },
    /// Proposed; if it is still wanted later, only the bound is left.
    Proposed { index: u64, again_ns: u64 },
}

/// How far a round of questions is.
#[derive(Debug, Clone)]
pub enum Collecting {
    /// Between two rounds.
    Pause { until_ns: u64 },
    /// The fenced guard is asked.
    Guard { ask: Ask, until_ns: u64 },
    /// The candidates are asked.
    Preparing { acknowledged: Option<FencedEvidence>, preparation: Preparation },
}

/// See the module's documentation.
#[derive(Debug, Clone)]
pub enum Task {
    /// A directive to one agent.
    Agent {
        effect: Box<EffectKind>,
        ask: Box<Option<Ask>>,
        proposed: Box<Option<Outcome>>,
        not_before_ns: u64,
    },
    /// A fence, or a handover.
    Fence { order: Box<Order>, stage: Fencing },
    /// Candidates are asked again.
    Collect { epoch: Epoch, member: MemberName, candidates: Vec<MemberName>, n: u32, stage: Collecting },
    /// A DNS provider.
    Redirect { provider: String, record: DnsRecord, not_before_ns: u64, done: bool },
}

impl Task {
    /// Not begun.
    pub fn new(effect: &Effect) -> Self {
        let stage = Fencing::Proving { guard: None };
        match &effect.kind {
            EffectKind::Agent { .. } => Task::Agent {
                effect: Box::new(effect.kind.clone()),
                ask: Box::default(),
                proposed: Box::default(),
                not_before_ns: 0,
            },
            EffectKind::Fence { epoch, member, grace_ms, candidates, .. } => {
                let order = Box::new(Order {
                    epoch: *epoch,
                    member: member.clone(),
                    candidates: candidates.clone(),
                    grace_ms: *grace_ms,
                    attempt: 1,
                    planned: None,
                });
                Task::Fence { order, stage }
            }
            EffectKind::Handover { epoch, member, grace_ms, target, timeout_ms, candidates, .. } => {
                let directive = Directive::Drain { fenced: *epoch, timeout_ms: *timeout_ms };
                // The key is completed when the term is known.
                let drain = Ask::new(target, effect.key.clone(), directive);
                let timeout_ns = timeout_ms * MS;
                let planned = Some(Move { target: target.clone(), timeout_ns, drain, report: None });
                let order = Box::new(Order {
                    epoch: *epoch,
                    member: member.clone(),
                    candidates: candidates.clone(),
                    grace_ms: *grace_ms,
                    attempt: 2,
                    planned,
                });
                Task::Fence { order, stage }
            }
            EffectKind::Collect { epoch, member, candidates } => Task::Collect {
                epoch: *epoch,
                member: member.clone(),
                candidates: candidates.clone(),
                n: 0,
                stage: Collecting::Pause { until_ns: 0 },
            },
            EffectKind::Redirect { provider, record, .. } => Task::Redirect {
                provider: provider.clone(),
                record: record.clone(),
                not_before_ns: 0,
                done: false,
            },
        }
    }
}

impl World {
    /// Gets on with one effect.
    pub fn get_on(&mut self, node: usize, key: &EffectKey, task: &mut Task) {
        match task {
            Task::Agent { effect, ask, proposed, not_before_ns } => {
                self.agent_task(node, key, effect, ask, proposed, not_before_ns);
            }
            Task::Fence { order, stage } => self.fence_task(node, key, order, stage),
            Task::Collect { epoch, member, candidates, n, stage } => {
                self.collect_task(node, key, *epoch, member, candidates, n, stage);
            }
            Task::Redirect { provider, record, not_before_ns, done } => {
                let now_ns = self.node_ns(node);
                if now_ns < *not_before_ns || *done {
                    return;
                }
                *not_before_ns = now_ns + self.dns_pause_ns();
                if self.dns_ensure(node, record).is_ok() {
                    *done = true;
                    let evidence = Evidence::Redirected { provider: provider.clone(), changed: true };
                    let outcome = Outcome::Done(evidence);
                    self.propose(node, Body::Outcome { key: key.clone(), outcome });
                }
            }
        }
    }

    fn term(&self, node: usize) -> u64 {
        self.nodes[node].leadership.map_or(0, |leadership| leadership.term)
    }

    /// Sends when it is due; the answer when it is there.
    fn poll_ask(&mut self, node: usize, ask: &mut Ask) -> Option<Outcome> {
        let now_ns = self.node_ns(node);
        let member = config::member_index(&ask.member);
        if let Some(outcome) = self.nodes[node].mailbox.remove(&(member, ask.key.clone())) {
            ask.sent = None;
            return Some(outcome);
        }
        if now_ns < ask.not_before_ns {
            return None;
        }
        let (via, session, heard_ns) = *self.nodes[node].routes.get(&member)?;
        // A session that is silent for long is closed.
        if now_ns.saturating_sub(heard_ns) > 4 * S {
            return None;
        }
        if ask.sent.is_none_or(|(to, at_ns)| to != session || now_ns >= at_ns + RESEND_NS) {
            ask.sent = Some((session, now_ns));
            let directive = Box::new(ask.directive.clone());
            let what = ToAgent::Directive(ask.key.clone(), directive, ask.grant.clone());
            self.send_to_agent(node, member, via, session, what);
        }
        None
    }

    fn agent_task(
        &mut self,
        node: usize,
        key: &EffectKey,
        effect: &EffectKind,
        ask: &mut Option<Ask>,
        proposed: &mut Option<Outcome>,
        not_before_ns: &mut u64,
    ) {
        let EffectKind::Agent { member, directive } = effect else { return };
        let now_ns = self.node_ns(node);
        if now_ns < *not_before_ns {
            return;
        }
        if ask.is_none() {
            let Ok(grant) = self.prepared_grant(node, effect) else { return };
            *ask = Some(Ask { grant, ..Ask::new(member, key.clone(), directive.clone()) });
        }
        let Some(outcome) = ask.as_mut().and_then(|ask| self.poll_ask(node, ask)) else { return };
        *ask = None;
        *not_before_ns = now_ns + 500 * MS;
        if proposed.as_ref() != Some(&outcome) {
            *proposed = Some(outcome.clone());
            self.propose(node, Body::Outcome { key: key.clone(), outcome });
        }
    }

    fn begin_preparation(
        &mut self,
        node: usize,
        key: &EffectKey,
        directive: &Directive,
        members: &[MemberName],
        n: u32,
        limit_ns: u64,
    ) -> Preparation {
        let key = sub_key(key, self.term(node), n);
        let asks = members.iter().map(|member| Ask::new(member, key.clone(), directive.clone())).collect();
        Preparation { asks, reports: Vec::new(), ends_ns: self.node_ns(node) + limit_ns }
    }

    fn poll_preparation(
        &mut self,
        node: usize,
        preparation: &mut Preparation,
    ) -> Option<Vec<CandidateReport>> {
        let now_ns = self.node_ns(node);
        let mut asks = std::mem::take(&mut preparation.asks);
        asks.retain_mut(|ask| match self.poll_ask(node, ask) {
            Some(Outcome::Done(Evidence::Prepared(report))) if report.member == ask.member => {
                if preparation.reports.is_empty() {
                    preparation.ends_ns = preparation.ends_ns.min(now_ns + AFTER_FIRST_NS);
                }
                preparation.reports.push(report);
                false
            }
            Some(_) => {
                ask.not_before_ns = now_ns + 300 * MS;
                true
            }
            None => true,
        });
        preparation.asks = asks;
        if !preparation.asks.is_empty() && now_ns < preparation.ends_ns {
            return None;
        }
        preparation.reports.sort_by(|a, b| a.member.cmp(&b.member));
        Some(std::mem::take(&mut preparation.reports))
    }

    /// executor/fence.rs and executor/handover.rs.
    fn fence_task(&mut self, node: usize, key: &EffectKey, fence: &mut Order, stage: &mut Fencing) {
        let now_ns = self.node_ns(node);
        let term = self.term(node);
        if let Some(planned) = &mut fence.planned
            && planned.report.is_none()
        {
            planned.drain.key = sub_key(key, term, 1);
            match self.poll_ask(node, &mut planned.drain) {
                Some(Outcome::Done(Evidence::Prepared(report))) if report.member == planned.target => {
                    planned.report = Some(report);
                }
                Some(_) => planned.drain.not_before_ns = now_ns + 200 * MS,
                None => {}
            }
        }
        match stage {
            Fencing::Proving { guard } => {
                let Some(proof) = self.prove(node, key, fence, guard) else { return };
                self.note(format!(
                    "coordinator {node} has a proof of epoch {}: {}",
                    fence.epoch,
                    proof.name()
                ));
                *stage = self.after_proof(node, key, fence, proof);
            }
            Fencing::Draining { proof, until_ns } => {
                let report = fence.planned.as_ref().and_then(|planned| planned.report.clone());
                let over = now_ns >= *until_ns;
                let proof = proof.clone();
                match report {
                    Some(report) if report.promise_left_ms.is_none() => {
                        *stage = self.propose_proof(node, key, proof, vec![report]);
                    }
                    Some(_) => {
                        let asked = fence.planned.iter().map(|planned| planned.target.clone()).collect();
                        *stage = self.prepare_after(node, key, fence, proof, asked);
                    }
                    None if over => {
                        let back = vec![fence.member.clone()];
                        *stage = self.prepare_after(node, key, fence, proof, back);
                    }
                    None => {}
                }
            }
            Fencing::Preparing { proof, preparation } => {
                let Some(reports) = self.poll_preparation(node, preparation) else { return };
                let proof = proof.clone();
                *stage = self.propose_proof(node, key, proof, reports);
            }
            Fencing::Proposed { index, again_ns } => {
                if self.nodes[node].state.applied_index >= *index && now_ns >= *again_ns {
                    // Rejected: only the bound is left.
                    fence.attempt += 1;
                    fence.planned = None;
                    *stage = Fencing::Proving { guard: None };
                }
            }
        }
    }

    fn prove(
        &mut self,
        node: usize,
        key: &EffectKey,
        fence: &Order,
        guard: &mut Option<Ask>,
    ) -> Option<FenceProof> {
        let (now_ns, term) = (self.node_ns(node), self.term(node));
        let first = fence.attempt == 1 || fence.planned.is_some();
        if first {
            let Order { epoch, member, grace_ms, .. } = fence;
            let directive = Directive::Fence { epoch: *epoch, grace_ms: *grace_ms };
            let ask = guard.get_or_insert_with(|| Ask::new(member, sub_key(key, term, 0), directive));
            match self.poll_ask(node, ask) {
                Some(Outcome::Done(Evidence::Fenced(evidence)))
                    if self.speaks_for(node, *epoch, &evidence) =>
                {
                    return Some(FenceProof::Acknowledged(evidence));
                }
                Some(_) => {
                    if let Some(ask) = guard.as_mut() {
                        ask.not_before_ns = now_ns + 500 * MS;
                    }
                }
                None => {}
            }
        }
        let now = &self.nodes[node];
        now.leases.bound_passed(now_ns, now.leadership?, &now.state, &key.cluster).ok()
    }

    fn speaks_for(&self, node: usize, epoch: Epoch, evidence: &FencedEvidence) -> bool {
        let bound = self.nodes[node].cluster().and_then(|cluster| cluster.appointment.as_ref());
        bound.is_some_and(|bound| {
            let same = evidence.instance == bound.instance
                || (evidence.boot == bound.boot && evidence.succeeds.contains(&bound.instance));
            evidence.epoch >= epoch && same
        })
    }

    fn after_proof(&mut self, node: usize, key: &EffectKey, fence: &Order, proof: FenceProof) -> Fencing {
        if let (Some(planned), FenceProof::Acknowledged(_)) = (&fence.planned, &proof) {
            return Fencing::Draining { proof, until_ns: self.node_ns(node) + planned.timeout_ns };
        }
        let mut candidates = fence.candidates.clone();
        if matches!(proof, FenceProof::Acknowledged(_)) && !candidates.contains(&fence.member) {
            candidates.push(fence.member.clone());
        }
        self.prepare_after(node, key, fence, proof, candidates)
    }

    fn prepare_after(
        &mut self,
        node: usize,
        key: &EffectKey,
        fence: &Order,
        proof: FenceProof,
        members: Vec<MemberName>,
    ) -> Fencing {
        let directive = Directive::Prepare { fenced: fence.epoch, promises_void: proof.voids_promises() };
        let n = fence.attempt + 1;
        let preparation = self.begin_preparation(node, key, &directive, &members, n, CANDIDATES_NS);
        Fencing::Preparing { proof, preparation }
    }

    fn propose_proof(
        &mut self,
        node: usize,
        key: &EffectKey,
        proof: FenceProof,
        candidates: Vec<CandidateReport>,
    ) -> Fencing {
        self.prepare_grants(node, &candidates);
        let again_ns = self.node_ns(node) + 500 * MS;
        let index = self.propose(node, Body::FenceProven { key: key.clone(), proof, candidates });
        Fencing::Proposed { index: index.unwrap_or(u64::MAX), again_ns }
    }

    /// executor/collect.rs.
    #[expect(clippy::too_many_arguments, reason = "the parts of one variant")]
    fn collect_task(
        &mut self,
        node: usize,
        key: &EffectKey,
        epoch: Epoch,
        member: &MemberName,
        candidates: &[MemberName],
        n: &mut u32,
        stage: &mut Collecting,
    ) {
        let (now_ns, term) = (self.node_ns(node), self.term(node));
        match stage {
            Collecting::Pause { until_ns } => {
                if now_ns < *until_ns {
                    return;
                }
                *n += 2;
                let directive = Directive::Fence { epoch, grace_ms: 0 };
                let ask = Ask::new(member, sub_key(key, term, *n), directive);
                *stage = Collecting::Guard { ask, until_ns: now_ns + COLLECT_NS };
            }
            Collecting::Guard { ask, until_ns } => {
                let acknowledged = match self.poll_ask(node, ask) {
                    Some(Outcome::Done(Evidence::Fenced(evidence))) if evidence.epoch >= epoch => {
                        Some(evidence)
                    }
                    None if now_ns < *until_ns => return,
                    _ => None,
                };
                let mut asked = candidates.to_vec();
                if acknowledged.is_some() && !asked.contains(member) {
                    asked.push(member.clone());
                }
                let void = self.nodes[node].cluster().is_some_and(regent_core::Cluster::promises_void);
                let directive = Directive::Prepare { fenced: epoch, promises_void: void };
                let preparation = self.begin_preparation(node, key, &directive, &asked, *n + 1, COLLECT_NS);
                *stage = Collecting::Preparing { acknowledged, preparation };
            }
            Collecting::Preparing { acknowledged, preparation } => {
                let Some(reports) = self.poll_preparation(node, preparation) else { return };
                let acknowledged = acknowledged.clone();
                *stage = Collecting::Pause { until_ns: now_ns + COLLECT_NS };
                let still = |report: &CandidateReport| CandidateReport {
                    stamp_ns: 0,
                    promise_left_ms: report.promise_left_ms.map(|_| 0),
                    ..report.clone()
                };
                let news = format!("{acknowledged:?} {:?}", reports.iter().map(still).collect::<Vec<_>>());
                let told = &mut self.nodes[node].executor.told;
                let known = told.get(member).is_some_and(|(operation, last, at_ns)| {
                    *operation == key.operation.0 && *last == news && now_ns < at_ns + REPEAT_NS
                });
                if known || (acknowledged.is_none() && reports.is_empty()) {
                    return;
                }
                told.insert(member.clone(), (key.operation.0, news, now_ns));
                self.prepare_grants(node, &reports);
                let body = Body::CandidatesReported { key: key.clone(), acknowledged, candidates: reports };
                self.propose(node, body);
            }
        }
    }
}
