use super::*;

const PATH: &str = "coordinator.toml";

fn example() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/config/coordinator.toml");
    std::fs::read_to_string(path).unwrap()
}

fn parse(text: &str) -> Result<Config, LoadError> {
    Config::parse(text, Path::new(PATH))
}

/// The example with one line replaced.
fn with(line: &str, replacement: &str) -> String {
    let text = example();
    assert!(text.contains(line), "the example has {line:?}");
    text.replacen(line, replacement, 1)
}

#[track_caller]
fn refused(text: &str, words: &[&str]) {
    let error = parse(text).unwrap_err().to_string();
    for word in words {
        assert!(error.contains(word), "{error:?} does not name {word:?}");
    }
}

#[test]
fn the_example_holds_every_default() {
    let config = parse(&example()).unwrap();
    // Every optional key taken out: the same configuration must come out. The last ones have no default, the example shows one.
    let required = [
        "node_id",
        "region",
        "data_dir",
        "listen",
        "http_listen",
        "ca",
        "cert",
        "key",
        "id",
        "address",
        "zone",
        "name_servers",
        "verify",
        "name",
        "dns_name",
        "initial_primary",
        "host",
        "port",
        "client_address",
        "max_lag_bytes",
        "agent_address",
        "preferred_region",
        "failback_window",
    ];
    let kept = example().lines().fold(String::new(), |mut text, line| {
        let key = line.split('=').next().unwrap_or_default().trim();
        if !line.contains('=') || line.starts_with('#') || required.contains(&key) {
            text.push_str(line);
            text.push('\n');
        }
        text
    });
    assert_ne!(kept, example());
    assert_eq!(parse(&kept).unwrap(), config);
    assert_eq!(config.raft.election_worst_ms(), 2 * 1500 + 4 * 150 + 250);
    assert_eq!(config.clusters[0].policy.lease.ttl_ms, 270_000);
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    refused(&with("group = \"regent\"", "gruop = \"regent\""), &[PATH, "gruop"]);
    refused(&with("heartbeat_interval = \"250ms\"", "heartbeat = \"250ms\""), &["unknown field `heartbeat`"]);
    refused(&with("priority = 100", "prio = 100"), &["prio"]);
    refused(&with("lease_ttl = \"4m 30s\"", "lease = \"4m 30s\""), &["lease"]);
    refused(&with("node_id = 1", "node_id = \"one\""), &["node_id", "one"]);
    refused(&with("partition_timeout = \"5m\"", "partition_timeout = \"5 parsecs\""), &["parsecs"]);
    refused(&with("name = \"gravl\"", "name = \"Gravl\""), &["cluster name", "Gravl"]);
}

#[test]
fn a_region_with_most_votes_is_refused_unless_asked_for() {
    let text = with("region = \"us-east-1\"\naddress", "region = \"eu-north-1\"\naddress");
    refused(&text, &["peers.region", "eu-north-1 holds 2 of 3 votes", "allow_single_region_majority"]);
    let allowed = text.replace("allow_single_region_majority = false", "allow_single_region_majority = true");
    parse(&allowed).unwrap();
}

#[test]
fn the_number_of_coordinators_and_their_ids_are_checked() {
    let third = "[[peers]]\nid = 3\nregion = \"eu-west-1\"\naddress = \"coordinator-3.example.org:7400\"\n";
    refused(&with(third, ""), &["peers", "2 coordinators"]);
    refused(&with("node_id = 1", "node_id = 4"), &["node_id", "4 is not among the peers (1, 2, 3)"]);
    refused(&with("id = 2\n", "id = 1\n"), &["peers.id", "1 is given twice"]);
    refused(
        &with("coordinator-2.example.org:7400", "coordinator-1.example.org:7400"),
        &["peers.2.address", "node 1 too"],
    );
    refused(
        &with("coordinator-2.example.org:7400", "coordinator-2.example.org"),
        &["peers.2.address", "is not host:port"],
    );
    refused(
        &with("region = \"eu-north-1\"\n# Required. Log", "region = \"eu-west-1\"\n# Required. Log"),
        &["region", "eu-west-1"],
    );
}

