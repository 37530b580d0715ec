//! Who belongs to a cluster, beyond the list itself: which list each member acts by, who was removed, and who is being taken
//! over from a time without Regent.
//!
//! Whom a primary asks for promises is another list, with versions of its own ([`crate::PromotableList`]): that one alone
//! decides whether a member may be promoted against a lease's expiry. What is counted here is for slots, `pg_hba` and people.

use std::collections::{BTreeMap, BTreeSet};

use regent_types::{Epoch, LeaseTerms, MemberName, SystemId};
use serde::{Deserialize, Serialize};

/// The member list's history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Counts the changes of the list, from 0.
    pub version: u64,
    /// The newest list that each member has said it acts by.
    #[serde(default)]
    pub acknowledged: BTreeMap<MemberName, u64>,
    /// Members that are no more. Their names stay in the history.
    #[serde(default)]
    pub removed: BTreeMap<MemberName, RemovedMember>,
    /// Members that came back after a removal and have not been made to forget their data yet.
    #[serde(default)]
    pub returning: BTreeSet<MemberName>,
}

/// A member that an operator has removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedMember {
    /// The first list without it.
    pub version: u64,
    /// Who and why.
    pub by: String,
    /// When, wall ms (display only).
    pub wall_ms: u64,
}

/// Leases of earlier terms that may be valid still. A leader that is elected meanwhile never granted them, and would take
/// the present terms for all that there can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseInFlight {
    /// The longest of them.
    pub terms: LeaseTerms,
    /// Log index of the change that ended them: a leader that has led for their whole bound since it applied this entry may
    /// say that they are over.
    pub index: u64,
    /// Another group granted them: no leader of this one has ever heard of them, so no bound but the whole of this one
    /// proves that they are over.
    #[serde(default)]
    pub foreign: bool,
}

/// Running servers that are taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adoption {
    /// The database that is meant: any other data is refused.
    pub system_id: SystemId,
    /// Standbys that were not tried yet.
    pub standbys: BTreeSet<MemberName>,
}

/// A cluster that an operator has taken out of the group. Its name may be used again, its epochs never.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// The last epoch.
    pub epoch: Epoch,
    /// The terms of its last leases.
    pub terms: LeaseTerms,
    /// Log index of the entry.
    pub index: u64,
    /// No lease of it can be valid any more.
    pub settled: bool,
    /// Who and why.
    pub by: String,
    /// When, wall ms (display only).
    pub wall_ms: u64,
}
