//! PostgreSQL's own configuration parameters, set for a whole cluster: which names and values may be set at all.
//!
//! What a value means only PostgreSQL knows: each member's agent asks its own binaries, leaves out what they refuse, and says
//! so. Here is refused what no member may ever get, because failover stands on it.
//!
//! Invariants: nothing that Regent itself sets can be set here; a value is one line of a configuration file and nothing else.
//!
//! The interleaving to fear is that of the parameters that a standby needs as high as its primary
//! ([`regent_types::STANDBY_NEEDS`]): the value is raised, the primary is started with it first (an operator's restart, or by
//! itself after a crash), replay on every standby stops, and the next failover promotes what was stopped. So a raised value reaches a
//! primary by an operator's restart only, which is refused while a standby that is heard runs with less
//! (`procedure/restart.rs`), and the agent keeps the old value for every other start (agent: `parameters`). The other way round, a
//! standby that is started with less than its primary runs with does not come up: its agent gives it the primary's value, as
//! `pg_control` has it. Tests: `decisions/parameters.rs`, `chaos-tests/tests/parameters.rs`.

use std::collections::BTreeMap;

use regent_types::{ParametersView, STANDBY_NEEDS};
use serde::{Deserialize, Serialize};

use crate::ConfigError;

/// Parameters set at most.
const COUNT_MAX: usize = 100;
/// Bytes of a value at most.
const VALUE_BYTES_MAX: usize = 1_000;
/// PostgreSQL's names have 63 bytes at most (`NAMEDATALEN`).
const NAME_BYTES_MAX: usize = 63;

/// Too few of them, and no standby could follow.
const REPLICATION: [&str; 2] = ["max_wal_senders", "max_replication_slots"];
const REPLICATION_MIN: u32 = 10;

/// What Regent sets itself, or what would take away what it relies on, and why it is not to be set.
pub const MANAGED_PARAMETERS: [(&str, &str); 42] = [
    ("allow_alter_system", OWN),
    ("archive_cleanup_command", "it would remove WAL that a standby may need"),
    ("cluster_name", AGENT),
    ("config_file", FILES),
    ("data_directory", FILES),
    ("data_sync_retry", "after a failed fsync only a crash is safe"),
    ("default_transaction_read_only", OWN),
    ("external_pid_file", FILES),
    ("fsync", "acknowledged writes would be lost with the power"),
    ("full_page_writes", "pg_rewind and crash recovery need them"),
    ("hba_file", FILES),
    ("hot_standby", OWN),
    ("ident_file", FILES),
    ("include", FILES),
    ("include_dir", FILES),
    ("include_if_exists", FILES),
    ("ignore_checksum_failure", "damaged pages would be taken for data"),
    ("listen_addresses", AGENT),
    ("port", AGENT),
    ("primary_conninfo", OWN),
    ("primary_slot_name", OWN),
    ("promote_trigger_file", "only an appointed member may be promoted"),
    ("recovery_end_command", "it is the gate that only an appointed member passes"),
    ("recovery_min_apply_delay", "a standby that lags on purpose cannot take over"),
    ("recovery_target", TARGET),
    ("recovery_target_action", TARGET),
    ("recovery_target_inclusive", TARGET),
    ("recovery_target_lsn", TARGET),
    ("recovery_target_name", TARGET),
    ("recovery_target_time", TARGET),
    ("recovery_target_timeline", TARGET),
    ("recovery_target_xid", TARGET),
    ("restart_after_crash", OWN),
    ("restore_command", "it belongs into agent.toml"),
    ("sync_replication_slots", "it is `logical_slots` of agent.toml"),
    ("synchronous_standby_names", OWN),
    ("unix_socket_directories", AGENT),
    ("wal_level", "it is `logical_slots` of agent.toml"),
    ("wal_log_hints", "pg_rewind needs it"),
    ("wal_receiver_timeout", OWN),
    ("wal_retrieve_retry_interval", OWN),
    ("zero_damaged_pages", "damaged pages would be taken for data"),
];
const OWN: &str = "Regent sets it by itself";
const AGENT: &str = "it differs between members and belongs into agent.toml";
const FILES: &str = "it names files, which agent and guard look after";
const TARGET: &str = "a standby goes on to the end of what it gets";

