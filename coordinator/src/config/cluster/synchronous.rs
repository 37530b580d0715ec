//! How the keys of synchronous replication are written: `synchronous = "on"`, `synchronous_members = "a,b"`.

use regent_core::SyncMembers;
use serde::{Deserialize, Deserializer, Serializer, de::Error};

use super::OFF;

const ON: &str = "on";

pub(super) fn read_switch<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    match String::deserialize(from)?.as_str() {
        ON => Ok(true),
        OFF => Ok(false),
        other => Err(Error::custom(format!("{other:?} is neither \"on\" nor \"off\""))),
    }
}

pub(super) fn write_switch<S: Serializer>(value: &bool, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(if *value { ON } else { OFF })
}

pub(super) fn read_members<'de, D: Deserializer<'de>>(from: D) -> Result<SyncMembers, D::Error> {
    String::deserialize(from)?.parse().map_err(Error::custom)
}

pub(super) fn write_members<S: Serializer>(value: &SyncMembers, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}
