//! `agent.toml`: read, checked, refused with the key and the value. Decides nothing at run time.

mod limit;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use regent_types::{ClusterName, MemberName, Region};
use serde::Deserialize;

use crate::clock::ms;

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML, or a key is unknown, missing or of the wrong kind.
    #[error("{path}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The parser's words, which name key and line.
        message: String,
    },
    /// A value does not fit.
    #[error("{path}: {key} = {value}: {rule}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// The rule that it breaks.
        rule: String,
    },
}

/// Client certificate files.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The authority that signed the coordinators' certificates.
    pub ca: PathBuf,
    /// This agent's certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Never encrypted.
    Disable,
    /// Encrypted only when the server insists.
    Allow,
    /// Encrypted when the server can; libpq's default.
    #[default]
    Prefer,
    /// Always encrypted, whoever the server is.
    Require,
    /// Always encrypted, with a server certificate of a known CA.
    VerifyCa,
    /// As before, and the certificate names the host.
    VerifyFull,
}

impl SslMode {
    /// As libpq writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What a salvage keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SalvageKeep {
    /// The divergent WAL.
    #[default]
    Wal,
    /// And a copy of the whole data directory, when there is room.
    Directory,
}

/// A value of the `[postgres]` table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Setting {
    /// `on` / `off`
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A fraction.
    Float(f64),
    /// Anything else.
    Text(String),
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::Bool(on) => f.write_str(if *on { "on" } else { "off" }),
            Setting::Integer(number) => number.fmt(f),
            Setting::Float(number) => number.fmt(f),
            Setting::Text(text) => f.write_str(text),
        }
    }
}

/// The listener for the agents of the other members.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerTable {
    /// Where they ask this member for promises.
    pub listen: SocketAddr,
}

/// Everything that `agent.toml` may say.
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
    /// The listener for the other members' agents; without it this member gives no promises.
    pub peer: Option<PeerTable>,
    /// The guard's socket.
    pub guard_socket: PathBuf,
    /// PostgreSQL's data directory.
    pub data_dir: PathBuf,
    /// The agent's own files.
    pub state_dir: PathBuf,
    /// Where divergent WAL is kept.
    pub salvage_dir: PathBuf,
    /// Folder of `postgres`, `pg_waldump`, ...
    pub pg_bin: PathBuf,
    /// Database superuser, reached over the local socket; default: the name of the user who runs the agent.
    pub superuser: Option<String>,
    /// Folder of PostgreSQL's local socket; default: `state_dir`.
    pub socket_dir: Option<PathBuf>,
    /// `listen_addresses`.
    #[serde(default = "default_listen")]
    pub listen_host: String,
    /// `port`.
    #[serde(default = "default_port")]
    pub port: u16,
    /// File with the password of the role `regent`.
    pub replication_password_file: PathBuf,
    /// What replication, rewinds and clones demand of the connection to another member: libpq's `sslmode`. The agent's own SQL is not
    /// covered (`postgres::connect::remote`).
    #[serde(default)]
    pub replication_sslmode: SslMode,
    /// libpq's `sslrootcert` for them: a file, `system`, or empty for libpq's default.
    #[serde(default)]
    pub replication_sslrootcert: String,
    /// Where `/primary`, `/replica`, `/health` and `/metrics` are served.
    pub http_listen: SocketAddr,
    /// Heartbeats.
    #[serde(default = "default_heartbeat", with = "humantime_serde")]
    pub heartbeat_interval: Duration,
    /// Without an acknowledgement for this long the next coordinator is tried; default 2 x interval + 1 s.
    #[serde(default, with = "humantime_serde::option")]
    pub session_timeout: Option<Duration>,
    /// TCP and TLS to a coordinator.
    #[serde(default = "default_connect", with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Observation of PostgreSQL.
    #[serde(default = "default_probe_interval", with = "humantime_serde")]
    pub probe_interval: Duration,
    /// A probe without an answer for this long counts as not accepting.
    #[serde(default = "default_probe_timeout", with = "humantime_serde")]
    pub probe_timeout: Duration,
    /// The fsync probe.
    #[serde(default = "default_disk_interval", with = "humantime_serde")]
    pub disk_interval: Duration,
    /// DNS servers that `validate` asks; empty: the system's resolver.
    #[serde(default)]
    pub dns_servers: Vec<SocketAddr>,
    /// Lines for `pg_hba.conf`, for the applications.
    #[serde(default)]
    pub hba_extra: Vec<String>,
    /// `max_slot_wal_keep_size`.
    #[serde(default = "default_keep")]
    pub max_slot_wal_keep_size: String,
    /// `wal_keep_size`: pg_rewind reads back to the last checkpoint before the histories parted.
    #[serde(default = "default_wal_keep")]
    pub wal_keep_size: String,
    /// Fetches a WAL segment from the archive (`%f`, `%p`), when the upstream has no more what a standby needs.
    pub restore_command: Option<String>,
    /// What a salvage keeps beside the divergent WAL.
    #[serde(default)]
    pub salvage_keep: SalvageKeep,
    /// Logical replication, with slots that survive a failover where PostgreSQL can (17 and later).
    #[serde(default)]
    pub logical_slots: bool,
    /// More arguments for `initdb`.
    #[serde(default)]
    pub initdb_args: Vec<String>,
    /// Settings put into `postgresql.conf` once, when a cluster is initialised.
    #[serde(default)]
    pub postgres: BTreeMap<String, Setting>,
    /// A primary that has heard neither coordinator nor standby for this long refuses writes; off without it.
    #[serde(default, deserialize_with = "limit::time")]
    pub isolation_read_only_after: Option<Duration>,
    /// Writes are refused while the oldest one that no promotable standby has received is older; off without it.
    #[serde(default, deserialize_with = "limit::time")]
    pub rpo_limit: Option<Duration>,
    /// The same in bytes of WAL.
    #[serde(default, deserialize_with = "limit::bytes")]
    pub rpo_limit_bytes: Option<u64>,
    /// How log lines look.
    #[serde(default = "default_log")]
    pub log_format: LogFormat,
    /// What is logged, as `RUST_LOG` has it.
    #[serde(default = "default_level")]
    pub log_level: String,
}

