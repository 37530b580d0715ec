//! `[[fencing_driver]]`: commands of this node that can say of an instance that it is dead or cut off (DESIGN 5.4).
//!
//! Of this node, not replicated: which commands a host has and may run is a matter of that host. Each coordinator that
//! may lead needs the table; one without it waits for the lease instead.

use std::{os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use regent_core::{ClusterConfig, ConfigError};
use regent_types::{ClusterName, MemberName};
use serde::Deserialize;

use super::refuse;

/// Longest run that is accepted: a driver that takes longer than a failover may is no help.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// One external fencing driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FencingDriver {
    /// Its name in reports.
    pub name: String,
    /// The cluster whose members it can fence.
    pub cluster: ClusterName,
    /// These members only; all of them when empty.
    pub members: Vec<MemberName>,
    /// Program and first arguments.
    pub command: Vec<String>,
    /// A run is killed, with all its children, after this long.
    pub timeout: Duration,
    /// How long the guard alone is asked, before the driver is started.
    pub delay: Duration,
}

impl FencingDriver {
    /// Whether it can fence this member.
    pub fn serves(&self, cluster: &ClusterName, member: &MemberName) -> bool {
        self.cluster == *cluster && (self.members.is_empty() || self.members.contains(member))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FencingTable {
    name: String,
    cluster: ClusterName,
    #[serde(default)]
    members: Vec<MemberName>,
    command: Vec<String>,
    #[serde(with = "humantime_serde", default = "default_timeout")]
    timeout: Duration,
    #[serde(with = "humantime_serde", default = "default_delay")]
    delay: Duration,
}

fn default_timeout() -> Duration {
    Duration::from_secs(60)
}

fn default_delay() -> Duration {
    Duration::from_secs(10)
}

impl FencingTable {
    pub(super) fn into_driver(self) -> FencingDriver {
        let Self { name, cluster, members, command, timeout, delay } = self;
        FencingDriver { name, cluster, members, command, timeout, delay }
    }
}

/// Everything that would make a driver useless on the day it is needed.
pub(super) fn check(drivers: &[FencingDriver], clusters: &[ClusterConfig]) -> Result<(), ConfigError> {
    for (index, driver) in drivers.iter().enumerate() {
        let field = |key: &str| format!("fencing_driver.{}.{key}", driver.name);
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if driver.name.is_empty() || driver.name.len() > 63 || !driver.name.chars().all(plain) {
            let problem = format!("{:?}: must have 1 to 63 letters, digits, '-', '_' or '.'", driver.name);
            return refuse("fencing_driver.name", problem);
        }
        if drivers[..index].iter().any(|other| other.name == driver.name) {
            return refuse("fencing_driver.name", format!("{} is given twice", driver.name));
        }
        let Some(cluster) = clusters.iter().find(|cluster| cluster.name == driver.cluster) else {
            let problem = format!("{}: no [[cluster]] of this file has that name", driver.cluster);
            return refuse(field("cluster"), problem);
        };
        if let Some(member) = driver.members.iter().find(|member| !cluster.members.contains_key(*member)) {
            let problem = format!("{member}: cluster {} of this file has no such member", cluster.name);
            return refuse(field("members"), problem);
        }
        if driver.timeout.is_zero() || driver.timeout > TIMEOUT_MAX {
            let given = humantime::format_duration(driver.timeout);
            return refuse(field("timeout"), format!("{given}: must be more than 0 and at most 1h"));
        }
        check_command(&field("command"), &driver.command)?;
    }
    Ok(())
}

fn check_command(field: &str, command: &[String]) -> Result<(), ConfigError> {
    let Some(program) = command.first() else {
        return refuse(field, "is empty: the program is missing");
    };
    let path = PathBuf::from(program);
    if !path.is_absolute() {
        return refuse(field, format!("{program:?}: the program needs an absolute path"));
    }
    match std::fs::metadata(&path) {
        Err(error) => refuse(field, format!("{program:?}: {error}")),
        Ok(found) if !found.is_file() => refuse(field, format!("{program:?} is no file")),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => refuse(
            field,
            format!("{program:?} is not executable (mode {:o})", found.permissions().mode() & 0o7777),
        ),
        Ok(_) => Ok(()),
    }
}
