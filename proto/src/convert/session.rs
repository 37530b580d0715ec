//! `AgentMessage` and `CoordinatorMessage`.
//!
//! Ends of neighbouring minor versions talk to each other: a kind of message that is not known is passed over, and a
//! directive that cannot be read is refused under its key. Everything else that cannot be read is an error.

use super::{ConvertError, Converted, optional, parsed, part, required};
use crate::{
    session::{FromAgent, FromCoordinator, Hello},
    v1::{self, agent_message, coordinator_message},
};

impl From<Hello> for v1::Hello {
    fn from(hello: Hello) -> Self {
        Self {
            protocol_version: hello.protocol_version,
            cluster: hello.cluster.into(),
            member: hello.member.into(),
            instance: hello.instance.into(),
            agent_version: hello.agent_version,
        }
    }
}

impl TryFrom<v1::Hello> for Hello {
    type Error = ConvertError;
    fn try_from(hello: v1::Hello) -> Converted<Self> {
        Ok(Self {
            protocol_version: hello.protocol_version,
            cluster: parsed(&hello.cluster, "cluster")?,
            member: parsed(&hello.member, "member")?,
            instance: parsed(&hello.instance, "instance")?,
            agent_version: hello.agent_version,
        })
    }
}

impl From<FromAgent> for v1::AgentMessage {
    fn from(message: FromAgent) -> Self {
        use agent_message::Message;
        let message = match message {
            FromAgent::Hello(hello) => Message::Hello(hello.into()),
            FromAgent::Heartbeat(heartbeat) => Message::Heartbeat((*heartbeat).into()),
            FromAgent::Outcome { key, outcome } => Message::Outcome(v1::DirectiveOutcome {
                key: Some(key.into()),
                outcome: Some((*outcome).into()),
            }),
            FromAgent::Newer => return Self { message: None },
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<v1::AgentMessage> for FromAgent {
    type Error = ConvertError;
    fn try_from(message: v1::AgentMessage) -> Converted<Self> {
        use agent_message::Message;
        let Some(message) = message.message else { return Ok(Self::Newer) };
        Ok(match message {
            Message::Hello(hello) => Self::Hello(part(hello, "hello")?),
            Message::Heartbeat(heartbeat) => Self::Heartbeat(Box::new(part(heartbeat, "heartbeat")?)),
            Message::Outcome(outcome) => Self::Outcome {
                key: required(outcome.key, "outcome.key")?,
                outcome: Box::new(required(outcome.outcome, "outcome.outcome")?),
            },
        })
    }
}

impl From<FromCoordinator> for v1::CoordinatorMessage {
    fn from(message: FromCoordinator) -> Self {
        use coordinator_message::Message;
        let message = match message {
            FromCoordinator::Acknowledgement(acknowledgement) => {
                Message::Acknowledgement((*acknowledgement).into())
            }
            FromCoordinator::Directive { key, directive, grant } => {
                Message::Directive(v1::DirectiveRequest {
                    key: Some(key.into()),
                    directive: Some((*directive).into()),
                    grant: grant.map(Into::into),
                })
            }
            FromCoordinator::Goodbye { reason } => Message::Goodbye(v1::Goodbye { reason }),
            FromCoordinator::Unreadable { key, .. } => Message::Directive(v1::DirectiveRequest {
                key: Some(key.into()),
                directive: None,
                grant: None,
            }),
            FromCoordinator::Newer => return Self { message: None },
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<v1::CoordinatorMessage> for FromCoordinator {
    type Error = ConvertError;
    fn try_from(message: v1::CoordinatorMessage) -> Converted<Self> {
        use coordinator_message::Message;
        let Some(message) = message.message else { return Ok(Self::Newer) };
        Ok(match message {
            Message::Acknowledgement(acknowledgement) => {
                Self::Acknowledgement(Box::new(part(acknowledgement, "acknowledgement")?))
            }
            Message::Directive(request) => directive(request)?,
            Message::Goodbye(goodbye) => Self::Goodbye { reason: goodbye.reason },
        })
    }
}

/// A directive under a key that can be read is always answered, whatever the rest says.
fn directive(request: v1::DirectiveRequest) -> Converted<FromCoordinator> {
    let key = required(request.key, "directive.key")?;
    let directive = required(request.directive, "directive.directive");
    let grant = optional(request.grant, "directive.grant");
    Ok(match (directive, grant) {
        (Ok(directive), Ok(grant)) => {
            FromCoordinator::Directive { key, directive: Box::new(directive), grant }
        }
        (Err(error), _) | (_, Err(error)) => FromCoordinator::Unreadable { key, reason: error.to_string() },
    })
}
