//! Prepare: nothing more arrives from the old primary, then say what has arrived.
//!
//! The order matters: the receiver is gone *before* the position is read, or WAL that arrives in between would be lost
//! to the choice of candidates.
//!
//! While a promise to the fenced epoch is outstanding its primary may still write, by right: the receiver runs on, and the
//! report says for how much longer. Detached now, this member would lack all that is written until the promise ends.

use regent_types::{
    CandidateReport, DataForm, Epoch, Evidence, Lsn, PostgresState,
    mutant::{Mutant, is_on},
};

use super::{Limits, Next, Step, Wait, wait_or, waited_ms};
use crate::{Facts, Server};

pub(super) fn plan(fenced: Epoch, promises_void: bool, facts: &Facts, limits: &Limits) -> Next {
    let guard = &facts.guard;
    if guard.run == PostgresState::Primary || guard.lease_epoch.is_some() {
        return Next::Refuse(format!(
            "this member is primary (PostgreSQL {:?}, lease for epoch {:?}); fence epoch {fenced} first",
            guard.run, guard.lease_epoch
        ));
    }
    if matches!(guard.run, PostgresState::Starting | PostgresState::Stopping | PostgresState::Unknown) {
        let why = format!("PostgreSQL is {:?}", guard.run);
        return wait_or(facts, Wait::Settle, limits.server_ms, &why, Next::Refuse);
    }
    if let Some(left_ms) = outstanding_ms(facts).filter(|_| !promises_void) {
        let report = report(facts, facts.server.as_ref());
        return Next::Done(Evidence::Prepared(CandidateReport { promise_left_ms: Some(left_ms), ..report }));
    }
    if facts.data.form != DataForm::Standby {
        return finish(fenced, promises_void, facts, None);
    }
    if facts.data.upstream.is_some() || !facts.worked.detached {
        return Next::Step(Step::Detach);
    }
    if guard.run == PostgresState::Stopped {
        return Next::Step(Step::StartStandby);
    }
    let Some(server) = &facts.server else {
        let why = "the standby does not accept connections";
        return wait_or(facts, Wait::Accepting, limits.server_ms, why, Next::Refuse);
    };
    if server.receiver {
        let why = "the WAL receiver still runs";
        return wait_or(facts, Wait::ReceiverGone, limits.receiver_ms, why, Next::Refuse);
    }
    // What was received and is not replayed yet counts; after a restart of the server only replay can tell how far the
    // local WAL goes.
    if !server.replay_idle && waited_ms(facts, Wait::ReplayIdle) < limits.replay_idle_ms {
        let why = format!("replay is at {:?}", server.replayed);
        return Next::Step(Step::Wait { wait: Wait::ReplayIdle, why });
    }
    finish(fenced, promises_void, facts, Some(server))
}

/// What is left of a promise that this member has given, or may have given and forgotten, ms; rounded up.
fn outstanding_ms(facts: &Facts) -> Option<u64> {
    if is_on(Mutant::PromiseForgotten) {
        return None;
    }
    let left_ns = facts.guard.promise?.until_ns.checked_sub(facts.now_ns).filter(|left_ns| *left_ns > 0)?;
    Some(left_ns.div_ceil(1_000_000))
}

fn finish(fenced: Epoch, promises_void: bool, facts: &Facts, server: Option<&Server>) -> Next {
    if facts.guard.promises_closed < fenced {
        return Next::Step(Step::ClosePromises { epoch: fenced, void: promises_void });
    }
    Next::Done(Evidence::Prepared(report(facts, server)))
}

fn report(facts: &Facts, server: Option<&Server>) -> CandidateReport {
    let data = &facts.data;
    let unfit = match data.form {
        // A first promotion that was begun and never verified: the directory is this member's own, and nobody else has one.
        // Refused here, a bootstrap that was overdue once would wait for ever.
        DataForm::Primary | DataForm::Standby
            if facts.agent.lineage == Epoch::NONE && facts.agent.promoting.is_none() =>
        {
            Some("the lineage of the local data is not known".to_owned())
        }
        DataForm::Primary | DataForm::Standby => None,
        form => Some(format!("the data directory is {form:?}")),
    };
    // An unclean primary's checkpoint says nothing of its end; a clean one's is its last record.
    let stopped_end: Option<Lsn> =
        (data.form == DataForm::Primary && data.clean).then_some(data.checkpoint_lsn).flatten();
    CandidateReport {
        member: facts.member.clone(),
        instance: facts.guard.instance,
        boot: facts.guard.boot.clone(),
        received_lsn: server.and_then(|s| s.lsn).or(stopped_end),
        replayed_lsn: server.and_then(|s| s.replayed).or(stopped_end),
        timeline: server.and_then(|s| s.timeline).or(data.timeline),
        system_id: data.system_id,
        form: data.form,
        lineage: facts.agent.lineage,
        promises_closed: facts.guard.promises_closed,
        refused: facts.guard.refused.clone().or(unfit),
        stamp_ns: facts.now_ns,
        promise_left_ms: None,
    }
}
