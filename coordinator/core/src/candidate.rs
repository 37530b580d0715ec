//! *Choose*: which member is promoted after the proof, and why each other one is not (DESIGN section 8).
//!
//! Eligible is who descends from the current history, was a confirmed standby of it, and closed its promises for the
//! fenced epoch when the proof is only the lease's expiry. Among the eligible the ranking is the order of
//! [`Rank`]'s fields. When in doubt a member is not eligible: the mistake is a longer outage, never a lost history.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use regent_types::{
    CandidateReport, DataForm, Epoch, InstanceId, Lsn, MemberName,
    mutant::{Mutant, is_on},
};
use serde::{Deserialize, Serialize};

use crate::{Appointment, Cluster, SyncState, Trigger, synchronous};

/// How one member fared in a choice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Who.
    pub member: MemberName,
    /// Why.
    pub reason: VerdictReason,
}

/// Why a member was chosen or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum VerdictReason {
    /// It is promoted.
    #[error("chosen: received {}", or_unknown(*received))]
    Chosen {
        /// What it had.
        received: Option<Lsn>,
    },
    /// Another one ranks higher.
    #[error("lost to {winner}: {why}")]
    Outranked {
        /// Who won.
        winner: MemberName,
        /// The deciding field.
        why: String,
    },
    /// It did not report.
    #[error("no report")]
    Silent,
    /// It is configured never to be promoted.
    #[error("not promotable by configuration")]
    NotPromotable,
    /// An operator asked for another one.
    #[error("{wanted} was asked for")]
    NotWanted {
        /// The member asked for.
        wanted: MemberName,
    },
    /// Its guard refuses automatic failover.
    #[error("its guard refuses: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// It is the old primary and its own guard has not acknowledged the fence.
    #[error("old primary, not acknowledged as fenced")]
    NotAcknowledged,
    /// Its promotion failed before.
    #[error("its promotion failed before")]
    FailedBefore,
    /// `max_lag` is set, and what the primary had is not known.
    #[error(
        "the primary's WAL position is not known, {max_bytes} bytes of lag are allowed without an operator's consent to the loss"
    )]
    LagUnknown {
        /// The policy.
        max_bytes: u64,
    },
    /// It is not a confirmed standby of the current history.
    #[error("not in sync: {why}")]
    NotInSync {
        /// Why.
        why: String,
    },
    /// Its data belongs to another cluster or another history.
    #[error("another history: {what} is {found}, the cluster has {expected}")]
    OtherHistory {
        /// The field.
        what: String,
        /// As reported.
        found: String,
        /// In the state.
        expected: String,
    },
    /// Its data directory cannot be promoted.
    #[error("its data directory is {form:?}")]
    Unusable {
        /// What it is.
        form: DataForm,
    },
    /// It did not say what it received.
    #[error("it did not say what it received")]
    NoLsn,
    /// It may have promised not to be promoted.
    #[error("{}", outstanding(*closed, *fenced, *left_ms))]
    PromiseOutstanding {
        /// As reported.
        closed: Epoch,
        /// Needed.
        fenced: Epoch,
        /// For how much longer it has promised, ms.
        #[serde(default)]
        left_ms: Option<u64>,
    },
    /// It lacks more than `max_lag` of what the primary had at last contact.
    #[error("it lacks {lag_bytes} bytes, {max_bytes} are allowed without an operator's consent to the loss")]
    LagAboveBound {
        /// Missing bytes.
        lag_bytes: u64,
        /// The policy.
        max_bytes: u64,
    },
    /// The primary's figures had stopped moving before it was lost: nobody knows what it wrote since.
    #[error(
        "the primary's WAL position was {frozen_ms} ms old when it was heard last: a lag from it is not known; an operator's \
         consent to the loss is needed"
    )]
    PositionFrozen {
        /// How old.
        frozen_ms: u64,
    },
    /// `max_lag` is set in time, and the standby lacks more than the leader remembers.
    #[error(
        "the age of the oldest write that it lacks is not known, {max_ms} ms are allowed without an operator's consent to the \
         loss"
    )]
    LagTimeUnknown {
        /// The policy.
        max_ms: u64,
    },
    /// The oldest write that it lacked at last contact is older than `max_lag`.
    #[error(
        "at last contact it lacked writes of {lag_ms} ms, {max_ms} are allowed without an operator's consent to the loss"
    )]
    LagTimeAboveBound {
        /// How old.
        lag_ms: u64,
        /// The policy.
        max_ms: u64,
    },
    /// The old primary was not shut down cleanly: what it wrote last is not known to have been sent.
    #[error("the old primary was not shut down cleanly in time: nothing says that it sent everything")]
    UncleanShutdown,
    /// It has not replayed the old primary's shutdown checkpoint.
    #[error("replayed {}, the old primary's shutdown checkpoint is at {checkpoint}", or_unknown(*replayed))]
    ShortOfShutdown {
        /// As reported.
        replayed: Option<Lsn>,
        /// As the guard named it.
        checkpoint: Lsn,
    },
    /// The planned change of primary is being undone.
    #[error("{reason}")]
    RolledBack {
        /// Why.
        reason: String,
    },
    /// It may be promoted since a list that the fenced primary has not acknowledged: nobody asked it for promises.
    #[error(transparent)]
    NotAsked(crate::NotAsked),
    /// Commits may have been acknowledged that no standby had.
    #[error(
        "commits may have been acknowledged without any standby ({why}): an operator's consent to the loss is needed"
    )]
    NobodyWaitedFor {
        /// Why.
        why: String,
    },
    /// A commit may be with those alone who did not answer.
    #[error(
        "{rule}: {found} of its members answered, {needed} are needed without an operator's consent to the loss"
    )]
    TooFewAnswered {
        /// The rule.
        rule: String,
        /// How many answered.
        found: usize,
        /// How many have to.
        needed: usize,
    },
    /// Another one may hold an acknowledged commit that it lacks.
    #[error(
        "{rule}: it has received {received}, {holder} has {highest}; an operator's consent to the loss is needed"
    )]
    BehindRule {
        /// The rule.
        rule: String,
        /// What it has received.
        received: Lsn,
        /// Who has more.
        holder: MemberName,
        /// How much.
        highest: Lsn,
    },
}

