//! Reads what a member's agent has salvaged, by itself: the transactions that the kept WAL commits.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::process::Command;

use super::life::Deployment;

/// One salvage folder.
#[derive(Clone, Debug)]
pub struct Salvage {
    /// Where it is.
    pub folder: PathBuf,
    /// Its manifest.
    pub manifest: Value,
    /// Transactions that its WAL commits, as PostgreSQL numbers them.
    pub committed: BTreeSet<u32>,
}

impl Deployment {
    /// Every salvage of the member, oldest first.
    pub async fn salvages(&self, member: &str) -> Result<Vec<Salvage>> {
        let dir = self.files.salvage(member);
        let mut folders: Vec<PathBuf> = fs::read_dir(&dir)
            .with_context(|| format!("reading {}", dir.display()))?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.join("manifest.json").is_file())
            .collect();
        folders.sort();
        let mut found = Vec::new();
        for folder in folders {
            let text = fs::read_to_string(folder.join("manifest.json"))?;
            let manifest = serde_json::from_str(&text).context("manifest.json of a salvage")?;
            let committed = self.committed(&folder.join("pg_wal")).await?;
            found.push(Salvage { folder, manifest, committed });
        }
        Ok(found)
    }

    /// Commits in the segments of a folder. Those before the divergence are among them and do no harm: the rows of these
    /// are in the surviving primary too.
    async fn committed(&self, pg_wal: &Path) -> Result<BTreeSet<u32>> {
        let mut segments: Vec<String> = fs::read_dir(pg_wal)
            .with_context(|| format!("reading {}", pg_wal.display()))?
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .collect();
        segments.sort();
        let mut committed = BTreeSet::new();
        for segment in segments {
            let mut command = Command::new(self.postgres.program("pg_waldump"));
            command.args(["-r", "Transaction"]).arg(pg_wal.join(&segment)).kill_on_drop(true);
            let done = tokio::time::timeout(Duration::from_secs(60), command.output())
                .await
                .context("pg_waldump: no end")?
                .context("running pg_waldump")?;
            // It fails at the end of WAL that stops within a segment; what it has printed counts.
            committed.extend(String::from_utf8_lossy(&done.stdout).lines().filter_map(commit));
        }
        Ok(committed)
    }
}

/// The transaction of a commit record as `pg_waldump` prints it.
fn commit(line: &str) -> Option<u32> {
    if !line.contains("desc: COMMIT") {
        return None;
    }
    let (_, rest) = line.split_once("tx:")?;
    rest.split(',').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_lines() {
        let line = "rmgr: Transaction len (rec/tot):     34/    34, tx:        742, lsn: 0/03000148, prev 0/03000110, \
                    desc: COMMIT 2026-11-22 17:00:00.123456 UTC";
        assert_eq!(commit(line), Some(742));
        assert_eq!(commit(&line.replace("COMMIT", "ABORT")), None);
    }
}
