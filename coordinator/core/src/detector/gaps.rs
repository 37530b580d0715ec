//! How long members were silent between two hearings: what each threshold would have cost.
//!
//! Counted by a leader, per member, whenever anybody's hearing moves on. Every silence counts, real outages and restarts of
//! the agent included: a threshold above the longest one would never have been reached. The sum of all silences is the time
//! that was observed. Decides nothing; what is lost of it (a node that was killed) makes the advice poorer, not wrong.

use std::collections::BTreeMap;

use regent_types::{ClusterName, MemberName};
use serde::{Deserialize, Serialize};

/// Thresholds that silences are counted against, ms.
pub const GAP_THRESHOLDS_MS: [u64; 20] = [
    500, 1_000, 2_000, 3_000, 5_000, 10_000, 15_000, 20_000, 30_000, 45_000, 60_000, 90_000, 120_000,
    180_000, 240_000, 300_000, 450_000, 600_000, 1_800_000, 3_600_000,
];

/// The silences of one member.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapCounts {
    /// Silences at least as long as the threshold of the same index.
    pub reached: Vec<u64>,
    /// Hearings.
    pub heard: u64,
    /// Time observed, ms.
    pub observed_ms: u64,
    /// The longest silence, ms.
    pub longest_ms: u64,
}

impl GapCounts {
    fn add(&mut self, gap_ms: u64) {
        self.reached.resize(GAP_THRESHOLDS_MS.len(), 0);
        for (threshold_ms, count) in GAP_THRESHOLDS_MS.iter().zip(&mut self.reached) {
            *count += u64::from(gap_ms >= *threshold_ms);
        }
        self.heard += 1;
        self.observed_ms = self.observed_ms.saturating_add(gap_ms);
        self.longest_ms = self.longest_ms.max(gap_ms);
    }
}

/// Of every member that was heard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gaps {
    members: BTreeMap<ClusterName, BTreeMap<MemberName, GapCounts>>,
}

impl Gaps {
    pub(super) fn add(&mut self, cluster: &ClusterName, member: &MemberName, gap_ms: u64) {
        let cluster = self.members.entry(cluster.clone()).or_default();
        cluster.entry(member.clone()).or_default().add(gap_ms);
    }

    /// Of one member.
    pub fn of(&self, cluster: &ClusterName, member: &MemberName) -> Option<&GapCounts> {
        self.members.get(cluster)?.get(member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_counts_for_every_threshold_that_it_reached() {
        let mut counts = GapCounts::default();
        counts.add(499);
        counts.add(60_000);
        counts.add(1_000);
        assert_eq!(
            (counts.reached[0], counts.reached[1], counts.reached[10], counts.reached[11]),
            (2, 2, 1, 0)
        );
        assert_eq!((counts.heard, counts.observed_ms, counts.longest_ms), (3, 61_499, 60_000));
    }
}
