//! `guard.toml`: every key, checked as a whole before anything starts. An unknown key is an error that names it.

use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A configuration that cannot be used; the text names the key and the value.
#[derive(Debug)]
pub struct ConfigError(pub String);

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// The checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The guard's own directory: socket, lock, state file, logs of jobs.
    pub state_dir: PathBuf,
    /// PostgreSQL's data directory.
    pub data_dir: PathBuf,
    /// Where PostgreSQL's programs are; nothing is looked up anywhere else.
    pub pg_bin: PathBuf,
    /// No lease may reach further than this from now.
    pub lease_ttl_max: Duration,
    /// How long before the deadline the shutdown begins.
    pub shutdown_margin: Duration,
    /// No promise may be held longer than this; one that is lost counts as such a one.
    pub promise_hold_max: Duration,
    /// A larger step between wall clock and boot clock fences.
    pub clock_divergence_max: Duration,
    /// Appended to PostgreSQL's command line.
    pub postgres_args: Vec<String>,
    /// A watchdog that backs the kernel timer up.
    pub watchdog: Option<WatchdogConfig>,
    /// Where PostgreSQL's own output goes; `None` for the guard's stderr.
    pub log: Option<PathBuf>,
}

/// The watchdog's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchdogConfig {
    /// The device.
    pub device: PathBuf,
    /// In whole seconds.
    pub timeout: Duration,
    /// Only for tests: the device is something that merely reads.
    pub is_double: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    state_dir: PathBuf,
    data_dir: PathBuf,
    pg_bin: PathBuf,
    #[serde(with = "humantime_serde")]
    lease_ttl_max: Duration,
    #[serde(default, with = "humantime_serde")]
    shutdown_margin: Option<Duration>,
    #[serde(default, with = "humantime_serde")]
    promise_hold_max: Option<Duration>,
    #[serde(default = "default_divergence", with = "humantime_serde")]
    clock_divergence_max: Duration,
    #[serde(default)]
    postgres_args: Vec<String>,
    #[serde(default)]
    log: Option<PathBuf>,
    #[serde(default)]
    watchdog: Option<PathBuf>,
    #[serde(default, with = "humantime_serde")]
    watchdog_timeout: Option<Duration>,
    #[serde(default)]
    watchdog_test_double: bool,
}

fn default_divergence() -> Duration {
    Duration::from_secs(5)
}

/// The guard sets these itself on PostgreSQL's command line; overriding one would open a way round the lease.
const RESERVED: [&str; 11] = [
    "data_directory",
    "recovery_end_command",
    "restart_after_crash",
    "recovery_target",
    "recovery_target_time",
    "recovery_target_xid",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_timeline",
    "promote_trigger_file",
    "external_pid_file",
];

