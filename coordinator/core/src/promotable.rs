//! Who may be promoted, as the primary must know it (DESIGN section 6): a list with a version, and what the primary has
//! acknowledged of it.
//!
//! A primary whose coordinators are silent runs on by the promises of everybody *on its list*. So a member that comes onto
//! the list counts as a candidate against a lease's expiry only when the primary of that epoch has the new list on its
//! disk. The list follows the configuration by itself, whatever entry has changed it; nothing else may edit it.
//!
//! Interleaving that it prevents: M is added while the quorum lives; the primary has not heard of it, loses every
//! coordinator, and runs on by the promise of Q alone; the quorum returns, its bound passes, and M, who promised nothing, is
//! promoted. Test: the golden scenario `61-members.txt`.
//!
//! Why an acknowledgement is taken from a *granted* heartbeat only ([`crate::LeaseTable`]): what the primary ran on by before it had
//! the new list ends within one promise of that heartbeat's sending, and a promise is no longer than a lease, so the bound that
//! the grant raises covers it. A list that came with another epoch counts for nothing: an appointment begins with the list of its own entry.

use std::collections::BTreeMap;

use regent_types::{LeaseTerms, MemberName, PromiseView, PromotableMember};
use serde::{Deserialize, Serialize};

use crate::{Appointment, Cluster, ClusterConfig, FenceProof};

/// The promotable members and since which version each is one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromotableList {
    /// Rises with each change; 0 before the first entry that was applied with it.
    pub version: u64,
    /// Version at which each member came onto the list.
    pub since: BTreeMap<MemberName, u64>,
}

/// The primary of an epoch does not ask a member for promises: after its lease's expiry that member may not be promoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("promotable since list {since}, the primary asks by list {acknowledged}")]
pub struct NotAsked {
    /// The list that the member came onto; 0 when it is on none.
    pub since: u64,
    /// The newest one that the primary has acknowledged.
    pub acknowledged: u64,
}

impl PromotableList {
    /// Whether the primary of `appointment` asks `member` for promises, or never needs to: it was on the list before.
    pub fn asks(&self, appointment: &Appointment, member: &MemberName) -> Result<(), NotAsked> {
        let acknowledged = appointment.promotable_acknowledged;
        match self.since.get(member) {
            Some(since) if *since <= acknowledged => Ok(()),
            // A state from before there were lists: nobody has ever acted on one.
            None if self.version == 0 => Ok(()),
            since => Err(NotAsked { since: since.copied().unwrap_or(0), acknowledged }),
        }
    }

    /// Brings the list up to the configuration. True when it has changed.
    pub(crate) fn follow(&mut self, config: &ClusterConfig) -> bool {
        let wanted = || config.members.iter().filter(|(_, member)| member.promotable).map(|(name, _)| name);
        if self.version > 0 && wanted().eq(self.since.keys()) {
            return false;
        }
        // Nobody has ever acted on a list before the first one, so its members need no acknowledgement.
        let since = if self.version == 0 { 0 } else { self.version + 1 };
        self.version += 1;
        let before = std::mem::take(&mut self.since);
        self.since =
            wanted().map(|name| (name.clone(), before.get(name).copied().unwrap_or(since))).collect();
        true
    }
}

/// Brings every cluster's list up to its configuration.
pub(crate) fn follow<'c>(clusters: impl Iterator<Item = &'c mut Cluster>) {
    for cluster in clusters {
        cluster.promotable.follow(&cluster.config);
    }
}

impl Cluster {
    /// What members are told: whom the primary asks, and for how long.
    pub(crate) fn promise_view(&self) -> PromiseView {
        let promotable = self.config.members.iter().filter(|(_, member)| member.promotable);
        PromiseView {
            version: self.promotable.version,
            promotable: promotable
                .map(|(name, member)| PromotableMember {
                    member: name.clone(),
                    agent_address: member.agent_address.clone(),
                })
                .collect(),
            terms: LeaseTerms { ttl_ms: self.config.policy.promise_ms, ..self.config.policy.lease },
        }
    }

    /// Whether what was promised to the fenced epoch protects nobody any more: its proof is more than the lease's expiry.
    /// Waiting for such a promise would only be an outage.
    pub fn promises_void(&self) -> bool {
        let fences = self.operation.iter().flat_map(|operation| &operation.fences);
        fences.filter(|record| record.epoch == self.epoch).any(|record| record.proof.voids_promises())
    }
}

impl FenceProof {
    /// The instance is known not to write, by its own guard or by somebody's word: then nobody runs on by a promise. After
    /// an expiry it may, for as long as a promise is outstanding.
    pub fn voids_promises(&self) -> bool {
        !matches!(self, FenceProof::LeaseExpired { .. })
    }
}
