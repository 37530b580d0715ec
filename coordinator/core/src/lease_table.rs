//! A leader's memory of the leases that may be valid (DESIGN sections 5.2 and 5.3). Never replicated: no lease costs a
//! log write.
//!
//! The caller holds one lock over this table and the replicated [`State`], so that a grant and the applying of
//! `FenceDecided` are ordered: either the grant comes first and the bound covers it, or the fence does and the grant is
//! refused.
//!
//! Invariants, each with the schedule that breaks promise 1 without it:
//! - *confirmed*: a grant needs a quorum round begun after the heartbeat arrived. Without it a deposed leader behind a
//!   partition extends the lease of a primary that the new leader has proved expired.
//! - *applied*: the state has applied the round's read index. Without it a new leader grants an epoch whose
//!   `FenceDecided` it has in its log and not in its state.
//! - *bound first*: the bound is raised in the same critical section as the decision to grant, and never falls.
//! - *terms in flight*: a change of the lease terms does not shorten what a new leadership assumes before every lease of
//!   the earlier terms has ended ([`LeaseTable::settled`]).
//! - *another group's leases*: while they may be valid there is no proof by expiry at all ([`crate::LeaseInFlight`]).
//! - *new leadership, new bound*: it assumes a lease granted at its election. An old leader's grant counts from a stamp
//!   older than the quorum round that confirmed it, and that round is older than the election that a later quorum made.

use std::collections::BTreeMap;

use regent_types::{
    Acknowledgement, ClusterName, Epoch, Grant, Heartbeat, InstanceId, LeaseDecision, LeaseRefusal,
    mutant::{Mutant, is_on},
};

use crate::{Body, Cluster, FenceProof, Leadership, State};

/// A finished read-index round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmed {
    /// The leadership that a quorum confirmed.
    pub leadership: Leadership,
    /// The state must have applied at least this.
    pub read_index: u64,
}

/// The table cannot answer: this node's leadership is not the one in question, or its state is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotLeading {
    /// Another leadership, or none.
    #[error("asked for {asked}, this node leads as {current:?}")]
    OtherLeadership {
        /// As named by the caller.
        asked: Leadership,
        /// This node's.
        current: Option<Leadership>,
    },
    /// The state has not applied the round's read index.
    #[error("applied {applied}, the round's read index is {read_index}")]
    Behind {
        /// Applied.
        applied: u64,
        /// Needed.
        read_index: u64,
    },
}

/// Why there is no proof by expiry yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BoundPending {
    /// A lease may still be valid.
    #[error("a lease may be valid for another {remaining_ns} ns")]
    Remaining {
        /// For how long, ns.
        remaining_ns: u64,
    },
    /// The table cannot tell.
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
    /// No such cluster.
    #[error("unknown cluster")]
    UnknownCluster,
    /// The current epoch may still be granted: a bound that passes now proves nothing. A task that outlived its effect
    /// asks like this, so it is an answer and no bug.
    #[error("epoch {epoch} is not fenced (fenced through {fenced_through})")]
    NotDecided {
        /// The current epoch.
        epoch: Epoch,
        /// Every epoch up to this one is fenced.
        fenced_through: Epoch,
    },
}

#[derive(Debug, Clone, Copy)]
struct Led {
    leadership: Leadership,
    elected_ns: u64,
}

/// The latest instant, per cluster, until which a lease may be valid.
#[derive(Debug, Clone, Default)]
pub struct LeaseTable {
    led: Option<Led>,
    until_ns: BTreeMap<ClusterName, u64>,
    granted_ns: BTreeMap<ClusterName, u64>,
    /// Since when this leadership has had a change of lease terms in its state.
    changes_ns: BTreeMap<(ClusterName, u64), u64>,
    /// The list of promotable members that a granted heartbeat had on its disk, with its epoch and instance.
    listed: BTreeMap<ClusterName, (Epoch, InstanceId, u64)>,
}

impl LeaseTable {
    /// A table of a node that does not lead.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new leadership of this node begins. `now_ns` is on its monotonic clock, not before the election.
    pub fn begin(&mut self, leadership: Leadership, now_ns: u64) {
        if self.led.is_some_and(|led| led.leadership == leadership) {
            return;
        }
        self.led = Some(Led { leadership, elected_ns: now_ns });
        self.until_ns.clear();
        self.granted_ns.clear();
        self.changes_ns.clear();
        self.listed.clear();
    }