#[test]
fn plain_text_is_for_loopback_and_only_when_asked_for() {
    refused(&with("plaintext = false", "plaintext = true"), &["plaintext", "[tls]"]);
    let example = example();
    let (tls, peers) =
        (example.find("[tls]").unwrap(), example.find("# Required. All coordinators").unwrap());
    let without = format!("{}{}", &example[..tls], &example[peers..]);
    refused(&without, &["tls", "is missing"]);
    let plain = without.replace("plaintext = false", "plaintext = true");
    refused(&plain, &["listen", "0.0.0.0:7400", "loopback"]);
    let local = plain.replace("0.0.0.0:7400", "127.0.0.1:7400");
    refused(&local, &["peers.1.address", "loopback"]);
    let peers = (1..=3).fold(local, |text, id| {
        text.replace(&format!("coordinator-{id}.example.org:7400"), &format!("127.0.0.1:740{id}"))
    });
    assert_eq!(parse(&peers).unwrap().security, Security::Plaintext);
}

#[test]
fn hooks_are_checked() {
    refused(&with("veto = []", "veto = [\"veto.sh\"]"), &["hooks.veto", "veto.sh", "absolute"]);
    refused(&with("veto_timeout = \"10s\"", "veto_timeout = \"0s\""), &["hooks.veto_timeout"]);
    refused(&with("event_attempts = 5", "event_attempts = 0"), &["hooks.event_attempts"]);
    refused(&with("veto_on_failure = \"allow\"", "veto_on_failure = \"maybe\""), &["maybe"]);
}

#[test]
fn time_outs_are_checked_against_each_other_with_the_numbers() {
    refused(
        &with("lease_ttl = \"4m 30s\"", "lease_ttl = \"4m 57s\""),
        &["cluster.gravl.partition_timeout", "300000 ms is too short", "3850 ms", "297000 ms"],
    );
    refused(
        &with("round_trip_max = \"150ms\"", "round_trip_max = \"200ms\""),
        &["raft.heartbeat_interval", "200ms"],
    );
    refused(
        &with("election_timeout_min = \"1s\"", "election_timeout_min = \"700ms\""),
        &["raft.election_timeout_min"],
    );
    refused(
        &with("election_timeout_max = \"1500ms\"", "election_timeout_max = \"1s\""),
        &["raft.election_timeout_max", "1s"],
    );
    refused(&with("lease_ttl = \"4m 30s\"", "lease_ttl = \"2s\""), &["lease_ttl", "2000 ms", "1000 ms"]);
}

#[test]
fn dns_and_members_are_checked() {
    refused(
        &with("dns_name = \"gravl.db.example.org\"", "dns_name = \"gravl.example.com\""),
        &["dns_name", "gravl.example.com", "db.example.org"],
    );
    refused(
        &with("dns_providers = [\"embedded\"]", "dns_providers = [\"route53\"]"),
        &["dns_providers", "route53", "is not a provider", EMBEDDED],
    );
    refused(&with("dns_providers = [\"embedded\"]", "dns_providers = []"), &["dns_providers", "is empty"]);
    refused(&with("dns_ttl = \"5s\"", "dns_ttl = \"2h\""), &["cluster.gravl.dns_ttl", "2h"]);
    refused(&with("zone = \"db.example.org\"", "zone = \"db.example.org.\""), &["dns.zone", "last dot"]);
    refused(
        &with("initial_primary = \"eu-north-1\"", "initial_primary = \"mars\""),
        &["initial_primary", "mars"],
    );
    refused(&with("name = \"us-east-1\"", "name = \"eu-north-1\""), &["eu-north-1 is given twice"]);
    refused(&with("port = 5432", "port = 0"), &["cluster.gravl.member.eu-north-1.port", "0 is not a port"]);
    let hook = format!("{}\n[test_hooks]\nexit_after_step = \"fence\"\n", example());
    refused(&hook, &["test_hooks.exit_after_step", "fence", "failover:fence"]);
    let hook = hook.replace("exit_after_step", "stop_after_step");
    refused(&hook, &["test_hooks.stop_after_step", "fence", "failover:fence"]);
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Path::new("/nowhere/coordinator.toml")).unwrap_err().to_string();
    assert!(error.contains("/nowhere/coordinator.toml"), "{error}");
}

