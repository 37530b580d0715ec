//! The `[[route53]]` tables: places in Amazon Route 53 where names are published.
//!
//! Decides whether a table can work as far as that can be seen without asking AWS. Credentials are never part of the
//! configuration: they come from the usual AWS places, so that no file of Regent's holds a secret.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use regent_core::ConfigError;
use serde::Deserialize;

use super::{EMBEDDED, refuse};

/// One place in Route 53.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route53 {
    /// Its name among the DNS providers.
    pub name: String,
    /// Name of the hosted zone, without the last dot.
    pub zone: String,
    /// How the name moves.
    pub mode: Route53Mode,
}

/// How the name moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route53Mode {
    /// The coordinator changes the records through the API.
    Change(ChangeMode),
    /// Route 53 moves the name by health checks made beforehand; the coordinator only watches.
    HealthCheck {
        /// DNS servers that are asked whether the name has moved.
        resolvers: Vec<SocketAddr>,
    },
}

/// What the API calls need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeMode {
    /// Id of the hosted zone, public or private.
    pub hosted_zone_id: String,
    /// Weighted records instead of simple ones.
    pub weighted: Option<Weighted>,
    /// Instead of the cluster's `dns_ttl`, seconds.
    pub ttl_s: Option<u32>,
    /// Instead of the usual endpoint.
    pub endpoint_url: Option<String>,
    /// Instead of the usual region.
    pub region: Option<String>,
    /// Profile of the AWS configuration files.
    pub profile: Option<String>,
    /// Instead of the usual credentials file; then nothing else is looked at.
    pub credentials_file: Option<PathBuf>,
    /// Longest wait for one call.
    pub timeout: Duration,
}

