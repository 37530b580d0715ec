//! Directives at work: facts, the planner's next step, carry it out, ask again (agent/src/executor). Every choice is
//! `regent_agent_core::plan`'s; here is only what a step does to the modelled guard, server and directory.

use regent_agent_core::{
    Admission, Facts, Limits, NameSeen, Next, Promoting, Step, Wait, WalEnd, Work, Worked, plan,
};
use regent_types::{CheckpointedEvidence, Directive, EffectKey, Epoch, Grant, Outcome, RejoinMethod};

use crate::{
    clock::{MS, S},
    config,
    event::{Client, Event},
    guard::{Answer, Request},
    postgres::Data,
    world::World,
};

const FAILURES_MAX: u32 = 5;
const GUARD_SILENT_MAX_NS: u64 = 20 * S;

/// One directive.
#[derive(Debug, Clone)]
pub struct Running {
    pub number: u64,
    pub key: EffectKey,
    pub work: Work,
    pub worked: Worked,
    pub failures: u32,
    pub starts: u32,
    pub silent_since_ns: Option<u64>,
    /// The step under way, and when it is given up.
    pub step: Option<(Step, u64)>,
    pub not_before_ns: u64,
    pub steps: u32,
}

impl World {
    /// A directive has arrived (executor/mod.rs, `submit`).
    pub fn submit(&mut self, member: usize, key: EffectKey, directive: Directive, grant: Option<Grant>) {
        let now_ns = self.local_ns(member);
        let fence = matches!(directive, Directive::Fence { .. });
        let agent = &mut self.hosts[member].agent;
        let cache = if fence { &mut agent.fences } else { &mut agent.directives };
        match cache.admit(&key) {
            Admission::Running => return,
            Admission::Answered(outcome) => return agent.outbox.push_back((key, outcome)),
            Admission::Older { running } => {
                let reason = format!("operation {} runs, and it is newer", running.operation);
                return agent.outbox.push_back((key, Outcome::Refused { reason }));
            }
            Admission::Start { .. } => {}
        }
        if let Some(old) = agent.running.take() {
            let unknown = Outcome::Unknown { reason: format!("superseded by {}", directive.name()) };
            agent.directives.finish(&old.key, &unknown);
            agent.outbox.push_back((old.key, unknown));
        }
        agent.numbers += 1;
        let running = Running {
            number: agent.numbers,
            key,
            work: Work { directive, grant, started_ns: now_ns },
            worked: Worked::default(),
            failures: 0,
            starts: 0,
            silent_since_ns: None,
            step: None,
            not_before_ns: 0,
            steps: 0,
        };
        let text = format!(
            "{} takes up {} (operation {}, epoch {})",
            config::member_name(member),
            running.work.directive.name(),
            running.key.operation,
            running.work.directive.epoch()
        );
        if fence {
            agent.fencing = Some(running);
        } else {
            agent.running = Some(running);
        }
        self.note(text);
        self.poll_work(member);
    }

    /// Gets on with whatever is at work.
    pub fn poll_work(&mut self, member: usize) {
        for fence in [true, false] {
            for _ in 0..8 {
                if !self.poll_one(member, fence) {
                    break;
                }
            }
        }
    }

    fn slot(&mut self, member: usize, fence: bool) -> &mut Option<Running> {
        let agent = &mut self.hosts[member].agent;
        if fence { &mut agent.fencing } else { &mut agent.running }
    }

