//! The lease in force: taking it, arming every timer, and ending it in time.

use super::Guard;
use crate::clock::{self, MS};
use crate::lease::{self, Facts, Grant, Lease};
use crate::log;
use crate::run::{Run, Stage, StopPlan};
use crate::timer::KernelTimer;
use crate::watchdog::Watchdog;
use crate::wire::{Answer, Fields};

impl Guard {
    /// Can this member be made to stop by the kernel? Without namespaces and timer nothing writable is allowed here.
    pub(super) fn automatic(&self) -> Result<(), String> {
        self.namespaces.clone()?;
        self.timer.as_ref().map(|_| ()).map_err(Clone::clone)?;
        self.watchdog.as_ref().map_or(Ok(()), Watchdog::usable)
    }

    /// Pings while the machine may live on (see [`crate::watchdog`]).
    pub(super) fn keep_watchdog(&mut self, now_ns: u64) {
        let deadline_ns = self.timer.as_ref().ok().and_then(KernelTimer::armed_ns);
        let Some(watchdog) = &mut self.watchdog else { return };
        let before = watchdog.usable().is_ok();
        watchdog.keep(now_ns, deadline_ns);
        if let (true, Err(reason)) = (before, watchdog.usable()) {
            log::error(
                "the watchdog fails: no lease is taken any more",
                Fields::new().with("reason", &reason),
            );
            self.last_error = Some(reason);
        }
    }

    /// The lease, if it holds now.
    pub(super) fn live_lease(&self, now_ns: u64) -> Option<Lease> {
        self.lease.filter(|lease| now_ns < lease.deadline_ns)
    }

    /// The lease, if something writable may still be begun under it.
    pub(super) fn usable_lease(&self, now_ns: u64) -> Option<Lease> {
        self.lease.filter(|lease| lease.is_usable(now_ns, self.margin_ns()))
    }

    /// Judges a grant. `None`: its epoch is on its way to the disk, ask again when it is durable.
    pub(super) fn grant(&mut self, grant: Grant, now_ns: u64) -> Option<Answer> {
        if let Err(reason) = self.automatic() {
            return Some(Answer::refused(format!("automatic failover is refused for this member: {reason}")));
        }
        if self.run.as_ref().is_some_and(|run| run.plan.is_some_and(|plan| plan.fencing)) {
            return Some(Answer::refused("PostgreSQL is being fenced: ask again when it has stopped"));
        }
        if self.terminating {
            return Some(Answer::refused("the guard is ending"));
        }
        // Before the lease is lengthened: a pause that was not noticed yet must not be covered up by a new baseline.
        self.check_clocks(now_ns);
        if let Some(refusal) = self.promised_to_another(grant.epoch, now_ns) {
            return Some(refusal);
        }
        let wanted = self.persist.wanted();
        let facts = Facts {
            now_ns,
            instance: wanted.instance,
            highest_epoch: wanted.highest_epoch,
            fenced_through: wanted.fenced_through,
            ttl_max_ns: self.config.lease_ttl_max.as_nanos() as u64,
            deadline_floor_ns: self.deadline_floor_ns,
        };
        let lease = match lease::judge(grant, self.lease, facts) {
            Ok(lease) => lease,
            Err(answer) => return Some(answer),
        };
        if self.persist.durable().highest_epoch < lease.epoch {
            if let Some(reason) = self.persist.failed().filter(|_| wanted.highest_epoch >= lease.epoch) {
                let answer = Answer::error(reason);
                return Some(answer);
            }
            if wanted.highest_epoch < lease.epoch {
                self.persist.raise(|state| state.highest_epoch = lease.epoch);
            }
            return None;
        }
        Some(self.take(lease))
    }

