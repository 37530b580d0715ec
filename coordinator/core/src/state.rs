//! The replicated state. Only [`State::apply`] changes it.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

use regent_types::{
    Automation, BootId, ClusterName, ClusterView, Epoch, InstanceId, Lsn, MemberName, OperationId,
    PrimaryView, RequestId, SystemId, Timeline,
};
use serde::{Deserialize, Serialize};

use crate::{
    Adoption, ClusterConfig, Cooldown, Effect, Event, FEATURE_LEVEL_FIRST, Forgotten, Group, Import,
    LeaseInFlight, Membership, Observation, Operation, Parameters, Pending, PendingFailback, PromotableList,
    Rehearsal, Scheduled, Synchronous,
};

/// Newest events kept for `watch`.
pub(crate) const EVENTS_KEPT: usize = 2_000;
/// Finished operations kept per cluster.
pub(crate) const OPERATIONS_KEPT: usize = 100;
/// Request ids remembered per cluster.
pub(crate) const REQUESTS_KEPT: usize = 1_000;

/// Everything that is replicated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// By name.
    pub clusters: BTreeMap<ClusterName, Cluster>,
    /// The newest events, oldest first.
    pub events: VecDeque<Event>,
    /// Sequence number of the next event, from 1.
    pub next_event: u64,
    /// Index of the last applied entry.
    pub applied_index: u64,
    /// The event hook was told every event up to this one.
    #[serde(default)]
    pub events_told: u64,
    /// The coordinators themselves.
    #[serde(default)]
    pub group: Group,
    /// Clusters that were taken out of the group.
    #[serde(default)]
    pub forgotten: BTreeMap<ClusterName, Forgotten>,
    /// As raised; 0 in a group that never was. Read it with [`State::level`].
    #[serde(default)]
    pub feature_level: u8,
}

impl State {
    /// The group's feature level: everyone in it understands proposals up to here.
    pub fn level(&self) -> u8 {
        self.feature_level.max(FEATURE_LEVEL_FIRST)
    }
}

/// A verified promotion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Established {
    /// The timeline that it writes.
    pub timeline: Timeline,
    /// Where that timeline left the one before.
    pub switch_lsn: Lsn,
    /// The cluster's system identifier.
    pub system_id: SystemId,
}

/// An appointment: epoch, member and the instance that the epoch is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appointment {
    /// The epoch.
    pub epoch: Epoch,
    /// The primary.
    pub member: MemberName,
    /// The only instance that may hold the lease.
    pub instance: InstanceId,
    /// Its boot.
    pub boot: BootId,
    /// Set when the promotion was verified.
    pub established: Option<Established>,
    /// The newest list of promotable members that this primary asks for promises.
    #[serde(default)]
    pub promotable_acknowledged: u64,
}

/// One epoch that was established: the cluster's history, for ancestry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The epoch.
    pub epoch: Epoch,
    /// Its primary.
    pub member: MemberName,
    /// Its timeline and where it began.
    pub established: Established,
}

/// Whether a member is a confirmed standby.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncState {
    /// In sync with the history of this epoch.
    Confirmed {
        /// The epoch.
        epoch: Epoch,
    },
    /// Not promotable.
    Unconfirmed {
        /// Why.
        why: String,
    },
}

/// The record that a DNS provider publishes, with its epoch beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsRecord {
    /// The epoch that made it: a lower one never overwrites it.
    pub epoch: Epoch,
    /// The primary.
    pub member: MemberName,
    /// Where clients go.
    pub address: IpAddr,
    /// TTL, seconds.
    pub ttl_s: u32,
}

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// A confirmed standby does not stream: it falls behind, and what it lacks would be lost.
    NotStreaming,
    /// The primary's disk will be full soon at the present rate.
    DiskFilling,
    /// Fewer standbys are waited for, or there to be waited for, than the policy asks for.
    SynchronousShort,
    /// The primary refuses writes by a limit of its own.
    WritesBlocked,
}

impl AlertKind {
    /// Its name in metrics and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotStreaming => "not_streaming",
            Self::DiskFilling => "disk_filling",
            Self::SynchronousShort => "synchronous_short",
            Self::WritesBlocked => "writes_blocked",
        }
    }
}

/// One alert, from its rise to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Whom it is about.
    pub member: MemberName,
    /// What.
    pub kind: AlertKind,
    /// As it was when it rose.
    pub text: String,
    /// Since when, wall ms (display only).
    pub since_wall_ms: u64,
}