fn outstanding(closed: Epoch, fenced: Epoch, left_ms: Option<u64>) -> String {
    match left_ms {
        Some(left_ms) => format!("it has promised not to be promoted for another {}", seconds(left_ms)),
        None => format!("promises closed through epoch {closed}, epoch {fenced} is needed"),
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

impl VerdictReason {
    /// The same reason, whatever time has passed between the two: no news.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::PromiseOutstanding { .. }, Self::PromiseOutstanding { .. }) => true,
            _ => self == other,
        }
    }
}

/// The order of preference: fields from the most to the least important.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// A target whose promotion succeeded after all, though its answer was lost: its history is the newest, and what it
    /// accepted would be lost by naming anybody else.
    promoted: bool,
    /// After a restart of its own guard the old primary is re-appointed: nothing is lost and nothing moves.
    reappointed: bool,
    /// A standby before the old primary, whose fault started the failover.
    standby: bool,
    received: Lsn,
    priority: u32,
    name: Reverse<MemberName>,
}

/// What a choice is made from.
pub(crate) struct Choice<'a> {
    pub cluster: &'a Cluster,
    /// The fenced appointment.
    pub from: &'a Appointment,
    /// The primary that the operation ends: `from` itself, or an earlier one when a promotion failed in between. The
    /// rung that rolls back.
    pub origin: Option<&'a Appointment>,
    pub trigger: &'a Trigger,
    /// Members whose own guard has acknowledged, now or after the proof.
    pub acknowledged: &'a BTreeSet<MemberName>,
    /// `from.member` has failed more than once in this operation.
    pub failed_again: bool,
    pub excluded: &'a BTreeSet<(MemberName, InstanceId)>,
    pub wanted: Option<&'a MemberName>,
    pub consent: Option<&'a MemberName>,
    /// The old primary's WAL at last contact.
    pub primary_lsn: Option<Lsn>,
    /// How old its figures were then, when that is too old.
    pub frozen_ms: Option<u64>,
    /// By member, what it lacked then in time.
    pub lag_ms: &'a BTreeMap<MemberName, u64>,
    /// Of a planned change of primary: what its target must have.
    pub handover: Option<Handover<'a>>,
}

