//! Starting PostgreSQL, the end of a run, and local restarts.

use super::{Guard, Restart};
use crate::clock::{self, MS};
use crate::helper::{self, Isolation};
use crate::log;
use crate::postgres;
use crate::run::{Kind, Run};
use crate::sys;
use crate::wire::{Answer, Fields};
use std::io;
use std::os::fd::AsRawFd;

/// The first pause before a local restart; it doubles up to the longest.
pub(super) const BACKOFF_FIRST_NS: u64 = 200 * MS;
const BACKOFF_LONGEST_NS: u64 = 10_000 * MS;
/// A run that lasted this long starts the pauses anew.
const STABLE_NS: u64 = 60_000 * MS;

impl Guard {
    /// Why nothing can be started now, whatever it is.
    fn refuse_start(&self) -> Option<Answer> {
        if self.terminating {
            return Some(Answer::refused("the guard is ending"));
        }
        if self.sweeping {
            return Some(Answer::refused(
                "processes of the data directory are still being killed: ask again",
            ));
        }
        if let Some(job) = self.job.as_ref().filter(|job| job.helper().is_some()) {
            return Some(Answer::Refused { reason: "a job is running".into(), fields: job.fields() });
        }
        let run = self.run.as_ref()?;
        Some(Answer::Refused {
            reason: format!("PostgreSQL is {}", run.state()),
            fields: Fields::new().with("postgres", run.state()).with("kind", format!("{:?}", run.kind)),
        })
    }

    fn is_running_as(&self, writable: bool) -> bool {
        self.run.as_ref().is_some_and(|run| run.plan.is_none() && run.may_be_writable() == writable)
    }

    pub(super) fn start_standby(&mut self, create: bool) -> Answer {
        if self.is_running_as(false) {
            return Answer::Ok(Fields::new().with("already", 1));
        }
        if let Some(answer) = self.refuse_start() {
            return answer;
        }
        let crashed = self.restart.take().is_some();
        let answer = self.begin_standby(create).unwrap_or_else(|answer| answer);
        self.count_restart(crashed, answer)
    }

    /// A start that was asked for while a local restart was due takes its place, and is counted like it.
    fn count_restart(&mut self, crashed: bool, answer: Answer) -> Answer {
        self.restarts += u64::from(crashed && matches!(answer, Answer::Ok(_)));
        answer
    }

    fn begin_standby(&mut self, create: bool) -> Result<Answer, Answer> {
        postgres::control(&self.config.data_dir)?;
        let removed = postgres::prepare_standby(&self.config.data_dir, create)?;
        if removed {
            log::warn("recovery.signal removed before a standby start", Fields::new());
        }
        let id = self.spawn(Kind::Standby)?;
        Ok(Answer::Ok(Fields::new().with("run", id).with("removed", u8::from(removed))))
    }

    pub(super) fn start_primary(&mut self, epoch: u64, now_ns: u64) -> Answer {
        if let Err(reason) = self.automatic() {
            return Answer::refused(format!("automatic failover is refused for this member: {reason}"));
        }
        let lease = self.usable_lease(now_ns);
        let Some(lease) = lease.filter(|lease| lease.epoch == epoch) else {
            let mut fields = Fields::new().with("epoch", epoch).with("now_ns", now_ns);
            fields.push_some("lease_epoch", self.lease.map(|lease| lease.epoch));
            fields.push_some("lease_deadline_ns", self.lease.map(|lease| lease.deadline_ns));
            fields.push("margin_ns", self.margin_ns());
            let held = match (self.lease, lease) {
                (None, _) => "no lease is held".to_owned(),
                (Some(held), None) => format!("the lease for epoch {} is about to end", held.epoch),
                (Some(held), Some(_)) => format!("the lease is for epoch {}", held.epoch),
            };
            return Answer::Refused { reason: format!("epoch {epoch} may not write here: {held}"), fields };
        };
        if self.is_running_as(true) {
            return Answer::Ok(Fields::new().with("already", 1));
        }
        if let Some(answer) = self.refuse_start() {
            return answer;
        }
        let crashed = self.restart.take().is_some();
        let answer = self.begin_primary(lease.epoch).unwrap_or_else(|answer| answer);
        self.count_restart(crashed, answer)
    }

