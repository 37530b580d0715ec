//! Neighbouring versions understand each other: frames as earlier builds wrote them (`earlier/levelN`, one frame a line, in
//! hexadecimal, never changed after a release) are read, and what a newer build adds is passed over.

use prost::Message;
use regent_types::*;

use crate::{
    session::{FromAgent, FromCoordinator},
    v1,
};

const AGENT: &str = include_str!("earlier/level1/agent.hex");
const COORDINATOR: &str = include_str!("earlier/level1/coordinator.hex");
/// Field 1000, a number: nobody knows it.
const UNKNOWN_FIELD: [u8; 3] = [0xC0, 0x3E, 0x01];

fn frames(text: &str) -> Vec<Vec<u8>> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    text.lines().map(|line| line.as_bytes().chunks(2).map(byte).collect()).collect()
}

#[test]
fn frames_of_the_first_release_are_read() {
    let mut kinds = [0; 3];
    for frame in frames(AGENT) {
        match v1::AgentMessage::decode(frame.as_slice()).unwrap().try_into().unwrap() {
            FromAgent::Hello(hello) => {
                assert_eq!(hello.protocol_version, crate::PROTOCOL_VERSION);
                kinds[0] += 1;
            }
            FromAgent::Heartbeat(heartbeat) => {
                assert_eq!(heartbeat.cluster.as_str(), "gravl");
                kinds[1] += 1;
            }
            FromAgent::Outcome { .. } => kinds[2] += 1,
            FromAgent::Newer => panic!("{frame:02x?}"),
        }
    }
    assert!(kinds.iter().all(|count| *count > 0), "{kinds:?}");
    for frame in frames(COORDINATOR) {
        let message = FromCoordinator::try_from(v1::CoordinatorMessage::decode(frame.as_slice()).unwrap());
        let message = message.unwrap();
        assert!(
            !matches!(message, FromCoordinator::Unreadable { .. } | FromCoordinator::Newer),
            "{message:?}"
        );
    }
}

#[test]
fn fields_that_are_not_known_are_passed_over() {
    for frame in frames(AGENT) {
        let longer = [frame.as_slice(), &UNKNOWN_FIELD].concat();
        let read = |bytes: &[u8]| FromAgent::try_from(v1::AgentMessage::decode(bytes).unwrap()).unwrap();
        assert_eq!(read(&longer), read(&frame));
    }
    for frame in frames(COORDINATOR) {
        let longer = [frame.as_slice(), &UNKNOWN_FIELD].concat();
        let read =
            |bytes: &[u8]| FromCoordinator::try_from(v1::CoordinatorMessage::decode(bytes).unwrap()).unwrap();
        assert_eq!(read(&longer), read(&frame));
    }
}

#[test]
fn kinds_and_values_that_are_not_known_cost_no_session() {
    assert_eq!(FromAgent::try_from(v1::AgentMessage { message: None }), Ok(FromAgent::Newer));
    assert_eq!(
        FromCoordinator::try_from(v1::CoordinatorMessage { message: None }),
        Ok(FromCoordinator::Newer)
    );
    let key = EffectKey {
        cluster: ClusterName::new("gravl").unwrap(),
        operation: OperationId(1),
        step: 1,
        epoch: Epoch(1),
    };
    let request = v1::DirectiveRequest {
        key: Some(key.clone().into()),
        directive: Some(v1::Directive::default()),
        grant: None,
    };
    let message =
        v1::CoordinatorMessage { message: Some(v1::coordinator_message::Message::Directive(request)) };
    let reason = "directive.directive.directive: is missing".to_owned();
    assert_eq!(FromCoordinator::try_from(message), Ok(FromCoordinator::Unreadable { key, reason }));
    let frame = frames(AGENT).into_iter().find_map(|frame| {
        match v1::AgentMessage::decode(frame.as_slice()).unwrap().message.unwrap() {
            v1::agent_message::Message::Heartbeat(heartbeat) => Some(heartbeat),
            _ => None,
        }
    });
    let mut heartbeat = frame.unwrap();
    let report = heartbeat.report.as_mut().unwrap();
    report.postgres.as_mut().unwrap().state = 4_200;
    report.data.as_mut().unwrap().form = 4_200;
    let read = Heartbeat::try_from(heartbeat).unwrap();
    assert_eq!(
        (read.report.postgres.state, read.report.data.form),
        (PostgresState::Unknown, DataForm::Unusable)
    );
}