/// What makes a target eligible in a planned change of primary.
pub(crate) struct Handover<'a> {
    /// The shutdown checkpoint that the old primary's guard named after a clean shutdown; `None` without one.
    pub checkpoint: Option<Lsn>,
    /// It is being undone.
    pub rollback: Option<&'a str>,
}

impl Handover<'_> {
    /// A replay position is the end of the last record replayed, a checkpoint's position its beginning: only a replay beyond
    /// it has replayed it.
    fn check(&self, report: &CandidateReport) -> Result<(), VerdictReason> {
        if let Some(reason) = self.rollback {
            return Err(VerdictReason::RolledBack { reason: reason.to_owned() });
        }
        if is_on(Mutant::HandoverShort) {
            return Ok(());
        }
        let checkpoint = self.checkpoint.ok_or(VerdictReason::UncleanShutdown)?;
        if report.replayed_lsn.is_some_and(|replayed| replayed > checkpoint) {
            return Ok(());
        }
        Err(VerdictReason::ShortOfShutdown { replayed: report.replayed_lsn, checkpoint })
    }
}

/// Chooses: the winner's report, and a verdict per member.
pub(crate) fn choose<'r>(
    choice: &Choice<'_>,
    reports: &'r [CandidateReport],
) -> (Option<&'r CandidateReport>, Vec<Verdict>) {
    let mut eligible: Vec<(Rank, &CandidateReport)> = Vec::new();
    let mut verdicts = Vec::new();
    for (member, config) in &choice.cluster.config.members {
        let report = reports.iter().find(|report| report.member == *member);
        match report.ok_or(VerdictReason::Silent).and_then(|r| check(choice, r, reports).map(|()| r)) {
            Ok(report) => eligible.push((rank(choice, report, config.priority), report)),
            Err(reason) => verdicts.push(Verdict { member: member.clone(), reason }),
        }
    }
    eligible.sort_by(|a, b| b.0.cmp(&a.0));
    let winner = eligible.first().map(|(_, report)| *report);
    if let Some((winning, chosen)) = eligible.first() {
        let reason = VerdictReason::Chosen { received: chosen.received_lsn };
        verdicts.push(Verdict { member: chosen.member.clone(), reason });
        for (losing, report) in &eligible[1..] {
            let reason =
                VerdictReason::Outranked { winner: chosen.member.clone(), why: deciding(winning, losing) };
            verdicts.push(Verdict { member: report.member.clone(), reason });
        }
    }
    (winner, verdicts)
}

fn rank(choice: &Choice<'_>, report: &CandidateReport, priority: u32) -> Rank {
    let old_primary = is_old_primary(choice, report);
    Rank {
        promoted: left_recovery(choice, report),
        reappointed: old_primary && matches!(choice.trigger, Trigger::InstanceChanged { .. }),
        standby: !old_primary,
        received: report.received_lsn.unwrap_or_default(),
        priority,
        name: Reverse(report.member.clone()),
    }
}

fn deciding(winning: &Rank, losing: &Rank) -> String {
    if winning.promoted != losing.promoted {
        "its promotion had succeeded, only the answer was lost".into()
    } else if winning.reappointed != losing.reappointed {
        "the old primary's own guard had only restarted".into()
    } else if winning.standby != losing.standby {
        "a standby is preferred to the old primary".into()
    } else if winning.received != losing.received {
        format!("received {} against {}", winning.received, losing.received)
    } else if winning.priority != losing.priority {
        format!("priority {} against {}", winning.priority, losing.priority)
    } else {
        "the name decided between equals".into()
    }
}

