//! The state of a search: coordinators around the real replicated state and the real lease table, members with their
//! guards, and the messages between them.
//!
//! Raft is abstracted to what the core relies on: one committed log, an entry that may be appended and not yet
//! committed, per-node applied prefixes, and leaderships of which only the newest finds a quorum. A deposed leader goes
//! on believing in itself until it is elected again, and applies what others commit.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use regent_core::{Cluster, Leadership, LeaseTable, Position, Proposal, State};
use regent_types::{CoordinatorId, EffectKey, InstanceId};

use crate::{
    rules::Protocol,
    seed::{self, Fencing},
};

/// Leads when a search begins.
pub const FIRST_LEADERSHIP: Leadership = Leadership { term: 1, node: CoordinatorId(0) };

/// The replicated state after one entry, hashed by its encoded bytes, and what the shells read in it.
#[derive(Debug)]
pub struct Replica {
    pub state: State,
    digest: u64,
    /// The appointed member and its epoch.
    pub appointed: (usize, u64),
    /// `FenceDecided` holds for the current epoch.
    pub is_fenced: bool,
    pub fencing: Option<Fencing>,
}

impl Replica {
    pub fn new(state: State) -> Self {
        let mut hasher = DefaultHasher::new();
        state.encode().hash(&mut hasher);
        let cluster = &state.clusters[&seed::cluster()];
        let appointment = cluster.appointment.as_ref().expect("the seed has an appointment");
        let appointed = (seed::index(&appointment.member), appointment.epoch.0);
        let is_fenced = cluster.fenced_through >= cluster.epoch;
        let fencing = seed::fencing(cluster);
        Self { digest: hasher.finish(), appointed, is_fenced, fencing, state }
    }

    pub fn cluster(&self) -> &Cluster {
        &self.state.clusters[&seed::cluster()]
    }

    /// What comes of `proposal`, if it is accepted. The same entry comes up in many interleavings, so it is remembered.
    pub fn after(&self, leadership: Leadership, proposal: &Proposal) -> Option<Arc<Replica>> {
        let key = (self.digest, leadership, proposal.encode());
        if let Some(known) = REPLICAS.with_borrow(|replicas| replicas.get(&key).cloned()) {
            return known;
        }
        let mut state = self.state.clone();
        let at = Position { index: state.applied_index + 1, leadership };
        let after = state.apply(at, proposal).ok().map(|_| {
            seed::forget(&mut state);
            Arc::new(Replica::new(state))
        });
        REPLICAS.with_borrow_mut(|replicas| replicas.insert(key, after.clone()));
        after
    }
}

type Applied = BTreeMap<(u64, Leadership, Vec<u8>), Option<Arc<Replica>>>;

thread_local! {
    static REPLICAS: RefCell<Applied> = const { RefCell::new(BTreeMap::new()) };
}

impl PartialEq for Replica {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.state == other.state
    }
}

impl Hash for Replica {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.digest.hash(hasher);
    }
}

/// A leader's lease table; it has no equality of its own, so it is compared by all that its `Debug` form shows.
#[derive(Debug, Clone)]
pub struct Table {
    pub leases: LeaseTable,
    shown: Arc<str>,
}

impl Table {
    pub fn new(leases: LeaseTable) -> Self {
        let shown = format!("{leases:?}").into();
        Self { leases, shown }
    }
}

impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        self.shown == other.shown
    }
}

impl Hash for Table {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.shown.hash(hasher);
    }
}

/// A read-index round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Round {
    pub leadership: Leadership,
    pub read_index: u64,
}

/// A heartbeat that has arrived at a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Beat {
    pub stamp_ns: u64,
    pub restarts: u8,
    /// The round that was finished after it had arrived.
    pub round: Option<Round>,
}

/// An acknowledgement under way that grants a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grant {
    pub epoch: u64,
    pub restarts: u8,
    pub deadline_ns: u64,
}

/// One coordinator.
#[derive(Debug, Clone, PartialEq, Hash)]
pub struct Node {
    /// Entries that it has applied.
    pub applied: usize,
    pub table: Table,
    /// Per member: the heartbeat that waits for an answer.
    pub beats: Vec<Option<Beat>>,
    /// Per member: the acknowledgement on its way from here.
    pub grants: Vec<Option<Grant>>,
    /// Without [`crate::rules::Rule::RoundAfterHeartbeat`]: the last round, used again.
    pub round: Option<Round>,
    /// Without [`crate::rules::Rule::FenceBeforeProof`]: the leadership whose bound had passed, and for which epoch.
    pub early: Option<(Leadership, u64)>,
}

