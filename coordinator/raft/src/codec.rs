//! Messages on the wire: a version, and an envelope that says from whom, to whom and for which group.
//!
//! A message that reached the wrong node or group is refused before Raft sees it: addresses can be configured wrongly,
//! and a vote counted twice would be a second leader.

use regent_proto::raft::RaftPayload;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tonic::Status;

pub(crate) const WIRE_VERSION: u32 = 1;
/// More than the largest batch of the largest commands.
pub(crate) const MESSAGE_BYTES_MAX: usize = 320 * 1024 * 1024;
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;
pub(crate) const SNAPSHOT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Envelope<T> {
    pub(crate) group: String,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) message: T,
}

pub(crate) fn encode<T: Serialize>(message: &T) -> Result<RaftPayload, Status> {
    let body = postcard::to_allocvec(message)
        .map_err(|error| Status::internal(format!("cannot encode {}: {error}", short::<T>())))?;
    Ok(RaftPayload { version: WIRE_VERSION, body })
}

pub(crate) fn decode<T: DeserializeOwned>(payload: &RaftPayload) -> Result<T, Status> {
    if payload.version != WIRE_VERSION {
        return Err(Status::failed_precondition(format!(
            "RaftPayload.version = {}: this node speaks version {WIRE_VERSION} only",
            payload.version
        )));
    }
    postcard::from_bytes(&payload.body).map_err(|error| {
        Status::invalid_argument(format!(
            "RaftPayload.body of {} bytes is no {}: {error}",
            payload.body.len(),
            short::<T>()
        ))
    })
}

fn short<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    let end = name.find('<').unwrap_or(name.len());
    name[..end].rsplit("::").next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_and_a_torn_body_are_refused_by_name() {
        let mut payload = encode(&"hello".to_string()).unwrap();
        assert_eq!(decode::<String>(&payload).unwrap(), "hello");
        payload.body.truncate(3);
        let error = decode::<String>(&payload).unwrap_err();
        assert!(error.message().contains("RaftPayload.body of 3 bytes"), "{error}");
        payload.version = 9;
        let error = decode::<String>(&payload).unwrap_err();
        assert!(error.message().contains("RaftPayload.version = 9"), "{error}");
    }
}