    /// This node leads no more.
    pub fn end(&mut self) {
        self.led = None;
        self.until_ns.clear();
        self.granted_ns.clear();
        self.changes_ns.clear();
        self.listed.clear();
    }

    /// The running leadership.
    pub fn leadership(&self) -> Option<Leadership> {
        self.led.map(|led| led.leadership)
    }

    /// Answers a heartbeat that arrived before the round of `confirmed` began.
    pub fn grant(
        &mut self,
        now_ns: u64,
        confirmed: &Confirmed,
        state: &State,
        heartbeat: &Heartbeat,
    ) -> Result<Acknowledgement, NotLeading> {
        self.led(confirmed.leadership)?;
        if state.applied_index < confirmed.read_index && !is_on(Mutant::GrantUnapplied) {
            return Err(NotLeading::Behind {
                applied: state.applied_index,
                read_index: confirmed.read_index,
            });
        }
        let cluster = state.clusters.get(&heartbeat.cluster);
        let lease = match decide(cluster, heartbeat) {
            Ok(grant) => {
                let terms = cluster.expect("granted: the cluster is known").config.policy.lease;
                let until_ns = now_ns.saturating_add(terms.bound_ns());
                let bound = self.until_ns.entry(heartbeat.cluster.clone()).or_default();
                *bound = (*bound).max(until_ns);
                self.granted_ns.insert(heartbeat.cluster.clone(), now_ns);
                // Only now that the bound covers what the primary ran on by before it had this list.
                if let Some((_, version)) =
                    heartbeat.report.promise.list.filter(|(epoch, _)| *epoch == grant.epoch)
                {
                    self.listed.insert(heartbeat.cluster.clone(), (grant.epoch, heartbeat.instance, version));
                }
                LeaseDecision::Granted(grant)
            }
            Err(refusal) => LeaseDecision::Refused(refusal),
        };
        let view = cluster.map(Cluster::view);
        Ok(Acknowledgement { nonce: heartbeat.nonce, lease, view, group: state.group.id })
    }

    /// The proof by expiry, once no lease can be valid any more. There is none before the fence of the current epoch is
    /// decided in `state`: only then does no later grant follow.
    pub fn bound_passed(
        &self,
        now_ns: u64,
        leadership: Leadership,
        state: &State,
        name: &ClusterName,
    ) -> Result<FenceProof, BoundPending> {
        let led = self.led(leadership)?;
        let cluster = state.clusters.get(name).ok_or(BoundPending::UnknownCluster)?;
        let (epoch, fenced_through) = (cluster.epoch, cluster.fenced_through);
        if fenced_through != epoch {
            return Err(BoundPending::NotDecided { epoch, fenced_through });
        }
        // Leases of another group: whatever this leadership granted or assumes, it did not count these.
        if let Some(flight) = cluster.lease_in_flight.filter(|flight| flight.foreign) {
            let since_ns = self.changes_ns.get(&(name.clone(), flight.index)).copied().unwrap_or(now_ns);
            let over_ns = since_ns.saturating_add(flight.terms.bound_ns());
            return Err(BoundPending::Remaining { remaining_ns: over_ns.saturating_sub(now_ns) + 1 });
        }
        let assumed_ns = led.elected_ns.saturating_add(cluster.lease_bound_ns());
        let assumed_ns = if is_on(Mutant::BoundNotFromElection) { 0 } else { assumed_ns };
        let until_ns = self.until_ns.get(name).map_or(assumed_ns, |until_ns| (*until_ns).max(assumed_ns));
        if now_ns <= until_ns && !is_on(Mutant::PromoteOnSilence) {
            return Err(BoundPending::Remaining { remaining_ns: until_ns - now_ns + 1 });
        }
        Ok(FenceProof::LeaseExpired {
            leadership,
            led_for_ms: (now_ns - led.elected_ns) / 1_000_000,
            passed_for_ms: now_ns.saturating_sub(until_ns) / 1_000_000,
        })
    }

