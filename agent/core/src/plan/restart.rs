//! Restart or reload in the present role. Stop, start, and see that it accepts connections in the same role; under the
//! running lease when it is the primary, as the steady loop starts it too.
//!
//! Invariant: the run that was there when the directive began is the one that is stopped; a server that has been started
//! since is never stopped again. An agent that dies in the middle begins anew and may restart once more.

use regent_types::{DataForm, Epoch, Evidence, PostgresState};

use super::{Limits, Next, Step, Wait, elapsed_ms, wait_or};
use crate::{Facts, Work};

pub(super) struct Ask {
    pub epoch: Epoch,
    pub primary: bool,
    pub reload_only: bool,
}

pub(super) fn plan(ask: &Ask, work: &Work, facts: &Facts, limits: &Limits) -> Next {
    let found = facts.guard.started_at_ns;
    let begun = facts.worked.reloaded || facts.worked.run_at_begin.is_some_and(|run| run != found);
    // Once it was stopped, a refusal would say that nothing happened.
    let stop = |reason: String| if begun { Next::Unknown(reason) } else { Next::Refuse(reason) };
    if ask.primary {
        if facts.guard.lease_epoch != Some(ask.epoch) {
            let held = facts.guard.lease_epoch.map_or("none".to_owned(), |epoch| epoch.to_string());
            return stop(format!(
                "a restart of the primary needs the lease of epoch {}, held: {held}",
                ask.epoch
            ));
        }
        if facts.agent.lineage != ask.epoch {
            let lineage = facts.agent.lineage;
            return stop(format!(
                "the data was promoted at epoch {lineage}, the restart is of epoch {}",
                ask.epoch
            ));
        }
    } else if facts.data.form != DataForm::Standby {
        return stop(format!("a standby was to be restarted, the data directory is {:?}", facts.data.form));
    }
    let done = || Next::Done(Evidence::Restarted { elapsed_ms: elapsed_ms(work, facts) });
    if ask.reload_only {
        return if facts.worked.reloaded { done() } else { Next::Step(Step::Reload) };
    }
    let role = if ask.primary { PostgresState::Primary } else { PostgresState::Standby };
    match facts.guard.run {
        PostgresState::Stopped if ask.primary => Next::Step(Step::StartPrimary(ask.epoch)),
        PostgresState::Stopped => Next::Step(Step::StartStandby),
        run if run == role && !begun => Next::Step(Step::StopServer),
        run if run == role && facts.server.is_some() => done(),
        run => wait_or(
            facts,
            Wait::Accepting,
            limits.server_ms,
            &format!("PostgreSQL is {run:?}"),
            Next::Unknown,
        ),
    }
}
