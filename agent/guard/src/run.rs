//! One run of PostgreSQL, from its start to its empty namespace, and the way it is told to stop.
//!
//! Decides what a run is (in recovery, or possibly writable) from how it was started, from the gate and from `pg_control`;
//! never whether it may be: the guard does. When in doubt it says *writable*: that mistake costs a shutdown, the other a
//! second writer.

use crate::control_file::{Control, DbState};
use crate::helper::Helper;
use crate::log;
use crate::wire::{Fields, PostgresState};

/// How PostgreSQL was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// In recovery, with the gate.
    Standby,
    /// Writable, under a lease.
    Primary,
}

/// How far a stop has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// SIGINT to the postmaster.
    Fast,
    /// SIGQUIT to the postmaster.
    Immediate,
    /// SIGKILL to the namespace.
    Kill,
}

/// A stop in progress: stages only rise, times only come nearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopPlan {
    /// The stage to be in now.
    pub stage: Stage,
    /// When the stage rises to immediate.
    pub immediate_ns: u64,
    /// When it rises to kill.
    pub kill_ns: u64,
    /// For a fence or at a lease's end: no grant is taken until the run is gone.
    pub fencing: bool,
}

impl StopPlan {
    /// At once.
    pub const KILL: Self = Self { stage: Stage::Kill, immediate_ns: 0, kill_ns: 0, fencing: true };

    fn merge(self, other: Self) -> Self {
        Self {
            stage: self.stage.max(other.stage),
            immediate_ns: self.immediate_ns.min(other.immediate_ns),
            kill_ns: self.kill_ns.min(other.kill_ns),
            fencing: self.fencing || other.fencing,
        }
    }

    fn at(mut self, now_ns: u64) -> Self {
        if now_ns >= self.kill_ns {
            self.stage = Stage::Kill;
        } else if now_ns >= self.immediate_ns {
            self.stage = self.stage.max(Stage::Immediate);
        }
        self
    }
}

/// A run.
#[derive(Debug)]
pub struct Run {
    /// Counts up with every run of this guard.
    pub id: u64,
    /// Init of its namespace.
    pub helper: Helper,
    /// How it was started.
    pub kind: Kind,
    /// The postmaster, seen from outside.
    pub postmaster: Option<libc::pid_t>,
    /// CLOCK_BOOTTIME.
    pub started_ns: u64,
    /// `pg_control` just before the start: what it said then says nothing about this run.
    pub before: Option<Control>,
    /// The latest reading.
    pub control: Option<Control>,
    /// The gate was opened: PostgreSQL may be writable from then on.
    pub gate_passed: bool,
    /// It is being stopped.
    pub plan: Option<StopPlan>,
    /// The stage whose signal was sent.
    pub signalled: Option<Stage>,
    /// How the main process ended, as soon as that is known.
    pub exit: Option<String>,
}

impl Run {
    fn control_since_start(&self) -> Option<&Control> {
        let control = self.control.as_ref()?;
        let same = self.before.as_ref().is_some_and(|before| before.stamp == control.stamp);
        (!same).then_some(control)
    }

    /// Has this run written "in production"?
    pub fn is_in_production(&self) -> bool {
        self.control_since_start().is_some_and(|control| control.state == DbState::InProduction)
    }

    /// Has this run written "in archive recovery"? Only then is the gate in force: PostgreSQL says so only when it found the
    /// signal file, and then it runs the gate before it leaves recovery.
    pub fn is_known_standby(&self) -> bool {
        !self.may_be_writable()
            && self.control_since_start().is_some_and(|control| control.state == DbState::InArchiveRecovery)
    }

    /// Can it possibly be accepting writes, now or without asking again?
    pub fn may_be_writable(&self) -> bool {
        self.kind == Kind::Primary || self.gate_passed || self.is_in_production()
    }

    /// For status.
    pub fn state(&self) -> PostgresState {
        if self.plan.is_some() {
            return PostgresState::Stopping;
        }
        match self.control_since_start().map(|control| control.state) {
            Some(DbState::InProduction) => PostgresState::Primary,
            Some(DbState::InArchiveRecovery) if !self.gate_passed => PostgresState::Standby,
            _ => PostgresState::Starting,
        }
    }

    /// Begins a stop, or hurries the one in progress.
    pub fn stop(&mut self, plan: StopPlan, rule: &str) {
        log::info(
            "stopping PostgreSQL",
            Fields::new().with("rule", rule).with("stage", format!("{:?}", plan.stage)).with("run", self.id),
        );
        self.plan = Some(self.plan.map_or(plan, |running| running.merge(plan)));
    }

    /// Sends what is due.
    pub fn advance(&mut self, now_ns: u64) {
        let Some(plan) = self.plan.map(|plan| plan.at(now_ns)) else { return };
        self.plan = Some(plan);
        if self.signalled >= Some(plan.stage) {
            return;
        }
        let sent = match plan.stage {
            Stage::Fast => self.helper.signal(libc::SIGINT),
            Stage::Immediate => self.helper.signal(libc::SIGQUIT),
            Stage::Kill => {
                self.helper.kill();
                Ok(())
            }
        };
        if let Err(error) = sent {
            // The helper is gone or does not listen; either way the kill works.
            log::warn("helper did not take the signal: killing", Fields::new().with("error", error));
            self.helper.kill();
        }
        self.signalled = Some(plan.stage);
        if self.signalled > Some(Stage::Fast) {
            log::warn(
                "PostgreSQL is stopped harder",
                Fields::new().with("stage", format!("{:?}", plan.stage)).with("run", self.id),
            );
        }
    }

    /// When [`Run::advance`] has something to do next.
    pub fn next_due_ns(&self) -> Option<u64> {
        let plan = self.plan?;
        match plan.stage {
            Stage::Fast => Some(plan.immediate_ns.min(plan.kill_ns)),
            Stage::Immediate => Some(plan.kill_ns),
            Stage::Kill => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_only_rise_and_times_only_come_nearer() {
        let slow = StopPlan { stage: Stage::Fast, immediate_ns: 100, kill_ns: 200, fencing: false };
        let quick = StopPlan { stage: Stage::Fast, immediate_ns: 150, kill_ns: 160, fencing: true };
        let both = slow.merge(quick);
        assert_eq!(both, StopPlan { stage: Stage::Fast, immediate_ns: 100, kill_ns: 160, fencing: true });
        assert_eq!(both.at(99).stage, Stage::Fast);
        assert_eq!(both.at(100).stage, Stage::Immediate);
        assert_eq!(both.at(160).stage, Stage::Kill);
        assert_eq!(both.merge(StopPlan::KILL).stage, Stage::Kill);
    }
}
