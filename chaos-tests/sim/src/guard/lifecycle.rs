//! Starting and stopping PostgreSQL, the gate, the loop (agent/guard/src/guard/lifecycle.rs and rogue.rs).

use super::*;

impl World {
    /// The plan's stage becomes PostgreSQL's.
    pub(super) fn apply_plan(&mut self, member: usize, now_ns: u64) {
        let Some(plan) = self.hosts[member].guard.run.as_mut().and_then(|run| run.plan.as_mut()) else {
            return;
        };
        if now_ns >= plan.kill_ns {
            plan.stage = Stop::Kill;
        } else if now_ns >= plan.immediate_ns {
            plan.stage = plan.stage.max(Stop::Immediate);
        }
        let stage = plan.stage;
        self.server_stops(member, stage);
    }

    /// guard/lifecycle.rs, `start_standby`.
    pub(super) fn start_standby(&mut self, member: usize) -> Answer {
        let host = &mut self.hosts[member];
        if let Some(run) = &host.guard.run {
            let runs = run.plan.is_none() && !run.may_write();
            return if runs { Answer::Ok } else { Answer::Refused("PostgreSQL runs".into()) };
        }
        if !host.data.standby {
            return Answer::Refused("there is no standby.signal".into());
        }
        host.guard.restart = None;
        self.begin_run(member, false);
        Answer::Ok
    }

    /// guard/lifecycle.rs, `start_primary`.
    pub(super) fn start_primary(&mut self, member: usize, epoch: u64, now_ns: u64) -> Answer {
        let host = &mut self.hosts[member];
        let Some(lease) = host.guard.usable(now_ns).filter(|lease| lease.epoch == epoch) else {
            return Answer::Refused(format!("epoch {epoch} may not write here: {:?}", host.guard.lease));
        };
        if let Some(run) = &host.guard.run {
            let runs = run.plan.is_none() && run.may_write();
            return if runs { Answer::Ok } else { Answer::Refused("PostgreSQL runs".into()) };
        }
        if host.data.standby || host.data.is_empty() {
            return Answer::Refused("the data directory is not a primary's".into());
        }
        host.guard.restart = None;
        host.guard.promoted_epoch = Some(lease.epoch);
        self.begin_run(member, true);
        Answer::Ok
    }

    pub(super) fn begin_run(&mut self, member: usize, primary: bool) {
        let epoch = self.hosts[member].guard.lease.map_or(0, |lease| lease.epoch);
        let started_ns = self.local_ns(member);
        let ready_ns = self.now_ns + self.draw_ms(100, 1_200);
        let host = &mut self.hosts[member];
        host.runs += 1;
        host.guard.run = Some(Run { id: host.runs, primary, started_ns, gate_passed: false, plan: None });
        host.data.clean = false;
        host.server = Some(Server {
            run: host.runs,
            epoch: if primary { epoch } else { 0 },
            ready_ns,
            in_recovery: !primary,
            promoting: false,
            stopping: None,
            dies_ns: None,
            streaming: false,
        });
        let role = if primary { "primary" } else { "standby" };
        self.note(format!("{} starts PostgreSQL as {role}", self.name(member)));
    }

    /// guard/rogue.rs, `gate`: PostgreSQL asks before it leaves recovery. The epoch, or `None` and it is killed.
    pub fn gate(&mut self, member: usize) -> Option<u64> {
        let now_ns = self.local_ns(member);
        let guard = &mut self.hosts[member].guard;
        let lease = guard.usable(now_ns);
        let run = guard.run.as_mut()?;
        if is_on(Mutant::PromoteWithoutLease) {
            run.gate_passed = true;
            return Some(guard.wanted.highest + 1);
        }
        match lease {
            Some(lease) if run.plan.is_none() => {
                run.gate_passed = true;
                guard.promoted_epoch = Some(lease.epoch);
                Some(lease.epoch)
            }
            _ => {
                guard.rogues += 1;
                guard.restart = None;
                run.stop(KILL);
                self.note(format!("{} would leave recovery without a lease: killed", self.name(member)));
                self.apply_plan(member, now_ns);
                None
            }
        }
    }

    /// PostgreSQL and everything of it is gone (guard/lifecycle.rs, `run_ended`).
    pub fn run_ended(&mut self, member: usize) {
        let now_ns = self.local_ns(member);
        let guard = &mut self.hosts[member].guard;
        let Some(run) = guard.run.take() else { return };
        self.relax(member);
        let guard = &mut self.hosts[member].guard;
        if !guard.up || run.plan.is_some() || (run.may_write() && guard.usable(now_ns).is_none()) {
            return self.advance_parked(member);
        }
        guard.restart = Some((now_ns + RESTART_PAUSE_NS, run.may_write()));
        self.advance_parked(member);
    }

    /// The loop (agent/guard/src/guard.rs, `tick`).
    pub fn guard_tick(&mut self, member: usize, incarnation: u64) {
        let guard = &self.hosts[member].guard;
        if !guard.up || guard.incarnation != incarnation {
            return;
        }
        if self.now_ns < guard.paused_until_ns {
            let at_ns = guard.paused_until_ns;
            return self.queue.at(at_ns, Event::GuardTick { member, incarnation });
        }
        let now_ns = self.local_ns(member);
        self.check_clocks(member, now_ns);
        // guard/leases.rs, `check_deadline`.
        if let Some(lease) =
            self.hosts[member].guard.lease.filter(|lease| !lease.is_usable(now_ns, MARGIN_NS))
        {
            let ladder = lease.ladder(MARGIN_NS);
            let (immediate_ns, kill_ns) = (ladder.immediate_ns, ladder.kill_ns);
            self.fence_self(member, Plan { stage: Stop::Fast, immediate_ns, kill_ns, fencing: true }, now_ns);
        }
        self.apply_plan(member, now_ns);
        let due = self.hosts[member].guard.restart.filter(|(at_ns, _)| now_ns >= *at_ns);
        if let Some((_, primary)) = due {
            self.hosts[member].guard.restart = None;
            let lease = self.hosts[member].guard.usable(now_ns);
            let answer = match (primary, lease) {
                (false, _) => self.start_standby(member),
                (true, Some(lease)) => self.start_primary(member, lease.epoch, now_ns),
                (true, None) => Answer::Refused("the lease has ended".into()),
            };
            if answer == Answer::Ok {
                self.hosts[member].guard.restarts += 1;
            }
        }
        // The look: out of recovery without a lease (guard/rogue.rs).
        let rogue = self.hosts[member].server.as_ref().is_some_and(|server| !server.in_recovery);
        let guard = &mut self.hosts[member].guard;
        if rogue
            && guard.lease.is_none_or(|lease| now_ns >= lease.deadline_ns)
            && let Some(run) = guard.run.as_mut().filter(|run| run.plan.is_none())
        {
            run.stop(KILL);
            self.apply_plan(member, now_ns);
        }
        self.advance_parked(member);
        self.queue.at(self.now_ns + TICK_NS, Event::GuardTick { member, incarnation });
    }
}
