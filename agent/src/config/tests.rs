use std::path::Path;

use super::*;

const EXAMPLE: &str = include_str!("../../../deploy/config/agent.toml");

/// The configuration that is shipped.
pub(crate) fn example() -> Config {
    Config::parse(Path::new("agent.toml"), EXAMPLE).unwrap()
}

fn refused(from: &str, to: &str) -> String {
    assert!(EXAMPLE.contains(from), "{from}");
    Config::parse(Path::new("agent.toml"), &EXAMPLE.replace(from, to)).unwrap_err().to_string()
}

#[test]
fn the_shipped_file_has_every_key() {
    let config = example();
    assert_eq!((config.port, config.coordinators.len()), (5432, 3));
    let table: toml::Table = EXAMPLE.parse().unwrap();
    let keys: Vec<&String> = table.keys().collect();
    // An unknown key is refused with the list of the known ones, which is compared with the file.
    let message = refused("member =", "membre =");
    assert!(message.contains("membre"), "{message}");
    let known = message.split("expected one of").nth(1).expect("the list of known keys");
    for key in known.split('`').skip(1).step_by(2) {
        assert!(keys.iter().any(|k| *k == key), "agent.toml does not show the key {key}");
    }
}

#[test]
fn bad_values_name_key_and_value() {
    for (from, to, parts) in [
        ("member = \"eu-north-1\"", "member = \"EU\"", ["member", "EU"]),
        ("session_timeout = \"3s\"", "session_timeout = \"1s\"", ["session_timeout", "1s"]),
        ("connect_timeout = \"1s\"", "connect_timeout = \"4s\"", ["session_timeout", "4s"]),
        ("heartbeat_interval = \"1s\"", "heartbeat_interval = \"1ms\"", ["heartbeat_interval", "1ms"]),
        ("heartbeat_interval = \"1s\"", "heartbeat_interval = \"soon\"", ["heartbeat_interval", "soon"]),
        ("https://coordinator-1", "http://coordinator-1", ["coordinators", "http://coordinator-1"]),
        ("plaintext = false", "plaintext = true", ["plaintext", "tls"]),
        (
            "state_dir = \"/var/lib/regent/agent\"",
            "state_dir = \"/var/lib/postgresql/18/main/x\"",
            ["state_dir", "main/x"],
        ),
        ("superuser = \"postgres\"", "superuser = \"regent\"", ["superuser", "regent"]),
        ("\"hostssl app", "\"reject app", ["hba_extra", "reject app"]),
        ("data_dir = \"/var", "data_dir = \"var", ["data_dir", "var/lib"]),
        ("port = 5432", "port = 0", ["port", "0"]),
        ("sslmode = \"prefer\"", "sslmode = \"always\"", ["sslmode", "always"]),
        ("sslmode = \"prefer\"", "sslmode = \"verify-full\"", ["replication_sslrootcert", "verify-full"]),
        ("sslrootcert = \"\"", "sslrootcert = \"ca.crt\"", ["replication_sslrootcert", "ca.crt"]),
        ("size = \"16GB\"", "size = \"much\"", ["max_slot_wal_keep_size", "much"]),
        ("wal_keep_size = \"1GB\"", "wal_keep_size = \"-1\"", ["wal_keep_size", "-1"]),
        ("%f", "file", ["restore_command", "file"]),
        ("salvage_keep = \"wal\"", "salvage_keep = \"all\"", ["salvage_keep", "all"]),
        ("http_listen = \"0.0.0.0:8008\"", "http_listen = \"8008\"", ["http_listen", "8008"]),
    ] {
        let message = refused(from, to);
        for part in parts {
            assert!(message.contains(part), "{to}: {message}");
        }
    }
}

#[test]
fn plain_text_is_for_loopback_only() {
    let (head, _) = EXAMPLE.split_once("\n[tls]").unwrap();
    let plain = head.replace("plaintext = false", "plaintext = true");
    let one = |url: &str| {
        let start = plain.find("coordinators = [").unwrap();
        let end = plain[start..].find("]\n").unwrap() + start;
        let text = format!("{}coordinators = [{url:?}{}", &plain[..start], &plain[end..]);
        Config::parse(Path::new("agent.toml"), &text).map(drop).map_err(|e| e.to_string())
    };
    assert_eq!(one("http://127.0.0.1:7400"), Ok(()));
    assert_eq!(one("http://[::1]:7400"), Ok(()));
    assert!(one("http://10.0.0.1:7400").unwrap_err().contains("loopback"));
    assert!(one("https://127.0.0.1:7400").unwrap_err().contains("http://host:port"));
}
