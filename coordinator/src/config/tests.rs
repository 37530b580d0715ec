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
    // Every optional key taken out: the same configuration must come out.
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
        &["dns_providers", "route53"],
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
