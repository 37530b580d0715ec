//! Rejoin: become a standby of the upstream, by the cheapest way that is certainly right.
//!
//! Order of a divergent member: fence, stop, measure the end of its WAL, **salvage**, then rewind, and only then start.
//! Invariants: nothing starts on divergent data before its salvage is recorded; a rewind that failed or was interrupted is
//! followed by a clone and nothing else; a directory that is not known to be this cluster's is never removed.

use regent_types::{
    Branch, DataForm, Epoch, Evidence, Lsn, PostgresState, RejoinMethod, RejoinedEvidence, Timeline,
    Upstream,
    mutant::{Mutant, is_on},
};

use super::{Limits, Next, Step, Wait, elapsed_ms, is_marked, wait_or, waited_ms};
use crate::{Divergence, Facts, Rejoining, UpstreamWal, WalEnd, Work, divergence};

pub(super) fn plan(
    upstream: &Upstream,
    branches: &[Branch],
    rewind_timeout_ms: u64,
    work: &Work,
    facts: &Facts,
    limits: &Limits,
) -> Next {
    if upstream.member == facts.member {
        return Next::Refuse(format!("member {} cannot be a standby of itself", facts.member));
    }
    let guard = &facts.guard;
    if let Some(held) = guard.lease_epoch.filter(|held| *held >= upstream.epoch) {
        return Next::Refuse(format!(
            "this member holds a lease for epoch {held}, the upstream's epoch is {}",
            upstream.epoch
        ));
    }
    // The appointment of the upstream closed every lower epoch.
    let below = Epoch(upstream.epoch.0.saturating_sub(1));
    let may_write = guard.lease_epoch.is_some() || guard.run == PostgresState::Primary;
    if below > Epoch::NONE && (guard.fenced_through < below || may_write) && facts.worked.fenced.is_none() {
        return Next::Step(Step::GuardFence { epoch: below, grace_ms: 0 });
    }
    if guard.job_running {
        // This run awaits its jobs: one that runs now was left by an earlier one, and its directory is marked.
        return Next::Step(Step::KillJob);
    }
    match guard.run {
        PostgresState::Primary => {
            return Next::Refuse(format!("PostgreSQL is primary; epoch {} is upstream's", upstream.epoch));
        }
        PostgresState::Starting | PostgresState::Stopping | PostgresState::Unknown => {
            let why = format!("PostgreSQL is {:?}", guard.run);
            return wait_or(facts, Wait::Settle, limits.server_ms, &why, Next::Unknown);
        }
        PostgresState::Stopped | PostgresState::Standby => {}
    }
    let record = facts.agent.rejoining.as_ref().filter(|r| r.epoch == upstream.epoch);
    if let Some(done) = streaming(upstream, record, work, facts) {
        return done;
    }
    match facts.data.form {
        DataForm::Unusable => Next::Refuse(
            "the data directory is neither empty nor PostgreSQL's: it is left alone, empty it by hand".into(),
        ),
        DataForm::Empty => clone_for(upstream, record, "the data directory is empty", facts),
        DataForm::Rewinding => clone_for(upstream, record, "a rewind was interrupted", facts),
        DataForm::Cloning => clone_for(upstream, record, "a clone was interrupted", facts),
        DataForm::Primary | DataForm::Standby => match record {
            Some(Rejoining { method: Some(method), .. }) if !left_recovery(upstream, facts) => {
                follow(upstream, *method, facts, limits)
            }
            Some(Rejoining { clone_reason: Some(reason), .. }) => clone_for(upstream, record, reason, facts),
            _ => judge(upstream, branches, rewind_timeout_ms, facts, limits),
        },
    }
}

/// It was made fit before, and has tried to leave recovery since.
///
/// Interleaving: a standby that was cloned at this epoch is promoted by hand. Its guard kills it at the gate, but by then
/// PostgreSQL has written the history file of a timeline of its own, which every later start would follow; the record of
/// the clone would have it started like that for ever.
fn left_recovery(upstream: &Upstream, facts: &Facts) -> bool {
    facts.data.form == DataForm::Primary && facts.data.timeline > Some(upstream.timeline)
}

fn attached(upstream: &Upstream, facts: &Facts) -> bool {
    facts.data.upstream.as_ref().is_some_and(|(host, port)| *host == upstream.host && *port == upstream.port)
}

