//! `AgentMessage` and `CoordinatorMessage`.

use super::{ConvertError, Converted, optional, parsed, part, present, required};
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
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<v1::AgentMessage> for FromAgent {
    type Error = ConvertError;
    fn try_from(message: v1::AgentMessage) -> Converted<Self> {
        use agent_message::Message;
        Ok(match present(message.message, "message")? {
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
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<v1::CoordinatorMessage> for FromCoordinator {
    type Error = ConvertError;
    fn try_from(message: v1::CoordinatorMessage) -> Converted<Self> {
        use coordinator_message::Message;
        Ok(match present(message.message, "message")? {
            Message::Acknowledgement(acknowledgement) => {
                Self::Acknowledgement(Box::new(part(acknowledgement, "acknowledgement")?))
            }
            Message::Directive(request) => Self::Directive {
                key: required(request.key, "directive.key")?,
                directive: Box::new(required(request.directive, "directive.directive")?),
                grant: optional(request.grant, "directive.grant")?,
            },
            Message::Goodbye(goodbye) => Self::Goodbye { reason: goodbye.reason },
        })
    }
}
