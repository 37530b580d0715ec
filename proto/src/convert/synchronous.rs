//! Synchronous replication: the rules that members are told, and what a primary runs with.

use regent_types::{BlockedWrites, Epoch, SyncSet, SynchronousFacts, SynchronousView};

use super::{ConvertError, Converted, parsed, parsed_list, parsed_optional, required};
use crate::v1;

impl From<SyncSet> for v1::SyncSet {
    fn from(set: SyncSet) -> Self {
        Self { number: set.number, members: set.members.into_iter().map(Into::into).collect() }
    }
}

impl TryFrom<v1::SyncSet> for SyncSet {
    type Error = ConvertError;
    fn try_from(set: v1::SyncSet) -> Converted<Self> {
        let members: std::collections::BTreeSet<_> =
            parsed_list(&set.members, "members")?.into_iter().collect();
        if set.number == 0 || usize::try_from(set.number).is_ok_and(|number| number > members.len()) {
            let problem = format!("{} of {} members", set.number, members.len());
            return Err(ConvertError::new("number", problem));
        }
        Ok(Self { number: set.number, members })
    }
}

impl From<SynchronousView> for v1::SynchronousView {
    fn from(view: SynchronousView) -> Self {
        let rule = |(member, set): (regent_types::MemberName, SyncSet)| v1::SyncRule {
            member: member.into(),
            set: Some(set.into()),
        };
        Self { epoch: view.epoch.0, version: view.version, rules: view.rules.into_iter().map(rule).collect() }
    }
}

impl TryFrom<v1::SynchronousView> for SynchronousView {
    type Error = ConvertError;
    fn try_from(view: v1::SynchronousView) -> Converted<Self> {
        let rules = view.rules.into_iter().enumerate();
        let rule = |(index, rule): (usize, v1::SyncRule)| {
            let field = format!("rules[{index}]");
            let member = parsed(&rule.member, "member").map_err(|error| error.within(&field))?;
            let set = required(rule.set, "set").map_err(|error| error.within(&field))?;
            Ok((member, set))
        };
        Ok(Self {
            epoch: Epoch(view.epoch),
            version: view.version,
            rules: rules.map(rule).collect::<Converted<_>>()?,
        })
    }
}

impl From<SynchronousFacts> for v1::SynchronousFacts {
    fn from(facts: SynchronousFacts) -> Self {
        Self {
            epoch: facts.epoch.0,
            version: facts.version,
            names: facts.names,
            since_lsn: facts.since_lsn.map(|lsn| lsn.to_string()),
        }
    }
}

impl TryFrom<v1::SynchronousFacts> for SynchronousFacts {
    type Error = ConvertError;
    fn try_from(facts: v1::SynchronousFacts) -> Converted<Self> {
        Ok(Self {
            epoch: Epoch(facts.epoch),
            version: facts.version,
            names: facts.names,
            since_lsn: parsed_optional(facts.since_lsn.as_deref(), "since_lsn")?,
        })
    }
}

impl From<BlockedWrites> for v1::BlockedWrites {
    fn from(blocked: BlockedWrites) -> Self {
        Self { reason: blocked.reason, for_ms: blocked.for_ms, ended_ms_ago: blocked.ended_ms_ago }
    }
}

impl From<v1::BlockedWrites> for BlockedWrites {
    fn from(blocked: v1::BlockedWrites) -> Self {
        Self { reason: blocked.reason, for_ms: blocked.for_ms, ended_ms_ago: blocked.ended_ms_ago }
    }
}
