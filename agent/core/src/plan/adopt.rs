//! Adopt and Disown: what the local data counts as. Both start nothing and change no byte of the data directory.
//!
//! Adopt takes over data that was made without Regent. A standby counts as part of the primary's history only when the
//! system identifier, the timeline, the point where that timeline began and the end of its WAL all agree; a mistake towards
//! *refused* costs a clone, one towards *adopted* a corrupt standby. Disown is the opposite: the member comes back after a
//! removal, and nobody knows what was done to its data meanwhile.

use regent_types::{AdoptedHistory, DataForm, Epoch, Evidence, PostgresState, SystemId};

use super::{Limits, Next, Step, Wait, wait_or};
use crate::{Facts, WalEnd};

pub(super) fn adopt(
    epoch: Epoch,
    system_id: SystemId,
    standby_of: Option<&AdoptedHistory>,
    facts: &Facts,
    limits: &Limits,
) -> Next {
    let claimed = |text: String| Next::Done(Evidence::Claimed { text });
    if facts.agent.lineage != Epoch::NONE {
        return claimed(format!("the data is of epoch {}'s history already", facts.agent.lineage));
    }
    if facts.agent.promoting.as_ref().is_some_and(|promoting| promoting.epoch == epoch) {
        return claimed(format!("the data is taken over as the primary of epoch {epoch}"));
    }
    match facts.guard.run {
        PostgresState::Stopped => {}
        PostgresState::Starting | PostgresState::Stopping | PostgresState::Unknown => {
            let why = format!("PostgreSQL is {:?}", facts.guard.run);
            return wait_or(facts, Wait::Settle, limits.server_ms, &why, Next::Unknown);
        }
        run => {
            return Next::Refuse(format!(
                "PostgreSQL is {run:?} under the guard, though its data is unknown"
            ));
        }
    }
    let wanted = if standby_of.is_some() { DataForm::Standby } else { DataForm::Primary };
    if facts.data.form != wanted {
        return Next::Refuse(format!("the data directory is {:?}, {wanted:?} is adopted", facts.data.form));
    }
    if facts.data.system_id != Some(system_id) {
        let found = facts.data.system_id.map_or("unknown".to_owned(), |id| id.to_string());
        return Next::Refuse(format!("the system identifier is {found}, the cluster's is {system_id}"));
    }
    let Some(timeline) = facts.data.timeline else {
        return Next::Refuse("pg_control cannot be read: the timeline is not known".into());
    };
    let Some(history) = standby_of else {
        return Next::Step(Step::BeginPromotion { epoch, from_timeline: timeline });
    };
    if timeline != history.timeline {
        return Next::Refuse(format!(
            "the standby is on timeline {timeline}, the primary on timeline {}",
            history.timeline
        ));
    }
    if history.switch_lsn.is_some() && facts.data.switch_lsn != history.switch_lsn {
        let text = |lsn: Option<regent_types::Lsn>| lsn.map_or("unknown".to_owned(), |lsn| lsn.to_string());
        return Next::Refuse(format!(
            "timeline {timeline} began at {} here, at {} on the primary",
            text(facts.data.switch_lsn),
            text(history.switch_lsn)
        ));
    }
    match &facts.worked.wal_end {
        None => Next::Step(Step::MeasureWalEnd(timeline)),
        Some(WalEnd::Unreadable(why)) => {
            Next::Refuse(format!("the end of the standby's WAL is not known: {why}"))
        }
        Some(WalEnd::At(end)) if *end > history.end_lsn => Next::Refuse(format!(
            "the standby's WAL ends at {end}, the primary's at {}: it has what the primary never wrote",
            history.end_lsn
        )),
        Some(WalEnd::At(_)) => Next::Step(Step::PersistLineage(epoch)),
    }
}

pub(super) fn disown(facts: &Facts) -> Next {
    if let Some(held) = facts.guard.lease_epoch {
        return Next::Refuse(format!("this member holds a lease for epoch {held}"));
    }
    let agent = &facts.agent;
    if agent.lineage == Epoch::NONE && agent.promoting.is_none() && agent.rejoining.is_none() {
        return Next::Done(Evidence::Claimed { text: "nothing is known of the local data".into() });
    }
    Next::Step(Step::Disown)
}
