//! Which group of coordinators this member obeys.
//!
//! Invariants: one group at a time, on disk before anything of it is heeded; another one only when it says that an operator has
//! taken this cluster over from the one that is obeyed. Interleaving that it prevents: the group is lost for good, a new one
//! is formed and its primary writes on; then the old coordinators come back, hear no primary, and have this standby
//! promoted. Every doubt is *foreign*: the agent leaves that coordinator and looks for another, and a primary's lease runs on
//! by promises, or out.

use regent_types::{ClusterView, GroupId};

/// What to make of a group that has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obey {
    /// It is the one, or nobody has a group yet.
    Heed,
    /// It becomes the one: to disk first, then it is heeded.
    Take(GroupId),
    /// Nothing it says counts here, and why.
    Foreign(String),
}

/// Judges an answer of `heard`. `view` is what it says of this cluster; `busy`: a directive of the present group still runs.
pub fn obey(own: Option<GroupId>, heard: Option<GroupId>, view: Option<&ClusterView>, busy: bool) -> Obey {
    match (own, heard) {
        (None, None) => Obey::Heed,
        // A group that does not know this cluster has no say in it yet.
        (None, Some(group)) => view.map_or(Obey::Heed, |_| Obey::Take(group)),
        (Some(own), None) => Obey::Foreign(format!("it names no group, this member obeys group {own}")),
        (Some(own), Some(heard)) if own == heard => Obey::Heed,
        (Some(own), Some(heard)) => {
            let taken_over = view.is_some_and(|view| view.supersedes.contains(&own));
            if !taken_over {
                return Obey::Foreign(format!(
                    "it is of group {heard}, this member obeys group {own}, from which nobody has taken this cluster over"
                ));
            }
            if busy {
                return Obey::Foreign(format!("a directive of group {own} still runs, group {heard} waits"));
            }
            Obey::Take(heard)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use regent_types::Epoch;

    #[test]
    fn one_group_is_obeyed_and_another_one_only_when_it_has_taken_over() {
        let (old, new, other) = (GroupId(1), GroupId(2), GroupId(3));
        let view = |supersedes: &[GroupId]| ClusterView {
            epoch: Epoch(4),
            fenced_through: Epoch(0),
            primary: None,
            members: vec![],
            members_version: 0,
            heartbeat_interval_ms: None,
            parameters: None,
            synchronous: None,
            promises: None,
            supersedes: supersedes.to_vec(),
        };
        let (plain, over) = (view(&[]), view(&[old]));
        assert_eq!(obey(None, None, None, false), Obey::Heed);
        assert_eq!(obey(None, Some(old), None, false), Obey::Heed, "it does not know the cluster");
        assert_eq!(obey(None, Some(old), Some(&plain), true), Obey::Take(old));
        assert_eq!(obey(Some(old), Some(old), Some(&plain), true), Obey::Heed);
        assert_eq!(obey(Some(old), Some(new), Some(&over), false), Obey::Take(new));
        for (own, heard, view, busy, part) in [
            (old, None, Some(&plain), false, "names no group"),
            (old, Some(new), None, false, "nobody has taken"),
            (old, Some(new), Some(&plain), false, "nobody has taken"),
            (other, Some(new), Some(&over), false, "nobody has taken"),
            (old, Some(new), Some(&over), true, "still runs"),
            // The old coordinators come back.
            (new, Some(old), Some(&plain), false, "nobody has taken"),
        ] {
            match obey(Some(own), heard, view, busy) {
                Obey::Foreign(why) => assert!(why.contains(part), "{why}"),
                other => panic!("{other:?}, expected {part}"),
            }
        }
    }
}
