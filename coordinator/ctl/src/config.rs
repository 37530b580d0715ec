//! Where the coordinators are and how to speak to them: flags over environment over file. Decides what may go
//! without TLS: loopback, and only when asked for.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use regent_pki::TlsFiles;
use serde::Deserialize;
use tonic::transport::Uri;

use crate::{Failure, cli::Global, failure::chain};

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
const TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// `regentctl.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FileConfig {
    /// Coordinators.
    pub endpoints: Vec<String>,
    /// CA, PEM.
    pub ca: Option<PathBuf>,
    /// Own certificate, PEM.
    pub cert: Option<PathBuf>,
    /// Its key, PEM.
    pub key: Option<PathBuf>,
    /// For one coordinator's answer.
    #[serde(with = "humantime_serde")]
    pub timeout: Option<Duration>,
    /// No TLS.
    pub plaintext: bool,
}

/// What a command needs to reach a coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// At least one, with scheme.
    pub endpoints: Vec<Uri>,
    /// Absent: plain text.
    pub tls: Option<TlsFiles>,
    /// For one coordinator's answer.
    pub timeout: Duration,
}

/// Reads a configuration file; relative paths in it are relative to its folder.
pub fn read_file(path: &Path) -> Result<FileConfig, Failure> {
    let text = fs::read_to_string(path).map_err(|error| {
        Failure::Usage(format!("cannot read the configuration {}: {error}", path.display()))
    })?;
    let mut config: FileConfig =
        toml::from_str(&text).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    for file in [&mut config.ca, &mut config.cert, &mut config.key].into_iter().flatten() {
        *file = folder.join(&*file);
    }
    Ok(config)
}

/// The file that is used when none is named, if there is one.
fn default_file() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let own = home.map(|home| home.join(".config/regent/regentctl.toml"));
    own.into_iter().chain([PathBuf::from("/etc/regent/regentctl.toml")]).find(|path| path.exists())
}

impl Settings {
    pub(crate) fn resolve(global: &Global) -> Result<Self, Failure> {
        let path = global.config.clone().or_else(default_file);
        let file = path.as_deref().map(read_file).transpose()?.unwrap_or_default();
        Self::merge(global, file)
    }

    fn merge(global: &Global, file: FileConfig) -> Result<Self, Failure> {
        let plaintext = global.plaintext || file.plaintext;
        let endpoints = if global.endpoints.is_empty() { file.endpoints } else { global.endpoints.clone() };
        if endpoints.is_empty() {
            return Err(Failure::Usage(
                "no coordinator is known: use --endpoint HOST:PORT, REGENT_ENDPOINTS, or `endpoints` in regentctl.toml"
                    .to_owned(),
            ));
        }
        let endpoints = endpoints.iter().map(|text| endpoint(text, plaintext)).collect::<Result<_, _>>()?;
        let timeout = global.timeout.or(file.timeout).unwrap_or(TIMEOUT_DEFAULT);
        if timeout.is_zero() || timeout > TIMEOUT_MAX {
            let timeout = humantime::format_duration(timeout);
            return Err(Failure::Usage(format!("timeout {timeout}: use more than 0s and at most 10m")));
        }
        let tls = if plaintext {
            None
        } else {
            let need = |flag: &Option<PathBuf>, file: Option<PathBuf>, name: &str| {
                flag.clone().or(file).ok_or_else(|| {
                    Failure::Usage(format!(
                        "no `{name}` is configured: TLS needs ca, cert and key (--{name} FILE, REGENT_{}, or \
                         regentctl.toml); `regentctl pki issue` makes them",
                        name.to_ascii_uppercase()
                    ))
                })
            };
            Some(TlsFiles {
                ca: need(&global.ca, file.ca, "ca")?,
                cert: need(&global.cert, file.cert, "cert")?,
                key: need(&global.key, file.key, "key")?,
            })
        };
        Ok(Self { endpoints, tls, timeout })
    }
}

/// `HOST:PORT` with or without a scheme. Plain text and TLS must be said by the address and the setting alike.
fn endpoint(text: &str, plaintext: bool) -> Result<Uri, Failure> {
    let wrong = |why: &str| Failure::Usage(format!("endpoint {text:?}: {why}"));
    let wanted = if plaintext { "http" } else { "https" };
    let full = if text.contains("://") { text.to_owned() } else { format!("{wanted}://{text}") };
    let uri: Uri = full.parse().map_err(|error| wrong(&chain(&error)))?;
    match uri.scheme_str() {
        Some(scheme) if scheme == wanted => {}
        Some("http") => return Err(wrong("http is plain text: use https, or --plaintext on loopback")),
        Some("https") => return Err(wrong("https does not go with plaintext: remove one of them")),
        _ => return Err(wrong("use HOST:PORT or https://HOST:PORT")),
    }
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("no host: use HOST:PORT"))?;
    if uri.port_u16().is_none_or(|port| port == 0) {
        return Err(wrong("no port: use HOST:PORT"));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(wrong("something follows the port: use HOST:PORT"));
    }
    if plaintext && !is_loopback(host) {
        return Err(wrong("plain text is accepted for loopback addresses only; configure ca, cert and key"));
    }
    Ok(uri)
}

