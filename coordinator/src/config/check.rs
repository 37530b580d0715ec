//! Relations between values that no single table can see.

use std::{collections::BTreeMap, net::ToSocketAddrs};

use regent_core::{ConfigError, FEATURE_LEVEL, FEATURE_LEVEL_FIRST};
use regent_types::Region;

use super::{Config, EMBEDDED, Security, refuse};

/// Votes: how many coordinators, and where.
pub(super) fn check_votes(config: &Config, allow_single_region_majority: bool) -> Result<(), ConfigError> {
    let count = config.peers.len();
    if count != 3 && count != 5 && !config.join {
        let problem = format!(
            "{count} coordinators: use 3 or 5 (an even number adds no safety, fewer survive no loss)"
        );
        return refuse("peers", problem);
    }
    if config.peers.keys().any(|id| id.0 == 0) {
        return refuse("peers.id", "0 is not an id: ids start at 1");
    }
    let Some(own) = config.peers.get(&config.node_id) else {
        let ids: Vec<String> = config.peers.keys().map(|id| id.to_string()).collect();
        return refuse("node_id", format!("{} is not among the peers ({})", config.node_id, ids.join(", ")));
    };
    if own.region != config.region {
        return refuse(
            "region",
            format!("{}, but the peers list says {} for node {}", config.region, own.region, config.node_id),
        );
    }
    let mut votes: BTreeMap<&Region, usize> = BTreeMap::new();
    for peer in config.peers.values() {
        *votes.entry(&peer.region).or_default() += 1;
    }
    let majority = votes.iter().find(|(_, votes)| **votes * 2 > count);
    // Of a group that exists already its own records judge.
    if let Some((region, held)) = majority
        && !allow_single_region_majority
        && !config.join
    {
        let problem = format!(
            "region {region} holds {held} of {count} votes: its loss would stop every failover, so failover would not be \
             automatic; spread the coordinators, or set allow_single_region_majority = true to accept that"
        );
        return refuse("peers.region", problem);
    }
    Ok(())
}

/// Everything else.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    if config.group.is_empty() || config.group.len() > 128 {
        return refuse("group", format!("{:?} must have 1 to 128 bytes", config.group));
    }
    if config.data_dir.as_os_str().is_empty() {
        return refuse("data_dir", "is empty");
    }
    check_addresses(config)?;
    check_raft(config)?;
    check_dns(config)?;
    let mut names = std::collections::BTreeSet::new();
    for cluster in &config.clusters {
        if !names.insert(&cluster.name) {
            return refuse("cluster.name", format!("{} is given twice", cluster.name));
        }
        cluster.check(config.raft.election_worst_ms())?;
    }
    if !(FEATURE_LEVEL_FIRST..=FEATURE_LEVEL).contains(&config.feature_level_max) {
        let text = format!(
            "{} is not a feature level of this build ({FEATURE_LEVEL_FIRST} to {FEATURE_LEVEL})",
            config.feature_level_max
        );
        return refuse("feature_level_max", text);
    }
    super::fencing::check(&config.fencing_drivers, &config.clusters)?;
    let hooks = config.test_hooks.clone().unwrap_or_default();
    let given = [("exit_after_step", hooks.exit_after_step), ("stop_after_step", hooks.stop_after_step)];
    for (key, step) in given {
        let well_formed = |step: &str| {
            step.split_once(':').is_some_and(|(kind, step)| !kind.is_empty() && !step.is_empty())
        };
        if let Some(step) = step.filter(|step| !well_formed(step)) {
            let text = format!("{step:?} has not the form kind:step, e.g. failover:fence");
            return refuse(format!("test_hooks.{key}"), text);
        }
    }
    Ok(())
}

fn check_addresses(config: &Config) -> Result<(), ConfigError> {
    let mut seen = BTreeMap::new();
    for (id, peer) in &config.peers {
        let field = format!("peers.{id}.address");
        let port = peer.address.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
        if port.and_then(|port| port.parse::<u16>().ok()).is_none_or(|port| port == 0) {
            return refuse(field, format!("{:?} is not host:port", peer.address));
        }
        if let Some(other) = seen.insert(&peer.address, id) {
            return refuse(field, format!("{:?} is the address of node {other} too", peer.address));
        }
    }
    if config.security != Security::Plaintext {
        return Ok(());
    }
    if !config.listen.ip().is_loopback() {
        return refuse("listen", format!("{}: plaintext = true is for loopback only", config.listen));
    }
    for (id, peer) in &config.peers {
        let loopback = peer.address.to_socket_addrs().is_ok_and(|mut all| all.all(|a| a.ip().is_loopback()));
        if !loopback {
            let problem = format!("{:?}: plaintext = true is for loopback only", peer.address);
            return refuse(format!("peers.{id}.address"), problem);
        }
    }
    Ok(())
}

