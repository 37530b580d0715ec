//! Rejections: the state refuses a proposal. Data, shown to operators, with both sides' values.

use regent_types::{ClusterName, EffectKey, Epoch, MemberName, OperationId};
use serde::{Deserialize, Serialize};

use crate::{ConfigError, Step};

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
    /// The configuration is not acceptable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The entry was written by another version.
    #[error("entry of an unknown version or a damaged entry: {reason}")]
    Undecodable {
        /// What the decoder said.
        reason: String,
    },
}
