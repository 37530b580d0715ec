//! Names and identifiers. Every name is validated when it is made, so that a bad one is refused at the edge.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A name or id that does not have the form it must have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {value:?} is not valid: {rule}")]
pub struct IdError {
    /// What was being read, e.g. `cluster name`.
    pub kind: &'static str,
    /// The value as given.
    pub value: String,
    /// The rule it breaks.
    pub rule: &'static str,
}

const NAME_RULE: &str = "use 1 to 63 of a-z, 0-9 and '-', starting and ending with a letter or digit";

fn check_name(kind: &'static str, value: &str) -> Result<(), IdError> {
    let ok_char = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let valid = (1..=63).contains(&value.len())
        && value.chars().all(ok_char)
        && !value.starts_with('-')
        && !value.ends_with('-');
    if valid { Ok(()) } else { Err(IdError { kind, value: value.to_owned(), rule: NAME_RULE }) }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks and wraps `value`.
            pub fn new(value: impl Into<String>) -> Result<Self, IdError> {
                let value = value.into();
                check_name($kind, &value)?;
                Ok(Self(value))
            }
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $type {
            type Error = IdError;
            fn try_from(value: String) -> Result<Self, IdError> {
                Self::new(value)
            }
        }
        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }
        impl FromStr for $type {
            type Err = IdError;
            fn from_str(value: &str) -> Result<Self, IdError> {
                Self::new(value)
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(/** One PostgreSQL primary and its standbys. */ ClusterName, "cluster name");
name!(/** One PostgreSQL instance and its agent, unique within its cluster. */ MemberName, "member name");
name!(/** A failure domain, e.g. `eu-north-1`. */ Region, "region");

/// A coordinator's Raft node id. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CoordinatorId(pub u64);

impl fmt::Display for CoordinatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Random, made at each start of a guard: an epoch is bound to one instance id (DESIGN section 5.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId(pub u128);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for InstanceId {
    type Err = IdError;
    fn from_str(value: &str) -> Result<Self, IdError> {
        let rule = "use 32 hexadecimal digits";
        let error = || IdError { kind: "instance id", value: value.to_owned(), rule };
        if value.len() != 32 || !value.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(error());
        }
        u128::from_str_radix(value, 16).map(Self).map_err(|_| error())
    }
}

impl TryFrom<String> for InstanceId {
    type Error = IdError;
    fn try_from(value: String) -> Result<Self, IdError> {
        value.parse()
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> String {
        id.to_string()
    }
}

/// The kernel's boot id: boottime stamps of different boots are never compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(pub String);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A cluster's operations are numbered from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperationId(pub u64);

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Chosen by the caller of a mutating call; the same id a second time returns the first answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestId(String);

impl RequestId {
    /// Checks and wraps `value`: 1 to 128 printable ASCII characters without spaces.
    pub fn new(value: impl Into<String>) -> Result<Self, IdError> {
        let value = value.into();
        if (1..=128).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic()) {
            return Ok(Self(value));
        }
        let rule = "use 1 to 128 printable ASCII characters without spaces";
        Err(IdError { kind: "request id", value, rule })
    }
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RequestId {
    type Error = IdError;
    fn try_from(value: String) -> Result<Self, IdError> {
        Self::new(value)
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> String {
        id.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!(ClusterName::new("gravl").is_ok());
        for bad in ["", "-a", "a-", "A", "a b", "ä", &"x".repeat(64)] {
            let error = ClusterName::new(bad).unwrap_err();
            assert!(error.to_string().starts_with("cluster name "), "{error}");
        }
    }

    #[test]
    fn instance_ids_round_trip() {
        let id = InstanceId(0x0123_4567);
        assert_eq!(id.to_string().parse::<InstanceId>(), Ok(id));
        assert!("+123".parse::<InstanceId>().is_err());
    }
}
