//! Bytes of entries, replies and snapshots: one version byte, then postcard.

use serde::{Serialize, de::DeserializeOwned};

use crate::{Proposal, Reply, State};

/// Version of entries, replies and snapshots written by this build.
const VERSION: u8 = 1;

/// Bytes that this build cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Nothing there.
    #[error("{what}: empty")]
    Empty {
        /// What was being read.
        what: &'static str,
    },
    /// Another version.
    #[error("{what}: version {found}, this build reads version {VERSION}")]
    Version {
        /// What was being read.
        what: &'static str,
        /// Its version byte.
        found: u8,
    },
    /// Damaged.
    #[error("{what}: {reason}")]
    Damaged {
        /// What was being read.
        what: &'static str,
        /// What the decoder said.
        reason: String,
    },
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend(postcard::to_stdvec(value).expect("replicated types serialise"));
    bytes
}

fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, CodecError> {
    let (version, body) = bytes.split_first().ok_or(CodecError::Empty { what })?;
    if *version != VERSION {
        return Err(CodecError::Version { what, found: *version });
    }
    let damaged = |reason: String| CodecError::Damaged { what, reason };
    let (value, rest) = postcard::take_from_bytes(body).map_err(|error| damaged(error.to_string()))?;
    if rest.is_empty() { Ok(value) } else { Err(damaged(format!("{} bytes too many", rest.len()))) }
}

impl Proposal {
    /// As it enters the log.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }
    /// From the log.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        decode("log entry", bytes)
    }
}

impl State {
    /// As a snapshot.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }
    /// From a snapshot.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        decode("snapshot", bytes)
    }
}

/// A reply as it travels from `apply` to the proposer.
pub fn encode_reply(reply: &Reply) -> Vec<u8> {
    encode(reply)
}

/// The reply of an entry.
pub fn decode_reply(bytes: &[u8]) -> Result<Reply, CodecError> {
    decode("reply", bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_damage_are_told_apart() {
        let bytes = State::default().encode();
        assert_eq!(State::decode(&bytes), Ok(State::default()));
        assert_eq!(State::decode(&[]), Err(CodecError::Empty { what: "snapshot" }));
        assert_eq!(State::decode(&[9, 0]), Err(CodecError::Version { what: "snapshot", found: 9 }));
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(matches!(State::decode(&longer), Err(CodecError::Damaged { .. })));
        assert!(matches!(State::decode(&bytes[..bytes.len() - 1]), Err(CodecError::Damaged { .. })));
    }
}