/// Routing policy "weighted".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weighted {
    /// Tells these records from others of the same name and type.
    pub set_identifier: String,
    /// 0 to 255.
    pub weight: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ModeKey {
    Change,
    HealthCheck,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Route53Table {
    #[serde(default = "default_name")]
    name: String,
    zone: String,
    #[serde(default = "default_mode")]
    mode: ModeKey,
    hosted_zone_id: Option<String>,
    set_identifier: Option<String>,
    weight: Option<u64>,
    #[serde(with = "humantime_serde", default)]
    ttl: Option<Duration>,
    endpoint_url: Option<String>,
    region: Option<String>,
    profile: Option<String>,
    credentials_file: Option<PathBuf>,
    #[serde(with = "humantime_serde", default)]
    timeout: Option<Duration>,
    resolvers: Option<Vec<SocketAddr>>,
}

fn default_name() -> String {
    "route53".into()
}

fn default_mode() -> ModeKey {
    ModeKey::Change
}

/// Default of `timeout`.
const TIMEOUT: Duration = Duration::from_secs(5);

/// All tables, by provider name.
pub(super) fn into_providers(tables: Vec<Route53Table>) -> Result<BTreeMap<String, Route53>, ConfigError> {
    let mut providers = BTreeMap::new();
    for table in tables {
        let provider = table.into_provider()?;
        let name = provider.name.clone();
        if name == EMBEDDED {
            return refuse("route53.name", format!("{name:?} is the built-in provider's name"));
        }
        if providers.insert(name.clone(), provider).is_some() {
            return refuse("route53.name", format!("{name:?} is given twice"));
        }
    }
    Ok(providers)
}

impl Route53Table {
    fn into_provider(self) -> Result<Route53, ConfigError> {
        let well_formed = |text: &str, max: usize, extra: &str| {
            (1..=max).contains(&text.len())
                && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || extra.contains(c))
        };
        if !well_formed(&self.name, 63, "-") {
            return refuse("route53.name", format!("{:?}: 1 to 63 of a-z, 0-9 and '-'", self.name));
        }
        if cfg!(not(feature = "route53")) && self.mode == ModeKey::Change {
            let problem =
                format!("{:?}: this coordinator was built without the cargo feature route53", self.name);
            return refuse("route53", problem);
        }
        let name = self.name;
        let field = |key: &str| format!("route53.{name}.{key}");
        let zone = self.zone.to_ascii_lowercase();
        if zone.is_empty() || zone.ends_with('.') || zone.parse::<hickory_proto::rr::Name>().is_err() {
            return refuse(
                field("zone"),
                format!("{:?} is not a domain name without the last dot", self.zone),
            );
        }
        if self.mode == ModeKey::HealthCheck {
            let unused = [
                ("hosted_zone_id", self.hosted_zone_id.is_some()),
                ("set_identifier", self.set_identifier.is_some()),
                ("weight", self.weight.is_some()),
                ("ttl", self.ttl.is_some()),
                ("endpoint_url", self.endpoint_url.is_some()),
                ("region", self.region.is_some()),
                ("profile", self.profile.is_some()),
                ("credentials_file", self.credentials_file.is_some()),
                ("timeout", self.timeout.is_some()),
            ];
            if let Some((key, _)) = unused.into_iter().find(|(_, given)| *given) {
                let problem = "is of no use with mode = \"health-check\", which calls no API: leave it out";
                return refuse(field(key), problem);
            }
            let resolvers = self.resolvers.unwrap_or_default();
            if resolvers.is_empty() {
                let problem = "is empty: mode = \"health-check\" asks DNS servers whether the name has moved";
                return refuse(field("resolvers"), problem);
            }
            return Ok(Route53 { name, zone, mode: Route53Mode::HealthCheck { resolvers } });
        }
        if self.resolvers.is_some() {
            return refuse(field("resolvers"), "is of no use with mode = \"change\": leave it out");
        }
        let Some(id) = self.hosted_zone_id else {
            return refuse(field("hosted_zone_id"), "is missing");
        };
        let hosted_zone_id = id.trim_start_matches("/hostedzone/").to_owned();
        let shape = (1..=32).contains(&hosted_zone_id.len())
            && hosted_zone_id.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
        if !shape {
            let problem = format!("{id:?} is not a hosted zone's id such as \"Z0123456789ABCDEFGHIJ\"");
            return refuse(field("hosted_zone_id"), problem);
        }
        let weighted = match (self.set_identifier, self.weight) {
            (None, None) => None,
            (None, Some(weight)) => {
                return refuse(field("weight"), format!("{weight}, but set_identifier is missing"));
            }
            (Some(set_identifier), weight) => {
                // Length and weight: API reference, ResourceRecordSet.
                if !(1..=128).contains(&set_identifier.chars().count()) {
                    return refuse(
                        field("set_identifier"),
                        format!("{set_identifier:?}: 1 to 128 characters"),
                    );
                }
                let weight = weight.unwrap_or(100);
                let Some(weight) = u8::try_from(weight).ok().filter(|weight| *weight > 0) else {
                    return refuse(field("weight"), format!("{weight}: 1 to 255 (0 means never answered)"));
                };
                Some(Weighted { set_identifier, weight })
            }
        };
        let ttl_s = match self.ttl {
            None => None,
            Some(ttl) => match u32::try_from(ttl.as_secs()).ok().filter(|ttl| (1..=3600).contains(ttl)) {
                Some(ttl) => Some(ttl),
                None => {
                    let text = humantime::format_duration(ttl);
                    return refuse(field("ttl"), format!("{text}: must be 1 s to 1 h"));
                }
            },
        };
        if let Some(url) = &self.endpoint_url {
            check_url(&field("endpoint_url"), url)?;
        }
        if let Some(region) = self.region.as_deref().filter(|region| !well_formed(region, 63, "-")) {
            return refuse(field("region"), format!("{region:?} is not a region such as \"us-east-1\""));
        }
        if self.profile.as_deref().is_some_and(str::is_empty) {
            return refuse(field("profile"), "is empty");
        }
        if let Some(path) = self.credentials_file.as_deref().filter(|path| !path.is_absolute()) {
            return refuse(field("credentials_file"), format!("{path:?} is not an absolute path"));
        }
        let timeout = self.timeout.unwrap_or(TIMEOUT);
        if timeout < Duration::from_millis(100) || timeout > Duration::from_secs(60) {
            let text = humantime::format_duration(timeout);
            return refuse(field("timeout"), format!("{text}: must be 100 ms to 1 min"));
        }
        let (endpoint_url, region, profile) = (self.endpoint_url, self.region, self.profile);
        let credentials_file = self.credentials_file;
        let mode = ChangeMode {
            credentials_file,
            hosted_zone_id,
            weighted,
            ttl_s,
            endpoint_url,
            region,
            profile,
            timeout,
        };
        Ok(Route53 { name, zone, mode: Route53Mode::Change(mode) })
    }
}

/// Plain HTTP shows every record and every request to whoever listens: for a test double on loopback only.
fn check_url(field: &str, url: &str) -> Result<(), ConfigError> {
    let host = |rest: &str| {
        let authority = rest.split('/').next().unwrap_or_default();
        let host = match authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
        };
        host.to_owned()
    };
    if let Some(rest) = url.strip_prefix("https://")
        && !host(rest).is_empty()
        && !rest.contains('@')
    {
        return Ok(());
    }
    if let Some(rest) = url.strip_prefix("http://") {
        let host = host(rest);
        if host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
            return Ok(());
        }
        return refuse(field, format!("{url:?}: http:// is for loopback only"));
    }
    refuse(field, format!("{url:?} is not https://host[:port]"))
}
