//! The identity in a certificate's URI SAN. One form for each role and nothing else: a URI that deviates in any
//! way is refused, because a lenient reader is one that two parties read differently.

use std::{fmt, str::FromStr};

use regent_types::{ClusterName, CoordinatorId, MemberName};

/// Whose certificate it is, and thereby the role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// `regent://coordinator/1`
    Coordinator(CoordinatorId),
    /// `regent://agent/gravl/eu-north-1`: may speak for this member only.
    Agent {
        /// The cluster.
        cluster: ClusterName,
        /// The member.
        member: MemberName,
    },
    /// `regent://operator/alice`: may change things.
    Operator(PrincipalName),
    /// `regent://viewer/grafana`: may look.
    Viewer(PrincipalName),
}

impl Identity {
    /// `coordinator`, `agent`, `operator` or `viewer`.
    pub fn role(&self) -> &'static str {
        match self {
            Self::Coordinator(_) => "coordinator",
            Self::Agent { .. } => "agent",
            Self::Operator(_) => "operator",
            Self::Viewer(_) => "viewer",
        }
    }

    /// A name for its files: `coordinator-1`, `agent-gravl-eu-north-1`, `operator-alice`.
    pub fn file_stem(&self) -> String {
        match self {
            Self::Coordinator(id) => format!("coordinator-{id}"),
            Self::Agent { cluster, member } => format!("agent-{cluster}-{member}"),
            Self::Operator(name) => format!("operator-{name}"),
            Self::Viewer(name) => format!("viewer-{name}"),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coordinator(id) => write!(f, "regent://coordinator/{id}"),
            Self::Agent { cluster, member } => write!(f, "regent://agent/{cluster}/{member}"),
            Self::Operator(name) => write!(f, "regent://operator/{name}"),
            Self::Viewer(name) => write!(f, "regent://viewer/{name}"),
        }
    }
}

/// A text that is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("identity {value:?} is not valid: {rule}")]
pub struct IdentityError {
    /// The text as given.
    pub value: String,
    /// The rule it breaks.
    pub rule: String,
}

const FORMS: &str = "use regent://coordinator/ID, regent://agent/CLUSTER/MEMBER, regent://operator/NAME or \
                     regent://viewer/NAME";

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(value: &str) -> Result<Self, IdentityError> {
        let error =
            |rule: &dyn fmt::Display| IdentityError { value: value.to_owned(), rule: rule.to_string() };
        let path = value.strip_prefix("regent://").ok_or_else(|| error(&FORMS))?;
        let parts: Vec<&str> = path.split('/').collect();
        match parts.as_slice() {
            ["coordinator", id] => coordinator_id(id).map(Self::Coordinator).map_err(|rule| error(&rule)),
            ["agent", cluster, member] => Ok(Self::Agent {
                cluster: ClusterName::new(*cluster).map_err(|e| error(&e))?,
                member: MemberName::new(*member).map_err(|e| error(&e))?,
            }),
            ["operator", name] => PrincipalName::new(*name).map(Self::Operator).map_err(|e| error(&e)),
            ["viewer", name] => PrincipalName::new(*name).map(Self::Viewer).map_err(|e| error(&e)),
            _ => Err(error(&FORMS)),
        }
    }
}

/// One spelling for each id: no sign, no leading zero, and 0 is no id.
fn coordinator_id(text: &str) -> Result<CoordinatorId, &'static str> {
    const RULE: &str =
        "a coordinator's id is a decimal number from 1 to 18446744073709551615 without leading zeros";
    let canonical = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    match text.parse() {
        Ok(id) if canonical => Ok(CoordinatorId(id)),
        _ => Err(RULE),
    }
}

/// The name of an operator or viewer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrincipalName(String);

impl PrincipalName {
    /// Checks and wraps `value`: the rules of every other name, and `.` and `_` inside.
    pub fn new(value: impl Into<String>) -> Result<Self, IdentityError> {
        let value = value.into();
        let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_');
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = value.as_bytes();
        let valid = bytes.len() <= 63
            && bytes.iter().all(|b| inside(*b))
            && edge(bytes.first())
            && edge(bytes.last());
        if valid {
            return Ok(Self(value));
        }
        let rule =
            "a name has 1 to 63 of a-z, 0-9, '-', '.' and '_', starting and ending with a letter or digit";
        Err(IdentityError { value, rule: rule.to_owned() })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PrincipalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_reads_what_it_prints() {
        for text in [
            "regent://coordinator/1",
            "regent://coordinator/18446744073709551615",
            "regent://agent/gravl/eu-north-1",
            "regent://operator/alice",
            "regent://viewer/grafana.prod_1",
        ] {
            assert_eq!(text.parse::<Identity>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn every_malformed_form_is_refused_with_its_value() {
        for bad in [
            "",
            "regent://",
            "regent:/coordinator/1",
            "REGENT://coordinator/1",
            "spiffe://coordinator/1",
            "regent://coordinator",
            "regent://coordinator/",
            "regent://coordinator/0",
            "regent://coordinator/01",
            "regent://coordinator/+1",
            "regent://coordinator/-1",
            "regent://coordinator/one",
            "regent://coordinator/18446744073709551616",
            "regent://coordinator/1/",
            "regent://coordinator/1?x",
            "regent://agent/gravl",
            "regent://agent//eu-north-1",
            "regent://agent/gravl/",
            "regent://agent/gravl/EU",
            "regent://agent/gravl/eu/north",
            "regent://agent/gravl/..",
            "regent://operator/",
            "regent://operator/Alice",
            "regent://operator/al ice",
            "regent://operator/.alice",
            "regent://operator/alice@host",
            "regent://operator/al\0ice",
            "regent://admin/alice",
            " regent://operator/alice",
        ] {
            let error = bad.parse::<Identity>().unwrap_err();
            assert!(error.to_string().contains("is not valid"), "{error}");
        }
        assert!(PrincipalName::new("a".repeat(64)).is_err());
    }
}