fn check_raft(config: &Config) -> Result<(), ConfigError> {
    let raft = &config.raft;
    let text = |duration| humantime::format_duration(duration).to_string();
    // openraft's deadline of an AppendEntries call is 3/4 of the heartbeat interval.
    if raft.heartbeat_interval * 3 / 4 <= raft.round_trip_max {
        let problem = format!(
            "{}: three quarters of it must exceed round_trip_max = {}, or no entry is ever acknowledged in time",
            text(raft.heartbeat_interval),
            text(raft.round_trip_max)
        );
        return refuse("raft.heartbeat_interval", problem);
    }
    if raft.election_timeout_min < raft.heartbeat_interval * 3 {
        let problem = format!(
            "{}: must be at least three heartbeat intervals of {}",
            text(raft.election_timeout_min),
            text(raft.heartbeat_interval)
        );
        return refuse("raft.election_timeout_min", problem);
    }
    if raft.election_timeout_max <= raft.election_timeout_min {
        let problem = format!(
            "{}: must exceed election_timeout_min = {}, or elections tie",
            text(raft.election_timeout_max),
            text(raft.election_timeout_min)
        );
        return refuse("raft.election_timeout_max", problem);
    }
    Ok(())
}

fn check_dns(config: &Config) -> Result<(), ConfigError> {
    if let Some(dns) = &config.dns {
        for (key, name) in [("dns.zone", &dns.zone)]
            .into_iter()
            .chain(dns.name_servers.iter().map(|n| ("dns.name_servers", n)))
        {
            if name.is_empty() || name.ends_with('.') || name.parse::<hickory_proto::rr::Name>().is_err() {
                return refuse(key, format!("{name:?} is not a domain name without the last dot"));
            }
        }
        if dns.name_servers.is_empty() {
            return refuse("dns.name_servers", "is empty: a zone needs at least one");
        }
        if dns.verify.is_empty() {
            return refuse("dns.verify", "is empty: name at least one DNS listener of a coordinator");
        }
    }
    for cluster in &config.clusters {
        let field = |key: &str| format!("cluster.{}.{key}", cluster.name);
        if cluster.dns_providers.is_empty() {
            return refuse(field("dns_providers"), "is empty: clients would never find a new primary");
        }
        for provider in &cluster.dns_providers {
            let (key, zone) = match (provider.as_str(), &config.dns, config.route53.get(provider)) {
                (EMBEDDED, Some(dns), _) => ("dns.zone".to_owned(), &dns.zone),
                (EMBEDDED, None, _) => {
                    let problem =
                        format!("is missing, but cluster {} uses the {EMBEDDED} provider", cluster.name);
                    return refuse("dns", problem);
                }
                (_, _, Some(route53)) => (format!("route53.{provider}.zone"), &route53.zone),
                (_, _, None) => {
                    let known: Vec<&str> =
                        [EMBEDDED].into_iter().chain(config.route53.keys().map(String::as_str)).collect();
                    let problem = format!("{provider:?} is not a provider; known: {known:?}");
                    return refuse(field("dns_providers"), problem);
                }
            };
            let inside =
                cluster.dns_name.to_ascii_lowercase().ends_with(&format!(".{}", zone.to_ascii_lowercase()));
            if !inside {
                let problem = format!("{:?} is not inside the zone {key} = {zone:?}", cluster.dns_name);
                return refuse(field("dns_name"), problem);
            }
        }
        let twice = |(i, provider): (usize, &String)| cluster.dns_providers[..i].contains(provider);
        if let Some(i) = cluster.dns_providers.iter().enumerate().position(twice) {
            return refuse(field("dns_providers"), format!("{:?} is given twice", cluster.dns_providers[i]));
        }
        if cluster.dns_name.parse::<hickory_proto::rr::Name>().is_err() {
            return refuse(field("dns_name"), format!("{:?} is not a domain name", cluster.dns_name));
        }
    }
    Ok(())
}