/// The example with its `[[route53]]` table, one of whose lines is replaced (by nothing: left out).
fn with_route53(line: &str, replacement: &str) -> String {
    let example = example();
    let from = example.find("# [[route53]]").unwrap();
    let to = from + example[from..].find("\n\n").unwrap();
    let is_key = |line: &str| line.starts_with("# [[") || (line.starts_with("# ") && line.contains(" = "));
    let mut table: String = example[from..to]
        .lines()
        .filter(|line| is_key(line) && !line.starts_with("# resolvers"))
        .map(|line| format!("{}\n", line.trim_start_matches("# ")))
        .collect();
    if !line.is_empty() {
        assert!(table.contains(line), "the table has {line:?}: {table}");
        table = table.replacen(line, replacement, 1);
    }
    let providers = "dns_providers = [\"embedded\"]";
    let text = example.replacen(providers, "dns_providers = [\"embedded\", \"route53\"]", 1);
    format!("{}{table}{}", &text[..from], &text[from..])
}

#[cfg(feature = "route53")]
#[test]
fn the_route53_table_of_the_example_holds_its_defaults() {
    let config = parse(&with_route53("", "")).unwrap();
    let Route53Mode::Change(mode) = &config.route53["route53"].mode else { panic!("{config:?}") };
    assert_eq!((mode.timeout, mode.ttl_s), (Duration::from_secs(5), Some(5)));
    assert_eq!(mode.weighted, Some(Weighted { set_identifier: "regent".into(), weight: 100 }));
    let mut short = with_route53("ttl = \"5s\"\n", "");
    for line in ["name = \"route53\"\n", "mode = \"change\"\n", "weight = 100\n", "timeout = \"5s\"\n"] {
        assert!(short.contains(line));
        short = short.replacen(line, "", 1);
    }
    let Route53Mode::Change(short) = &parse(&short).unwrap().route53["route53"].mode else { panic!() };
    assert_eq!(*short, ChangeMode { ttl_s: None, ..mode.clone() });
}

#[cfg(feature = "route53")]
#[test]
fn a_bad_route53_table_is_refused_by_key_and_value() {
    let zone = "zone = \"db.example.org\"";
    let id = "hosted_zone_id = \"Z0123456789ABCDEFGHIJ\"";
    let url = "endpoint_url = \"https://route53.amazonaws.com\"";
    let mode = "mode = \"change\"";
    let cases: [(&str, &str, &[&str]); 20] = [
        (
            "credentials_file = \"/etc/regent/aws-credentials\"",
            "credentials_file = \"aws\"",
            &["route53.route53.credentials_file", "aws", "absolute"],
        ),
        (
            zone,
            "zone = \"example.net\"",
            &["cluster.gravl.dns_name", "gravl.db.example.org", "route53.route53.zone", "example.net"],
        ),
        (zone, "zone = \"db.example.org.\"", &["route53.route53.zone", "db.example.org."]),
        (id, "", &["route53.route53.hosted_zone_id", "missing"]),
        (id, "hosted_zone_id = \"zone 1\"", &["route53.route53.hosted_zone_id", "zone 1"]),
        ("weight = 100", "weight = 256", &["route53.route53.weight", "256"]),
        ("weight = 100", "weight = 0", &["route53.route53.weight", "0", "never answered"]),
        ("set_identifier = \"regent\"", "", &["route53.route53.weight", "100", "set_identifier is missing"]),
        ("set_identifier = \"regent\"", "set_identifier = \"\"", &["route53.route53.set_identifier"]),
        ("ttl = \"5s\"", "ttl = \"2h\"", &["route53.route53.ttl", "2h"]),
        ("timeout = \"5s\"", "timeout = \"1ms\"", &["route53.route53.timeout", "1ms"]),
        (
            url,
            "endpoint_url = \"http://192.0.2.1:80\"",
            &["route53.route53.endpoint_url", "192.0.2.1", "loopback"],
        ),
        (
            url,
            "endpoint_url = \"http://127.0.0.1.example.net\"",
            &["route53.route53.endpoint_url", "loopback"],
        ),
        (url, "endpoint_url = \"route53\"", &["route53.route53.endpoint_url", "https://"]),
        ("region = \"us-east-1\"", "region = \"US East\"", &["route53.route53.region", "US East"]),
        ("profile = \"regent\"", "profile = \"\"", &["route53.route53.profile"]),
        ("name = \"route53\"", "name = \"embedded\"", &["route53.name", "embedded"]),
        ("name = \"route53\"", "name = \"Route 53\"", &["route53.name", "Route 53"]),
        (
            mode,
            "mode = \"health-check\"",
            &["route53.route53.hosted_zone_id", "health-check", "leave it out"],
        ),
        (mode, "mode = \"magic\"", &["magic"]),
    ];
    for (line, replacement, words) in cases {
        refused(&with_route53(line, replacement), words);
    }
    let text = with_route53("", "");
    refused(
        &text.replace("\"embedded\", \"route53\"", "\"route53\", \"route53\""),
        &["dns_providers", "given twice"],
    );
    for url in ["http://127.0.0.1:8053", "http://[::1]:8053", "http://localhost:1"] {
        parse(&text.replace("https://route53.amazonaws.com", url)).unwrap();
    }
}

