//! Where a primary's WAL stood when it was heard last, and how it got there: what *lag at last contact* is measured from
//! (DESIGN section 8). The leader tells it to the followers together with the ages of silence, so that the leader elected
//! because the old one was lost with the primary's region knows it too.
//!
//! Never guesses: a position of another epoch is none, and a standby that lacks more than is remembered has no lag in
//! time. Interleaving to fear: a primary reports, loses its role, and gets it back at a later epoch; its old position is
//! that of a history that has ended, and a standby behind the new one could look as if it lacked nothing. So a position
//! carries the epoch that it was written for, and counts for that epoch only. Marks are thinned out with age, which makes
//! a lag look longer, never shorter.

use std::collections::VecDeque;

use regent_types::{Epoch, Heartbeat, Lsn, PostgresState};

/// Marks kept per primary.
const MARKS_MAX: usize = 48;

/// A position as it travels: ages in ms, not times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PositionAges {
    /// The epoch that was written for.
    pub epoch: Epoch,
    /// How old the primary's own figures were when it was heard last, ms.
    pub frozen_ms: u64,
    /// Until so long ago the WAL ended there; oldest first.
    pub marks: Vec<(Lsn, u64)>,
}

/// The memory of one primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    pub epoch: Epoch,
    pub frozen_ms: u64,
    /// Where the WAL ended, and until when it was seen to end there; signed, because what is inherited may reach back
    /// before this clock's zero.
    marks: VecDeque<(Lsn, i128)>,
}

impl Position {
    /// What a heartbeat of a primary says; `None` from anybody else.
    pub fn observe(known: Option<Position>, heartbeat: &Heartbeat, now_ns: u64) -> Option<Position> {
        let report = &heartbeat.report;
        let (Some(lsn), true) = (report.wal.write_lsn, report.postgres.state == PostgresState::Primary)
        else {
            // It has stopped, or is none: what it wrote before stays what is known.
            let frozen_ms = report.wal.sample_age_ms;
            return known.map(|known| Position { frozen_ms: frozen_ms.max(known.frozen_ms), ..known });
        };
        let (epoch, frozen_ms) = (report.data.lineage, report.wal.sample_age_ms);
        let mut position = known.filter(|known| known.epoch == epoch).unwrap_or_else(|| Position {
            epoch,
            frozen_ms,
            marks: VecDeque::new(),
        });
        position.frozen_ms = frozen_ms;
        let at_ns = i128::from(now_ns) - i128::from(frozen_ms) * 1_000_000;
        position.note(lsn, at_ns);
        position.thin();
        Some(position)
    }

    /// The WAL ended at `lsn` at `at_ns`.
    fn note(&mut self, lsn: Lsn, at_ns: i128) {
        match self.marks.back_mut() {
            Some((last, until_ns)) if *last >= lsn => *until_ns = (*until_ns).max(at_ns),
            _ => {
                // A heartbeat that was held up on its way makes its figures look younger than the next one's. They were taken
                // before, so they are no younger: the lag looks longer by that, never shorter, and followers, who refuse
                // marks out of order, take what they are told.
                self.marks.iter_mut().for_each(|(_, until_ns)| *until_ns = (*until_ns).min(at_ns));
                self.marks.push_back((lsn, at_ns));
            }
        }
    }

    /// The better of what is known and what was told.
    pub fn merge(known: Option<Position>, told: Option<&PositionAges>, now_ns: u64) -> Option<Position> {
        let told = told.and_then(|told| {
            let marks = told
                .marks
                .iter()
                .map(|(lsn, age_ms)| (*lsn, i128::from(now_ns) - i128::from(*age_ms) * 1_000_000))
                .collect();
            let position = Position { epoch: told.epoch, frozen_ms: told.frozen_ms, marks };
            position.newest().is_some().then_some(position)
        });
        match (known, told) {
            (Some(known), Some(told)) => {
                let rank = |position: &Position| (position.epoch, position.newest().map(|(_, at_ns)| at_ns));
                Some(if rank(&told) > rank(&known) { told } else { known })
            }
            (known, told) => known.or(told),
        }
    }

    /// As it travels.
    pub fn ages(&self, now_ns: u64) -> PositionAges {
        let age_ms = |at_ns: i128| u64::try_from((i128::from(now_ns) - at_ns).max(0) / 1_000_000);
        let marks = self.marks.iter().map(|(lsn, at_ns)| (*lsn, age_ms(*at_ns).unwrap_or(u64::MAX)));
        PositionAges { epoch: self.epoch, frozen_ms: self.frozen_ms, marks: marks.collect() }
    }

    /// The last position, and when it was seen last.
    pub fn newest(&self) -> Option<(Lsn, i128)> {
        self.marks.back().copied()
    }

    /// At the last contact: the age of the oldest write that somebody lacked who had received up to `received`, ms. `None`
    /// when that write is older than what is remembered.
    pub fn lag_ms(&self, received: Lsn) -> Option<u64> {
        let (lsn, seen_ns) = self.newest()?;
        if received >= lsn {
            return Some(0);
        }
        let (_, had_until_ns) = self.marks.iter().rev().find(|(lsn, _)| *lsn <= received)?;
        u64::try_from((seen_ns - had_until_ns).max(0) / 1_000_000).ok()
    }

    /// Forgets every second mark of the older half. The oldest stays: it says how far back the memory reaches.
    fn thin(&mut self) {
        if self.marks.len() <= MARKS_MAX {
            return;
        }
        let mut index = 0usize;
        self.marks.retain(|_| {
            let keep = index.is_multiple_of(2) || index >= MARKS_MAX / 2;
            index += 1;
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_that_was_held_up_makes_no_lag_shorter() {
        let mut position = Position { epoch: Epoch(1), frozen_ms: 0, marks: VecDeque::new() };
        // The first was taken at 1 s and arrived at 3 s, the second was taken and arrived at 2 s by the clock of samples.
        position.note(Lsn(10), 3_000_000_000);
        position.note(Lsn(20), 2_000_000_000);
        position.note(Lsn(30), 5_000_000_000);
        let marks = position.ages(5_000_000_000).marks;
        assert!(marks.is_sorted_by(|a, b| a.0 <= b.0 && a.1 >= b.1), "{marks:?}");
        assert_eq!(position.lag_ms(Lsn(10)), Some(3_000), "not 2,000 by the late arrival");
        assert_eq!(position.lag_ms(Lsn(20)), Some(3_000));
    }
}