fn check(
    choice: &Choice<'_>,
    report: &CandidateReport,
    reports: &[CandidateReport],
) -> Result<(), VerdictReason> {
    let config = choice.cluster.config.members.get(&report.member).ok_or(VerdictReason::NotPromotable)?;
    if !config.promotable {
        return Err(VerdictReason::NotPromotable);
    }
    // The old primary is the way back when the member asked for cannot be promoted: without it an operator's choice of
    // a member that dies would leave the cluster without a primary for ever.
    let old_primary = is_old_primary(choice, report);
    if let Some(wanted) = choice.wanted.filter(|wanted| **wanted != report.member && !old_primary) {
        return Err(VerdictReason::NotWanted { wanted: wanted.clone() });
    }
    if let Some(reason) = &report.refused {
        return Err(VerdictReason::Refused { reason: reason.clone() });
    }
    let excluded = choice.excluded.contains(&(report.member.clone(), report.instance));
    if excluded && (!left_recovery(choice, report) || choice.failed_again) {
        return Err(VerdictReason::FailedBefore);
    }
    let history = choice.cluster.history.last();
    if let Some(expected) = history.map(|record| record.established.system_id)
        && report.system_id != Some(expected)
    {
        return Err(other("system identifier", or_unknown(report.system_id), expected.to_string()));
    }
    // A first primary whose initialisation failed has an empty directory, and nothing to lose.
    let startable = report.form == DataForm::Primary || (report.form == DataForm::Empty && history.is_none());
    if startable && (old_primary || report.member == choice.from.member) {
        return check_old_primary(choice, report);
    }
    check_standby(choice, report, reports)
}

/// The primary that the operation ends (the first one of a new cluster counts as one).
fn is_old_primary(choice: &Choice<'_>, report: &CandidateReport) -> bool {
    choice.origin.unwrap_or(choice.from).member == report.member
}

/// A standby that was appointed in this operation, and did get out of recovery though nobody heard of it.
fn left_recovery(choice: &Choice<'_>, report: &CandidateReport) -> bool {
    report.member == choice.from.member
        && !is_old_primary(choice, report)
        && report.form == DataForm::Primary
        && !choice.cluster.history.is_empty()
}

fn check_old_primary(choice: &Choice<'_>, report: &CandidateReport) -> Result<(), VerdictReason> {
    if !choice.acknowledged.contains(&report.member) {
        return Err(VerdictReason::NotAcknowledged);
    }
    // A first appointment whose promotion was never verified has nothing that could be lost.
    let expected = choice.cluster.history.last().map_or(Epoch::NONE, |record| record.epoch);
    if report.lineage < expected {
        return Err(other("lineage", format!("epoch {}", report.lineage), format!("epoch {expected}")));
    }
    // Interleaving: the old primary is fenced, the target is appointed, its answer is lost, and it runs on by promises, the
    // old primary's among them. Its lease expires, and the way back must not be taken beside it; a later fence would even
    // void what was promised to it.
    if report.member != choice.from.member {
        check_against_promises(choice, report)?;
    }
    Ok(())
}

/// After an expiry: the fenced primary asked this member, and nothing is promised to it any more.
fn check_against_promises(choice: &Choice<'_>, report: &CandidateReport) -> Result<(), VerdictReason> {
    if choice.cluster.promises_void() {
        return Ok(());
    }
    check_promises(choice, report)
}

