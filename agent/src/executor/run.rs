//! Plan, perform, plan again, until the planner is done. Every loop has an end: waits have limits in the planner, and a
//! step that keeps failing, or a guard that keeps silent, ends in `Unknown`.

use std::time::Duration;

use regent_agent_core::{Limits, Next, Step, Wait, Work, Worked, plan};
use regent_types::{Directive, Outcome};
use tokio::time::sleep;

use super::{
    facts::{gather, gather_for_fence},
    steps,
};
use crate::{
    app::App,
    clock::{boottime_ns, ms_since},
    postgres::probe::Prober,
};

const FAILURES_MAX: u32 = 5;
const GUARD_SILENT_MAX_MS: u64 = 20_000;
/// Between two looks while waiting: short at first, because a failover waits for what takes milliseconds; then longer, because
/// a clone takes hours.
const POLL_MIN: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_millis(100);
/// The same within a switchover's write downtime, for as long as the old primary shuts down.
const POLL_DRAIN: Duration = Duration::from_millis(10);
/// Before a standby that has ended right after its start is started again; doubled each time, five times at most.
const START_PAUSE: Duration = Duration::from_millis(200);

/// Carries out `work`.
pub async fn run(app: &App, work: &Work) -> Outcome {
    let limits = Limits::default();
    let restarting = matches!(work.directive, Directive::Restart { .. });
    let mut worked = Worked { restarting, ..Worked::default() };
    let mut prober = Prober::default();
    let mut failures = 0u32;
    let mut silent_since = None;
    let mut starts = 0u32;
    let mut poll = POLL_MIN;
    loop {
        let gathered = match work.directive {
            Directive::Fence { .. } => gather_for_fence(app, &worked).await,
            _ => gather(app, &mut prober, &mut worked).await,
        };
        let facts = match gathered {
            Ok(facts) => facts,
            Err(error) => {
                let since = *silent_since.get_or_insert_with(boottime_ns);
                if ms_since(since) >= GUARD_SILENT_MAX_MS {
                    return Outcome::Unknown { reason: error.to_string() };
                }
                sleep(POLL_MAX).await;
                continue;
            }
        };
        silent_since = None;
        let mut facts = facts;
        facts.worked.run_at_begin = Some(*worked.run_at_begin.get_or_insert(facts.guard.started_at_ns));
        let step = match plan(work, &facts, &limits) {
            Next::Done(evidence) => return Outcome::Done(evidence),
            Next::Refuse(reason) => return Outcome::Refused { reason },
            Next::Unknown(reason) => return Outcome::Unknown { reason },
            Next::Step(step) => step,
        };
        if let Step::Wait { wait, why } = &step {
            if !worked.waiting_since_ns.contains_key(wait) {
                tracing::debug!(?wait, why, "waiting");
            }
            let since = *worked.waiting_since_ns.entry(*wait).or_insert_with(boottime_ns);
            if *wait == Wait::Replay {
                worked.replay_ms = ms_since(since);
            }
            sleep(poll).await;
            let longest =
                if matches!(work.directive, Directive::Drain { .. }) { POLL_DRAIN } else { POLL_MAX };
            poll = poll.mul_f32(1.5).min(longest);
            continue;
        }
        poll = POLL_MIN;
        if step == Step::StartStandby {
            // The planner starts whatever it finds stopped: a server that cannot live must not be started in a spin.
            if starts > 0 {
                sleep(START_PAUSE * 2u32.pow(starts.min(5))).await;
            }
            starts += 1;
        }
        tracing::debug!(?step, "step");
        match steps::perform(app, &step, &mut worked).await {
            Ok(()) => failures = 0,
            Err(error) => {
                failures += 1;
                tracing::warn!(directive = work.directive.name(), failures, %error, "step failed");
                worked.error = Some(error.to_string());
                if failures >= FAILURES_MAX {
                    return Outcome::Unknown { reason: error.to_string() };
                }
                sleep(Duration::from_millis(300) * failures).await;
            }
        }
    }
}
