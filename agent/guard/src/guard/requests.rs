//! What clients ask for. A request that has to wait for the disk or for PostgreSQL's end is *parked* and looked at again after
//! every event; its client waits, all others are answered meanwhile.

use super::Guard;
use crate::clock::{self, MS};
use crate::control_file;
use crate::helper::Isolation;
use crate::job::Job;
use crate::lease::Grant;
use crate::log;
use crate::run::{Run, Stage, StopPlan};
use crate::server::ClientId;
use crate::wire::{Answer, Fields, JobTool, Request, StopMode};
use std::os::fd::AsRawFd;

/// How long an immediate shutdown may take within a fence.
const FENCE_IMMEDIATE_NS: u64 = 1000 * MS;

/// A request that waits.
#[derive(Debug)]
pub(super) enum Parked {
    /// For its epoch on disk.
    Grant(Grant),
    /// For the mark on disk.
    ClosePromises(u64),
    /// For the promise on disk.
    Promise { epoch: u64, until_ns: u64 },
    /// For the mark on disk and the end of this run.
    /// A standby must have said that it is in recovery by `until_ns`.
    Fence { epoch: u64, run: Option<u64>, until_ns: u64 },
    /// For the end of this run.
    Stop { run: u64, mode: StopMode, until_ns: u64 },
}

impl Parked {
    pub(super) fn due_ns(&self) -> Option<u64> {
        match self {
            Self::Stop { until_ns, .. } | Self::Fence { until_ns, .. } => Some(*until_ns),
            _ => None,
        }
    }
}

impl Guard {
    pub(super) fn take_requests(&mut self) {
        for id in self.server.ids() {
            while let Some(request) = self.server.next_request(id) {
                let answer = match request {
                    Ok(request) => self.handle(id, request),
                    Err(error) => Some(Answer::error(error.to_string())),
                };
                if let Some(answer) = answer {
                    self.server.answer(id, &answer);
                }
            }
        }
    }

    /// Answers, or parks the request and returns `None`.
    fn handle(&mut self, client: ClientId, request: Request) -> Option<Answer> {
        let now_ns = clock::boottime_ns();
        match request {
            Request::Status => Some(self.status(now_ns)),
            Request::Grant { epoch, instance, deadline_ns } => {
                let grant = Grant { epoch, instance, deadline_ns };
                self.persist.retry();
                let answer = self.grant(grant, now_ns);
                if answer.is_none() {
                    self.parked.push((client, Parked::Grant(grant)));
                }
                answer
            }
            Request::StartStandby { create } => Some(self.start_standby(create)),
            Request::StartPrimary { epoch } => Some(self.start_primary(epoch, now_ns)),
            Request::Stop { mode, timeout_ms } => self.stop(client, mode, now_ns + timeout_ms * MS, now_ns),
            Request::Fence { epoch, grace_ms } => {
                self.fence(client, epoch, grace_ms * MS, now_ns);
                None
            }
            Request::ClosePromises { epoch, void } => self.close_promises(client, epoch, void, now_ns),
            Request::Promise { epoch, hold_ms } => self.promise(client, epoch, hold_ms, now_ns),
            Request::Extend { epoch, instance, deadline_ns } => {
                Some(self.extend(Grant { epoch, instance, deadline_ns }, now_ns))
            }
            Request::JobStart { tool, args, env } => {
                Some(self.job_start(tool, &args, &env).unwrap_or_else(|answer| answer))
            }
            Request::JobStatus => Some(self.job_answer()),
            Request::JobKill => {
                if let Some(job) = &mut self.job {
                    log::info("job killed on request", job.fields());
                    job.kill();
                }
                Some(self.job_answer())
            }
            Request::Gate => Some(self.gate(client, now_ns)),
        }
    }

    fn stop(&mut self, client: ClientId, mode: StopMode, until_ns: u64, now_ns: u64) -> Option<Answer> {
        self.restart = None;
        let Some(run) = &mut self.run else {
            return Some(self.stopped_answer(Fields::new().with("already", 1)));
        };
        // Fast has no next rung of its own: the caller decides between waiting on and `mode=immediate`. The lease's ladder and the
        // kernel timer go on above it.
        let plan = match mode {
            StopMode::Fast => {
                StopPlan { stage: Stage::Fast, immediate_ns: u64::MAX, kill_ns: u64::MAX, fencing: false }
            }
            StopMode::Immediate => {
                StopPlan { stage: Stage::Immediate, immediate_ns: now_ns, kill_ns: until_ns, fencing: false }
            }
        };
        run.stop(plan, "asked for");
        self.parked.push((client, Parked::Stop { run: run.id, mode, until_ns }));
        None
    }

