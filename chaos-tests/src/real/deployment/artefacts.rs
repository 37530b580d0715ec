//! What is kept of a scenario that failed: configurations, logs, state files; not the data directories.

use std::fs;
use std::path::{Path, PathBuf};

use super::life::Deployment;
use crate::real::dirs::build_dir;

impl Deployment {
    /// Errs when a process that ought to run has ended by itself.
    pub(super) fn require_alive(&self) -> anyhow::Result<()> {
        for name in self.running() {
            let process = self.process(&name)?;
            let hooked = name
                .strip_prefix("coordinator-")
                .is_some_and(|region| self.lock_hooks().contains_key(region));
            // A guard's timer may have killed it: that is the protocol, and scenarios judge it.
            if let Some(status) = process.exit_status()
                && !(name.starts_with("guard-") || hooked && status.code().is_none())
            {
                anyhow::bail!("{name} has ended by itself ({status}): {}", process.log_tail());
            }
        }
        Ok(())
    }

    /// Copies logs and configurations to `target/chaos/<name>/` and says where, and how to run it again.
    pub(super) fn keep_artefacts(&self) {
        let Some(kept) = chaos_dir().map(|dir| dir.join(&self.options.name)) else { return };
        let _ = fs::remove_dir_all(&kept);
        for folder in ["logs", "etc"] {
            copy(&self.files.root().join(folder), &kept.join(folder));
        }
        eprintln!("artefacts of {}: {}", self.options.name, kept.display());
        for name in self.running() {
            if let Ok(process) = self.process(&name) {
                let state = process.exit_status().map_or("runs".to_owned(), |status| status.to_string());
                eprintln!("  {name}: {state}");
            }
        }
        eprintln!("again with: {}", again());
    }
}

/// `target/chaos`.
fn chaos_dir() -> Option<PathBuf> {
    Some(build_dir().ok()?.parent()?.join("chaos"))
}

fn copy(from: &Path, to: &Path) {
    // Best effort: it runs while something else has failed already.
    let _ = fs::create_dir_all(to);
    let Ok(entries) = fs::read_dir(from) else { return };
    for entry in entries.flatten().filter(|entry| entry.path().is_file()) {
        let _ = fs::copy(entry.path(), to.join(entry.file_name()));
    }
}

/// The command that runs this test again.
fn again() -> String {
    let program = std::env::current_exe().unwrap_or_default();
    let stem = program.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // cargo adds a hash to a test's program.
    let suite = stem.rsplit_once('-').map_or(stem.as_str(), |(name, _)| name);
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let current = std::thread::current();
    let test = wanted.or_else(|| current.name().filter(|name| *name != "main").map(str::to_owned));
    match test {
        Some(test) => format!("cargo nextest run -p regent-chaos --test {suite} {test}"),
        None => std::env::args().collect::<Vec<_>>().join(" "),
    }
}
