//! A policy as the keys and values of the configuration file: to show it, and to change single keys of it.
//!
//! The same table reads the file, so a key is spelt, written and checked in one way everywhere. Invariant: what is rendered
//! and read back is the same policy (tested), so changing one key changes nothing else.

use std::time::Duration;

use regent_core::{ConfigError, Policy};

use super::{OFF, PolicyTable, refuse, window};

/// The one key that a file leaves out when it is off.
const WINDOW: &str = "failback_window";

fn of_ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl From<&Policy> for PolicyTable {
    fn from(policy: &Policy) -> Self {
        Self {
            partition_timeout: of_ms(policy.partition_timeout_ms),
            lease_ttl: of_ms(policy.lease.ttl_ms),
            kill_time: of_ms(policy.lease.kill_ms),
            clock_drift_ppm: policy.lease.rho_ppm,
            postgres_down_timeout: of_ms(policy.postgres_down_timeout_ms),
            disk_stall_timeout: of_ms(policy.disk_stall_timeout_ms),
            heartbeat_interval: of_ms(policy.heartbeat_interval_ms),
            fence_grace: of_ms(policy.fence_grace_ms),
            promote_timeout: of_ms(policy.promote_timeout_ms),
            replay_timeout: of_ms(policy.replay_timeout_ms),
            validate_timeout: of_ms(policy.validate_timeout_ms),
            rejoin_timeout: of_ms(policy.rejoin_timeout_ms),
            rewind_timeout: of_ms(policy.rewind_timeout_ms),
            sync_lag_bytes_max: policy.sync_lag_bytes_max,
            sync_window: of_ms(policy.sync_window_ms),
            max_lag_bytes: policy.max_lag_bytes,
            cooldown: of_ms(policy.cooldown_ms),
            max_lag: policy.max_lag_ms.map(of_ms),
            disk_full_alert: Some(policy.disk_full_alert_ms).filter(|ms| *ms > 0).map(of_ms),
            switchover_timeout: of_ms(policy.switchover_timeout_ms),
            failback: policy.failback,
            failback_after: of_ms(policy.failback_after_ms),
            failback_window: policy.failback_window.clone().map(window::Text),
            promise_duration: Some(of_ms(policy.promise_ms)),
            synchronous: policy.synchronous.on,
            synchronous_standbys: policy.synchronous.standbys,
            synchronous_members: policy.synchronous.members.clone(),
            synchronous_shortage: policy.synchronous.shortage,
            synchronous_timeout: of_ms(policy.synchronous.timeout_ms),
        }
    }
}

fn table(policy: &Policy) -> toml::Table {
    toml::Table::try_from(PolicyTable::from(policy)).expect("a policy's keys have plain values")
}

/// A number of bytes, or `off`.
pub(super) fn write_bytes_or_off<S: serde::Serializer>(
    value: &Option<u64>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(bytes) => to.serialize_u64(*bytes),
        None => to.serialize_str(OFF),
    }
}

/// A time, or `off`.
pub(super) fn write_time_or_off<S: serde::Serializer>(
    value: &Option<Duration>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(time) => to.collect_str(&humantime::format_duration(*time)),
        None => to.serialize_str(OFF),
    }
}

/// Keys and values as in the file.
pub fn render(policy: &Policy) -> Vec<(String, String)> {
    let value = |value: toml::Value| match value {
        toml::Value::String(text) => text,
        other => other.to_string(),
    };
    let mut all: Vec<_> = table(policy).into_iter().map(|(key, one)| (key, value(one))).collect();
    if !all.iter().any(|(key, _)| key == WINDOW) {
        all.push((WINDOW.to_owned(), OFF.to_owned()));
    }
    all.sort();
    all
}

/// The policy with these keys changed; nothing is changed when one of them is not acceptable.
pub fn change(policy: &Policy, values: &[(String, String)]) -> Result<Policy, ConfigError> {
    let mut table = table(policy);
    for (key, value) in values {
        if key == WINDOW && value == OFF {
            table.remove(key);
            continue;
        }
        if !table.contains_key(key) && key != WINDOW {
            let known: Vec<String> = render(policy).into_iter().map(|(key, _)| key).collect();
            return refuse(key, format!("is no key of a policy; there are {}", known.join(", ")));
        }
        // As in the file, but without quotes around a time.
        let plain = format!("v = {value}").parse::<toml::Table>().ok().and_then(|mut one| one.remove("v"));
        table.insert(key.clone(), plain.unwrap_or_else(|| toml::Value::String(value.clone())));
        // Each key by itself, so that the error names it.
        let tried: Result<PolicyTable, _> = table.clone().try_into();
        if let Err(error) = tried {
            return refuse(key, format!("{value:?}: {}", error.message()));
        }
    }
    let changed: PolicyTable = table.try_into().expect("tried above");
    Ok(changed.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn default() -> Policy {
        PolicyTable::default().into()
    }

    #[test]
    fn a_policy_reads_what_it_renders() {
        let policy = default();
        let values: Vec<_> = render(&policy);
        assert!(values.contains(&("lease_ttl".into(), "4m 30s".into())), "{values:?}");
        assert!(values.contains(&("max_lag_bytes".into(), "67108864".into())), "{values:?}");
        assert_eq!(change(&policy, &values).unwrap(), policy);
        let window = ("failback_window".to_owned(), "sat,sun 02:00-05:30".to_owned());
        let with = change(&policy, std::slice::from_ref(&window)).unwrap();
        assert!(with.failback_window.is_some() && render(&with).contains(&window));
        assert_eq!(change(&with, &render(&with)).unwrap(), with);
    }

    #[test]
    fn synchronous_replication_is_spelt_as_in_the_file() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let values = [
            pair("synchronous", "on"),
            pair("synchronous_standbys", "2"),
            pair("synchronous_members", "b,a"),
            pair("synchronous_shortage", "strict"),
            pair("synchronous_timeout", "10s"),
        ];
        let changed = change(&default(), &values).unwrap();
        let synchronous = &changed.synchronous;
        assert!(synchronous.on && synchronous.standbys == 2 && synchronous.timeout_ms == 10_000);
        assert!(render(&changed).contains(&pair("synchronous_members", "a,b")), "{:?}", render(&changed));
        assert_eq!(change(&changed, &render(&changed)).unwrap(), changed);
        let other = change(&changed, &[pair("synchronous_members", "other-regions")]).unwrap();
        assert_eq!(change(&other, &render(&other)).unwrap(), other);
        assert!(!change(&other, &[pair("synchronous", "off")]).unwrap().synchronous.on);
    }

    #[test]
    fn single_keys_change_and_mistakes_are_named() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let changed =
            change(&default(), &[pair("lease_ttl", "1m"), pair("max_lag_bytes", "1048576")]).unwrap();
        assert_eq!((changed.lease.ttl_ms, changed.max_lag_bytes), (60_000, Some(1 << 20)));
        assert_eq!(change(&changed, &[pair("max_lag_bytes", "off")]).unwrap().max_lag_bytes, None);
        for (key, value, word) in [
            ("lease_tll", "1m", "lease_ttl"),
            ("lease_ttl", "soon", "soon"),
            ("lease_ttl", "60", "60"),
            ("clock_drift_ppm", "-1", "-1"),
            ("sync_window", "off", "off"),
            ("synchronous", "yes", "yes"),
            ("synchronous_members", "A b", "A b"),
            ("synchronous_shortage", "wait", "wait"),
        ] {
            let error = change(&default(), &[pair(key, value)]).unwrap_err();
            assert_eq!(error.field, key);
            assert!(error.problem.contains(word), "{error}");
        }
    }
}
