//! Promote: a writable start under a lease (DESIGN section 5.5).
//!
//! Invariant: `StartPrimary` and `PromoteServer` are returned only when the guard says that it holds a live lease for
//! exactly this epoch. The guard enforces the same by itself; this keeps a mistaken plan from becoming a killed server.

use regent_types::{
    DataForm, Epoch, Evidence, Grant, InstanceId, Lsn, PostgresState, PromotedEvidence,
    mutant::{Mutant, is_on},
};

use super::{Limits, Next, Step, Wait, elapsed_ms, wait_or};
use crate::{Facts, Server, Work};

pub(super) struct Ask {
    pub epoch: Epoch,
    pub instance: InstanceId,
    pub initialize: bool,
    pub replay_timeout_ms: u64,
}

pub(super) fn plan(ask: &Ask, work: &Work, facts: &Facts, limits: &Limits) -> Next {
    if let Some(reason) = refusal(ask, facts) {
        return Next::Refuse(reason);
    }
    if facts.guard.lease_epoch != Some(ask.epoch) && !is_on(Mutant::PromoteWithoutLease) {
        return obtain_lease(ask, work.grant.as_ref(), facts, limits);
    }
    if facts.guard.job_running {
        // This run awaits its jobs: one that runs now was left by an earlier one.
        return Next::Step(Step::KillJob);
    }
    match facts.guard.run {
        PostgresState::Primary => return verify(ask, work, facts, limits),
        PostgresState::Starting | PostgresState::Stopping | PostgresState::Unknown => {
            let why = format!("PostgreSQL is {:?}", facts.guard.run);
            return wait_or(facts, Wait::Settle, limits.server_ms, &why, Next::Unknown);
        }
        PostgresState::Stopped | PostgresState::Standby => {}
    }
    match facts.data.form {
        DataForm::Empty => Next::Step(Step::Initialize(ask.epoch)),
        DataForm::Primary => match (&facts.agent.promoting, facts.data.timeline) {
            (Some(promoting), _) if promoting.epoch == ask.epoch => Next::Step(Step::StartPrimary(ask.epoch)),
            (_, Some(from_timeline)) => Next::Step(Step::BeginPromotion { epoch: ask.epoch, from_timeline }),
            (_, None) => Next::Refuse("pg_control cannot be read: the timeline is not known".into()),
        },
        DataForm::Standby => promote_standby(ask, facts, limits),
        form => Next::Refuse(format!("a data directory that is {form:?} cannot be promoted")),
    }
}

fn refusal(ask: &Ask, facts: &Facts) -> Option<String> {
    let guard = &facts.guard;
    if guard.instance != ask.instance {
        return Some(format!(
            "epoch {} is bound to instance {}, this guard is {}",
            ask.epoch, ask.instance, guard.instance
        ));
    }
    if guard.fenced_through >= ask.epoch {
        return Some(format!("epoch {} is fenced here (through {})", ask.epoch, guard.fenced_through));
    }
    if let Some(reason) = &guard.refused {
        return Some(format!("the guard cannot enforce a lease: {reason}"));
    }
    if guard.run == PostgresState::Primary {
        return None;
    }
    match facts.data.form {
        DataForm::Empty if !ask.initialize => {
            Some("the data directory is empty, and this epoch may not initialise one".into())
        }
        DataForm::Primary | DataForm::Standby
            if facts.agent.lineage == Epoch::NONE && facts.agent.promoting.is_none() =>
        {
            Some(format!("the lineage of the local data is not known (epoch {} asked)", ask.epoch))
        }
        form @ (DataForm::Rewinding | DataForm::Cloning | DataForm::Unusable) => {
            Some(format!("the data directory is {form:?}"))
        }
        _ => None,
    }
}