/// The parameters in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    /// Counts the changes.
    pub version: u64,
    /// Name and value.
    pub values: BTreeMap<String, String>,
}

impl Parameters {
    /// What members are told; nothing before the first change.
    pub(crate) fn view(&self) -> Option<ParametersView> {
        (self.version > 0).then(|| ParametersView { version: self.version, values: self.values.clone() })
    }

    /// No more of them than every heartbeat's answer can carry.
    pub(crate) fn check_count(&self) -> Result<(), ConfigError> {
        let count = self.values.len();
        if count <= COUNT_MAX {
            return Ok(());
        }
        Err(error("parameters", format!("{count} would be set, at most {COUNT_MAX} may be")))
    }
}

fn error(name: &str, problem: impl Into<String>) -> ConfigError {
    ConfigError { field: name.to_owned(), problem: problem.into() }
}

/// Refuses what may not be set, by name.
pub(crate) fn check_name(name: &str) -> Result<(), ConfigError> {
    let word = |part: &str| {
        !part.is_empty()
            && !part.starts_with(|first: char| first.is_ascii_digit())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let parts: Vec<&str> = name.split('.').collect();
    if name.len() > NAME_BYTES_MAX || parts.len() > 2 || !parts.into_iter().all(word) {
        return Err(error(name, "is not the name of a parameter (lower case, at most one dot)"));
    }
    match MANAGED_PARAMETERS.iter().find(|(managed, _)| *managed == name) {
        Some((_, why)) => Err(error(name, format!("is not to be set: {why}"))),
        None => Ok(()),
    }
}

/// Refuses a value that is not one line, or not a number where one is compared.
pub(crate) fn check_value(name: &str, value: &str) -> Result<(), ConfigError> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(error(name, format!("{} bytes, at most {VALUE_BYTES_MAX} are taken", value.len())));
    }
    if value.contains(char::is_control) {
        return Err(error(name, format!("{value:?} has a control character")));
    }
    if STANDBY_NEEDS.contains(&name) && value.parse::<u32>().is_err() {
        return Err(error(name, format!("{value:?} is not a plain number: it is compared between members")));
    }
    if REPLICATION.contains(&name) && value.parse::<u32>().is_ok_and(|number| number < REPLICATION_MIN) {
        let problem =
            format!("{value} is too few: {REPLICATION_MIN} at least, for members, clones and promotions");
        return Err(error(name, problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_that_may_not_be_set_are_refused_by_name() {
        for good in ["work_mem", "max_connections", "auto_explain.log_min_duration", "max_slot_wal_keep_size"]
        {
            check_name(good).unwrap();
        }
        for (bad, why) in [
            ("Work_Mem", "lower case"),
            ("work mem", "not the name"),
            ("a.b.c", "not the name"),
            ("", "not the name"),
            ("9lives", "not the name"),
            ("fsync", "lost with the power"),
            ("include", "names files"),
            ("recovery_target_time", "goes on to the end"),
            ("primary_conninfo", "by itself"),
        ] {
            let refused = check_name(bad).unwrap_err();
            assert!(refused.to_string().contains(why) && refused.field == bad, "{refused}");
        }
        check_value("work_mem", "8MB").unwrap();
        check_value("search_path", "a, \"b c\", it's").unwrap();
        for (name, value) in [
            ("work_mem", "8MB\nfsync = off"),
            ("work_mem", &*"x".repeat(1_001)),
            ("max_connections", "0x64"),
            ("max_connections", "-1"),
            ("max_wal_senders", "2"),
            ("max_replication_slots", "0"),
        ] {
            assert_eq!(check_value(name, value).unwrap_err().field, name);
        }
    }

    #[test]
    fn the_list_is_in_order_and_names_nothing_twice() {
        let mut names: Vec<&str> = MANAGED_PARAMETERS.iter().map(|(name, _)| *name).collect();
        let given = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), given);
    }
}
