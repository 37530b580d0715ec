//! Does local data descend from the upstream's history?
//!
//! Judged by ancestry: the member's lineage epoch names the branch at which its history may have been left. A timeline
//! number alone proves nothing (two members can both have made timeline 2), and neither does the bigger LSN.
//! A mistake towards *diverged* costs a needless rewind; one towards *same* would corrupt a standby.

use regent_types::{
    Branch, Epoch, Lsn, Timeline, Upstream,
    mutant::{Mutant, is_on},
};

/// The verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Divergence {
    /// Everything local is part of the upstream's history.
    Same,
    /// Local WAL of `branch.timeline` after `branch.switch_lsn` is divergent.
    Diverged(Branch),
    /// It cannot be told, and why: only a clone is safe.
    Unknown(String),
}

/// Compares local data (`lineage`, `timeline`, WAL up to `end`) with the upstream's `branches`, oldest first.
pub fn divergence(
    lineage: Epoch,
    timeline: Timeline,
    end: Lsn,
    branches: &[Branch],
    upstream: &Upstream,
) -> Divergence {
    if is_on(Mutant::LineageIgnored) {
        return Divergence::Same;
    }
    if lineage == Epoch::NONE {
        return Divergence::Unknown("the lineage of the local data is not known".into());
    }
    if lineage > upstream.epoch {
        return Divergence::Unknown(format!(
            "local lineage {lineage} is newer than the upstream's epoch {}",
            upstream.epoch
        ));
    }
    if lineage == upstream.epoch {
        return if timeline == upstream.timeline {
            Divergence::Same
        } else {
            Divergence::Unknown(format!(
                "epoch {lineage} wrote timeline {}, but the local data is on timeline {timeline}",
                upstream.timeline
            ))
        };
    }
    // The first branch at or after the lineage at which the timeline really changed: epochs that were re-appointed in
    // place went on with the same timeline, so nothing diverged there.
    let Some(own) = branches.iter().position(|b| b.epoch == lineage) else {
        return Divergence::Unknown(format!("the history sent does not contain epoch {lineage}"));
    };
    let history = &branches[own..];
    if let Some(left) = history.iter().enumerate().find_map(|(index, branch)| {
        let next = history.get(index + 1).map_or(upstream.timeline, |b| b.timeline);
        (branch.timeline == timeline && next != timeline).then_some(branch)
    }) {
        return if end <= left.switch_lsn { Divergence::Same } else { Divergence::Diverged(left.clone()) };
    }
    if history[0].timeline == timeline {
        // Every later epoch went on with this timeline.
        return Divergence::Same;
    }
    // The data has moved past its lineage's timeline: only what was replicated from a later epoch can have done that
    // when it is one of the history's timelines, but an own promotion without a record could have too.
    Divergence::Unknown(format!(
        "local data is on timeline {timeline}, but epoch {lineage} wrote timeline {}",
        history[0].timeline
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use regent_types::MemberName;

    fn upstream(epoch: u64, timeline: u32) -> Upstream {
        Upstream {
            member: MemberName::new("b").unwrap(),
            epoch: Epoch(epoch),
            host: "h".into(),
            port: 1,
            timeline: Timeline(timeline),
        }
    }

    fn branch(epoch: u64, timeline: u32, lsn: u64) -> Branch {
        Branch { epoch: Epoch(epoch), timeline: Timeline(timeline), switch_lsn: Lsn(lsn) }
    }

    fn judge(lineage: u64, timeline: u32, end: u64, branches: &[Branch], up: &Upstream) -> Divergence {
        divergence(Epoch(lineage), Timeline(timeline), Lsn(end), branches, up)
    }

    #[test]
    fn wal_up_to_the_switch_is_shared_and_beyond_it_is_not() {
        let branches = [branch(1, 1, 100)];
        assert_eq!(judge(1, 1, 100, &branches, &upstream(2, 2)), Divergence::Same);
        assert_eq!(judge(1, 1, 101, &branches, &upstream(2, 2)), Divergence::Diverged(branches[0].clone()));
    }

    #[test]
    fn a_reappointment_in_place_leaves_nothing_behind() {
        let branches = [branch(1, 1, 100), branch(2, 1, 200)];
        assert_eq!(judge(1, 1, 150, &branches, &upstream(3, 2)), Divergence::Same);
        assert_eq!(judge(1, 1, 250, &branches, &upstream(3, 2)), Divergence::Diverged(branches[1].clone()));
        assert_eq!(judge(1, 1, 900, &[branch(1, 1, 100)], &upstream(2, 1)), Divergence::Same);
    }

    #[test]
    fn what_cannot_be_placed_is_unknown() {
        let branches = [branch(1, 1, 100)];
        for (lineage, timeline, up) in
            [(0, 1, upstream(2, 2)), (3, 2, upstream(2, 2)), (2, 1, upstream(2, 2)), (1, 2, upstream(2, 2))]
        {
            let verdict = judge(lineage, timeline, 50, &branches, &up);
            assert!(matches!(verdict, Divergence::Unknown(_)), "{lineage} {timeline}: {verdict:?}");
        }
        assert!(matches!(judge(1, 1, 50, &[], &upstream(2, 2)), Divergence::Unknown(_)));
    }
}
