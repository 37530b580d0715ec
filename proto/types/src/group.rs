//! Which group of coordinators speaks.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::IdError;

/// One group of coordinators: random, made once, replicated. A group that was formed anew after a loss has another one, and a
/// member obeys one group at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupId(pub u128);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for GroupId {
    type Err = IdError;
    fn from_str(value: &str) -> Result<Self, IdError> {
        let rule = "use 32 hexadecimal digits";
        let error = || IdError { kind: "group id", value: value.to_owned(), rule };
        if value.len() != 32 || !value.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(error());
        }
        u128::from_str_radix(value, 16).map(Self).map_err(|_| error())
    }
}

impl TryFrom<String> for GroupId {
    type Error = IdError;
    fn try_from(value: String) -> Result<Self, IdError> {
        value.parse()
    }
}

impl From<GroupId> for String {
    fn from(id: GroupId) -> String {
        id.to_string()
    }
}
