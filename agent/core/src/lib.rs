//! What an agent decides: a directive and local facts in, the next step out.
//!
//! Pure: no clock, no randomness, no I/O, no async. The agent process gathers [`Facts`], asks [`plan`] for the next
//! step, performs it, and asks again. Because a plan is made from facts and never from memory of what was done, a
//! restarted agent resumes a directive by planning it anew.
//!
//! Invariants:
//! - a step that could make PostgreSQL writable is only returned while the guard holds a live lease for exactly the
//!   directive's epoch;
//! - nothing starts on a divergent data directory before its salvage is recorded;
//! - a lease is extended only on an acknowledgement of a heartbeat that this session sent.

mod epoch;
pub mod exposure;
mod facts;
mod lineage;
mod obey;
mod outcomes;
pub mod outlook;
pub mod parameters;
mod plan;
pub mod promise;
mod session;
mod steady;
pub mod wal;

pub use epoch::{StaleEpoch, check_epoch};
pub use facts::{
    AgentView, DataView, Facts, GuardPromise, GuardView, Mark, NameSeen, Promoting, Rejoining, Server,
    UpstreamWal, WalEnd, Work, Worked,
};
pub use lineage::{Divergence, divergence};
pub use obey::{Obey, obey};
pub use outcomes::{Admission, OutcomeCache};
pub use plan::{Limits, Next, Step, Wait, plan};
pub use session::{AckAction, Ending, Identity, Session, SessionTimes};
pub use steady::{Steady, steady};