#[test]
fn health_checks_need_resolvers_and_nothing_else() {
    let example = example();
    let table = |rest: &str| {
        let at = example.find("# Where the leader lives.").unwrap();
        let text = example.replacen("[\"embedded\"]", "[\"checks\"]", 1);
        format!(
            "{}[[route53]]\nname = \"checks\"\nzone = \"db.example.org\"\nmode = \"health-check\"\n{rest}\n{}",
            &text[..at],
            &text[at..]
        )
    };
    let config = parse(&table("resolvers = [\"192.0.2.53:53\"]")).unwrap();
    assert!(
        matches!(&config.route53["checks"].mode, Route53Mode::HealthCheck { resolvers } if resolvers.len() == 1)
    );
    refused(&table(""), &["route53.checks.resolvers", "is empty"]);
    refused(&table("resolvers = [\"nowhere\"]"), &["resolvers"]);
    refused(&table("ttl = \"5s\"\nresolvers = [\"192.0.2.53:53\"]"), &["route53.checks.ttl", "leave it out"]);
}

fn with_driver(change: impl Fn(String) -> String) -> String {
    let driver = "[[fencing_driver]]\nname = \"off\"\ncluster = \"gravl\"\ncommand = [\"/bin/sh\"]\n";
    format!("{}\n{}", example(), change(driver.to_owned()))
}

#[test]
fn fencing_drivers_are_checked() {
    let config = parse(&with_driver(|driver| driver)).unwrap();
    let driver = &config.fencing_drivers[0];
    assert_eq!((driver.timeout, driver.delay), (Duration::from_secs(60), Duration::from_secs(10)));
    let cases: [(&str, &str, &[&str]); 8] = [
        ("\"gravl\"", "\"grvl\"", &["fencing_driver.off.cluster", "grvl"]),
        ("\"off\"", "\"o f\"", &["fencing_driver.name", "o f"]),
        ("[\"/bin/sh\"]", "[]", &["fencing_driver.off.command", "is empty"]),
        ("/bin/sh", "sh", &["fencing_driver.off.command", "\"sh\"", "absolute"]),
        ("/bin/sh", "/no/such/driver", &["fencing_driver.off.command", "/no/such/driver"]),
        ("/bin/sh", "/etc/passwd", &["fencing_driver.off.command", "/etc/passwd", "not executable"]),
        ("name", "timeout = \"2h\"\nname", &["fencing_driver.off.timeout", "2h"]),
        ("name", "members = [\"mars\"]\nname", &["fencing_driver.off.members", "mars"]),
    ];
    for (from, to, words) in cases {
        refused(&with_driver(|driver| driver.replacen(from, to, 1)), words);
    }
    refused(&with_driver(|driver| driver.repeat(2)), &["fencing_driver.name", "off is given twice"]);
}
