//! PostgreSQL out of recovery without a lease: the gate, the look at `pg_control`, and the sweep for foreign processes.
//!
//! The gate is the rule (nothing is committed before it), the look is the net under it: for a `standby.signal` that somebody removed
//! between the guard's check and PostgreSQL's, and for a PostgreSQL that somebody started by hand beside the guard.

use super::Guard;
use crate::control_file::{self, DbState};
use crate::helper::Isolation;
use crate::log;
use crate::procscan;
use crate::run::{Kind, StopPlan};
use crate::server::ClientId;
use crate::wire::{Answer, Fields};

impl Guard {
    /// May the running standby end recovery? A refusal kills it at once: what it was about to do is not wanted.
    pub(super) fn gate(&mut self, client: ClientId, now_ns: u64) -> Answer {
        let caller = self.server.peer_pid(client).and_then(procscan::pid_namespace);
        let lease = self.usable_lease(now_ns);
        let Some(run) = &mut self.run else {
            return Answer::refused("no PostgreSQL of this guard is running");
        };
        if self.isolation != Isolation::None && caller != procscan::pid_namespace(run.helper.pid) {
            return Answer::refused("the gate is asked by PostgreSQL itself, not from outside its namespace");
        }
        match lease {
            Some(lease) if run.plan.is_none() => {
                run.gate_passed = true;
                self.promoted_epoch = Some(lease.epoch);
                log::info(
                    "gate opened: PostgreSQL leaves recovery",
                    Fields::new().with("epoch", lease.epoch),
                );
                Answer::Ok(Fields::new().with("epoch", lease.epoch))
            }
            _ => {
                let reason = match (self.lease, run.plan) {
                    (_, Some(_)) => "promotion while PostgreSQL is being stopped".to_owned(),
                    (Some(held), None) => {
                        format!("promotion at the end of the lease for epoch {}", held.epoch)
                    }
                    (None, None) => "promotion without a lease".to_owned(),
                };
                self.kill_rogue(&reason);
                Answer::refused(reason)
            }
        }
    }

    fn kill_rogue(&mut self, reason: &str) {
        log::error("rogue promotion: killing PostgreSQL", Fields::new().with("reason", reason));
        self.rogue_promotions += 1;
        self.last_rogue = Some(reason.to_owned());
        self.restart = None;
        if let Some(run) = &mut self.run {
            run.stop(StopPlan::KILL, "rogue-promotion");
            run.advance(u64::MAX);
        }
    }

    pub(super) fn refresh_control(&mut self) {
        if let Some(run) = &mut self.run
            && let Ok(control) = control_file::read(&self.config.data_dir)
        {
            run.control = control;
        }
    }

    /// The regular look.
    pub(super) fn look(&mut self, now_ns: u64) {
        if self.sweeping {
            self.sweep();
        }
        if self.run.is_some() {
            self.refresh_control();
            let run = self.run.as_ref().expect("just looked at");
            if run.is_in_production() && run.plan.is_none() && self.live_lease(now_ns).is_none() {
                self.kill_rogue("pg_control says `in production` without a lease");
            } else if run.kind == Kind::Standby
                && run.is_in_production()
                && !run.gate_passed
                && run.plan.is_none()
            {
                // Under a lease, so no second writer; but the gate was not what let it through.
                let lease = self.lease.map(|lease| lease.epoch);
                if self.promoted_epoch != lease {
                    log::warn("PostgreSQL left recovery without asking the gate", Fields::new());
                    self.promoted_epoch = lease;
                }
            }
        } else if self.job.as_ref().is_none_or(|job| job.helper().is_none()) {
            self.look_for_foreign();
        }
    }

    /// Nothing of ours writes from now on: what `pg_control` says at this instant is the measure.
    pub(super) fn note_idle(&mut self) {
        self.idle_control = control_file::read(&self.config.data_dir).ok().flatten();
    }

    fn look_for_foreign(&mut self) {
        let Ok(Some(control)) = control_file::read(&self.config.data_dir) else { return };
        let changed = self.idle_control.as_ref().is_some_and(|idle| idle.stamp != control.stamp);
        if changed && control.state == DbState::InProduction {
            self.kill_rogue("a PostgreSQL that this guard did not start is in production");
            self.sweeping = true;
        }
        self.idle_control = Some(control);
    }

    /// One round of killing; ends the sweep when nothing was found.
    pub(super) fn sweep(&mut self) {
        let mut spare = Vec::new();
        let helpers = [
            self.run.as_ref().map(|run| run.helper.pid),
            self.job.as_ref().and_then(|job| job.helper()).map(|helper| helper.pid),
        ];
        for pid in helpers.into_iter().flatten() {
            spare.extend(procscan::pid_namespace(pid));
        }
        match procscan::kill_all(&self.config.data_dir, &spare) {
            Ok(0) => self.sweeping = false,
            Ok(found) => {
                self.sweeping = true;
                log::warn("killing processes of the data directory", Fields::new().with("processes", found));
            }
            Err(error) => {
                self.sweeping = true;
                log::error("/proc cannot be read", Fields::new().with("error", error));
            }
        }
    }
}