    /// Arms everything, then holds the lease. The order: no instant at which it is held and not enforced.
    pub(super) fn take(&mut self, lease: Lease) -> Answer {
        if let Some(Err(error)) = self.watchdog.as_mut().map(|watchdog| watchdog.arm(clock::boottime_ns())) {
            return Answer::error(format!("the watchdog could not be armed: {error}"));
        }
        let timer = self.timer.as_mut().expect("checked by `automatic`");
        if let Err(error) = timer.arm(lease.deadline_ns) {
            return Answer::error(format!("the kernel timer could not be armed: {error}"));
        }
        if let Some(Err(error)) =
            self.run.as_ref().map(|run| run.helper.set_deadline(Some(lease.deadline_ns)))
        {
            // The helper keeps its earlier deadline: the mistake falls towards an early end.
            log::warn("the helper did not take the deadline", Fields::new().with("error", error));
        }
        if self.lease.is_none_or(|held| held.epoch != lease.epoch) {
            log::info(
                "lease begins",
                Fields::new().with("epoch", lease.epoch).with("deadline_ns", lease.deadline_ns),
            );
        }
        self.wall_minus_boot_ns = clock::wall_minus_boot_ns();
        self.lease = Some(lease);
        Answer::Ok(Fields::new().with("epoch", lease.epoch).with("deadline_ns", lease.deadline_ns))
    }

    /// The lease is no more. What may be writable must be under a stop plan already, or there is none such.
    pub(super) fn end_lease(&mut self, rule: &str) {
        let Some(lease) = self.lease.take() else { return };
        log::info("lease ends", Fields::new().with("epoch", lease.epoch).with("rule", rule));
        assert!(
            self.run.as_ref().is_none_or(|run| !run.may_be_writable() || run.plan.is_some()),
            "a lease ended under a running primary"
        );
        self.relax_timers();
    }

    /// Disarms what is armed when nothing is left that it would have to kill.
    pub(super) fn relax_timers(&mut self) {
        if self.lease.is_some() || self.run.as_ref().is_some_and(Run::may_be_writable) {
            return;
        }
        if let Ok(timer) = &mut self.timer
            && let Err(error) = timer.disarm()
        {
            log::error("the kernel timer could not be disarmed", Fields::new().with("error", error));
        }
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.disarm();
        }
        if let Some(Err(error)) = self.run.as_ref().map(|run| run.helper.set_deadline(None)) {
            log::warn("the helper did not take the end of the deadline", Fields::new().with("error", error));
        }
    }

    /// The margin before the deadline has begun: shut down what may be writable; a standby that never passed the gate stays.
    pub(super) fn check_deadline(&mut self, now_ns: u64) {
        let Some(lease) = self.lease else { return };
        if lease.is_usable(now_ns, self.margin_ns()) {
            return;
        }
        let ladder = lease.ladder(self.margin_ns());
        let plan = StopPlan {
            stage: Stage::Fast,
            immediate_ns: ladder.immediate_ns,
            kill_ns: ladder.kill_ns,
            fencing: true,
        };
        self.fence_self(plan, "the lease was not extended in time");
    }

    /// Drops the lease and stops what was allowed by it.
    pub(super) fn fence_self(&mut self, plan: StopPlan, rule: &str) {
        self.refresh_control();
        if let Some(run) = self.run.as_mut().filter(|run| run.may_be_writable()) {
            run.stop(plan, rule);
        }
        self.end_lease(rule);
    }

    /// Wall clock and boot clock come apart when the machine was paused (or the clock was set): CLOCK_BOOTTIME stood still with it,
    /// so the deadline is later in real time than the leader's bound.
    pub(super) fn check_clocks(&mut self, now_ns: u64) {
        let difference_ns = clock::wall_minus_boot_ns();
        let apart_ns = (difference_ns - self.wall_minus_boot_ns).unsigned_abs();
        if apart_ns <= self.config.clock_divergence_max.as_nanos() {
            return;
        }
        let text = format!("wall clock and boot clock came apart by {} ms", apart_ns / u128::from(MS));
        log::error(&text, Fields::new().with("wall_minus_boot_ns", difference_ns));
        self.last_error = Some(text);
        // Without a lease too: a heartbeat stamped before the pause may be answered with a new one.
        self.deadline_floor_ns = now_ns + self.config.lease_ttl_max.as_nanos() as u64;
        self.wall_minus_boot_ns = difference_ns;
        let Some(lease) = self.lease else { return };
        let (margin_ns, ladder) = (self.margin_ns(), lease.ladder(self.margin_ns()));
        let plan = StopPlan {
            stage: Stage::Fast,
            immediate_ns: (now_ns + margin_ns / 5 * 3).min(ladder.immediate_ns),
            kill_ns: (now_ns + margin_ns / 10 * 9).min(ladder.kill_ns),
            fencing: true,
        };
        self.fence_self(plan, "clock divergence");
    }
}