/// It streams from there, on the upstream's timeline.
fn streaming(upstream: &Upstream, record: Option<&Rejoining>, work: &Work, facts: &Facts) -> Option<Next> {
    let server = facts.server.as_ref()?;
    let follows = facts.guard.run == PostgresState::Standby
        && attached(upstream, facts)
        && server.streaming
        && server.timeline == Some(upstream.timeline);
    // With an unknown lineage a stream proves nothing: two timelines can have the same number.
    let known = facts.agent.lineage != Epoch::NONE || record.is_some_and(|r| r.method.is_some());
    if !follows || !known {
        return None;
    }
    // The upstream agrees to any position and ends the stream when it finds that it has that WAL no more: for a moment each time it
    // looks like a stream. Taken for one, the rejoin would be over, and its *confirm* would wait for ever.
    if facts.worked.upstream.is_none() {
        return Some(Next::Step(Step::AskUpstream(upstream.clone())));
    }
    if lacking(facts).is_some() {
        return None;
    }
    if facts.agent.lineage != upstream.epoch {
        return Some(Next::Step(Step::PersistLineage(upstream.epoch)));
    }
    let method = record.and_then(|r| r.method).unwrap_or(RejoinMethod::Unchanged);
    Some(Next::Done(Evidence::Rejoined(RejoinedEvidence {
        method,
        reason: record.and_then(|r| r.clone_reason.clone()),
        // Always: the rejoin that made it may have given way to another epoch before anybody heard of it, and told as
        // nothing a loss would be reported as none. Whose loss it is, the coordinator judges by its epoch.
        salvage: facts.agent.salvage.clone(),
        copied_bytes: record.map_or(0, |r| r.copied_bytes),
        elapsed_ms: elapsed_ms(work, facts),
    })))
}

fn clone_for(upstream: &Upstream, record: Option<&Rejoining>, reason: &str, facts: &Facts) -> Next {
    if facts.guard.run != PostgresState::Stopped {
        return Next::Step(Step::StopServer);
    }
    if record.is_none_or(|r| r.clone_reason.is_none()) {
        return Next::Step(Step::ChooseClone { epoch: upstream.epoch, reason: reason.to_owned() });
    }
    // Without a lineage and without a mark of our own this may be anybody's data; unless an earlier rejoin has cloned it, and
    // it never streamed: keeping each such copy would fill the disk.
    let own_clone = facts.agent.rejoining.as_ref().is_some_and(|r| r.cloned);
    let foreign = facts.agent.lineage == Epoch::NONE && !is_marked(facts.agent.mark) && !own_clone;
    let unsalvaged = facts.data.form == DataForm::Primary
        && facts.agent.salvage.as_ref().is_none_or(|s| s.epoch < facts.agent.lineage);
    // It was found fit to follow and got `standby.signal`, but never streamed: what it was judged by may have been wrong.
    let judged_fit = record.is_some_and(|r| r.was_primary)
        && facts.agent.lineage != upstream.epoch
        && facts.data.form != DataForm::Empty;
    let unsalvaged = unsalvaged || (judged_fit && !is_marked(facts.agent.mark));
    let keep_old = unsalvaged || (foreign && facts.data.form != DataForm::Empty);
    Next::Step(Step::Clone { upstream: upstream.clone(), keep_old })
}

/// The data is fit: attach, start, wait until it streams.
fn follow(upstream: &Upstream, method: RejoinMethod, facts: &Facts, limits: &Limits) -> Next {
    if !attached(upstream, facts) || facts.data.form != DataForm::Standby {
        return Next::Step(Step::Attach(upstream.clone()));
    }
    if facts.guard.run == PostgresState::Stopped && facts.worked.error.is_none() {
        return Next::Step(Step::StartStandby);
    }
    let why = match &facts.server {
        Some(s) => format!(
            "not streaming from {}:{} on timeline {} yet (timeline {:?}, replayed {:?})",
            upstream.host, upstream.port, upstream.timeline, s.timeline, s.replayed
        ),
        None => "the standby does not accept connections".to_owned(),
    };
    if let Some(next) = without_wal(upstream, facts, limits) {
        return next;
    }
    let lacks = lacking(facts);
    let over = |reason: String| match (method, &facts.worked.upstream) {
        // Neither has the archive it.
        (_, Some((UpstreamWal::From(_), _))) if lacks.is_some() => {
            let reason = format!("{}; {reason}", lacks.unwrap_or_default());
            Next::Step(Step::ChooseClone { epoch: upstream.epoch, reason })
        }
        (RejoinMethod::Cloned, _) => Next::Unknown(reason),
        // A cut is no reason for a clone: it could not be made now, and would not be needed afterwards.
        (_, Some((UpstreamWal::Unreachable(error), _))) => Next::Unknown(format!("{reason}; {error}")),
        _ => Next::Step(Step::ChooseClone { epoch: upstream.epoch, reason }),
    };
    // WAL that comes from the archive is progress, however long it takes.
    let got_on_ms = facts.worked.replayed.map(|(_, at_ns)| facts.now_ns.saturating_sub(at_ns) / 1_000_000);
    let next = match got_on_ms {
        Some(ms) if facts.data.archive && ms < limits.streaming_ms => {
            Next::Step(Step::Wait { wait: Wait::Streaming, why })
        }
        _ => wait_or(facts, Wait::Streaming, limits.streaming_ms, &why, over),
    };
    if facts.guard.run == PostgresState::Stopped && matches!(next, Next::Step(Step::Wait { .. })) {
        return Next::Step(Step::StartStandby);
    }
    next
}