/// A UNIX socket's path must fit in `sockaddr_un`.
const SOCKET_PATH_BYTES_MAX: usize = 107;

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError(format!("config {}: {error}", path.display())))?;
        Self::parse(&text).map_err(|error| ConfigError(format!("config {}: {error}", path.display())))
    }

    /// Checks a text.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let raw: Raw = toml::from_str(text).map_err(|error| ConfigError(error.to_string()))?;
        for (key, path) in
            [("state_dir", &raw.state_dir), ("data_dir", &raw.data_dir), ("pg_bin", &raw.pg_bin)]
        {
            absolute(key, path)?;
        }
        if let Some(log) = &raw.log {
            absolute("log", log)?;
        }
        if raw.state_dir.starts_with(&raw.data_dir) || raw.data_dir.starts_with(&raw.state_dir) {
            return Err(ConfigError(format!(
                "`state_dir` {} and `data_dir` {}: one lies in the other; a base backup would wipe the guard's memory",
                raw.state_dir.display(),
                raw.data_dir.display()
            )));
        }
        let ttl = raw.lease_ttl_max;
        if !(Duration::from_millis(500)..=Duration::from_secs(3600)).contains(&ttl) {
            return Err(ConfigError(format!("`lease_ttl_max` {ttl:?} is not between 500ms and 1h")));
        }
        let margin = raw.shutdown_margin.unwrap_or_else(|| Duration::from_secs(5).min(ttl / 8));
        if margin < Duration::from_millis(50) || margin > ttl / 2 {
            return Err(ConfigError(format!(
                "`shutdown_margin` {margin:?} is not between 50ms and half of `lease_ttl_max` ({:?})",
                ttl / 2
            )));
        }
        if !(Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&raw.clock_divergence_max) {
            return Err(ConfigError(format!(
                "`clock_divergence_max` {:?} is not between 100ms and 1h",
                raw.clock_divergence_max
            )));
        }
        // A promise is no longer than a lease; what the promiser adds is clock drift (10 % at most) and the time to kill.
        let hold_max = raw.promise_hold_max.unwrap_or(ttl * 5 / 4 + Duration::from_secs(2));
        if hold_max < ttl || hold_max > Duration::from_secs(2 * 3600) {
            return Err(ConfigError(format!(
                "`promise_hold_max` {hold_max:?} is not between `lease_ttl_max` ({ttl:?}) and 2h"
            )));
        }
        check_args(&raw.postgres_args)?;
        let watchdog = watchdog(&raw)?;
        let config = Self {
            state_dir: raw.state_dir,
            data_dir: raw.data_dir,
            pg_bin: raw.pg_bin,
            lease_ttl_max: ttl,
            shutdown_margin: margin,
            promise_hold_max: hold_max,
            clock_divergence_max: raw.clock_divergence_max,
            postgres_args: raw.postgres_args,
            watchdog,
            log: raw.log,
        };
        let socket = config.socket();
        if socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            return Err(ConfigError(format!(
                "`state_dir`: the socket's path {} is longer than {SOCKET_PATH_BYTES_MAX} bytes",
                socket.display()
            )));
        }
        if socket.to_str().is_none_or(|path| path.contains(['\'', '\n'])) {
            return Err(ConfigError(format!(
                "`state_dir` {:?}: quotes and line breaks are not possible here",
                config.state_dir
            )));
        }
        Ok(config)
    }

    /// Checks what the text alone cannot tell: that the programs are there.
    pub fn check_machine(&self) -> Result<(), ConfigError> {
        let postgres = self.pg_bin.join("postgres");
        match postgres.metadata() {
            Ok(meta) if meta.is_file() => Ok(()),
            Ok(_) => Err(ConfigError(format!("`pg_bin`: {} is not a file", postgres.display()))),
            Err(error) => Err(ConfigError(format!("`pg_bin`: {}: {error}", postgres.display()))),
        }
    }

    /// The guard's socket.
    pub fn socket(&self) -> PathBuf {
        self.state_dir.join("guard.sock")
    }
}

/// The reset must come before the deadline with time to spare: a watchdog that is pinged only while a whole timeout is left of the
/// lease (see [`crate::watchdog`]) would otherwise fall silent between two extensions.
fn watchdog(raw: &Raw) -> Result<Option<WatchdogConfig>, ConfigError> {
    let Some(device) = raw.watchdog.clone() else {
        return match (raw.watchdog_timeout, raw.watchdog_test_double) {
            (None, false) => Ok(None),
            (timeout, _) => Err(ConfigError(format!(
                "`watchdog` is missing, but `watchdog_timeout` ({timeout:?}) or `watchdog_test_double` ({}) is given",
                raw.watchdog_test_double
            ))),
        };
    };
    absolute("watchdog", &device)?;
    let ttl = raw.lease_ttl_max;
    let whole = |duration: Duration| Duration::from_secs(duration.as_secs());
    let timeout = raw.watchdog_timeout.unwrap_or_else(|| whole((ttl / 4).min(Duration::from_secs(10))));
    if timeout < Duration::from_secs(1) || timeout > ttl / 2 || timeout != whole(timeout) {
        return Err(ConfigError(format!(
            "`watchdog_timeout` {timeout:?} is not in whole seconds between 1s and half of `lease_ttl_max` ({:?})",
            ttl / 2
        )));
    }
    Ok(Some(WatchdogConfig { device, timeout, is_double: raw.watchdog_test_double }))
}

fn absolute(key: &str, path: &Path) -> Result<(), ConfigError> {
    let shown = path.display();
    if !path.is_absolute() {
        return Err(ConfigError(format!("`{key}` {shown} is not an absolute path")));
    }
    if path.components().any(|part| matches!(part, std::path::Component::ParentDir)) {
        return Err(ConfigError(format!("`{key}` {shown}: write it without `..`")));
    }
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(ConfigError(format!("`{key}` {shown} contains a NUL byte")));
    }
    Ok(())
}

