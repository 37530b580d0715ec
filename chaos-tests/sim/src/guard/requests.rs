//! What the socket takes, and what waits for the disk or for the end of PostgreSQL (agent/guard/src/guard/requests.rs and
//! promises.rs).

use super::*;

impl World {
    /// A request arrives; a paused guard takes it when it wakes, whoever waits for the answer.
    pub fn guard_asked(&mut self, member: usize, request: Request, client: Client) {
        let guard = &self.hosts[member].guard;
        if !guard.up {
            return self.guard_answers_to(member, client, Answer::Refused("no guard is there".into()));
        }
        if self.now_ns < guard.paused_until_ns {
            let at_ns = guard.paused_until_ns;
            return self.queue.at(at_ns, Event::GuardAsked { member, request, client });
        }
        let now_ns = self.local_ns(member);
        let answer = match request {
            Request::Grant { epoch, instance, deadline_ns } => {
                let grant = lease::Grant { epoch, instance, deadline_ns };
                match self.judge_grant(member, grant, now_ns) {
                    Some(answer) => answer,
                    None => return self.hosts[member].guard.parked.push((client, Parked::Grant(grant))),
                }
            }
            Request::Extend { epoch, instance, deadline_ns } => {
                self.extend(member, lease::Grant { epoch, instance, deadline_ns }, now_ns)
            }
            Request::StartStandby => self.start_standby(member),
            Request::StartPrimary { epoch } => self.start_primary(member, epoch, now_ns),
            Request::Stop { immediate } => {
                let guard = &mut self.hosts[member].guard;
                guard.restart = None;
                match &mut guard.run {
                    None => Answer::Ok,
                    Some(run) => {
                        let stage = if immediate { Stop::Immediate } else { Stop::Fast };
                        run.stop(Plan { stage, immediate_ns: u64::MAX, kill_ns: u64::MAX, fencing: false });
                        let run = run.id;
                        guard.parked.push((client, Parked::Stop { run }));
                        return self.apply_plan(member, now_ns);
                    }
                }
            }
            Request::Fence { epoch, grace_ms } => {
                return self.fence(member, client, epoch, grace_ms * MS, now_ns);
            }
            Request::ClosePromises { epoch, void } => {
                let guard = &mut self.hosts[member].guard;
                let promised = guard.wanted.promised_epoch;
                let forgets = is_on(Mutant::PromiseForgotten);
                match guard.promise_left_ns(now_ns).filter(|_| !forgets && (!void || promised > epoch)) {
                    Some(left_ns) => Answer::Refused(format!(
                        "a promise to epoch {promised} is outstanding for {left_ns} ns"
                    )),
                    None => {
                        self.raise(member, |file| {
                            file.closed = file.closed.max(epoch);
                            (file.promised_epoch, file.promised_until_ns) = (0, 0);
                        });
                        return self.hosts[member].guard.parked.push((client, Parked::Close(epoch)));
                    }
                }
            }
            Request::Promise { epoch, hold_ms } => {
                match self.refuse_promise(member, epoch, hold_ms, now_ns) {
                    Some(reason) => Answer::Refused(reason),
                    None => {
                        let until_ns = now_ns + hold_ms * MS;
                        self.raise(member, |file| {
                            file.promised_epoch = epoch;
                            file.promised_until_ns = file.promised_until_ns.max(until_ns);
                        });
                        if is_on(Mutant::PromiseNotDurable) {
                            return self.guard_answers_to(member, client, Answer::Ok);
                        }
                        let parked = Parked::Promise { epoch, until_ns };
                        return self.hosts[member].guard.parked.push((client, parked));
                    }
                }
            }
        };
        self.guard_answers_to(member, client, answer);
    }

    /// guard/requests.rs, `fence`.
    pub(super) fn fence(&mut self, member: usize, client: Client, epoch: u64, grace_ns: u64, now_ns: u64) {
        self.note(format!("guard {} is to fence epoch {epoch}", self.name(member)));
        self.raise(member, |file| file.fenced = file.fenced.max(epoch));
        let guard = &mut self.hosts[member].guard;
        let newer = guard.lease.is_some_and(|lease| lease.epoch > epoch);
        let mut waits_for = None;
        if !newer {
            guard.restart = guard.restart.filter(|(_, primary)| !primary);
            let limit_ns = guard.lease.map_or(u64::MAX, |lease| lease.ladder(MARGIN_NS).kill_ns);
            if let Some(run) = guard.run.as_mut().filter(|run| run.may_write()) {
                waits_for = Some(run.id);
                let immediate_ns = (now_ns + grace_ns).min(limit_ns);
                let kill_ns = (immediate_ns + FENCE_IMMEDIATE_NS).min(limit_ns);
                run.stop(if grace_ns == 0 {
                    KILL
                } else {
                    Plan { stage: Stop::Fast, immediate_ns, kill_ns, fencing: true }
                });
            }
            guard.lease = None;
            self.relax(member);
            self.apply_plan(member, now_ns);
        }
        let until_ns = now_ns + grace_ns + FENCE_IMMEDIATE_NS;
        self.hosts[member].guard.parked.push((client, Parked::Fence { epoch, run: waits_for, until_ns }));
        self.advance_parked(member);
    }

