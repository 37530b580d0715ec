//! Enumerations in JSON: `"standby"`, not `4`. A number that this version does not know stays a number.

use serde::Serializer;

/// An enumeration of the protocol whose values have names.
pub trait Named: TryFrom<i32> + Default {
    /// The name in the `.proto` file.
    fn proto_name(&self) -> &'static str;
}

macro_rules! named {
    ($type:ident) => {
        impl Named for crate::v1::$type {
            fn proto_name(&self) -> &'static str {
                self.as_str_name()
            }
        }
        impl std::fmt::Display for crate::v1::$type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&short_name(self))
            }
        }
    };
}
include!(concat!(env!("OUT_DIR"), "/enumerations.rs"));

/// `POSTGRES_STATE_STANDBY` becomes `standby`: the prefix is what the zero value has before `UNSPECIFIED`.
pub(crate) fn short_name<E: Named>(value: &E) -> String {
    let prefix = E::default().proto_name().trim_end_matches("UNSPECIFIED");
    let name = value.proto_name();
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}

/// Serialises an enumeration field by its short name.
pub(crate) fn by_name<S: Serializer, E: Named>(value: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    match E::try_from(*value) {
        Ok(value) => serializer.serialize_str(&short_name(&value)),
        Err(_) => serializer.serialize_i32(*value),
    }
}

#[cfg(test)]
mod tests {
    use crate::v1;

    #[test]
    fn enumerations_are_written_by_name_and_absent_fields_as_null() {
        let member = v1::MemberStatus {
            name: "eu-north-1".into(),
            postgres: v1::PostgresState::Standby as i32,
            role: 99,
            disk: Some(v1::DiskProbe {
                outcome: Some(v1::disk_probe::Outcome::Stalled(v1::disk_probe::Stalled { for_ms: 7 })),
            }),
            ..Default::default()
        };
        let json = serde_json::to_value(member).unwrap();
        assert_eq!(json["postgres"], "standby");
        assert_eq!(json["role"], 99, "an unknown number stays a number");
        assert_eq!(json["lag_bytes"], serde_json::Value::Null);
        assert_eq!(json["disk"]["outcome"]["stalled"]["for_ms"], 7);
        assert_eq!(v1::FenceCertainty::AssumedByLease.to_string(), "assumed_by_lease");
    }
}
