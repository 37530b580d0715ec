//! The messages of one agent session, checked: what both ends of `AgentService.Session` work with instead of the
//! generated messages.

use regent_types::{
    Acknowledgement, ClusterName, Directive, EffectKey, Grant, Heartbeat, InstanceId, MemberName, Outcome,
};

/// The version of the agent protocol spoken here.
pub const PROTOCOL_VERSION: u32 = 1;

/// Opens a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The agent's version of the protocol, see [`PROTOCOL_VERSION`].
    pub protocol_version: u32,
    /// The cluster.
    pub cluster: ClusterName,
    /// The member that the agent speaks for.
    pub member: MemberName,
    /// Its guard's instance id.
    pub instance: InstanceId,
    /// The agent's version, for people.
    pub agent_version: String,
}

/// From an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromAgent {
    /// The first message.
    Hello(Hello),
    /// One heartbeat.
    Heartbeat(Box<Heartbeat>),
    /// What came of a directive.
    Outcome {
        /// Which.
        key: EffectKey,
        /// What.
        outcome: Box<Outcome>,
    },
    /// A kind of message that a newer agent sends: passed over.
    Newer,
}

/// From a coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromCoordinator {
    /// The answer to one heartbeat.
    Acknowledgement(Box<Acknowledgement>),
    /// An instruction.
    Directive {
        /// Its idempotency key.
        key: EffectKey,
        /// What to do.
        directive: Box<Directive>,
        /// A lease for a promotion, counted from the candidate report's stamp.
        grant: Option<Grant>,
    },
    /// The coordinator ends the session.
    Goodbye {
        /// Why.
        reason: String,
    },
    /// A directive of a newer coordinator that cannot be read. It is answered with a refusal under its key: a session that
    /// ended over it would end again at each repetition, and take the lease with it.
    Unreadable {
        /// Its idempotency key.
        key: EffectKey,
        /// What cannot be read.
        reason: String,
    },
    /// A kind of message that a newer coordinator sends: passed over.
    Newer,
}
