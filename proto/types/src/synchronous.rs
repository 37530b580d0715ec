//! Synchronous replication (DESIGN section 8): which standbys a commit waits for, and what a server was seen to run with.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use crate::{Epoch, Lsn, MemberName};

/// A quorum rule: a commit waits for any `number` of `members`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncSet {
    /// How many have to flush it; at least 1, at most as many as there are members.
    pub number: u32,
    /// Who may.
    pub members: BTreeSet<MemberName>,
}

impl SyncSet {
    /// How many members have to answer before nothing that was acknowledged under this rule can be with the silent ones
    /// alone: any `number` of them may hold a commit, so at most `number - 1` may be silent.
    pub fn answers_needed(&self) -> usize {
        (self.members.len() + 1).saturating_sub(usize::try_from(self.number).unwrap_or(usize::MAX))
    }

    /// The value of PostgreSQL's `synchronous_standby_names`. Names are quoted: a hyphen is no identifier.
    pub fn names(&self) -> String {
        let quoted: Vec<String> = self.members.iter().map(|member| format!("\"{member}\"")).collect();
        format!("ANY {} ({})", self.number, quoted.join(", "))
    }
}

impl fmt::Display for SyncSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<&str> = self.members.iter().map(MemberName::as_str).collect();
        write!(f, "ANY {} ({})", self.number, members.join(", "))
    }
}

/// What members are told: the rule for each, as primary now or after a promotion. A member that is not named waits for nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SynchronousView {
    /// The epoch that the version belongs to.
    pub epoch: Epoch,
    /// Rises with each change that was logged.
    pub version: u64,
    /// By member.
    pub rules: BTreeMap<MemberName, SyncSet>,
}

/// What a primary was seen to run with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SynchronousFacts {
    /// The epoch of the view that it carries out.
    pub epoch: Epoch,
    /// The version of it.
    pub version: u64,
    /// `SHOW synchronous_standby_names`.
    pub names: String,
    /// The end of its WAL, read when every process was seen to act by `names`: whatever was acknowledged by an earlier rule
    /// lies before it. `None` while that is not shown.
    pub since_lsn: Option<Lsn>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enough_answer_when_no_quorum_is_among_the_silent() {
        let set = |number, names: &[&str]| SyncSet {
            number,
            members: names.iter().map(|name| MemberName::new(name.to_string()).unwrap()).collect(),
        };
        assert_eq!(set(1, &["a"]).answers_needed(), 1);
        assert_eq!(set(1, &["a", "b"]).answers_needed(), 2);
        assert_eq!(set(2, &["a", "b"]).answers_needed(), 1);
        assert_eq!(set(2, &["a", "b", "c"]).answers_needed(), 2);
        assert_eq!(set(2, &["us-east-1", "b"]).names(), "ANY 2 (\"b\", \"us-east-1\")");
    }
}
