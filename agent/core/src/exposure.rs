//! How much a primary could lose now, and whether it should refuse writes because of it: `rpo_limit`, `rpo_limit_bytes`,
//! `isolation_read_only_after`. Judged by the member itself, without a coordinator.
//!
//! What a promotable standby has received is known only by its own word over the stream; without any the agent's first look
//! at the primary counts as received. A mistake either way is one of policy, not of safety: the lease ends writes anyhow.

use std::collections::{BTreeMap, VecDeque};

use regent_types::{Lsn, MemberName};

/// Positions remembered; beyond that every second one of the older half is forgotten, which makes an age look older.
const MARKS_MAX: usize = 512;

/// The policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Neither coordinator nor standby heard for this long, ms.
    pub isolation_ms: Option<u64>,
    /// Age of the oldest write that no promotable standby has received, ms.
    pub rpo_ms: Option<u64>,
    /// WAL that no promotable standby has received, bytes.
    pub rpo_bytes: Option<u64>,
}

impl Bounds {
    /// None is set.
    pub fn is_off(&self) -> bool {
        *self == Self::default()
    }
}

/// One standby as the primary sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Who.
    pub member: MemberName,
    /// What it has flushed.
    pub flushed: Option<Lsn>,
    /// Its last word, in whatever form: another one means that it was heard.
    pub word: String,
}

/// What is remembered of one run as primary.
#[derive(Debug, Clone, Default)]
pub struct Exposure {
    marks: VecDeque<(u64, Lsn)>,
    received: Option<Lsn>,
    words: BTreeMap<MemberName, String>,
    standby_heard_ns: u64,
    blocked: bool,
}

impl Exposure {
    /// A look: where the WAL ends, and what the promotable standbys have said.
    pub fn observe(&mut self, now_ns: u64, end: Lsn, standbys: &[Seen]) {
        if self.received.is_none() {
            self.received = Some(end);
            self.standby_heard_ns = now_ns;
        }
        for seen in standbys {
            if self.words.get(&seen.member) != Some(&seen.word) {
                self.words.insert(seen.member.clone(), seen.word.clone());
                self.standby_heard_ns = now_ns;
            }
            self.received = self.received.max(seen.flushed);
        }
        if self.marks.back().is_none_or(|(_, last)| *last < end) {
            self.marks.push_back((now_ns, end));
        }
        let received = self.received.unwrap_or(end);
        while self.marks.front().is_some_and(|(_, lsn)| *lsn <= received) {
            self.marks.pop_front();
        }
        if self.marks.len() > MARKS_MAX {
            let mut index = 0usize;
            self.marks.retain(|_| {
                index += 1;
                index == 1 || index > MARKS_MAX / 2 || index.is_multiple_of(2)
            });
        }
    }

    /// WAL that nobody has received, bytes.
    pub fn behind_bytes(&self) -> u64 {
        let end = self.marks.back().map(|(_, lsn)| *lsn);
        end.zip(self.received).map_or(0, |(end, received)| end.bytes_since(received))
    }

    /// Age of the oldest of it, ms.
    pub fn behind_ms(&self, now_ns: u64) -> u64 {
        self.marks.front().map_or(0, |(at_ns, _)| now_ns.saturating_sub(*at_ns) / 1_000_000)
    }

    /// Why writes should be refused now. Once they are, a lag has to fall to half of its bound: at the bound itself sessions would
    /// be ended again and again.
    pub fn judge(&mut self, now_ns: u64, coordinator_heard_ns: u64, bounds: &Bounds) -> Option<String> {
        let since_ms = |at_ns: u64| now_ns.saturating_sub(at_ns) / 1_000_000;
        let (bytes, ms) = (self.behind_bytes(), self.behind_ms(now_ns));
        let held = |bound: u64| if self.blocked { bound / 2 } else { bound };
        let why = if let Some(max) = bounds.rpo_bytes.filter(|max| bytes > held(*max)) {
            Some(format!(
                "rpo_limit_bytes: no promotable standby has received {bytes} bytes, {max} are allowed"
            ))
        } else if let Some(max) = bounds.rpo_ms.filter(|max| ms > held(*max)) {
            Some(format!(
                "rpo_limit: no promotable standby has received the writes of {ms} ms, {max} ms are allowed"
            ))
        } else {
            let (coordinator, standby) = (since_ms(coordinator_heard_ns), since_ms(self.standby_heard_ns));
            let isolated = |max: &u64| coordinator >= *max && standby >= *max;
            bounds.isolation_ms.filter(isolated).map(|max| {
                format!(
                    "isolation_read_only_after: coordinators silent for {coordinator} ms, standbys for {standby} ms, {max} ms \
                     are allowed"
                )
            })
        };
        self.blocked = why.is_some();
        why
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn seen(flushed: u64, word: &str) -> Vec<Seen> {
        let member = MemberName::new("us-east-1").unwrap();
        vec![Seen { member, flushed: Some(Lsn(flushed)), word: word.into() }]
    }

    #[test]
    fn the_loss_counts_from_what_a_standby_has_received() {
        let bounds = Bounds { rpo_bytes: Some(100), ..Bounds::default() };
        let mut all = Exposure::default();
        all.observe(S, Lsn(1_000), &[]);
        assert_eq!(all.judge(S, S, &bounds), None);
        all.observe(2 * S, Lsn(1_100), &[]);
        assert_eq!(all.judge(2 * S, S, &bounds), None);
        all.observe(3 * S, Lsn(1_101), &[]);
        let why = all.judge(3 * S, S, &bounds).unwrap();
        assert!(why.contains("101 bytes, 100 are allowed"), "{why}");
        all.observe(4 * S, Lsn(1_101), &seen(1_050, "a"));
        assert!(all.judge(4 * S, S, &bounds).is_some(), "above the half");
        all.observe(5 * S, Lsn(1_101), &seen(1_051, "b"));
        assert_eq!(all.judge(5 * S, S, &bounds), None);
    }

    #[test]
    fn the_age_is_that_of_the_oldest_write_that_is_missing() {
        let bounds = Bounds { rpo_ms: Some(2_000), ..Bounds::default() };
        let mut all = Exposure::default();
        for second in 1..=4 {
            all.observe(second * S, Lsn(second * 10), &[]);
        }
        assert_eq!(all.behind_ms(4 * S), 2_000);
        assert_eq!(all.judge(4 * S, S, &bounds), None);
        assert!(all.judge(5 * S, S, &bounds).is_some());
        all.observe(6 * S, Lsn(40), &seen(40, "a"));
        assert_eq!((all.behind_ms(9 * S), all.judge(9 * S, S, &bounds)), (0, None));
    }

    #[test]
    fn isolated_is_who_hears_neither_coordinator_nor_standby() {
        let bounds = Bounds { isolation_ms: Some(3_000), ..Bounds::default() };
        let mut all = Exposure::default();
        all.observe(S, Lsn(10), &seen(10, "a"));
        for second in 2..10 {
            all.observe(second * S, Lsn(10), &seen(10, "a"));
        }
        assert_eq!(all.judge(9 * S, 7 * S, &bounds), None, "a coordinator was heard");
        assert!(all.judge(9 * S, 5 * S, &bounds).is_some());
        all.observe(9 * S, Lsn(10), &seen(10, "b"));
        assert_eq!(all.judge(9 * S, 5 * S, &bounds), None, "a standby was heard");
        assert!(Bounds::default().is_off());
    }
}
