//! Promises between members (DESIGN section 6): who has to be asked, for how long, and what came of it.

use serde::{Deserialize, Serialize};

use crate::{Epoch, LeaseTerms, MemberName};

/// A member that may be promoted, and so has to promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromotableMember {
    /// Its name.
    pub member: MemberName,
    /// `host:port` at which the other members' agents reach its agent; without one it cannot be asked.
    pub agent_address: Option<String>,
}

/// Everybody who could be promoted, the primary itself included. The epoch beside it in a view belongs to it: a list that
/// came with another epoch says nothing about who could be promoted over this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromiseView {
    /// Rises with each change of the list.
    pub version: u64,
    /// The list.
    pub promotable: Vec<PromotableMember>,
    /// `ttl_ms` is how long one promise lasts, 0 when promises are off; its bound is how long the promiser holds it.
    pub terms: LeaseTerms,
}

/// A promise that a member has given and that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenPromise {
    /// No promotion to any epoch above this one; `None` when it is not known any more to which epoch it was given.
    pub epoch: Option<Epoch>,
    /// For how much longer, ms.
    pub remaining_ms: u64,
}

/// A lease that runs on by promises.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromisedLease {
    /// Its epoch.
    pub epoch: Epoch,
    /// Who has promised.
    pub by: Vec<MemberName>,
    /// What is left of it, ms.
    pub remaining_ms: u64,
}

/// An agent's part in promises, as it reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromiseFacts {
    /// The list that it has on its disk: the epoch that it came with, and its version.
    pub list: Option<(Epoch, u64)>,
    /// A promise that this member has given.
    pub given: Option<GivenPromise>,
    /// This member's lease runs on by promises.
    pub extended: Option<PromisedLease>,
    /// Whom it would ask, itself included: the names on that list.
    #[serde(default)]
    pub asks: Vec<MemberName>,
}