fn default_listen() -> String {
    "*".into()
}
fn default_port() -> u16 {
    5432
}
fn default_heartbeat() -> Duration {
    Duration::from_secs(1)
}
fn default_connect() -> Duration {
    Duration::from_secs(1)
}
fn default_probe_interval() -> Duration {
    Duration::from_secs(1)
}
fn default_probe_timeout() -> Duration {
    Duration::from_secs(2)
}
fn default_disk_interval() -> Duration {
    Duration::from_secs(2)
}
fn default_keep() -> String {
    "16GB".into()
}
fn default_wal_keep() -> String {
    "1GB".into()
}
fn default_log() -> LogFormat {
    LogFormat::Text
}
fn default_level() -> String {
    "info".into()
}

/// The role that replicates, rewinds and writes the marker row.
pub const ROLE: &str = "regent";

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
        self.session_timeout.unwrap_or(2 * self.heartbeat_interval + Duration::from_secs(1))
    }

    /// The database superuser.
    pub fn superuser(&self) -> String {
        self.superuser.clone().unwrap_or_else(os_user)
    }

    /// Folder of PostgreSQL's local socket.
    pub fn socket_dir(&self) -> &Path {
        self.socket_dir.as_deref().unwrap_or(&self.state_dir)
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
        if let Some(peer) =
            self.peer.as_ref().filter(|peer| self.plaintext && !peer.listen.ip().is_loopback())
        {
            return bad("peer.listen", &peer.listen, "plaintext = true is for loopback only");
        }
        let short = Duration::from_secs(3);
        for (key, time) in
            [("isolation_read_only_after", self.isolation_read_only_after), ("rpo_limit", self.rpo_limit)]
        {
            if let Some(time) = time.filter(|time| *time < short) {
                let rule = "at least 3s: standbys say once a second what they have";
                return bad(key, &humantime::format_duration(time), rule);
            }
        }
        if self.rpo_limit_bytes == Some(0) {
            return bad("rpo_limit_bytes", &0, "0 would refuse every write; use \"off\"");
        }
        for url in &self.coordinators {
            check_url(self.plaintext, url).or_else(|rule| bad("coordinators", &format!("{url:?}"), &rule))?;
        }
        for (key, dir) in [
            ("guard_socket", &self.guard_socket),
            ("data_dir", &self.data_dir),
            ("state_dir", &self.state_dir),
            ("salvage_dir", &self.salvage_dir),
            ("pg_bin", &self.pg_bin),
            ("replication_password_file", &self.replication_password_file),
        ] {
            if !dir.is_absolute() {
                return bad(key, &dir.display(), "use an absolute path");
            }
        }
        let root = &self.replication_sslrootcert;
        if !root.is_empty() && root != "system" && !std::path::Path::new(root).is_absolute() {
            return bad(
                "replication_sslrootcert",
                &format!("{root:?}"),
                "use an absolute path, \"system\" or \"\"",
            );
        }
        let verifies = matches!(self.replication_sslmode, SslMode::VerifyCa | SslMode::VerifyFull);
        if verifies && root.is_empty() {
            let rule = "name the CA's file in replication_sslrootcert";
            return bad("replication_sslmode", &self.replication_sslmode.name(), rule);
        }
        for (key, dir) in [("state_dir", &self.state_dir), ("salvage_dir", &self.salvage_dir)] {
            if dir.starts_with(&self.data_dir) {
                return bad(key, &dir.display(), "keep it outside data_dir, which a clone replaces");
            }
        }
        if self.superuser() == ROLE {
            return bad("superuser", &ROLE, "this name is the replication role's");
        }
        if self.socket_dir().as_os_str().len() > 80 {
            let rule = "PostgreSQL's socket path may have 107 bytes: use a shorter folder";
            return bad("socket_dir", &self.socket_dir().display(), rule);
        }
        if self.port == 0 {
            return bad("port", &0, "use a port from 1 to 65535");
        }
        let shown = |d: Duration| humantime::format_duration(d).to_string();
        for (key, value) in [
            ("heartbeat_interval", self.heartbeat_interval),
            ("connect_timeout", self.connect_timeout),
            ("probe_interval", self.probe_interval),
            ("probe_timeout", self.probe_timeout),
            ("disk_interval", self.disk_interval),
        ] {
            if !(20..=60_000).contains(&ms(value)) {
                return bad(key, &shown(value), "use 20ms to 60s");
            }
        }
        let (session, heartbeat) = (self.session_timeout(), self.heartbeat_interval);
        if session < heartbeat.saturating_mul(2) {
            let rule = format!("at least twice heartbeat_interval = {}", shown(heartbeat));
            return bad("session_timeout", &shown(session), &rule);
        }
        if session < self.connect_timeout {
            let rule = format!("at least connect_timeout = {}", shown(self.connect_timeout));
            return bad("session_timeout", &shown(session), &rule);
        }
        for (key, size) in
            [("max_slot_wal_keep_size", &self.max_slot_wal_keep_size), ("wal_keep_size", &self.wal_keep_size)]
        {
            if !is_size(size, key == "max_slot_wal_keep_size") {
                return bad(key, &format!("{size:?}"), "use a size such as 512MB or 16GB");
            }
        }
        if let Some(command) = &self.restore_command
            && (!command.contains("%f") || !command.contains("%p") || command.contains('\n'))
        {
            let rule = "a command on one line with %f (the file wanted) and %p (where to put it)";
            return bad("restore_command", &format!("{command:?}"), rule);
        }
        for line in &self.hba_extra {
            let word = line.split_whitespace().next().unwrap_or("");
            let known = ["local", "host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"];
            if line.contains('\n') || !known.contains(&word) {
                return bad(
                    "hba_extra",
                    &format!("{line:?}"),
                    "one pg_hba.conf line, e.g. host all app all md5",
                );
            }
        }
        for (name, value) in &self.postgres {
            let plain =
                !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.".contains(c));
            if !plain || value.to_string().contains('\n') {
                return bad("postgres", &format!("{name} = {value}"), "not the name and value of a setting");
            }
        }
        Ok(())
    }
}