    /// Changes of lease terms whose earlier leases have all ended: this leadership has had the change in its state for their
    /// whole bound. Whoever granted such a lease did it in a round that began before the change was committed, and the lease
    /// counts from before that round.
    pub fn settled(&mut self, now_ns: u64, state: &State) -> Vec<Body> {
        let flights = state.clusters.iter().filter_map(|(name, cluster)| {
            cluster.lease_in_flight.map(|flight| (name.clone(), flight.index, flight.terms))
        });
        let forgotten = state.forgotten.iter().filter(|(_, forgotten)| !forgotten.settled);
        let forgotten = forgotten.map(|(name, forgotten)| (name.clone(), forgotten.index, forgotten.terms));
        let waiting: Vec<_> = flights.chain(forgotten).collect();
        self.changes_ns.retain(|(name, index), _| waiting.iter().any(|(n, i, _)| n == name && i == index));
        if self.led.is_none() {
            return Vec::new();
        }
        let mut over = Vec::new();
        for (cluster, index, terms) in waiting {
            let since_ns = *self.changes_ns.entry((cluster.clone(), index)).or_insert(now_ns);
            if now_ns > since_ns.saturating_add(terms.bound_ns()) {
                over.push(Body::LeasesSettled { cluster, index });
            }
        }
        over
    }

    /// Lists of promotable members that primaries have on their disks and the state does not know of yet: to be proposed.
    pub fn acknowledged_lists(&self, state: &State) -> Vec<Body> {
        let news = self.listed.iter().filter_map(|(name, (epoch, instance, version))| {
            let cluster = state.clusters.get(name)?;
            let appointment = cluster.leasable()?;
            let fits = appointment.epoch == *epoch && appointment.instance == *instance;
            let newer =
                *version > appointment.promotable_acknowledged && *version <= cluster.promotable.version;
            (fits && newer).then(|| Body::PromotableAcknowledged {
                cluster: name.clone(),
                epoch: *epoch,
                instance: *instance,
                version: *version,
            })
        });
        news.collect()
    }

    /// What is left of the last lease that this leadership granted, ns; for display.
    pub fn held(&self, now_ns: u64, cluster: &Cluster) -> Option<u64> {
        let granted_ns = self.granted_ns.get(&cluster.config.name)?;
        let ttl_ns = cluster.config.policy.lease.ttl_ms.saturating_mul(1_000_000);
        granted_ns.saturating_add(ttl_ns).checked_sub(now_ns).filter(|left| *left > 0)
    }

    fn led(&self, asked: Leadership) -> Result<Led, NotLeading> {
        let current = self.leadership();
        self.led.filter(|led| led.leadership == asked).ok_or(NotLeading::OtherLeadership { asked, current })
    }
}

/// Rule 2c: the epoch is current and not fenced, and the instance is the one it is bound to.
fn decide(cluster: Option<&Cluster>, heartbeat: &Heartbeat) -> Result<Grant, LeaseRefusal> {
    let unknown =
        || LeaseRefusal::Unknown { cluster: heartbeat.cluster.clone(), member: heartbeat.member.clone() };
    let cluster = cluster.ok_or_else(unknown)?;
    if !cluster.config.members.contains_key(&heartbeat.member) {
        return Err(match cluster.membership.removed.get(&heartbeat.member) {
            Some(removed) => LeaseRefusal::Removed {
                cluster: heartbeat.cluster.clone(),
                member: heartbeat.member.clone(),
                version: removed.version,
            },
            None => unknown(),
        });
    }
    if let Some(import) = cluster.arriving() {
        let waiting = import.waiting.iter().cloned().collect();
        return Err(LeaseRefusal::Importing { cluster: heartbeat.cluster.clone(), waiting });
    }
    let epoch = cluster.epoch;
    let holder = cluster.appointment.as_ref();
    let Some(appointment) = holder.filter(|appointment| appointment.member == heartbeat.member) else {
        return Err(LeaseRefusal::NotAppointed { epoch, holder: holder.map(|a| a.member.clone()) });
    };
    if cluster.leasable().is_none() && !is_on(Mutant::FenceUndecided) {
        return Err(LeaseRefusal::Fenced { epoch, fenced_through: cluster.fenced_through });
    }
    if appointment.instance != heartbeat.instance || appointment.boot != heartbeat.boot {
        let (bound, presented) = (appointment.instance, heartbeat.instance);
        return Err(LeaseRefusal::OtherInstance { epoch, bound, presented });
    }
    let ttl_ms = cluster.config.policy.lease.ttl_ms;
    Ok(Grant { epoch, instance: appointment.instance, stamp_ns: heartbeat.stamp_ns, ttl_ms })
}
