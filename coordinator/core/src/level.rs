//! Feature levels: which build understands what, so that a rolling upgrade never puts an entry into the log that a voter
//! cannot read.
//!
//! Each kind of proposal belongs to a level, and the group has one: it starts at 1 and is raised, by an entry of its own,
//! once every member of the group announces a higher one. A proposal above the group's level is refused before it is
//! proposed, and again by `apply`. An entry or snapshot above the level that a *build* knows is never skipped: that node
//! stops and says which level it met (an entry that one replica skips and another applies is two states).
//!
//! The interleaving that would break it: a voter announces level 2, is put back to the older build, and the leader raises
//! the level on the strength of the old announcement. That node stops at the entry, with the message; the others are a
//! quorum without it, and no state differs. `coordinator/tests/cluster/levels.rs` plays it.
//!
//! What belongs to a new level: a new kind of proposal or request, and every field of an old one that `apply` heeds. What
//! does not: fields for display, which take their default where they are not known (docs/upgrade.md).

use crate::{Body, GroupNews, GroupRequestKind, RequestKind};

/// The highest feature level that this build understands.
pub const FEATURE_LEVEL: u8 = 3;

/// The level that understands synchronous replication.
pub(crate) const SYNCHRONOUS: u8 = 3;

/// The level of a group that has never been raised.
pub const FEATURE_LEVEL_FIRST: u8 = 1;

/// No table here has a default: whoever adds a kind says which level knows it. Once a release is out, its levels are closed.
impl Body {
    /// The lowest level that understands this proposal.
    pub fn level(&self) -> u8 {
        match self {
            Body::RaiseLevel { level } => *level,
            Body::Request(request) => request.kind.level(),
            Body::Configure(config) if config.policy.synchronous.on => SYNCHRONOUS,
            Body::Configure(_)
            | Body::Declare(_)
            | Body::FenceProven { .. }
            | Body::CandidatesReported { .. }
            | Body::Outcome { .. }
            | Body::StepOverdue { .. }
            | Body::SyncConfirmed { .. }
            | Body::CooldownOver { .. }
            | Body::Withdraw { .. }
            | Body::LeasesSettled { .. }
            | Body::MembersAcknowledged { .. }
            | Body::GroupNews(
                GroupNews::Founded { .. } | GroupNews::Joined { .. } | GroupNews::Left { .. },
            )
            | Body::Alert { .. }
            | Body::SwitchoverDue { .. }
            | Body::FailbackReady { .. }
            | Body::PromotableAcknowledged { .. } => FEATURE_LEVEL_FIRST,
            Body::Vetoed { .. } | Body::EventsTold { .. } | Body::Drill { .. } | Body::Observed { .. } => 2,
            Body::Group(request) => request.kind.level(),
            Body::GroupNews(GroupNews::Named { .. }) | Body::ImportAcknowledged { .. } => 2,
            Body::SynchronousSet { .. } | Body::SynchronousProven { .. } | Body::SynchronousLost { .. } => {
                SYNCHRONOUS
            }
        }
    }
}

impl RequestKind {
    /// The lowest level that understands this request.
    pub fn level(&self) -> u8 {
        match self {
            RequestKind::SetPolicy { to, .. } if to.synchronous.on => SYNCHRONOUS,
            RequestKind::Failover { .. }
            | RequestKind::Pause
            | RequestKind::Resume
            | RequestKind::AssumeFenced
            | RequestKind::SetAutomation { .. }
            | RequestKind::Acknowledge
            | RequestKind::Approve { .. }
            | RequestKind::SetPolicy { .. }
            | RequestKind::AddMember { .. }
            | RequestKind::RemoveMember { .. }
            | RequestKind::Switchover { .. }
            | RequestKind::Schedule { .. }
            | RequestKind::Failback { .. }
            | RequestKind::Abort => FEATURE_LEVEL_FIRST,
            RequestKind::Restart { .. }
            | RequestKind::Drill { .. }
            | RequestKind::SetParameters { .. }
            | RequestKind::SetMember { .. } => 2,
        }
    }
}

impl GroupRequestKind {
    /// The lowest level that understands this request.
    pub fn level(&self) -> u8 {
        match self {
            GroupRequestKind::ImportCluster { .. } => 2,
            _ => FEATURE_LEVEL_FIRST,
        }
    }
}