/// A literal address or `localhost`: another name could lead anywhere.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::Cli;

    fn shipped() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/config/regentctl.toml")
    }

    fn settings(flags: &[&str], file: FileConfig) -> Result<Settings, String> {
        let line = ["regentctl", "status"].iter().chain(flags);
        let cli = Cli::try_parse_from(line).map_err(|error| error.to_string())?;
        Settings::merge(&cli.global, file).map_err(|failure| failure.to_string())
    }

    #[test]
    fn the_shipped_file_has_every_key_and_is_valid() {
        let config = read_file(&shipped()).unwrap();
        let table: toml::Table = fs::read_to_string(shipped()).unwrap().parse().unwrap();
        let keys: Vec<&str> = table.keys().map(String::as_str).collect();
        for key in ["endpoints", "ca", "cert", "key", "timeout", "plaintext"] {
            assert!(keys.contains(&key), "{key} is not in the shipped file");
        }
        assert_eq!(keys.len(), 6);
        assert!(config.ca.as_ref().unwrap().ends_with("deploy/config/pki/ca.crt"), "{config:?}");
        let settings = settings(&[], config).unwrap();
        assert_eq!(settings.endpoints.len(), 3);
        assert_eq!(settings.timeout, Duration::from_secs(5));
    }

    #[test]
    fn unknown_keys_and_bad_values_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("regentctl.toml");
        for (text, expected) in [
            ("endpoint = []", "unknown field `endpoint`"),
            ("timeout = \"soon\"", "timeout"),
            ("plaintext = 1", "plaintext"),
            ("endpoints = \"a\"", "endpoints"),
        ] {
            fs::write(&path, text).unwrap();
            let error = read_file(&path).unwrap_err().to_string();
            assert!(error.contains("regentctl.toml") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = FileConfig { timeout: Some(Duration::from_secs(9)), ..read_file(&shipped()).unwrap() };
        let merged = settings(&["--endpoint", "a:1", "--endpoint", "b:2", "--ca", "x"], file).unwrap();
        let endpoints: Vec<String> = merged.endpoints.iter().map(Uri::to_string).collect();
        assert_eq!(endpoints, ["https://a:1/", "https://b:2/"]);
        assert_eq!(merged.tls.unwrap().ca, PathBuf::from("x"));
        assert_eq!(merged.timeout, Duration::from_secs(9));
    }

    #[test]
    fn bad_endpoints_are_refused_with_the_reason() {
        for (flags, expected) in [
            (vec![], "no coordinator is known"),
            (vec!["--endpoint", "a"], "endpoint \"a\": no port"),
            (vec!["--endpoint", "a:0"], "endpoint \"a:0\": no port"),
            (vec!["--endpoint", "http://a:1"], "http is plain text"),
            (vec!["--endpoint", "ftp://a:1"], "use HOST:PORT"),
            (vec!["--endpoint", "a:1/x"], "something follows the port"),
            (vec!["--plaintext", "--endpoint", "10.0.0.1:1"], "loopback addresses only"),
            (vec!["--plaintext", "--endpoint", "localhost.evil:1"], "loopback addresses only"),
            (vec!["--plaintext", "--endpoint", "https://[::1]:1"], "https does not go with plaintext"),
            (vec!["--endpoint", "a:1"], "no `ca` is configured"),
            (vec!["--endpoint", "a:1", "--ca", "c", "--cert", "d"], "no `key` is configured"),
            (vec!["--plaintext", "--endpoint", "[::1]:1", "--timeout", "0s"], "timeout 0s"),
        ] {
            let error = settings(&flags, FileConfig::default()).unwrap_err();
            assert!(error.contains(expected), "{flags:?}: {error}");
        }
        for address in ["127.0.0.9:1", "[::1]:1", "localhost:1", "http://127.0.0.1:1"] {
            let merged = settings(&["--plaintext", "--endpoint", address], FileConfig::default()).unwrap();
            assert_eq!(merged.tls, None);
        }
    }
}