    /// True when it should be looked at again at once.
    fn poll_one(&mut self, member: usize, fence: bool) -> bool {
        let now_ns = self.local_ns(member);
        let Some(mut running) = self.slot(member, fence).take() else { return false };
        if let Some((step, until_ns)) = &running.step {
            if now_ns >= *until_ns {
                let error = format!("{step:?}: no answer in time");
                running.step = None;
                self.failed(member, fence, running, error);
                return false;
            }
            *self.slot(member, fence) = Some(running);
            return false;
        }
        if now_ns < running.not_before_ns {
            *self.slot(member, fence) = Some(running);
            return false;
        }
        running.worked.observe(self.server_view(member).as_ref(), now_ns);
        let Some(mut facts) = self.gather(member, &running.worked) else {
            let since_ns = *running.silent_since_ns.get_or_insert(now_ns);
            if now_ns - since_ns >= GUARD_SILENT_MAX_NS {
                self.finish(
                    member,
                    fence,
                    &running,
                    Outcome::Unknown { reason: "the guard is silent".into() },
                );
            } else {
                *self.slot(member, fence) = Some(running);
            }
            return false;
        };
        running.silent_since_ns = None;
        let began = *running.worked.run_at_begin.get_or_insert(facts.guard.started_at_ns);
        facts.worked.run_at_begin = Some(began);
        let next = plan(&running.work, &facts, &Limits::default());
        self.coverage.planned(&running.work.directive, &next);
        let step = match next {
            Next::Done(evidence) => {
                self.finish(member, fence, &running, Outcome::Done(evidence));
                return false;
            }
            Next::Refuse(reason) => {
                self.finish(member, fence, &running, Outcome::Refused { reason });
                return false;
            }
            Next::Unknown(reason) => {
                self.finish(member, fence, &running, Outcome::Unknown { reason });
                return false;
            }
            Next::Step(step) => step,
        };
        if let Step::Wait { wait, .. } = &step {
            let since_ns = *running.worked.waiting_since_ns.entry(*wait).or_insert(now_ns);
            if *wait == Wait::Replay {
                running.worked.replay_ms = (now_ns - since_ns) / MS;
            }
            *self.slot(member, fence) = Some(running);
            return false;
        }
        running.steps += 1;
        self.begin_step(member, fence, running, step);
        self.slot(member, fence).as_ref().is_some_and(|running| running.step.is_none())
    }

    fn begin_step(&mut self, member: usize, fence: bool, mut running: Running, step: Step) {
        let now_ns = self.local_ns(member);
        let incarnation = self.hosts[member].agent.incarnation;
        let client = Client::Work { incarnation, number: running.number };
        if step == Step::StartStandby {
            if running.starts > 0 {
                let pause_ns = 200 * MS * 2u64.pow(running.starts.min(5));
                running.starts = 0;
                running.not_before_ns = now_ns + pause_ns;
                *self.slot(member, fence) = Some(running);
                return;
            }
            running.starts += 1;
            if let Directive::Rejoin { upstream, .. } = &running.work.directive {
                self.starts_after_rejoin(member, config::member_index(&upstream.member));
            }
        }
        let asked = match &step {
            Step::GuardFence { epoch, grace_ms } => {
                Some((Request::Fence { epoch: epoch.0, grace_ms: *grace_ms }, grace_ms * MS + 30 * S))
            }
            Step::ClosePromises { epoch, void } => {
                Some((Request::ClosePromises { epoch: epoch.0, void: *void }, 10 * S))
            }
            Step::Grant(grant) => {
                running.worked.granted = true;
                let deadline_ns = grant.deadline_ns();
                let request =
                    Request::Grant { epoch: grant.epoch.0, instance: grant.instance.0, deadline_ns };
                Some((request, 3 * S))
            }
            Step::StartStandby => Some((Request::StartStandby, 60 * S)),
            Step::StartPrimary(epoch) => Some((Request::StartPrimary { epoch: epoch.0 }, 60 * S)),
            Step::StopServer => {
                let immediate = std::mem::replace(&mut running.worked.stop_failed, true);
                Some((Request::Stop { immediate }, 8 * S))
            }
            _ => None,
        };
        let number = running.number;
        let takes_ns = match &step {
            Step::Initialize(_) | Step::Rewind { .. } | Step::Clone { .. } | Step::Salvage { .. } => {
                self.tool_takes_ns()
            }
            _ => self.draw_ms(1, 30),
        };
        self.before_step(member, &step);
        match asked {
            Some((request, limit_ns)) => {
                running.step = Some((step, now_ns + limit_ns));
                *self.slot(member, fence) = Some(running);
                self.ask_guard(member, request, client);
            }
            None => {
                running.step = Some((step, u64::MAX));
                *self.slot(member, fence) = Some(running);
                let at_ns = self.now_ns + takes_ns;
                self.queue.at(at_ns, Event::StepDone { member, incarnation, number });
            }
        }
    }

