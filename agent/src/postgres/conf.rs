//! The include file `regent.conf`: everything that failover needs of PostgreSQL's configuration.
//!
//! `postgresql.conf` gets one `include_if_exists` line, once; no other line of it is touched. The include file holds no
//! secret: `primary_conninfo` names a password file.

use std::{fs, io, path::Path};

use regent_types::{MemberName, Upstream};

use crate::{
    config::{Config, ROLE},
    durable,
};

/// Its name in the data directory.
pub const FILE: &str = "regent.conf";
const AUTO: &str = "postgresql.auto.conf";
const INCLUDE: &str = "include_if_exists = 'regent.conf'";
const UPSTREAM_NOTE: &str = "# upstream: ";
const ARCHIVE_NOTE: &str = "# archive: in use";
/// Set at the upstream's end of the stream. When a slot is invalidated, the primary's checkpointer waits for the process that sends from
/// it; that one says goodbye to its standby first, and behind a cut that does not end before TCP gives up, a quarter of an hour later.
/// All that time the primary makes no checkpoint. Only here, not for every client: one that reads slowly must not be cut off.
const SENDER_TIMEOUT: &str = " options='-c tcp_user_timeout=30s'";
/// The first major version whose standbys keep logical slots in step.
pub const LOGICAL_FROM: u32 = 17;

/// Name of the replication slot of `member`.
pub fn slot_name(member: &MemberName) -> String {
    let name = member.as_str().replace('-', "_");
    if name.len() <= 56 {
        return format!("regent_{name}");
    }
    // A slot's name has 63 bytes at most: the sum keeps long names apart.
    format!("regent_{}_{:08x}", &name[..47], crc32fast::hash(name.as_bytes()))
}

/// A value in single quotes.
pub fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// A value within a connection string.
fn conn_quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Connection string of the role `regent` at `host:port`; the password comes from the password file.
pub fn conninfo(config: &Config, host: &str, port: u16, more: &str) -> String {
    let root = match config.replication_sslrootcert.as_str() {
        "" => String::new(),
        root => format!(" sslrootcert={}", conn_quoted(root)),
    };
    format!(
        "host={} port={port} user={ROLE} passfile={} application_name={} connect_timeout=5 keepalives_idle=5 \
         keepalives_interval=2 keepalives_count=3 sslmode={}{root}{more}",
        conn_quoted(host),
        conn_quoted(&passfile(config).display().to_string()),
        config.member,
        config.replication_sslmode.name(),
    )
}

/// The password file.
pub fn passfile(config: &Config) -> std::path::PathBuf {
    config.state_dir.join("regent.pgpass")
}

/// The password of the role `regent`.
pub fn password(config: &Config) -> io::Result<String> {
    let text = fs::read_to_string(&config.replication_password_file)?;
    let password = text.trim_end_matches(['\n', '\r']).to_owned();
    if password.is_empty() || password.contains(['\n', '\0']) {
        let path = config.replication_password_file.display();
        return Err(io::Error::other(format!("{path}: one line with a password is required")));
    }
    Ok(password)
}

/// Writes the password file, readable by this user only.
pub fn write_passfile(config: &Config) -> io::Result<()> {
    let password = password(config)?.replace('\\', "\\\\").replace(':', "\\:");
    let line = format!("*:*:*:{ROLE}:{password}\n");
    durable::replace_if_changed(&passfile(config), line.as_bytes(), 0o600).map(drop)
}