/// A coordinator's address: https, or plain text on loopback.
pub(crate) fn check_url(plaintext: bool, url: &str) -> Result<(), String> {
    let uri: axum::http::Uri = url.parse().map_err(|e| format!("not a URL: {e}"))?;
    let scheme = if plaintext { "http" } else { "https" };
    if uri.scheme_str() != Some(scheme) {
        return Err(format!("use {scheme}://host:port (plaintext = {})", plaintext));
    }
    let host = uri.host().unwrap_or("");
    if host.is_empty() || uri.port_u16().is_none() {
        return Err(format!("use {scheme}://host:port"));
    }
    let bare = host.trim_matches(['[', ']']);
    let loopback = bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if plaintext && !loopback {
        return Err("plaintext = true is for loopback addresses only".into());
    }
    Ok(())
}

/// A size as PostgreSQL reads it; -1 where that means no limit.
fn is_size(text: &str, unlimited: bool) -> bool {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    (unlimited && text == "-1")
        || (digits.parse::<u64>().is_ok() && ["", "kB", "MB", "GB", "TB"].contains(&unit.trim()))
}

/// The name of the user who runs this process, or `postgres` when it has none.
fn os_user() -> String {
    // SAFETY: getpwuid returns null or a pointer to a static record that stays valid until the next call; it is only
    // called while the configuration is read, before other threads exist.
    unsafe {
        let record = libc::getpwuid(libc::geteuid());
        if record.is_null() {
            return "postgres".into();
        }
        std::ffi::CStr::from_ptr((*record).pw_name).to_string_lossy().into_owned()
    }
}

#[cfg(test)]
pub(crate) mod tests;
