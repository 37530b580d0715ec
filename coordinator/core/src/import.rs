//! A cluster that comes from another group of coordinators, which is lost for good (DESIGN section 11).
//!
//! Promise 1 over the change of groups stands on two things: a member obeys one group, which is on its disk, and this group
//! names no primary before every member that could be promoted obeys it. Interleavings that it prevents:
//! - *the old coordinators come back* (their disks were not lost after all) while the primary runs on under this group: they
//!   hear nothing of it, prove its lease expired, and promote a standby that obeys them. No member does any more: it has this
//!   group on its disk, and leaves a coordinator of another one. A member that was not heard is the hole, so it has to be
//!   named by an operator, and this group's epochs then begin [`EPOCH_STRIDE`] above the highest that was heard of;
//! - *the old group's last lease*: it was granted just before its primary heard of this group. No proof by expiry counts before
//!   the longest lease that the primary's guard takes has passed since ([`crate::LeaseInFlight`]);
//! - *the promises*: the primary's lease of the old epoch runs on by the promises of those on *its* list. A member beyond
//!   that list would be promoted without having been asked, so the two lists must name the same members; those who
//!   promised keep their promise whichever group asks, because their guards enforce it.
//!
//! Tests: `coordinator/core/tests/scenarios/8?-import*.txt`, `agent/core/src/obey.rs`, `chaos-tests/tests/import.rs`.

use std::collections::{BTreeMap, BTreeSet};

use regent_types::{BootId, DataForm, Epoch, GroupId, InstanceId, MemberName, SystemId, Timeline};
use serde::{Deserialize, Serialize};

/// How far above the highest epoch heard of the first one is, when somebody was not heard: what a member that obeys the old
/// group may have been appointed at meanwhile stays below.
pub const EPOCH_STRIDE: u64 = 1_000;

/// What a member's agent says of itself when its cluster is taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedMember {
    /// Its guard's instance.
    pub instance: InstanceId,
    /// Its boot.
    pub boot: BootId,
    /// The highest epoch that its guard or its data knows.
    pub highest_epoch: Epoch,
    /// Epoch of the lease that it holds.
    pub lease_epoch: Option<Epoch>,
    /// What is in its data directory.
    pub form: DataForm,
    /// The newest epoch that its data descends from.
    pub lineage: Epoch,
    /// Its database.
    pub system_id: Option<SystemId>,
    /// Its timeline.
    pub timeline: Option<Timeline>,
    /// The group that it obeys.
    pub group: Option<GroupId>,
    /// Whom it asks for promises, and under which epoch.
    pub asks: Option<(Epoch, Vec<MemberName>)>,
    /// The longest lease that its guard takes, ms.
    pub lease_ttl_max_ms: Option<u64>,
}

/// How a cluster came from another group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// This group.
    pub group: GroupId,
    /// The groups that its members obeyed.
    pub supersedes: BTreeSet<GroupId>,
    /// Members that do not obey this group yet: nobody is appointed before they all do.
    pub waiting: BTreeSet<MemberName>,
    /// What each said when it did.
    pub said: BTreeMap<MemberName, ImportedMember>,
    /// Members that an operator has named instead: an exception to promise 1.
    pub unheard: BTreeSet<MemberName>,
    /// Who and why.
    pub by: String,
}

/// Why a cluster is not taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum ImportError {
    /// The group is too young.
    #[error(
        "this group has no id yet: wait until every coordinator runs and `regentctl status` shows feature level 2"
    )]
    NoGroupId,
    /// A member that could be promoted has to obey this group first.
    #[error(
        "{member} is not heard and could be promoted by the old coordinators: let its agent reach this group, or name it as \
         unheard, which is an exception to promise 1"
    )]
    Unheard {
        /// Who.
        member: MemberName,
    },
    /// No exception is needed.
    #[error("{member} was named as unheard, and is heard")]
    Heard {
        /// Who.
        member: MemberName,
    },
    /// The old primary's list has more members.
    #[error(
        "{primary} asks {member} for promises, so {member} could be promoted; the configuration has no such promotable member: \
         add it, or name it as unheard, which is an exception to promise 1"
    )]
    Missing {
        /// The primary.
        primary: MemberName,
        /// The member left out.
        member: MemberName,
    },
    /// The old primary's list has fewer members.
    #[error(
        "{primary} does not ask {member} for promises: make it unpromotable in the configuration, or take it out, and add it \
         after the import"
    )]
    NotAsked {
        /// The primary.
        primary: MemberName,
        /// The new member.
        member: MemberName,
    },
    /// Two could write.
    #[error("{member} holds a lease of epoch {epoch}, {primary} is to be primary")]
    OtherHolder {
        /// Who.
        member: MemberName,
        /// Its lease.
        epoch: Epoch,
        /// Who is to be primary.
        primary: MemberName,
    },
    /// Its data would be lost.
    #[error(
        "{member} has a primary's data of epoch {epoch}, {primary} is to be primary and has {form:?} data of epoch {lineage}"
    )]
    OtherPrimary {
        /// Who.
        member: MemberName,
        /// Its lineage.
        epoch: Epoch,
        /// Who is to be primary.
        primary: MemberName,
        /// Its data.
        form: DataForm,
        /// Its lineage.
        lineage: Epoch,
    },
    /// The data is not known.
    #[error("{member} is to be primary, and nothing is known of its data ({form:?}, epoch {lineage})")]
    UnknownData {
        /// Who.
        member: MemberName,
        /// Its data.
        form: DataForm,
        /// Its lineage.
        lineage: Epoch,
    },
    /// Two databases.
    #[error("{member} has system identifier {found}, {primary} has {expected}")]
    OtherSystem {
        /// Who.
        member: MemberName,
        /// As reported.
        found: SystemId,
        /// The primary.
        primary: MemberName,
        /// Its own.
        expected: SystemId,
    },
    /// The operator saw another epoch.
    #[error("epoch {expected} was expected, the highest that a member knows is {found}")]
    OtherEpoch {
        /// As named.
        expected: Epoch,
        /// As heard.
        found: Epoch,
    },
    /// Members do not obey this group yet.
    #[error("{waiting:?} do not obey this group yet")]
    Waiting {
        /// Who.
        waiting: Vec<MemberName>,
    },
    /// The instance that obeys this group is another one.
    #[error("instance {said} of {member} obeys this group, {found} is there now and does not speak for it")]
    OtherInstance {
        /// Who.
        member: MemberName,
        /// As acknowledged.
        said: InstanceId,
        /// As heard now.
        found: InstanceId,
    },
}