/// The text of the include file, streaming from `upstream` or detached. With `archive` WAL comes from there too: never while
/// detached, when nothing more may arrive.
pub fn render(config: &Config, upstream: Option<(&str, u16)>, archive: bool, major: Option<u32>) -> String {
    let restore = config.restore_command.as_deref().filter(|_| archive && upstream.is_some()).unwrap_or("");
    let mut lines = vec![
        "# Written by regent-agent: changes here are lost. Put settings of your own into postgresql.conf."
            .to_owned(),
    ];
    if let Some((host, port)) = upstream {
        lines.push(format!("{UPSTREAM_NOTE}{host} {port}"));
    }
    if !restore.is_empty() {
        lines.push(ARCHIVE_NOTE.to_owned());
    }
    // From 17 on a standby can keep logical slots in step with its upstream; it needs a database to ask in.
    let logical = config.logical_slots && major.is_some_and(|major| major >= LOGICAL_FROM);
    let more = format!("{SENDER_TIMEOUT}{}", if logical { " dbname=postgres" } else { "" });
    let conninfo = upstream.map_or(String::new(), |(host, port)| conninfo(config, host, port, &more));
    let slot = upstream.map_or(String::new(), |_| slot_name(&config.member));
    for (name, value) in [
        ("listen_addresses", config.listen_host.as_str()),
        ("port", &config.port.to_string()),
        ("unix_socket_directories", &config.socket_dir().display().to_string()),
        ("cluster_name", config.member.as_str()),
        ("wal_level", if config.logical_slots { "logical" } else { "replica" }),
        ("hot_standby", "on"),
        ("wal_log_hints", "on"),
        ("max_wal_senders", "16"),
        ("max_replication_slots", "16"),
        ("max_slot_wal_keep_size", &config.max_slot_wal_keep_size),
        ("wal_keep_size", &config.wal_keep_size),
        ("wal_receiver_timeout", "10s"),
        // A primary takes the standby's word for a sign of life.
        ("wal_receiver_status_interval", "1s"),
        ("wal_retrieve_retry_interval", "500ms"),
        ("primary_conninfo", &conninfo),
        ("primary_slot_name", &slot),
    ] {
        lines.push(format!("{name} = {}", quoted(value)));
    }
    // Always: a command of the user's own would let WAL of a cut-off primary in that has diverged. Theirs belongs into
    // `restore_command` of agent.toml.
    lines.push(format!("restore_command = {}", quoted(restore)));
    for file in [crate::synchronous::FILE, super::block::FILE] {
        lines.push(format!("include_if_exists = {}", quoted(file)));
    }
    if config.logical_slots {
        lines.push("hot_standby_feedback = on".to_owned());
    }
    if logical {
        lines.push("sync_replication_slots = on".to_owned());
    }
    // Last: an operator's parameters win over the defaults above; what must not be set is refused before.
    lines.push(format!("include_if_exists = '{}'", crate::parameters::FILE));
    lines.push(String::new());
    lines.join("\n")
}

/// Writes the include file and its line in `postgresql.conf`. Whether anything changed. The archive stays in use as long as
/// the upstream is the same.
pub fn write(config: &Config, data_dir: &Path, upstream: Option<(&str, u16)>) -> io::Result<bool> {
    let same = upstream.is_some_and(|(host, port)| read_upstream(data_dir) == Some((host.to_owned(), port)));
    write_with(config, data_dir, upstream, same && read_archive(data_dir))
}

/// As [`write`], and takes WAL from the archive from now on.
pub fn use_archive(config: &Config, data_dir: &Path, upstream: (&str, u16)) -> io::Result<bool> {
    write_with(config, data_dir, Some(upstream), true)
}

/// Whether the include file takes WAL from the archive.
pub fn read_archive(data_dir: &Path) -> bool {
    fs::read_to_string(data_dir.join(FILE)).is_ok_and(|text| text.lines().any(|line| line == ARCHIVE_NOTE))
}

fn write_with(
    config: &Config,
    data_dir: &Path,
    upstream: Option<(&str, u16)>,
    archive: bool,
) -> io::Result<bool> {
    // PostgreSQL says in its log of every missing file, at every reload.
    for (file, text) in [
        (crate::synchronous::FILE, crate::synchronous::none()),
        (super::block::FILE, super::block::text(false)),
    ] {
        if !data_dir.join(file).exists() {
            durable::replace(&data_dir.join(file), text.as_bytes(), 0o600)?;
        }
    }
    let text = render(config, upstream, archive, crate::data::major(data_dir));
    let changed = durable::replace_if_changed(&data_dir.join(FILE), text.as_bytes(), 0o600)?;
    let main = data_dir.join("postgresql.conf");
    let mut conf = fs::read_to_string(&main)?;
    if conf.lines().any(|l| l.trim() == INCLUDE) {
        return Ok(changed);
    }
    if !conf.ends_with('\n') && !conf.is_empty() {
        conf.push('\n');
    }
    conf.push_str(&format!("\n# Added by regent-agent, once.\n{INCLUDE}\n"));
    durable::replace(&main, conf.as_bytes(), 0o600)?;
    Ok(true)
}