fn obtain_lease(ask: &Ask, grant: Option<&Grant>, facts: &Facts, limits: &Limits) -> Next {
    let usable = grant.filter(|g| {
        g.epoch == ask.epoch && g.instance == facts.guard.instance && g.deadline_ns() > facts.now_ns
    });
    match usable {
        Some(grant) if !facts.worked.granted => Next::Step(Step::Grant(grant.clone())),
        _ => {
            let why =
                format!("no lease for epoch {} (the guard's is {:?})", ask.epoch, facts.guard.lease_epoch);
            // Once begun, an earlier run may have promoted already.
            let begun = facts.agent.promoting.as_ref().is_some_and(|p| p.epoch == ask.epoch);
            let over = if begun { Next::Unknown } else { Next::Refuse };
            wait_or(facts, Wait::Lease, limits.lease_ms, &why, over)
        }
    }
}

fn promote_standby(ask: &Ask, facts: &Facts, limits: &Limits) -> Next {
    // Once begun, the server may have been told, and may follow late: what is overdue then is not known to have failed.
    let begun = facts.agent.promoting.as_ref().is_some_and(|p| p.epoch == ask.epoch);
    let over = if begun { Next::Unknown } else { Next::Refuse };
    if facts.data.upstream.is_some() {
        // Streaming on from an upstream while promoting could add WAL that was not counted when this member was chosen.
        return Next::Step(Step::Detach);
    }
    if facts.guard.run == PostgresState::Stopped {
        return Next::Step(Step::StartStandby);
    }
    let Some(server) = &facts.server else {
        let why = "the standby does not accept connections";
        return wait_or(facts, Wait::Accepting, limits.server_ms, why, over);
    };
    if server.replay_paused {
        return Next::Step(Step::ResumeReplay);
    }
    let behind = match (server.lsn, server.replayed) {
        (Some(received), Some(replayed)) => received.bytes_since(replayed) > 0,
        _ => false,
    };
    if behind {
        let why = format!(
            "replay is at {}, received is {}",
            server.replayed.unwrap_or(Lsn(0)),
            server.lsn.unwrap_or(Lsn(0))
        );
        return wait_or(facts, Wait::Replay, ask.replay_timeout_ms, &why, over);
    }
    let Some(from_timeline) = server.timeline.or(facts.data.timeline) else {
        return Next::Refuse("the timeline of the standby is not known".into());
    };
    if facts.agent.promoting.as_ref().is_none_or(|p| p.epoch != ask.epoch) {
        return Next::Step(Step::BeginPromotion { epoch: ask.epoch, from_timeline });
    }
    Next::Step(Step::PromoteServer)
}

fn verify(ask: &Ask, work: &Work, facts: &Facts, limits: &Limits) -> Next {
    let Some(server) = facts.server.as_ref().filter(|s| !s.in_recovery) else {
        let why = "the new primary does not accept connections yet";
        return wait_or(facts, Wait::Accepting, limits.server_ms, why, Next::Unknown);
    };
    let Some(evidence) = evidence(ask, work, facts, server) else {
        let why = "system identifier, timeline or position of the new primary are not known";
        return wait_or(facts, Wait::Accepting, limits.server_ms, why, Next::Unknown);
    };
    if ask.initialize && !facts.worked.configured {
        // The first standby clones right after this: it needs the role and the slot.
        return Next::Step(Step::ConfigurePrimary);
    }
    if facts.agent.lineage != ask.epoch {
        return Next::Step(Step::PersistLineage(ask.epoch));
    }
    Next::Done(Evidence::Promoted(evidence))
}

fn evidence(ask: &Ask, work: &Work, facts: &Facts, server: &Server) -> Option<PromotedEvidence> {
    let timeline = server.timeline?;
    // Where this timeline left the one before, also when the member is re-appointed in place: its promotion may have been
    // the one whose answer was lost, and a later position would hide the old primary's divergence from its salvage.
    let switch_lsn = server.switch_lsn.or(server.lsn)?;
    Some(PromotedEvidence {
        epoch: ask.epoch,
        system_id: facts.data.system_id?,
        timeline,
        switch_lsn,
        elapsed_ms: elapsed_ms(work, facts),
        replay_ms: facts.worked.replay_ms,
    })
}