/// One member: its guard, and its PostgreSQL as far as it can write.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Member {
    /// Restarts of the guard: each is another instance.
    pub restarts: u8,
    /// Highest epoch that it has seen, fsynced.
    pub highest: u64,
    /// This epoch and all below are refused for ever, fsynced.
    pub fenced_through: u64,
    /// Epoch and deadline on its clock.
    pub lease: Option<(u64, u64)>,
    /// The epoch at which its PostgreSQL was started or promoted last; 0 for a standby.
    pub primary_of: u64,
    /// Without [`crate::rules::Rule::LeaseGatedPromotion`]: writes without any lease.
    pub ungated: bool,
    /// An external driver has killed this very instance; only a restart, as another one, brings the member back.
    pub off: bool,
    /// A promise not to be promoted above this epoch, and until when on its clock; fsynced.
    pub promised: Option<(u64, u64)>,
    /// No promise for this epoch or any below, fsynced.
    pub promises_closed: u64,
    /// The last run of a driver: the `Fence` effect it was started for, and that effect's instance (its restarts).
    pub driven: Option<Driven>,
}

/// A primary's round of requests for promises.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Asked {
    pub member: usize,
    pub restarts: u8,
    pub epoch: u64,
    pub sent_ns: u64,
    /// Who has promised so far.
    pub promised: Vec<bool>,
}

/// A finished run of an external driver.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Driven {
    pub key: EffectKey,
    pub instance: InstanceId,
}

/// The whole.
#[derive(Debug, Clone, PartialEq, Hash)]
pub struct World {
    pub tick: u64,
    /// The seed, and the state after each committed entry.
    pub log: Vec<Arc<Replica>>,
    /// The state after an entry that the leader has appended and no quorum has yet.
    pub tail: Option<Arc<Replica>>,
    /// The newest leadership: the only one that finds a quorum.
    pub leading: Leadership,
    pub nodes: Vec<Node>,
    pub members: Vec<Member>,
    /// The last round of requests for promises: its answers may be as late as they like.
    pub asked: Option<Asked>,
}

impl World {
    pub fn new(protocol: &Protocol) -> Self {
        let Protocol { bounds, clocks, .. } = protocol;
        let node = |index: usize| {
            let mut leases = LeaseTable::new();
            if index == 0 {
                leases.begin(FIRST_LEADERSHIP, 0);
            }
            Node {
                applied: 0,
                table: Table::new(leases),
                beats: vec![None; bounds.members],
                grants: vec![None; bounds.members],
                round: None,
                early: None,
            }
        };
        let member = |index: usize| Member {
            restarts: 0,
            highest: 1,
            fenced_through: 0,
            // Granted by a leadership before the first one, for a heartbeat sent just before its election.
            lease: (index == 0).then_some((1, clocks.ttl_ms * 1_000_000)),
            primary_of: u64::from(index == 0),
            ungated: false,
            off: false,
            driven: None,
            promised: None,
            promises_closed: 0,
        };
        World {
            tick: 0,
            log: vec![Arc::new(Replica::new(seed::state(bounds.members, protocol.terms())))],
            tail: None,
            leading: FIRST_LEADERSHIP,
            nodes: (0..bounds.nodes).map(node).collect(),
            members: (0..bounds.members).map(member).collect(),
            asked: None,
        }
    }

    pub fn committed(&self) -> &Arc<Replica> {
        self.log.last().expect("the seed is there")
    }

    pub fn applied(&self, node: usize) -> &Replica {
        &self.log[self.nodes[node].applied]
    }

    /// Entries that some executor has seen: their directives may have been sent, and may still arrive.
    pub fn seen(&self) -> impl Iterator<Item = &Arc<Replica>> {
        let applied = self.nodes.iter().map(|node| node.applied).max().unwrap_or_default();
        self.log[..=applied].iter()
    }

    pub fn node_now_ns(&self, protocol: &Protocol) -> u64 {
        self.tick * protocol.clocks.node_tick_ms * 1_000_000
    }

    pub fn member_now_ns(&self, protocol: &Protocol) -> u64 {
        self.tick * protocol.clocks.member_tick_ms * 1_000_000
    }

    /// The worst that the member may do: its processes live for the whole kill time after the deadline.
    pub fn is_writable(&self, protocol: &Protocol, member: usize) -> bool {
        let guard = &self.members[member];
        let leased = guard.lease.is_some_and(|(epoch, deadline_ns)| {
            let dead_ns = deadline_ns + protocol.clocks.kill_ms * 1_000_000;
            epoch == guard.primary_of && self.member_now_ns(protocol) <= dead_ns
        });
        leased || guard.ungated
    }
}