/// Takes out of `postgresql.auto.conf` what the include file sets: PostgreSQL reads it last, so an `ALTER SYSTEM` or the
/// `primary_conninfo` of a `pg_basebackup -R` would win for ever, and a standby would never be pointed at a new primary. The
/// file as it was is kept beside, and what is taken out later is added to it. Only while PostgreSQL is stopped: a running one rewrites the file by itself. Returns
/// the names taken out.
pub fn strip_auto(config: &Config, data_dir: &Path) -> io::Result<Vec<String>> {
    let path = data_dir.join(AUTO);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let name = |line: &str| line.split_once('=').map(|(name, _)| name.trim().to_owned());
    let included = render(config, None, false, crate::data::major(data_dir));
    let mut managed: Vec<String> =
        included.lines().filter(|line| !line.starts_with('#')).filter_map(name).collect();
    managed.extend(crate::parameters::names(data_dir));
    if crate::synchronous::is_managed(data_dir) {
        managed.push("synchronous_standby_names".to_owned());
    }
    let (out, kept): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| name(line).is_some_and(|name| managed.contains(&name)));
    if out.is_empty() {
        return Ok(Vec::new());
    }
    let before = data_dir.join(format!("{AUTO}.before-regent"));
    let earlier = match fs::read_to_string(&before) {
        Ok(earlier) => earlier,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let next = if earlier.is_empty() {
        text.clone()
    } else {
        format!("{}\n# Taken out later:\n{}\n", earlier.trim_end(), out.join("\n"))
    };
    durable::replace(&before, next.as_bytes(), 0o600)?;
    durable::replace(&path, (kept.join("\n") + "\n").as_bytes(), 0o600)?;
    Ok(out.into_iter().filter_map(name).collect())
}

/// As [`write`], for an upstream.
pub fn attach(config: &Config, data_dir: &Path, upstream: &Upstream) -> io::Result<bool> {
    write(config, data_dir, Some((&upstream.host, upstream.port)))
}

/// The upstream that the include file names; `None` when detached or not written yet.
pub fn read_upstream(data_dir: &Path) -> Option<(String, u16)> {
    let text = fs::read_to_string(data_dir.join(FILE)).ok()?;
    let (host, port) = text.lines().find_map(|l| l.strip_prefix(UPSTREAM_NOTE))?.rsplit_once(' ')?;
    Some((host.to_owned(), port.parse().ok()?))
}

