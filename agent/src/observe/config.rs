//! The file of `regent-agent observe`: read, checked, refused with the key and the value.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use regent_types::{ClusterName, MemberName, Region};
use serde::Deserialize;
use tokio_postgres::{Config as Dsn, config::SslMode};

use crate::{
    clock::ms,
    config::{ConfigError, LogFormat, Tls, check_url},
};

/// Everything that it may say.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The cluster.
    pub cluster: ClusterName,
    /// This member.
    pub member: MemberName,
    /// Where it lives.
    pub region: Region,
    /// Coordinator URLs, tried in this order.
    pub coordinators: Vec<String>,
    /// Speak without TLS; loopback coordinators only.
    #[serde(default)]
    pub plaintext: bool,
    /// Certificates; required unless `plaintext`.
    pub tls: Option<Tls>,
    /// How to reach the server, as libpq writes it.
    #[serde(rename = "dsn")]
    dsn_text: String,
    /// File with the role's password; none: what the server's `pg_hba.conf` lets in without.
    pub password_file: Option<PathBuf>,
    /// Heartbeats.
    #[serde(default = "second", with = "humantime_serde")]
    pub heartbeat_interval: Duration,
    /// TCP and TLS to a coordinator.
    #[serde(default = "second", with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Looks at the server.
    #[serde(default = "second", with = "humantime_serde")]
    pub probe_interval: Duration,
    /// A look without an answer for this long counts as not accepting.
    #[serde(default = "two_seconds", with = "humantime_serde")]
    pub probe_timeout: Duration,
    /// How log lines look.
    #[serde(default = "text")]
    pub log_format: LogFormat,
    /// What is logged, as `RUST_LOG` has it.
    #[serde(default = "info")]
    pub log_level: String,
}

fn second() -> Duration {
    Duration::from_secs(1)
}
fn two_seconds() -> Duration {
    Duration::from_secs(2)
}
fn text() -> LogFormat {
    LogFormat::Text
}
fn info() -> String {
    "info".into()
}

impl Config {
    /// Reads and checks `path`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    /// Checks `text`, which came from `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|e| ConfigError::Parse { path: path.to_owned(), message: e.to_string() })?;
        config.check(path)?;
        Ok(config)
    }

    /// The time after which another coordinator is tried.
    pub fn session_timeout(&self) -> Duration {
        2 * self.heartbeat_interval + Duration::from_secs(1)
    }

    /// Where the server is; a password file is read anew each time.
    pub fn dsn(&self) -> Dsn {
        let mut dsn: Dsn = self.dsn_text.parse().unwrap_or_default();
        if let Some(Ok(password)) = self.password_file.as_ref().map(std::fs::read_to_string) {
            dsn.password(password.trim_end());
        }
        dsn
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let bad = |key: &'static str, value: &dyn fmt::Display, rule: &str| {
            let (path, value) = (path.to_owned(), value.to_string());
            Err(ConfigError::Value { path, key, value, rule: rule.to_owned() })
        };
        if self.coordinators.is_empty() {
            return bad("coordinators", &"[]", "name at least one coordinator");
        }
        if self.plaintext == self.tls.is_some() {
            let value = if self.plaintext { "true with [tls]" } else { "false without [tls]" };
            return bad("plaintext", &value, "give either [tls] files or plaintext = true");
        }
        for url in &self.coordinators {
            check_url(self.plaintext, url).or_else(|rule| bad("coordinators", &format!("{url:?}"), &rule))?;
        }
        let dsn = match self.dsn_text.parse::<Dsn>() {
            Ok(dsn) => dsn,
            // Not the text itself: it may hold a password.
            Err(error) => return bad("dsn", &"(not shown)", &error.to_string()),
        };
        if dsn.get_hosts().len() != 1 {
            let rule = "name one server: a folder with its socket, or one host";
            return bad("dsn", &format!("{} hosts", dsn.get_hosts().len()), rule);
        }
        if dsn.get_user().is_none() {
            return bad("dsn", &"no user", "name the role, which needs pg_monitor and no more");
        }
        if !matches!(dsn.get_ssl_mode(), SslMode::Disable | SslMode::Prefer) {
            let rule = "the observer speaks without TLS: run it on the server's host";
            return bad("dsn", &"sslmode=require", rule);
        }
        if let Some(file) = self.password_file.as_ref().filter(|file| !file.is_absolute()) {
            return bad("password_file", &file.display(), "use an absolute path");
        }
        for (key, value) in [
            ("heartbeat_interval", self.heartbeat_interval),
            ("connect_timeout", self.connect_timeout),
            ("probe_interval", self.probe_interval),
            ("probe_timeout", self.probe_timeout),
        ] {
            if !(20..=60_000).contains(&ms(value)) {
                let shown = humantime::format_duration(value);
                return bad(key, &shown, "use 20ms to 60s");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../deploy/config/agent-observe.toml");

    fn refused(from: &str, to: &str) -> String {
        assert!(EXAMPLE.contains(from), "{from}");
        Config::parse(Path::new("o.toml"), &EXAMPLE.replace(from, to)).unwrap_err().to_string()
    }

    #[test]
    fn the_shipped_file_has_every_key() {
        let config = Config::parse(Path::new("o.toml"), EXAMPLE).unwrap();
        assert_eq!(config.dsn().get_user(), Some("regent_observer"));
        let table: toml::Table = EXAMPLE.parse().unwrap();
        let message = refused("member =", "membre =");
        let known = message.split("expected one of").nth(1).expect("the list of known keys");
        for key in known.split('`').skip(1).step_by(2) {
            assert!(table.contains_key(key), "agent-observe.toml does not show the key {key}");
        }
    }

    #[test]
    fn bad_values_name_key_and_value() {
        for (from, to, parts) in [
            ("user=regent_observer", "password=secret", ["dsn", "no user"]),
            ("host=/var/run/postgresql", "host=a,b", ["dsn", "2 hosts"]),
            ("dbname=postgres", "sslmode=require", ["dsn", "sslmode=require"]),
            ("probe_interval = \"1s\"", "probe_interval = \"1ms\"", ["probe_interval", "1ms"]),
            ("https://coordinator-1", "http://coordinator-1", ["coordinators", "http://coordinator-1"]),
        ] {
            let message = refused(from, to);
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
            assert!(!message.contains("secret"), "{message}");
        }
    }
}