    /// The guard has answered somebody.
    pub fn guard_answers_to(&mut self, member: usize, client: Client, answer: Answer) {
        match client {
            Client::Nobody => {}
            Client::Promise { asker, round, held_ms } => {
                if self.hosts[member].agent.up {
                    self.promise_stored(member, asker, round, held_ms, answer);
                }
            }
            Client::Extend { incarnation } => {
                if self.hosts[member].agent.incarnation == incarnation && answer == Answer::Ok {
                    self.extended(member);
                }
            }
            Client::Work { incarnation, number } => {
                if self.hosts[member].agent.incarnation == incarnation {
                    let result = match answer {
                        Answer::Refused(reason) => Err(reason),
                        Answer::Ok => Ok(None),
                        Answer::Fenced(evidence) => Ok(Some(evidence)),
                    };
                    self.answered(member, number, result);
                }
            }
        }
    }

    fn answered(
        &mut self,
        member: usize,
        number: u64,
        result: Result<Option<regent_types::FencedEvidence>, String>,
    ) {
        let Some(fence) = self.working_on(member, number) else { return };
        let Some(mut running) = self.slot(member, fence).take() else { return };
        running.step = None;
        match result {
            Ok(evidence) => {
                running.failures = 0;
                running.worked.stop_failed = false;
                if evidence.is_some() {
                    running.worked.fenced = evidence;
                }
                *self.slot(member, fence) = Some(running);
            }
            Err(error) => self.failed(member, fence, running, error),
        }
    }

    fn working_on(&self, member: usize, number: u64) -> Option<bool> {
        let agent = &self.hosts[member].agent;
        let is = |slot: &Option<Running>| slot.as_ref().is_some_and(|running| running.number == number);
        if is(&agent.fencing) { Some(true) } else { is(&agent.running).then_some(false) }
    }

    fn failed(&mut self, member: usize, fence: bool, mut running: Running, error: String) {
        let now_ns = self.local_ns(member);
        running.failures += 1;
        running.worked.error = Some(error.clone());
        if running.failures >= FAILURES_MAX {
            return self.finish(member, fence, &running, Outcome::Unknown { reason: error });
        }
        running.not_before_ns = now_ns + 300 * MS * u64::from(running.failures);
        *self.slot(member, fence) = Some(running);
    }

    fn finish(&mut self, member: usize, fence: bool, running: &Running, outcome: Outcome) {
        self.coverage.ended(&running.work.directive, &outcome);
        let said = match &outcome {
            Outcome::Done(_) => "done".to_owned(),
            Outcome::Refused { reason } => format!("refused: {reason}"),
            Outcome::Unknown { reason } => format!("unknown: {reason}"),
        };
        self.note(format!("{}: {} {said}", self.name(member), running.work.directive.name()));
        let agent = &mut self.hosts[member].agent;
        let cache = if fence { &mut agent.fences } else { &mut agent.directives };
        cache.finish(&running.key, &outcome);
        agent.outbox.push_back((running.key.clone(), outcome));
    }

    /// Fresh facts (executor/facts.rs); `None` while the guard does not answer.
    pub fn gather(&self, member: usize, worked: &Worked) -> Option<Facts> {
        let status = self.guard_status(member)?;
        Some(Facts {
            member: config::member_name(member),
            now_ns: self.local_ns(member),
            guard: self.guard_view(member, &status),
            data: self.data_view(member),
            server: self.server_view(member),
            agent: self.hosts[member].agent.state.clone(),
            worked: worked.clone(),
            archive: false,
        })
    }

    /// A step without the guard has been carried out.
    pub fn step_done(&mut self, member: usize, incarnation: u64, number: u64) {
        let agent = &self.hosts[member].agent;
        if !agent.up || agent.incarnation != incarnation {
            return;
        }
        if self.now_ns < agent.paused_until_ns {
            let at_ns = agent.paused_until_ns;
            return self.queue.at(at_ns, Event::StepDone { member, incarnation, number });
        }
        let Some(fence) = self.working_on(member, number) else { return };
        let Some(mut running) = self.slot(member, fence).take() else { return };
        let Some((step, _)) = running.step.take() else { return };
        match self.perform(member, &step, &mut running) {
            Ok(()) => {
                running.failures = 0;
                *self.slot(member, fence) = Some(running);
                self.poll_work(member);
            }
            Err(error) => self.failed(member, fence, running, error),
        }
    }