/// One cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// As configured.
    pub config: ClusterConfig,
    /// How much happens by itself.
    pub automation: Automation,
    /// Who paused it and why.
    pub paused_by: Option<String>,
    /// The current epoch: raised only by `authority`.
    pub epoch: Epoch,
    /// The current appointment.
    pub appointment: Option<Appointment>,
    /// FenceDecided holds for every epoch up to this one.
    pub fenced_through: Epoch,
    /// Established epochs, oldest first.
    pub history: Vec<EpochRecord>,
    /// By member.
    pub sync: BTreeMap<MemberName, SyncState>,
    /// The embedded zone's record.
    pub record: Option<DnsRecord>,
    /// The running operation.
    pub operation: Option<Operation>,
    /// Ended operations, oldest first.
    pub finished: VecDeque<Operation>,
    /// Number of the next operation, from 1.
    pub next_operation: u64,
    /// Request ids answered before, oldest first, with their operation (if they started one).
    pub requests: VecDeque<(RequestId, Option<OperationId>)>,
    /// The member list's history.
    #[serde(default)]
    pub membership: Membership,
    /// Leases of earlier terms that may be valid still.
    #[serde(default)]
    pub lease_in_flight: Option<LeaseInFlight>,
    /// Running servers that are being taken over.
    #[serde(default)]
    pub adoption: Option<Adoption>,
    /// What *resume* leads back to.
    #[serde(default = "resumed_default")]
    pub resumed: Automation,
    /// The automatic failover after which the next one waits.
    #[serde(default)]
    pub cooldown: Option<Cooldown>,
    /// A failover that waits for an operator; nothing is fenced for it.
    #[serde(default)]
    pub pending: Option<Pending>,
    /// What needs an operator's eye now.
    #[serde(default)]
    pub alerts: Vec<Alert>,
    /// A switchover that starts at a wall time.
    #[serde(default)]
    pub scheduled: Option<Scheduled>,
    /// A failback that waits for an operator's word.
    #[serde(default)]
    pub pending_failback: Option<PendingFailback>,
    /// Who may be promoted, with versions.
    #[serde(default)]
    pub promotable: PromotableList,
    /// PostgreSQL's parameters as operators have set them.
    #[serde(default)]
    pub parameters: Parameters,
    /// A full drill between detection and its end.
    #[serde(default)]
    pub rehearsal: Option<Rehearsal>,
    /// What is seen of it while another tool leads it.
    #[serde(default)]
    pub observed: Option<Observation>,
    /// How it came from another group, if it did.
    #[serde(default)]
    pub import: Option<Box<Import>>,
    /// By which rules commits may have been acknowledged.
    #[serde(default)]
    pub synchronous: Synchronous,
}

fn resumed_default() -> Automation {
    Automation::Automatic
}

impl Cluster {
    /// The appointment that may hold a lease now: current and not fenced.
    pub fn leasable(&self) -> Option<&Appointment> {
        self.appointment.as_ref().filter(|a| a.epoch == self.epoch && a.epoch > self.fenced_through)
    }

    /// The established primary of the current epoch, if any.
    pub fn established(&self) -> Option<(&Appointment, Established)> {
        self.appointment.as_ref().and_then(|a| a.established.map(|e| (a, e)))
    }

    /// Effects waiting for an outcome.
    pub fn effects(&self) -> &[Effect] {
        self.operation.as_ref().map_or(&[], |operation| &operation.effects)
    }

    /// What members may know. While the cluster comes from another group, and has no primary here, nothing is closed: the other
    /// group's primary writes on by the promises that its standbys give it.
    pub fn view(&self) -> ClusterView {
        let arriving = self.arriving().is_some();
        ClusterView {
            epoch: self.epoch,
            fenced_through: if arriving { Epoch::NONE } else { self.fenced_through },
            primary: self.appointment.as_ref().and_then(|appointment| {
                let member = self.config.members.get(&appointment.member)?;
                Some(PrimaryView {
                    member: appointment.member.clone(),
                    region: member.region.clone(),
                    epoch: appointment.epoch,
                    host: member.host.clone(),
                    port: member.port,
                    established: appointment.established.is_some(),
                })
            }),
            members: self.config.members.keys().cloned().collect(),
            members_version: self.membership.version,
            heartbeat_interval_ms: Some(self.config.policy.heartbeat_interval_ms),
            // The list that the other group's primary has stays in force for its epoch.
            promises: (!arriving).then(|| self.promise_view()),
            supersedes: self.import.iter().flat_map(|import| import.supersedes.iter().copied()).collect(),
            parameters: self.parameters.view(),
            synchronous: self.synchronous_view(),
        }
    }

    /// The import, as long as the cluster has no primary of this group.
    pub fn arriving(&self) -> Option<&Import> {
        self.import.as_deref().filter(|_| self.appointment.is_none())
    }

    /// How long any lease of the current epoch may be valid on the leader's clock, ns: by the present terms, or by earlier
    /// ones whose leases are out still.
    pub fn lease_bound_ns(&self) -> u64 {
        let earlier = self.lease_in_flight.map_or(0, |flight| flight.terms.bound_ns());
        self.config.policy.lease.bound_ns().max(earlier)
    }

    /// A running or ended operation.
    pub fn operation(&self, id: OperationId) -> Option<&Operation> {
        let parked = self.rehearsal.iter().map(|rehearsal| &*rehearsal.drill);
        let would = self.observed.iter().filter_map(|seen| seen.would.as_deref());
        self.operation
            .iter()
            .chain(parked)
            .chain(would)
            .chain(&self.finished)
            .find(|operation| operation.id == id)
    }
}
