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

use crate::{Body, RequestKind};

/// The highest feature level that this build understands.
pub const FEATURE_LEVEL: u8 = 3;

/// The level that understands synchronous replication.
pub(crate) const SYNCHRONOUS: u8 = 3;

/// The level of a group that has never been raised.
pub const FEATURE_LEVEL_FIRST: u8 = 1;

impl Body {
    /// The lowest level that understands this proposal.
    pub fn level(&self) -> u8 {
        match self {
            Body::RaiseLevel { level } => *level,
            Body::Request(request) => request.kind.level(),
            Body::Configure(config) if config.policy.synchronous.on => SYNCHRONOUS,
            Body::SynchronousSet { .. } | Body::SynchronousProven { .. } | Body::SynchronousLost { .. } => {
                SYNCHRONOUS
            }
            _ => FEATURE_LEVEL_FIRST,
        }
    }
}

impl RequestKind {
    /// The lowest level that understands this request.
    pub fn level(&self) -> u8 {
        match self {
            RequestKind::Restart { .. } => 2,
            RequestKind::SetPolicy { to, .. } if to.synchronous.on => SYNCHRONOUS,
            _ => FEATURE_LEVEL_FIRST,
        }
    }
}