/// Puts the `[postgres]` table into `postgresql.conf`, at initialisation: from then on it is the user's.
pub fn append_settings(config: &Config, data_dir: &Path) -> io::Result<()> {
    let main = data_dir.join("postgresql.conf");
    let mut conf = fs::read_to_string(&main)?;
    for (name, value) in &config.postgres {
        conf.push_str(&format!("{name} = {}\n", quoted(&value.to_string())));
    }
    durable::replace(&main, conf.as_bytes(), 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::example;

    #[test]
    fn the_upstream_is_read_back_and_the_include_line_is_added_once() {
        let config = example();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("postgresql.conf"), "shared_buffers = 1GB").unwrap();
        assert!(write(&config, dir.path(), Some(("10.0.0.1", 5433))).unwrap());
        assert!(!write(&config, dir.path(), Some(("10.0.0.1", 5433))).unwrap());
        assert_eq!(read_upstream(dir.path()), Some(("10.0.0.1".into(), 5433)));
        assert!(write(&config, dir.path(), None).unwrap());
        assert_eq!(read_upstream(dir.path()), None);
        let conf = fs::read_to_string(dir.path().join("postgresql.conf")).unwrap();
        assert_eq!(conf.matches(INCLUDE).count(), 1);
        assert!(conf.starts_with("shared_buffers = 1GB\n"));
    }

    #[test]
    fn connections_to_other_members_demand_what_is_configured() {
        let mut config = example();
        assert!(conninfo(&config, "h", 5432, "").ends_with(" sslmode=prefer"));
        config.replication_sslmode = crate::config::SslMode::VerifyFull;
        config.replication_sslrootcert = "/etc/it's/ca.crt".into();
        let text = conninfo(&config, "h", 5432, " dbname=postgres");
        assert!(
            text.contains(r" sslmode=verify-full sslrootcert='/etc/it\'s/ca.crt' dbname=postgres"),
            "{text}"
        );
    }

    #[test]
    fn what_the_include_file_sets_is_taken_out_of_the_file_that_would_win() {
        let config = example();
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(strip_auto(&config, dir.path()).unwrap(), Vec::<String>::new());
        let text = "# Do not edit this file manually!\nwork_mem = '5MB'\nprimary_conninfo = 'host=old port=5432'\nport='1'\n";
        fs::write(dir.path().join(AUTO), text).unwrap();
        assert_eq!(strip_auto(&config, dir.path()).unwrap(), ["primary_conninfo", "port"]);
        let left = fs::read_to_string(dir.path().join(AUTO)).unwrap();
        assert_eq!(left, "# Do not edit this file manually!\nwork_mem = '5MB'\n");
        assert_eq!(strip_auto(&config, dir.path()).unwrap(), Vec::<String>::new());
        let kept = || fs::read_to_string(dir.path().join("postgresql.auto.conf.before-regent")).unwrap();
        assert_eq!(kept(), text);
        fs::write(dir.path().join(AUTO), "work_mem = '5MB'\nwal_keep_size = '1GB'\n").unwrap();
        assert_eq!(strip_auto(&config, dir.path()).unwrap(), ["wal_keep_size"]);
        assert!(kept().starts_with(text) && kept().ends_with("wal_keep_size = '1GB'\n"), "{}", kept());
    }

    #[test]
    fn the_archive_is_used_until_the_upstream_changes() {
        let mut config = example();
        config.restore_command = Some("cp /archive/%f %p".into());
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("postgresql.conf"), "").unwrap();
        let text = || fs::read_to_string(dir.path().join(FILE)).unwrap();
        write(&config, dir.path(), Some(("a", 1))).unwrap();
        assert!(!read_archive(dir.path()) && text().contains("restore_command = ''\n"));
        use_archive(&config, dir.path(), ("a", 1)).unwrap();
        assert!(!write(&config, dir.path(), Some(("a", 1))).unwrap(), "a start keeps it");
        assert!(text().contains("restore_command = 'cp /archive/%f %p'"));
        write(&config, dir.path(), Some(("b", 1))).unwrap();
        assert!(!read_archive(dir.path()));
        use_archive(&config, dir.path(), ("b", 1)).unwrap();
        // Nothing more may arrive at a candidate.
        write(&config, dir.path(), None).unwrap();
        assert!(!read_archive(dir.path()) && text().contains("restore_command = ''\n"));
    }

    #[test]
    fn logical_slots_are_kept_in_step_where_postgresql_can() {
        let mut config = example();
        config.logical_slots = true;
        let text = render(&config, Some(("a", 1)), false, Some(17));
        assert!(text.contains("sync_replication_slots = on") && text.contains("dbname=postgres"), "{text}");
        assert!(text.contains("wal_level = 'logical'"), "{text}");
        let text = render(&config, Some(("a", 1)), false, Some(15));
        assert!(!text.contains("sync_replication_slots") && !text.contains("dbname"), "{text}");
    }

    #[test]
    fn slot_names_are_valid_and_long_ones_stay_apart() {
        let name = |text: &str| slot_name(&MemberName::new(text).unwrap());
        assert_eq!(name("eu-north-1"), "regent_eu_north_1");
        let (a, b) = (name(&("x".repeat(62) + "a")), name(&("x".repeat(62) + "b")));
        assert!(a != b && a.len() <= 63, "{a} {b}");
    }
}
