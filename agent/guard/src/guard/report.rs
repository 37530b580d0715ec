//! `status`: everything the guard knows.

use super::Guard;
use crate::control_file;
use crate::job::Job;
use crate::watchdog::Watchdog;
use crate::wire::{Answer, PostgresState, Status};

impl Guard {
    pub(super) fn status(&self, now_ns: u64) -> Answer {
        let state = self.persist.durable();
        let lease = self.live_lease(now_ns);
        let promised = Some(state.promised_until_ns).filter(|until_ns| *until_ns > now_ns);
        let (control, control_error) = match control_file::read(&self.config.data_dir) {
            Ok(control) => (control.map(|control| control.view()), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let word = |result: Result<(), String>| result.map_or_else(|reason| reason, |()| "ok".to_owned());
        let status = Status {
            pid: std::process::id(),
            instance: state.instance,
            succeeds: state.previous_instance,
            lineage: state.lineage.clone(),
            boot_id: state.boot_id.clone(),
            highest_epoch: state.highest_epoch,
            fenced_through: state.fenced_through,
            promises_closed: state.promises_closed,
            promised_epoch: Some(state.promised_epoch).filter(|epoch| promised.is_some() && *epoch > 0),
            promised_until_ns: promised,
            lease_epoch: lease.map(|lease| lease.epoch),
            lease_deadline_ns: lease.map(|lease| lease.deadline_ns),
            postgres: match &self.run {
                Some(run) => run.state(),
                None if self.sweeping => PostgresState::Stopping,
                None => PostgresState::Stopped,
            },
            postmaster_pid: self.run.as_ref().and_then(|run| run.postmaster).map(libc::pid_t::unsigned_abs),
            started_at_ns: self.run.as_ref().map(|run| run.started_ns),
            last_exit: self.last_exit.clone(),
            last_error: self.last_error.clone(),
            restarts: self.restarts,
            rogue_promotions: self.rogue_promotions,
            last_rogue: self.last_rogue.clone(),
            job: self.job.as_ref().map_or_else(|| "none".to_owned(), Job::state),
            namespaces: word(self.namespaces.clone()),
            timer: word(self.timer.as_ref().map(|_| ()).map_err(Clone::clone)),
            watchdog: self.watchdog.as_ref().map_or_else(|| "none".to_owned(), Watchdog::state),
            automatic_failover: match self.automatic() {
                Ok(()) => "possible".to_owned(),
                Err(reason) => format!("refused: {reason}"),
            },
            memory_locked: self.memory_locked.clone(),
            state_file: self.found.to_owned(),
            control,
            control_error,
            lease_ttl_max_ms: Some(u64::try_from(self.config.lease_ttl_max.as_millis()).unwrap_or(u64::MAX)),
        };
        Answer::Ok(status.to_fields())
    }
}
