//! Rejections: the state refuses a proposal. Data, shown to operators, with both sides' values.

use regent_types::{ClusterName, CoordinatorId, EffectKey, Epoch, MemberName, OperationId};
use serde::{Deserialize, Serialize};

use crate::{ConfigError, Standing, Step};

/// Why a proposal changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    /// No such cluster.
    #[error("there is no cluster {cluster}")]
    UnknownCluster {
        /// As named.
        cluster: ClusterName,
    },
    /// No such member.
    #[error("cluster {cluster} has no member {member}")]
    UnknownMember {
        /// The cluster.
        cluster: ClusterName,
        /// As named.
        member: MemberName,
    },
    /// The epoch has moved on.
    #[error(
        "epoch {expected} was expected, the current one is {current}: look at the status and decide again"
    )]
    StaleEpoch {
        /// As named by the caller.
        expected: Epoch,
        /// In the state.
        current: Epoch,
    },
    /// Another operation runs.
    #[error("operation {operation} is running (step {step:?}); wait for its end")]
    OperationRunning {
        /// Which.
        operation: OperationId,
        /// Where it is.
        step: Step,
    },
    /// Nothing of that kind runs.
    #[error("no operation is waiting for that")]
    NotWaiting,
    /// Automation is paused.
    #[error("automation is paused ({by}); resume it, or fail over by hand")]
    Paused {
        /// By whom and why.
        by: String,
    },
    /// Automation is already so.
    #[error("automation is already {automation}")]
    AlreadyThere {
        /// `paused` or `automatic`.
        automation: String,
    },
    /// It is declared already and waits for an operator.
    #[error("{what} waits for an operator: {why}")]
    Pending {
        /// E.g. `failover of eu-north-1`.
        what: String,
        /// What is waited for.
        why: String,
    },
    /// Nothing waits for an approval.
    #[error("nothing of cluster {cluster} waits for an approval (automation is {automation})")]
    NothingPending {
        /// The cluster.
        cluster: ClusterName,
        /// Its mode.
        automation: String,
    },
    /// Nothing is to be acknowledged.
    #[error("cluster {cluster} has no automatic failover that waits to be acknowledged")]
    NothingToAcknowledge {
        /// The cluster.
        cluster: ClusterName,
    },
    /// The mode forbids it.
    #[error("automation is {automation}: {problem}")]
    WrongMode {
        /// The mode.
        automation: String,
        /// What cannot be done in it.
        problem: String,
    },
    /// Nobody could take over: the primary is left alone.
    #[error("no member could take over: {reasons}")]
    NoCandidate {
        /// Per member.
        reasons: String,
    },
    /// The named member is the primary already.
    #[error("{member} is the primary already (epoch {epoch})")]
    AlreadyPrimary {
        /// The member.
        member: MemberName,
        /// Its epoch.
        epoch: Epoch,
    },
    /// The member is not the primary.
    #[error("{member} is not the primary of epoch {epoch}")]
    NotPrimary {
        /// As named.
        member: MemberName,
        /// The current epoch.
        epoch: Epoch,
    },
    /// No primary was ever appointed, or none is established.
    #[error("the cluster has no established primary")]
    NoPrimary,
    /// The cluster has a primary already.
    #[error("the cluster was bootstrapped already (epoch {epoch})")]
    AlreadyBootstrapped {
        /// The current epoch.
        epoch: Epoch,
    },
    /// A new cluster starts from empty directories.
    #[error("the data directory of {member} is not empty: a new cluster starts from empty data directories")]
    NotEmpty {
        /// The initial primary.
        member: MemberName,
    },
    /// There is no data to take over.
    #[error("the data directory of {member} is empty: there is nothing to adopt")]
    NothingToAdopt {
        /// The primary to be adopted.
        member: MemberName,
    },
    /// The effect was retired before, or never existed.
    #[error("effect {}.{} of {} (epoch {}) is not waiting for an outcome", key.operation, key.step, key.cluster, key.epoch)]
    StaleEffect {
        /// As named.
        key: EffectKey,
    },
    /// The proof does not prove it.
    #[error("the fence proof is not accepted: {reason}")]
    BadProof {
        /// Why, with both sides' values.
        reason: String,
    },
    /// The outcome does not fit the effect.
    #[error("the outcome does not fit: {reason}")]
    BadOutcome {
        /// Why.
        reason: String,
    },
    /// The member is in sync already, or is the primary.
    #[error("{member} needs no rejoin: {reason}")]
    NoRejoin {
        /// The member.
        member: MemberName,
        /// Why.
        reason: String,
    },
    /// Another operation runs, and the table of precedence says why it goes first.
    #[error("operation {operation} is running (step {step:?}): {why}")]
    Precedence {
        /// Which.
        operation: OperationId,
        /// Where it is.
        step: Step,
        /// The table's reason.
        why: String,
    },
    /// Guards of a planned change of primary say no.
    #[error("refused by {}", guards.join("; "))]
    GuardsSayNo {
        /// `guard NAME (member): reason with both values`, one each.
        guards: Vec<String>,
    },
    /// The scheduled time cannot be used.
    #[error("at: {problem}")]
    BadTime {
        /// Why, with the values.
        problem: String,
    },
    /// The configuration is not acceptable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The policy has changed since the caller read it.
    #[error("the policy has changed meanwhile ({what}): look at it and decide again")]
    PolicyMoved {
        /// What is different now.
        what: String,
    },
    /// Nothing would change.
    #[error("nothing would change: {what}")]
    Unchanged {
        /// Why.
        what: String,
    },
    /// A guard would refuse such a lease, and its primary would be fenced.
    #[error(
        "lease_ttl: {wanted_ms} ms is wanted, but the guard of {member} takes leases of {limit_ms} ms at most: raise its \
         lease_ttl_max first"
    )]
    GuardLimit {
        /// Whose guard.
        member: MemberName,
        /// Its limit, ms.
        limit_ms: u64,
        /// What was wanted, ms.
        wanted_ms: u64,
    },
    /// It is a member already.
    #[error("{member} is a member of {cluster} already")]
    AlreadyMember {
        /// The cluster.
        cluster: ClusterName,
        /// As named.
        member: MemberName,
    },
    /// Two cannot listen at one address.
    #[error("{address} is the address of {by} already")]
    AddressTaken {
        /// The address.
        address: String,
        /// Whose it is.
        by: String,
    },
    /// The primary is never removed.
    #[error("{member} is the primary (epoch {epoch}): move the primary away first")]
    IsPrimary {
        /// The member.
        member: MemberName,
        /// The current epoch.
        epoch: Epoch,
    },
    /// Without another standby there would never be a failover.
    #[error("{member} is the last promotable member beside the primary {primary}: add another one first")]
    LastPromotable {
        /// The member.
        member: MemberName,
        /// The primary.
        primary: MemberName,
    },
    /// The cluster's primary may be writing.
    #[error(
        "the primary {primary} of {cluster} was heard {silent_ms} ms ago, its lease may be valid for {needed_ms} ms after \
         that: stop it first, or consent to its loss"
    )]
    LivePrimary {
        /// The cluster.
        cluster: ClusterName,
        /// Its primary.
        primary: MemberName,
        /// For how long nobody has heard it, ms.
        silent_ms: u64,
        /// How long its lease may be valid, ms.
        needed_ms: u64,
    },
    /// Silence is no proof while the other members can promise.
    #[error(
        "the primary {primary} of {cluster} is silent, and may run on by the promises of the other members: fail over or stop it \
         first, or consent to its loss"
    )]
    MayRunOnPromises {
        /// The cluster.
        cluster: ClusterName,
        /// Its primary.
        primary: MemberName,
    },
    /// A lease of the forgotten cluster may be valid.
    #[error(
        "{cluster} was forgotten at epoch {epoch}, and a lease of it may be valid: try again when a leader has led for \
         {bound_ms} ms since"
    )]
    StillLeased {
        /// The cluster.
        cluster: ClusterName,
        /// Its last epoch.
        epoch: Epoch,
        /// The bound of its leases, ms.
        bound_ms: u64,
    },
    /// The group's records are not there yet.
    #[error("the coordinators are not recorded yet: try again when a leader has been elected")]
    GroupUnknown,
    /// The group has changed since the caller looked.
    #[error(
        "group version {expected} was expected, the current one is {current}: look at the list and decide again"
    )]
    StaleGroup {
        /// As named by the caller.
        expected: u64,
        /// In the state.
        current: u64,
    },
    /// Another change of the group is not done.
    #[error("coordinator {id} is {standing:?}: one change at a time, wait for it or remove it")]
    GroupChanging {
        /// Which.
        id: CoordinatorId,
        /// Where it stands.
        standing: Standing,
    },
    /// The id was used before, or the change was asked for before.
    #[error("coordinator {id} is known as {standing:?}: an id is never used twice")]
    CoordinatorKnown {
        /// Which.
        id: CoordinatorId,
        /// Where it stands.
        standing: Standing,
    },
    /// No such coordinator.
    #[error("there is no coordinator {id}")]
    UnknownCoordinator {
        /// As named.
        id: CoordinatorId,
    },
    /// Too few or too many votes.
    #[error(
        "{count} coordinators would vote, {min} to {max} may: fewer survive no loss, more only wait for each other"
    )]
    Voters {
        /// How many there would be.
        count: usize,
        /// At least.
        min: usize,
        /// At most.
        max: usize,
    },
    /// One region's loss would stop every failover.
    #[error(
        "region {region} would hold {held} of {count} votes: without it no majority is left, so its loss would stop every \
         failover; choose another region, or consent to it"
    )]
    RegionMajority {
        /// The region.
        region: regent_types::Region,
        /// Its votes.
        held: usize,
        /// All votes.
        count: usize,
    },
    /// Not everyone in the group understands it yet.
    #[error(
        "it needs feature level {needs}, the group is at level {group}: upgrade every coordinator first (`regentctl status` shows each one's level)"
    )]
    Level {
        /// What the proposal needs.
        needs: u8,
        /// The group's level.
        group: u8,
    },
    /// The level only rises.
    #[error("feature level {level} is reached: the group is at level {group}")]
    LevelReached {
        /// As proposed.
        level: u8,
        /// The group's level.
        group: u8,
    },
    /// Replay on a standby would stop.
    #[error(
        "a restart of the primary {primary} now would stop the replay of {behind}, which runs with less than the files say: restart it first"
    )]
    StandbysBehind {
        /// The primary.
        primary: MemberName,
        /// Which standbys, each with the parameters.
        behind: String,
    },
    /// A cluster cannot be taken over from another group.
    #[error("import: {0}")]
    Import(#[from] crate::ImportError),
    /// The synchronous rule does not fit the policy, or what is known.
    #[error("the synchronous rule is not accepted: {problem}")]
    SynchronousRule {
        /// Why, with both sides' values.
        problem: String,
    },
}