    /// The mark goes to disk and PostgreSQL goes down side by side: the one cannot hold up the other. The answer needs both.
    fn fence(&mut self, client: ClientId, epoch: u64, grace_ns: u64, now_ns: u64) {
        log::warn("fence", Fields::new().with("epoch", epoch).with("grace_ms", grace_ns / MS));
        self.persist.raise(|state| state.fenced_through = state.fenced_through.max(epoch));
        // A newer epoch's lease is not touched: fencing E says nothing about E+1.
        let newer = self.lease.is_some_and(|lease| lease.epoch > epoch);
        let mut waits_for = None;
        self.refresh_control();
        if !newer {
            self.restart = self.restart.filter(|restart| restart.kind == crate::run::Kind::Standby);
            if let Some(run) = self.run.as_mut().filter(|run| run.may_be_writable()) {
                waits_for = Some(run.id);
                let limit_ns = self.lease.map_or(u64::MAX, |lease| {
                    lease.ladder(self.config.shutdown_margin.as_nanos() as u64).kill_ns
                });
                let immediate_ns = (now_ns + grace_ns).min(limit_ns);
                let plan = if grace_ns == 0 {
                    StopPlan::KILL
                } else {
                    StopPlan {
                        stage: Stage::Fast,
                        immediate_ns,
                        kill_ns: (immediate_ns + FENCE_IMMEDIATE_NS).min(limit_ns),
                        fencing: true,
                    }
                };
                run.stop(plan, "fence");
                run.advance(now_ns);
            }
            self.end_lease("fence");
        }
        let until_ns = now_ns + grace_ns + FENCE_IMMEDIATE_NS;
        self.parked.push((client, Parked::Fence { epoch, run: waits_for, until_ns }));
    }

    pub(super) fn advance_parked(&mut self, now_ns: u64) {
        for (client, parked) in std::mem::take(&mut self.parked) {
            if !self.server.is_connected(client) {
                continue;
            }
            let answer = match &parked {
                Parked::Grant(grant) => self.grant(*grant, now_ns),
                Parked::ClosePromises(epoch) => self.promises_closed(*epoch),
                Parked::Promise { epoch, until_ns } => self.promised(*epoch, *until_ns),
                Parked::Fence { epoch, run, until_ns } => self.fenced(*epoch, *run, now_ns >= *until_ns),
                Parked::Stop { run, mode, until_ns } => self.stopped(*run, *mode, now_ns >= *until_ns),
            };
            match answer {
                Some(answer) => self.server.answer(client, &answer),
                None => self.parked.push((client, parked)),
            }
        }
    }

    fn is_alive(&self, run: u64) -> bool {
        self.run.as_ref().is_some_and(|alive| alive.id == run)
    }

    fn fenced(&mut self, epoch: u64, run: Option<u64>, over: bool) -> Option<Answer> {
        if self.persist.durable().fenced_through < epoch {
            return self.persist.failed().map(Answer::error);
        }
        if run.is_some_and(|run| self.is_alive(run)) {
            return None;
        }
        // A standby that has not said "in archive recovery" since its start may have been robbed of its standby.signal, and then there
        // is no gate: wait for its word, and when it does not come in time, for its end.
        let lease = self.lease.map_or(0, |lease| lease.epoch);
        if let Some(run) = self.run.as_mut().filter(|run| lease <= epoch && !run.is_known_standby()) {
            if over && run.plan.is_none() {
                run.stop(StopPlan::KILL, "fence: not known to be in recovery");
                run.advance(u64::MAX);
            }
            return None;
        }
        // Nothing of ours is left of that epoch. Of others, look; without namespaces a standby's own processes would be found too.
        if !(self.isolation == Isolation::None && self.run.is_some()) {
            self.sweep();
        }
        if self.sweeping {
            return None;
        }
        let mut fields = Fields::new().with("fenced_through", self.persist.durable().fenced_through);
        if let Some(run) = &self.run {
            fields.push(if run.may_be_writable() { "newer" } else { "standby" }, 1);
        }
        fields.push_some("lease_epoch", self.lease.map(|lease| lease.epoch));
        log::info("fenced", fields.clone());
        Some(self.stopped_answer(fields))
    }

    fn stopped(&self, run: u64, mode: StopMode, over: bool) -> Option<Answer> {
        if self.is_alive(run) || self.sweeping {
            return over.then_some(()).filter(|()| mode == StopMode::Fast).map(|()| {
                Answer::error("PostgreSQL has not stopped in time; the fast shutdown goes on (mode=immediate hurries it)")
            });
        }
        Some(self.stopped_answer(Fields::new()))
    }

    /// `ok`, with what `pg_control` says now.
    fn stopped_answer(&self, mut fields: Fields) -> Answer {
        fields.push("postgres", self.run.as_ref().map_or(crate::wire::PostgresState::Stopped, Run::state));
        match control_file::read(&self.config.data_dir) {
            Ok(Some(control)) => control.view().push_to(&mut fields),
            Ok(None) => {}
            Err(error) => fields.push("control_error", error),
        }
        Answer::Ok(fields)
    }

    fn job_start(
        &mut self,
        tool: JobTool,
        args: &[String],
        env: &[(String, String)],
    ) -> Result<Answer, Answer> {
        if let Some(job) = self.job.as_ref().filter(|job| job.helper().is_some()) {
            return Err(Answer::Refused { reason: "a job is running".into(), fields: job.fields() });
        }
        if self.run.is_some() || self.restart.is_some() || self.sweeping {
            let state = self.run.as_ref().map_or("about to be restarted, or dying", |run| run.state().name());
            return Err(Answer::Refused {
                reason: format!("a job needs PostgreSQL stopped: it is {state}"),
                fields: Fields::new().with("postgres", state),
            });
        }
        if self.terminating {
            return Err(Answer::refused("the guard is ending"));
        }
        let job = Job::start(&self.config, self.isolation, self.lock.as_raw_fd(), tool, args, env)?;
        log::info("job started", job.fields());
        let fields = job.fields();
        self.job = Some(job);
        Ok(Answer::Ok(fields))
    }

    fn job_answer(&self) -> Answer {
        match &self.job {
            Some(job) => Answer::Ok(job.fields()),
            None => Answer::Ok(Fields::new().with("state", "none")),
        }
    }
}