fn check_standby(
    choice: &Choice<'_>,
    report: &CandidateReport,
    reports: &[CandidateReport],
) -> Result<(), VerdictReason> {
    let Some(record) = choice.cluster.history.last() else {
        return Err(VerdictReason::NotInSync { why: "the cluster has no history yet".into() });
    };
    if let Some(handover) = &choice.handover {
        handover.check(report)?;
    }
    if report.form != DataForm::Standby {
        return Err(VerdictReason::Unusable { form: report.form });
    }
    match choice.cluster.sync.get(&report.member) {
        Some(SyncState::Confirmed { epoch }) if *epoch == record.epoch => {}
        Some(SyncState::Confirmed { epoch }) => {
            let why = format!("confirmed for epoch {epoch}, the history is at epoch {}", record.epoch);
            return Err(VerdictReason::NotInSync { why });
        }
        Some(SyncState::Unconfirmed { why }) => return Err(VerdictReason::NotInSync { why: why.clone() }),
        None => return Err(VerdictReason::NotInSync { why: "never confirmed".into() }),
    }
    let timeline = record.established.timeline;
    if report.timeline != Some(timeline) {
        return Err(other("timeline", or_unknown(report.timeline), timeline.to_string()));
    }
    check_against_promises(choice, report)?;
    let received = report.received_lsn.ok_or(VerdictReason::NoLsn)?;
    // A planned move has judged it by the shutdown checkpoint already, and lost nothing.
    if choice.consent == Some(&report.member) || choice.handover.is_some() {
        return Ok(());
    }
    // What was acknowledged is all there: what else is missing was promised to nobody.
    if synchronous::check(choice.cluster, choice.from, report, reports)?.is_some() {
        return Ok(());
    }
    check_lag(choice, report, received)
}

/// The bounds on what a promotion may lose, measured at the last contact with the primary and from fresh samples only.
fn check_lag(choice: &Choice<'_>, report: &CandidateReport, received: Lsn) -> Result<(), VerdictReason> {
    let policy = &choice.cluster.config.policy;
    let (max_bytes, max_ms) = (policy.max_lag_bytes, policy.max_lag_ms);
    if max_bytes.is_none() && max_ms.is_none() {
        return Ok(());
    }
    // A leader that was never told where the primary stood cannot call the lag small.
    let Some(primary_lsn) = choice.primary_lsn else {
        return Err(match (max_bytes, max_ms) {
            (Some(max_bytes), _) => VerdictReason::LagUnknown { max_bytes },
            (None, max_ms) => VerdictReason::LagTimeUnknown { max_ms: max_ms.unwrap_or_default() },
        });
    };
    // A server that answered nobody is why these begin; a position that froze before a partition is another matter.
    let by_silence = matches!(choice.trigger, Trigger::Partition { .. } | Trigger::Operator);
    if let Some(frozen_ms) = choice.frozen_ms.filter(|_| by_silence) {
        return Err(VerdictReason::PositionFrozen { frozen_ms });
    }
    let lag_bytes = primary_lsn.bytes_since(received);
    if let Some(max_bytes) = max_bytes.filter(|max_bytes| lag_bytes > *max_bytes) {
        return Err(VerdictReason::LagAboveBound { lag_bytes, max_bytes });
    }
    let Some(max_ms) = max_ms.filter(|_| lag_bytes > 0) else { return Ok(()) };
    match choice.lag_ms.get(&report.member) {
        None => Err(VerdictReason::LagTimeUnknown { max_ms }),
        Some(lag_ms) if *lag_ms > max_ms => Err(VerdictReason::LagTimeAboveBound { lag_ms: *lag_ms, max_ms }),
        Some(_) => Ok(()),
    }
}

/// The fenced primary may run on by promises of everybody on its list for as long as one of them is outstanding. That
/// this member is on the list and has none outstanding proves that it does not.
fn check_promises(choice: &Choice<'_>, report: &CandidateReport) -> Result<(), VerdictReason> {
    if report.promises_closed < choice.from.epoch {
        return Err(VerdictReason::PromiseOutstanding {
            closed: report.promises_closed,
            fenced: choice.from.epoch,
            left_ms: report.promise_left_ms,
        });
    }
    choice.cluster.promotable.asks(choice.from, &report.member).map_err(VerdictReason::NotAsked)
}

fn or_unknown(value: Option<impl std::fmt::Display>) -> String {
    value.map_or_else(|| "unknown".to_owned(), |value| value.to_string())
}

fn other(what: &str, found: String, expected: String) -> VerdictReason {
    VerdictReason::OtherHistory { what: what.to_owned(), found, expected }
}
