//! Regent's decision core: `(state, proposal) -> (state, events, effects)`.
//!
//! Everything that decides lives here, and nothing else does: no I/O, no clock, no randomness, no async. Time and
//! proofs arrive inside proposals or as `now_ns` parameters. [`State::apply`] is what Raft replicates;
//! [`LeaseTable`] and [`Detector`] are a leader's memory, fed by the shell.
//!
//! ```text
//! heartbeat -> Detector -> Proposal -> raft log -> State::apply -> Event, Effect -> executor -> Outcome, proposed again
//! ```

mod apply;
mod authority;
mod candidate;
mod codec;
mod config;
mod cooldown;
mod detector;
mod drill;
mod effect;
mod event;
mod group;
mod import;
mod invariant;
mod lease_table;
mod level;
mod loss;
mod membership;
mod observation;
mod operation;
mod parameters;
mod pending;
mod position;
mod procedure;
mod promotable;
mod proof;
mod proposal;
mod rejection;
mod request;
mod state;
mod switch;
mod synchronous;

pub use apply::{Applied, Reply};
pub use candidate::{Verdict, VerdictReason};
pub use codec::{CodecError, decode_reply, encode_reply};
pub use config::{ClusterConfig, ConfigError, MemberConfig, Policy};
pub use cooldown::{Cooldown, Cooldowns};
pub use detector::{
    Condition, Detector, Expected, Explanation, Fitness, GAP_THRESHOLDS_MS, GapCounts, Gaps, HeardBy,
    Hearing, PositionAges, Shell,
};
pub use drill::{DrillFindings, DrillNews, DrillStage, Rehearsal};
pub use effect::{Effect, EffectKind};
pub use event::{Event, EventKind};
pub use group::{Coordinator, Group, GroupRecord, Standing};
pub use import::{Import, ImportError, ImportedMember};
pub use lease_table::{BoundPending, Confirmed, LeaseTable, NotLeading};
pub use level::{FEATURE_LEVEL, FEATURE_LEVEL_FIRST};
pub use loss::{LossReport, LossUpperBound};
pub use membership::{Adoption, Forgotten, LeaseInFlight, Membership, RemovedMember};
pub use observation::{Observation, Sighting};
pub use operation::{Kind, Operation, OperationResult, Step, StepRecord, Trigger};
pub use parameters::{MANAGED_PARAMETERS, Parameters};
pub use pending::{Pending, PendingWhy};
pub use position::{Leadership, Position};
pub use procedure::policy::differences;
pub use procedure::precedence;
pub use promotable::{NotAsked, PromotableList};
pub use proof::{Certainty, Confinement, ExternalEvidence, FenceProof, FenceRecord};
pub use proposal::{
    Body, Declare, Evidence as DeclareEvidence, LagEvidence, MemberChanges, OperatorRequest, Proposal,
    RequestKind,
};
pub use rejection::Rejection;
pub use request::{GroupNews, GroupRequest, GroupRequestKind};
pub use state::{
    Alert, AlertKind, Appointment, Cluster, DnsRecord, EpochRecord, Established, State, SyncState,
};
pub use switch::{FailbackMode, MemberFacts, PendingFailback, Readiness, Scheduled, Window};
pub use synchronous::{LoggedSet, Shortage, SyncMembers, Synchronous, SynchronousPolicy};
