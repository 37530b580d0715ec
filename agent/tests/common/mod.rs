//! Members with a real guard, a real agent and real PostgreSQL, and a coordinator that does what the test says. Everything
//! it starts dies with it.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod coordinator;
pub mod member;
pub mod scene;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant, SystemTime},
};

pub const NOBODY: u32 = 65534;
pub const LONG: Duration = Duration::from_secs(90);

pub fn is_root() -> bool {
    // SAFETY: no arguments.
    unsafe { libc::geteuid() == 0 }
}

/// PostgreSQL installations, one a major version: `REGENT_PG_BIN` (colon-separated), Debian's, the fetched ones.
pub fn postgres_bins() -> Vec<PathBuf> {
    if let Ok(given) = std::env::var("REGENT_PG_BIN") {
        return given.split(':').map(PathBuf::from).collect();
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/pg");
    let mut found = vec![];
    for root in [Path::new("/usr/lib/postgresql").to_owned(), target] {
        let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
        let mut bins: Vec<PathBuf> = entries.map(|e| e.path().join("bin")).collect();
        bins.retain(|bin| bin.join("initdb").exists());
        bins.sort();
        found.extend(bins.into_iter().map(|bin| bin.canonicalize().unwrap()));
    }
    assert!(
        !found.is_empty(),
        "no PostgreSQL found: set REGENT_PG_BIN to a directory with initdb and postgres"
    );
    found
}

/// The newest PostgreSQL.
pub fn newest() -> PathBuf {
    postgres_bins().pop().unwrap()
}

/// The guard's binary: beside the agent's, built when it is not there or older than its sources.
pub fn guard_binary() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_regent-agent")).with_file_name("regent-guard");
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("guard/src");
    if path.metadata().and_then(|m| m.modified()).is_ok_and(|made| made > newest_change(&sources)) {
        return path;
    }
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "-p", "regent-guard", "--bin", "regent-guard"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()
        .unwrap();
    assert!(built.success() && path.exists(), "{} could not be built", path.display());
    path
}

fn newest_change(folder: &Path) -> SystemTime {
    let times = std::fs::read_dir(folder).unwrap().flatten().map(|entry| {
        let meta = entry.metadata().unwrap();
        if meta.is_dir() { newest_change(&entry.path()) } else { meta.modified().unwrap() }
    });
    times.max().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Polls until `look` gives something; panics with the description at the deadline.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> F,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < limit, "still not after {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A free TCP port.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
