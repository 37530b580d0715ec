//! Bytes of entries, replies and snapshots: format version, feature level, then MessagePack with named fields.
//!
//! Names travel with the values, so two builds of neighbouring minor versions read each other's bytes: a field that is
//! missing takes its default (`#[serde(default)]`, or `None`), and one that is not known is passed over. What a build
//! does not know *and must not pass over* is the feature level's business: bytes of a higher level than
//! [`FEATURE_LEVEL`] are refused whole, and the node stops (docs/upgrade.md has the rules for new fields).
//!
//! Never decides what a value means. Invariants: bytes that are not exactly one value are refused (a torn entry never
//! reads as a shorter one); encoding a value twice gives the same bytes, whichever replica does it.

use serde::{Serialize, de::DeserializeOwned};

use crate::{FEATURE_LEVEL, FEATURE_LEVEL_FIRST, Proposal, Reply, State};

/// Format of entries, replies and snapshots. Version 1 (fields without names) never left a development machine.
const VERSION: u8 = 2;

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
    #[error("{what}: format version {found}, this build reads version {VERSION}")]
    Version {
        /// What was being read.
        what: &'static str,
        /// Its version byte.
        found: u8,
    },
    /// Written by a newer build.
    #[error(
        "{what}: feature level {found}, this node understands levels up to {known}: start a newer regent-coordinator"
    )]
    Level {
        /// What was being read.
        what: &'static str,
        /// Its level.
        found: u8,
        /// The highest one known.
        known: u8,
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

fn encode<T: Serialize>(value: &T, level: u8) -> Vec<u8> {
    let mut bytes = vec![VERSION, level];
    rmp_serde::encode::write_named(&mut bytes, value).expect("replicated types serialise");
    bytes
}

fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8], known: u8) -> Result<T, CodecError> {
    let (version, rest) = bytes.split_first().ok_or(CodecError::Empty { what })?;
    if *version != VERSION {
        return Err(CodecError::Version { what, found: *version });
    }
    let damaged = |reason: String| CodecError::Damaged { what, reason };
    let (level, body) = rest.split_first().ok_or_else(|| damaged("no feature level".to_owned()))?;
    if *level > known {
        return Err(CodecError::Level { what, found: *level, known });
    }
    let mut reader = rmp_serde::Deserializer::new(body);
    let value = T::deserialize(&mut reader).map_err(|error| damaged(error.to_string()))?;
    match reader.get_ref().len() {
        0 => Ok(value),
        left => Err(damaged(format!("{left} bytes too many"))),
    }
}

impl Proposal {
    /// As it enters the log: marked with the level that it needs.
    pub fn encode(&self) -> Vec<u8> {
        encode(self, self.body.level())
    }
    /// From the log.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Self::decode_up_to(FEATURE_LEVEL, bytes)
    }
    /// The same by a node that is to know no more than level `known`.
    pub fn decode_up_to(known: u8, bytes: &[u8]) -> Result<Self, CodecError> {
        decode("log entry", bytes, known)
    }
}

impl State {
    /// As a snapshot: marked with the group's level.
    pub fn encode(&self) -> Vec<u8> {
        encode(self, self.level())
    }
    /// From a snapshot.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Self::decode_up_to(FEATURE_LEVEL, bytes)
    }
    /// The same by a node that is to know no more than level `known`.
    pub fn decode_up_to(known: u8, bytes: &[u8]) -> Result<Self, CodecError> {
        decode("snapshot", bytes, known)
    }
}

/// A reply as it travels from `apply` to the proposer.
pub fn encode_reply(reply: &Reply) -> Vec<u8> {
    encode(reply, FEATURE_LEVEL_FIRST)
}

/// The reply of an entry.
pub fn decode_reply(bytes: &[u8]) -> Result<Reply, CodecError> {
    decode("reply", bytes, FEATURE_LEVEL)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        net::IpAddr,
    };

    use serde::{Deserialize, Serialize};

    use super::*;

    #[test]
    fn versions_levels_and_damage_are_told_apart() {
        let bytes = State::default().encode();
        assert_eq!(State::decode(&bytes), Ok(State::default()));
        assert_eq!(State::decode(&[]), Err(CodecError::Empty { what: "snapshot" }));
        for version in [1, 9] {
            let refused = State::decode(&[version, 0]);
            assert_eq!(refused, Err(CodecError::Version { what: "snapshot", found: version }));
        }
        let mut newer = bytes.clone();
        newer[1] = FEATURE_LEVEL + 1;
        assert_eq!(
            State::decode(&newer),
            Err(CodecError::Level { what: "snapshot", found: FEATURE_LEVEL + 1, known: FEATURE_LEVEL })
        );
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(matches!(State::decode(&longer), Err(CodecError::Damaged { .. })));
        for length in 1..bytes.len() {
            assert!(matches!(State::decode(&bytes[..length]), Err(CodecError::Damaged { .. })), "{length}");
        }
    }

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    struct Older {
        name: String,
        kind: OlderKind,
    }

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    enum OlderKind {
        Plain,
        Full { count: u32 },
    }

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    struct Newer {
        name: String,
        #[serde(default)]
        added: Vec<u64>,
        kind: NewerKind,
        optional: Option<String>,
    }

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    enum NewerKind {
        Plain,
        Full {
            count: u32,
            #[serde(default)]
            of: u32,
        },
        Added,
    }

    #[test]
    fn a_new_field_is_readable_in_both_directions_and_a_new_variant_is_refused() {
        let older = Older { name: "a".into(), kind: OlderKind::Full { count: 3 } };
        let newer = Newer {
            name: "a".into(),
            added: vec![1, 2],
            kind: NewerKind::Full { count: 3, of: 4 },
            optional: Some("x".into()),
        };
        assert_eq!(decode::<Older>("value", &encode(&newer, 1), 1), Ok(older));
        let older = Older { name: "b".into(), kind: OlderKind::Plain };
        let expected = Newer { name: "b".into(), added: Vec::new(), kind: NewerKind::Plain, optional: None };
        assert_eq!(decode::<Newer>("value", &encode(&older, 1), 1), Ok(expected));
        let added = Newer { name: "c".into(), added: Vec::new(), kind: NewerKind::Added, optional: None };
        let refused = decode::<Older>("value", &encode(&added, 1), 1).unwrap_err();
        assert!(refused.to_string().contains("Added"), "{refused}");
    }

    /// Shapes that formats like to get wrong. 128-bit numbers are not among them: ids travel as text.
    #[test]
    fn every_shape_comes_back() {
        #[derive(Debug, Serialize, Deserialize, PartialEq)]
        struct Shapes {
            largest: u64,
            smallest: i64,
            none: Option<u64>,
            unit: Result<(), String>,
            tuples: BTreeSet<(String, Option<u32>)>,
            keyed: BTreeMap<u64, Box<OlderKind>>,
            addresses: Vec<IpAddr>,
            bytes: Vec<u8>,
            text: char,
        }
        let shapes = Shapes {
            largest: u64::MAX,
            smallest: i64::MIN,
            none: None,
            unit: Ok(()),
            tuples: BTreeSet::from([("a".into(), None), ("b".into(), Some(7))]),
            keyed: BTreeMap::from([(u64::MAX, Box::new(OlderKind::Plain))]),
            addresses: vec!["10.0.0.1".parse().unwrap(), "fe80::1".parse().unwrap()],
            bytes: vec![0, 128, 255],
            text: 'ø',
        };
        assert_eq!(decode::<Shapes>("shapes", &encode(&shapes, 1), 1), Ok(shapes));
    }
}