    fn perform(&mut self, member: usize, step: &Step, running: &mut Running) -> Result<(), String> {
        let now_ns = self.local_ns(member);
        let worked = &mut running.worked;
        match step {
            Step::PersistEpoch(epoch) => {
                let state = &mut self.hosts[member].agent.state;
                state.highest_epoch = state.highest_epoch.max(*epoch);
            }
            Step::Detach => {
                self.hosts[member].data.upstream = None;
                worked.detached = true;
            }
            Step::Attach(upstream) | Step::UseArchive(upstream) => {
                let data = &mut self.hosts[member].data;
                (data.upstream, data.standby) = (Some(upstream.host.clone()), true);
            }
            Step::Initialize(epoch) => {
                self.systems += 1;
                let system = 7_000 + self.systems;
                let host = &mut self.hosts[member];
                let from_timeline = regent_types::Timeline(0);
                host.agent.state.promoting = Some(Promoting { epoch: *epoch, from_timeline });
                host.data = Data::fresh(system);
            }
            Step::BeginPromotion { epoch, from_timeline } => {
                let promoting = Promoting { epoch: *epoch, from_timeline: *from_timeline };
                self.hosts[member].agent.state.promoting = Some(promoting);
            }
            Step::PromoteServer => {
                let now_ns = self.now_ns;
                let server = self.hosts[member].server.as_mut().filter(|server| server.is_accepting(now_ns));
                let server = server.ok_or("the server does not accept connections")?;
                if server.in_recovery && !server.promoting {
                    server.promoting = true;
                }
                // It is waited for before it is called again.
                running.not_before_ns = self.local_ns(member) + 100 * MS;
            }
            Step::PersistLineage(epoch) => {
                let state = &mut self.hosts[member].agent.state;
                (state.lineage, state.mark) = (*epoch, None);
            }
            Step::Disown => {
                let state = &mut self.hosts[member].agent.state;
                state.lineage = Epoch::NONE;
                (state.promoting, state.rejoining) = (None, None);
            }
            Step::ConfigurePrimary => worked.configured = true,
            Step::MeasureWalEnd(_) => worked.wal_end = Some(WalEnd::At(self.hosts[member].data.end())),
            Step::Salvage { branch, upstream } => self.salvage(member, branch, upstream.epoch),
            Step::ChooseRepoint { epoch, was_primary } => {
                let record = self.rejoining(member, *epoch);
                record.method = Some(RejoinMethod::Repointed);
                record.was_primary |= was_primary;
            }
            Step::AskUpstream(upstream) => {
                worked.upstream = Some((self.ask_upstream(member, upstream), now_ns));
            }
            Step::ChooseClone { epoch, reason } => {
                let reason = reason.clone();
                let record = self.rejoining(member, *epoch);
                (record.method, record.clone_reason) = (None, Some(reason));
            }
            Step::Rewind { upstream, .. } => self.rewind(member, upstream),
            Step::Clone { upstream, keep_old } => self.clone_from(member, upstream, *keep_old)?,
            Step::ValidateName { address, .. } => {
                worked.validated = Some(self.validate(member, address)?);
            }
            Step::Checkpoint(epoch) => {
                let data = &self.hosts[member].data;
                let write_lsn = data.end();
                let standbys = self.standbys_of(member);
                worked.checkpointed =
                    Some(CheckpointedEvidence { epoch: *epoch, write_lsn, standbys, elapsed_ms: 5 });
            }
            Step::Reload => worked.reloaded = true,
            Step::KillJob | Step::ResumeReplay => {}
            Step::GuardFence { .. }
            | Step::ClosePromises { .. }
            | Step::Grant(_)
            | Step::StartStandby
            | Step::StartPrimary(_)
            | Step::StopServer
            | Step::Wait { .. } => unreachable!("the guard's, or the loop's"),
        }
        Ok(())
    }

    /// A marker row through the name, as a client would.
    fn validate(&self, member: usize, address: &str) -> Result<NameSeen, String> {
        let (_, shown) = self.dns.shown.ok_or("the name has no address")?;
        if shown.to_string() != address {
            return Err(format!("the name leads to {shown}, not to {address}"));
        }
        let there = (0..self.hosts.len())
            .find(|at| self.setup.cluster.members[&config::member_name(*at)].client_address == shown);
        let there = there.ok_or("nobody has this address")?;
        let reached = there == member
            || self.net.connects(crate::event::Address::Member(member), crate::event::Address::Member(there));
        let server = self.hosts[there].server.as_ref();
        if reached && server.is_some_and(|server| server.is_writable(self.now_ns)) {
            return Ok(NameSeen { address: address.to_owned(), connected_ms: 1, elapsed_ms: 3 });
        }
        Err("the row could not be written".into())
    }
}
