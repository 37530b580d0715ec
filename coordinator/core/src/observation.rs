//! What is seen of a cluster that another tool leads (mode `observe`). The rules are in `procedure/observe.rs`.

use regent_types::MemberName;
use serde::{Deserialize, Serialize};

use crate::{Declare, Operation};

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Who was seen as primary last.
    pub primary: MemberName,
    /// Since when, wall ms (display only).
    pub since_wall_ms: u64,
    /// The failover that Regent would have begun, while its reason lasts; then it comes to the history.
    pub would: Option<Box<Operation>>,
    /// How many there were.
    pub count: u64,
}

/// What the leader has seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sighting {
    /// This member is primary.
    Primary {
        /// Who.
        member: MemberName,
        /// With numbers.
        found: String,
    },
    /// If Regent led the cluster, it would declare this.
    Would {
        /// The declaration.
        declare: Box<Declare>,
        /// Who would take over, as far as can be told.
        candidate: Option<MemberName>,
    },
    /// The primary that it was about is well again.
    Well {
        /// With numbers.
        found: String,
    },
}
