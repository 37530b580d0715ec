//! The nouns that coordinators and agents share: ids, [`Epoch`], [`Lsn`], [`Timeline`], heartbeats and their
//! [`Report`], [`Directive`]s and their [`Outcome`]s.
//!
//! This crate decides nothing and does no I/O. Term (Raft), epoch (Regent) and timeline (PostgreSQL) are three
//! types with no conversion between them.

mod directive;
mod group;
mod heartbeat;
mod ids;
pub mod mutant;
mod numbers;
mod outcome;
mod parameters;
mod policy;
mod promise;
mod report;
mod salvage;
mod synchronous;

pub use directive::{AdoptedHistory, Branch, Directive, EffectKey, Upstream};
pub use group::GroupId;
pub use heartbeat::{
    Acknowledgement, ClusterView, Grant, Heartbeat, LeaseDecision, LeaseRefusal, PrimaryView,
};
pub use ids::{
    BootId, ClusterName, CoordinatorId, IdError, InstanceId, MemberName, OperationId, Region, RequestId,
};
pub use numbers::{Epoch, Lsn, LsnError, SystemId, Timeline};
pub use outcome::{
    CandidateReport, CheckpointedEvidence, Evidence, FencedEvidence, Outcome, PromotedEvidence, RejoinMethod,
    RejoinedEvidence,
};
pub use parameters::{ParameterFacts, ParametersView, STANDBY_NEEDS};
pub use policy::{Automation, LeaseTerms};
pub use promise::{GivenPromise, PromiseFacts, PromiseView, PromisedLease, PromotableMember};
pub use report::{
    BlockedWrites, DataFacts, DataForm, DiskFacts, DiskProbe, GuardFacts, JobProgress, PostgresFacts,
    PostgresState, Report, StandbyFacts, WalFacts, WalRetention,
};
pub use salvage::{SalvageCompleteness, SalvageSummary, SalvagedRelation};
pub use synchronous::{SyncSet, SynchronousFacts, SynchronousView};