    fn begin_primary(&mut self, epoch: u64) -> Result<Answer, Answer> {
        let control = postgres::control(&self.config.data_dir)?;
        let promoted = self.promoted_epoch == Some(epoch);
        postgres::check_primary(&self.config.data_dir, &control, promoted)?;
        let id = self.spawn(Kind::Primary)?;
        Ok(Answer::Ok(Fields::new().with("run", id)))
    }

    fn spawn(&mut self, kind: Kind) -> Result<u64, Answer> {
        assert!(self.run.is_none(), "one run at a time");
        let before = crate::control_file::read(&self.config.data_dir).ok().flatten();
        let deadline_ns = self.lease.map(|lease| lease.deadline_ns);
        assert!(
            kind == Kind::Standby || deadline_ns.is_some(),
            "nothing writable is started without a lease"
        );
        let start = || -> io::Result<helper::Helper> {
            let output = postgres::open_output(&self.config)?;
            let stdin = helper::dev_null()?;
            let program = postgres::program(&self.config, &self.exe, kind, &stdin, &output)?;
            helper::spawn(self.isolation, &program, self.lock.as_raw_fd(), deadline_ns)
        };
        let helper = start().map_err(|error| {
            let text = format!("PostgreSQL could not be started: {error}");
            Answer::error(text)
        })?;
        self.runs += 1;
        let id = self.runs;
        log::info(
            "starting PostgreSQL",
            Fields::new().with("kind", format!("{kind:?}")).with("run", id).with("helper_pid", helper.pid),
        );
        self.run = Some(Run {
            id,
            helper,
            kind,
            postmaster: None,
            started_ns: clock::boottime_ns(),
            control: before.clone(),
            before,
            gate_passed: false,
            plan: None,
            signalled: None,
            exit: None,
        });
        Ok(id)
    }

    /// The helper was reaped: the kernel has killed and reaped everything in its namespace.
    pub(super) fn run_ended(&mut self, helper_status: libc::c_int) {
        // The last reading tells what the run was when it ended.
        self.refresh_control();
        let run = self.run.take().expect("a helper that was reaped is a run's");
        let now_ns = clock::boottime_ns();
        let exit = run
            .exit
            .clone()
            .unwrap_or_else(|| format!("namespace killed ({})", sys::describe_exit(helper_status)));
        log::info(
            "PostgreSQL has ended, its namespace is empty",
            Fields::new()
                .with("run", run.id)
                .with("exit", &exit)
                .with("asked_for", u8::from(run.plan.is_some())),
        );
        self.last_exit = Some(exit);
        self.note_idle();
        if self.isolation == Isolation::None {
            // Nothing proves that its backends are gone but looking.
            self.sweeping = true;
        }
        self.relax_timers();
        if run.plan.is_some() || self.terminating {
            return;
        }
        let kind = if run.may_be_writable() { Kind::Primary } else { Kind::Standby };
        if kind == Kind::Primary && self.usable_lease(now_ns).is_none() {
            return;
        }
        if now_ns.saturating_sub(run.started_ns) > STABLE_NS {
            self.backoff_ns = BACKOFF_FIRST_NS;
        }
        log::warn(
            "PostgreSQL crashed: local restart",
            Fields::new().with("kind", format!("{kind:?}")).with("pause_ms", self.backoff_ns / MS),
        );
        self.restart = Some(Restart { at_ns: now_ns + self.backoff_ns, kind });
        self.backoff_ns = (self.backoff_ns * 2).min(BACKOFF_LONGEST_NS);
    }

    pub(super) fn restart_if_due(&mut self, now_ns: u64) {
        let Some(restart) = self.restart.filter(|restart| now_ns >= restart.at_ns && !self.sweeping) else {
            return;
        };
        self.restart = None;
        let answer = match (restart.kind, self.usable_lease(now_ns)) {
            (Kind::Standby, _) => self.start_standby(false),
            (Kind::Primary, Some(lease)) => self.start_primary(lease.epoch, now_ns),
            (Kind::Primary, None) => Answer::refused("the lease has ended"),
        };
        match answer {
            Answer::Ok(_) => self.restarts += 1,
            Answer::Refused { reason, .. } | Answer::Error { reason } => {
                let text = format!("no local restart: {reason}");
                log::error(&text, Fields::new());
                self.last_error = Some(text);
            }
        }
    }
}