    pub(super) fn advance_parked(&mut self, member: usize) {
        let now_ns = self.local_ns(member);
        for (client, parked) in std::mem::take(&mut self.hosts[member].guard.parked) {
            let guard = &self.hosts[member].guard;
            let answer = match &parked {
                Parked::Grant(grant) => {
                    let grant = *grant;
                    self.judge_grant(member, grant, now_ns)
                }
                Parked::Close(epoch) => (guard.durable.closed >= *epoch).then_some(Answer::Ok),
                Parked::Promise { epoch, until_ns } => {
                    let (epoch, until_ns) = (*epoch, *until_ns);
                    let durable = &guard.durable;
                    if guard.wanted.closed >= epoch {
                        Some(Answer::Refused("promises are closed".into()))
                    } else {
                        let stored = durable.promised_epoch >= epoch && durable.promised_until_ns >= until_ns;
                        stored.then_some(Answer::Ok)
                    }
                }
                Parked::Fence { epoch, run, until_ns } => {
                    let (epoch, run, over) = (*epoch, *run, now_ns >= *until_ns);
                    self.fenced(member, epoch, run, over)
                }
                Parked::Stop { run } => {
                    guard.run.as_ref().is_none_or(|alive| alive.id != *run).then_some(Answer::Ok)
                }
            };
            match answer {
                Some(answer) => self.guard_answers_to(member, client, answer),
                None => self.hosts[member].guard.parked.push((client, parked)),
            }
        }
    }

    /// guard/requests.rs, `fenced`: the mark on disk, and nothing alive that could write.
    pub(super) fn fenced(
        &mut self,
        member: usize,
        epoch: u64,
        run: Option<u64>,
        over: bool,
    ) -> Option<Answer> {
        let host = &mut self.hosts[member];
        if host.guard.durable.fenced < epoch {
            return None;
        }
        if run.is_some_and(|run| host.guard.run.as_ref().is_some_and(|alive| alive.id == run)) {
            return None;
        }
        // A standby says that it is in recovery as soon as it runs.
        let known =
            host.server.as_ref().is_some_and(|server| server.in_recovery && self.now_ns >= server.ready_ns);
        let lease = host.guard.lease.map_or(0, |lease| lease.epoch);
        if let Some(run) = host.guard.run.as_mut().filter(|_| lease <= epoch && !known) {
            if over && run.plan.is_none() {
                run.stop(KILL);
                let now_ns = self.local_ns(member);
                self.apply_plan(member, now_ns);
            }
            return None;
        }
        let evidence = FencedEvidence {
            epoch: Epoch(epoch),
            instance: InstanceId(host.guard.durable.instance),
            boot: BootId(format!("boot-{}", host.guard.durable.boot)),
            succeeds: host.guard.durable.lineage.iter().map(|id| InstanceId(*id)).collect(),
            checkpoint_lsn: host.data.checkpoint().map(|at: Lsn| at),
            timeline: host.data.timeline(),
            clean: host.data.clean && host.server.is_none(),
        };
        self.note(format!("guard {} has fenced epoch {epoch}", self.name(member)));
        self.fact(Fact::Fenced { member: config::member_name(member), epoch });
        Some(Answer::Fenced(evidence))
    }

    /// guard/promises.rs, `promise`.
    pub(super) fn refuse_promise(
        &self,
        member: usize,
        epoch: u64,
        hold_ms: u64,
        now_ns: u64,
    ) -> Option<String> {
        let guard = &self.hosts[member].guard;
        let wanted = &guard.wanted;
        let highest = wanted.highest.max(wanted.promised_epoch);
        if epoch <= wanted.fenced {
            Some(format!("epoch {epoch} is fenced here: fenced through {}", wanted.fenced))
        } else if epoch <= wanted.closed {
            Some(format!("promises are closed through epoch {}, {epoch} is asked", wanted.closed))
        } else if epoch < highest {
            Some(format!("epoch {epoch} is stale: the highest heard of is {highest}"))
        } else if guard.lease.is_some_and(|lease| lease.epoch == epoch && now_ns < lease.deadline_ns) {
            Some(format!("this member holds the lease of epoch {epoch} itself"))
        } else {
            (hold_ms > HOLD_MAX_MS).then(|| format!("{hold_ms} ms is longer than {HOLD_MAX_MS} ms"))
        }
    }
}