/// It runs and does not stream: has the upstream what it needs? If not, the archive may have it, else only a clone helps.
///
/// The archive is used for the upstream's own timeline only. Interleaving: the old primary is cut off and goes on archiving
/// segments of its timeline; a standby that still replays that timeline would take them, and with them what has diverged.
fn without_wal(upstream: &Upstream, facts: &Facts, limits: &Limits) -> Option<Next> {
    let server = facts.server.as_ref().filter(|server| server.in_recovery && !server.streaming)?;
    if waited_ms(facts, Wait::Streaming) < limits.upstream_ms {
        return None;
    }
    let asked = facts.worked.upstream.as_ref();
    let age_ms = asked.map(|(_, at_ns)| facts.now_ns.saturating_sub(*at_ns) / 1_000_000);
    if age_ms.is_none_or(|age_ms| age_ms >= limits.upstream_ms) {
        return Some(Next::Step(Step::AskUpstream(upstream.clone())));
    }
    let reason = lacking(facts).filter(|_| !facts.data.archive)?;
    if facts.archive && server.timeline == Some(upstream.timeline) {
        return Some(Next::Step(Step::UseArchive(upstream.clone())));
    }
    Some(Next::Step(Step::ChooseClone { epoch: upstream.epoch, reason }))
}

/// What the upstream has no more of, by its own word.
fn lacking(facts: &Facts) -> Option<String> {
    let Some((UpstreamWal::From(oldest), _)) = &facts.worked.upstream else { return None };
    let server = facts.server.as_ref()?;
    let has = server.lsn.max(server.replayed)?;
    (has < *oldest).then(|| format!("it has WAL up to {has}, the upstream's begins at {oldest}"))
}

fn judge(
    upstream: &Upstream,
    branches: &[Branch],
    rewind_timeout_ms: u64,
    facts: &Facts,
    limits: &Limits,
) -> Next {
    let running = facts.guard.run == PostgresState::Standby;
    let running_at = facts.server.as_ref().and_then(|s| Some((s.timeline?, s.lsn?)));
    let (timeline, end) = match (running, running_at) {
        (true, Some(at)) => at,
        (true, None) => {
            let why = "the standby does not accept connections";
            let over = |_| Next::Step(Step::StopServer);
            return wait_or(facts, Wait::Accepting, limits.server_ms, why, over);
        }
        (false, _) => match stopped_end(facts) {
            Ok(at) => at,
            Err(next) => return next(upstream),
        },
    };
    match divergence(facts.agent.lineage, timeline, end, branches, upstream) {
        Divergence::Same => {
            let was_primary = facts.data.form == DataForm::Primary;
            Next::Step(Step::ChooseRepoint { epoch: upstream.epoch, was_primary })
        }
        _ if running => Next::Step(Step::StopServer),
        Divergence::Diverged(branch) => {
            let kept = facts.agent.salvage.as_ref().is_some_and(|s| {
                s.epoch == branch.epoch && s.timeline == branch.timeline && s.from_lsn == branch.switch_lsn
            });
            if kept || is_on(Mutant::SalvageSkipped) {
                Next::Step(Step::Rewind { upstream: upstream.clone(), budget_ms: rewind_timeout_ms })
            } else {
                Next::Step(Step::Salvage { branch, upstream: upstream.clone() })
            }
        }
        Divergence::Unknown(reason) => Next::Step(Step::ChooseClone { epoch: upstream.epoch, reason }),
    }
}

type Otherwise = Box<dyn FnOnce(&Upstream) -> Next>;

/// Timeline and end of the WAL of a stopped directory, or what is to be done to learn it.
fn stopped_end(facts: &Facts) -> Result<(Timeline, Lsn), Otherwise> {
    let choose = |reason: String| -> Otherwise {
        Box::new(move |u| Next::Step(Step::ChooseClone { epoch: u.epoch, reason }))
    };
    let Some(timeline) = facts.data.timeline else {
        return Err(choose("pg_control cannot be read: the timeline is not known".into()));
    };
    match &facts.worked.wal_end {
        None => Err(Box::new(move |_| Next::Step(Step::MeasureWalEnd(timeline)))),
        Some(WalEnd::At(end)) => Ok((timeline, *end)),
        // Judged as if it had no end: divergent wherever its timeline was left, so that it is salvaged as far as it
        // goes and rewound, rather than followed by mistake.
        Some(WalEnd::Unreadable(_)) => Ok((timeline, Lsn(u64::MAX))),
    }
}