/// Only settings are accepted (`-c name=value`, `--name=value`): every other option of `postgres` changes what kind of process it is.
fn check_args(args: &[String]) -> Result<(), ConfigError> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let setting =
            match arg.strip_prefix("--").or_else(|| arg.strip_prefix("-c").filter(|s| !s.is_empty())) {
                Some(setting) => setting,
                None if arg == "-c" => args
                    .next()
                    .ok_or_else(|| ConfigError("`postgres_args`: `-c` without a setting after it".into()))?,
                None => {
                    return Err(ConfigError(format!(
                        "`postgres_args`: `{arg}` is not a setting (`-c name=value` or `--name=value`)"
                    )));
                }
            };
        let Some((name, value)) = setting.split_once('=') else {
            return Err(ConfigError(format!("`postgres_args`: `{setting}` is not name=value")));
        };
        if value.contains('\0') || name.contains('\0') {
            return Err(ConfigError(format!("`postgres_args`: `{name}` contains a NUL byte")));
        }
        let name = name.trim().replace('-', "_").to_ascii_lowercase();
        if RESERVED.contains(&name.as_str()) {
            return Err(ConfigError(format!(
                "`postgres_args`: `{name}` is set by the guard and cannot be given"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "state_dir='/s'\ndata_dir='/d'\npg_bin='/b'\nlease_ttl_max='4m 30s'\n";

    #[test]
    fn defaults_follow_the_lease_time() {
        let config = Config::parse(GOOD).unwrap();
        assert_eq!(config.lease_ttl_max, Duration::from_secs(270));
        assert_eq!(config.shutdown_margin, Duration::from_secs(5));
        let guarded = Config::parse(&format!("{GOOD}watchdog='/dev/watchdog'\n")).unwrap();
        assert_eq!(guarded.watchdog.unwrap().timeout, Duration::from_secs(10));
        let short = Config::parse(&GOOD.replace("4m 30s", "8s")).unwrap();
        assert_eq!(short.shutdown_margin, Duration::from_secs(1));
    }

    #[test]
    fn the_shipped_example_is_valid_and_shows_every_key() {
        let text = include_str!("../../../deploy/config/guard.toml");
        Config::parse(text).unwrap();
        let keys =
            ["state_dir", "data_dir", "pg_bin", "lease_ttl_max", "shutdown_margin", "clock_divergence_max"];
        for key in keys.into_iter().chain(["postgres_args", "log", "watchdog", "watchdog_timeout"]) {
            assert!(
                text.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} ="))),
                "{key}"
            );
        }
    }

    #[test]
    fn every_bad_value_is_named() {
        for (from, to, part) in [
            ("state_dir='/s'", "state_dir='s'", "`state_dir` s"),
            ("data_dir='/d'", "data_dir='/s/d'", "one lies in the other"),
            ("data_dir='/d'", "", "data_dir"),
            ("4m 30s", "270", "270"),
            ("4m 30s", "2h", "`lease_ttl_max` 7200s"),
            ("pg_bin='/b'", "pg_bin='/b'\nshutdown_margin='200s'", "`shutdown_margin` 200s"),
            ("pg_bin='/b'", "pg_bin='/b'\nclock_divergence_max='0s'", "`clock_divergence_max`"),
            ("pg_bin='/b'", "pg_bin='/b'\nnonsense=1", "nonsense"),
            ("pg_bin='/b'", "pg_bin='/b'\nwatchdog='dev'", "`watchdog` dev"),
            ("pg_bin='/b'", "pg_bin='/b'\nwatchdog_timeout='5s'", "`watchdog` is missing"),
            (
                "pg_bin='/b'",
                "pg_bin='/b'\nwatchdog='/dev/watchdog'\nwatchdog_timeout='136s'",
                "`watchdog_timeout` 136s",
            ),
            (
                "pg_bin='/b'",
                "pg_bin='/b'\nwatchdog='/dev/watchdog'\nwatchdog_timeout='1500ms'",
                "`watchdog_timeout` 1.5s",
            ),
            ("pg_bin='/b'", "pg_bin='/b'\npostgres_args=['-D','/x']", "`-D`"),
            ("pg_bin='/b'", "pg_bin='/b'\npostgres_args=['-c']", "without a setting"),
            ("pg_bin='/b'", "pg_bin='/b'\npostgres_args=['--single']", "`single`"),
            (
                "pg_bin='/b'",
                "pg_bin='/b'\npostgres_args=['--Recovery-End-Command=x']",
                "recovery_end_command",
            ),
            ("pg_bin='/b'", "pg_bin='/b'\npostgres_args=['-crestart_after_crash=on']", "restart_after_crash"),
            ("state_dir='/s'", &format!("state_dir='/{}'", "s".repeat(120)), "longer than"),
        ] {
            let text = GOOD.replace(from, to);
            let error = Config::parse(&text).unwrap_err();
            assert!(error.0.contains(part), "{text}: {error}");
        }
    }
}
