//! Where a scenario's files live, and where the Regent binaries are run from.
//!
//! The root directory lies in the temp dir with mode 0755 so that the unprivileged user reaches it. A clone
//! may lie below a 0700 home: binaries that the user cannot reach are hard-linked (else copied) into the
//! cache, once per build. Building them is `make`'s business, never done here.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};

use super::cache::{FileLock, cache_dir, make_open_dir};
use super::user::RunAs;

/// A scenario's own directory; removed on drop unless the test panics or `REGENT_KEEP` is set.
#[derive(Debug)]
pub struct TestDir {
    path: PathBuf,
}

impl TestDir {
    /// Makes `regent-<name>-<pid>-<random>` in the temp dir, owned by `user`.
    pub fn new(name: &str, user: &RunAs) -> Result<Self> {
        ensure!(
            !name.is_empty()
                && name.len() <= 24
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'),
            "scenario name \"{name}\": 1 to 24 letters, digits and dashes (a socket path must fit 107 bytes)"
        );
        let unique = format!("regent-{name}-{}-{:06x}", std::process::id(), rand::random::<u32>() >> 8);
        let base = std::env::temp_dir().canonicalize().context("resolving the temp dir")?;
        ensure!(
            user.can_execute(&base),
            "temp dir {} cannot be entered by {user:?}: set TMPDIR to one that all users can reach",
            base.display()
        );
        let path = base.join(unique);
        user.make_dir(&path)?;
        Ok(Self { path })
    }

    /// The directory, canonical.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("REGENT_KEEP").is_some() {
            eprintln!("kept for inspection: {}", self.path.display());
            return;
        }
        // A writer that the sweep has just killed may still be finishing its last file: a few tries.
        for _ in 0..20 {
            match fs::remove_dir_all(&self.path) {
                Ok(()) => return,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
                Err(_) => std::thread::sleep(Duration::from_millis(25)),
            }
        }
        eprintln!("could not remove {}", self.path.display());
    }
}

/// `target/<profile>`: where cargo has put what belongs to the running program.
pub fn build_dir() -> Result<PathBuf> {
    let program = std::env::current_exe().context("finding the running program")?;
    let mut dir = program.parent().context("the running program has no directory")?;
    if dir.ends_with("deps") || dir.ends_with("examples") {
        dir = dir.parent().context("no directory above deps")?;
    }
    Ok(dir.to_path_buf())
}

/// Finds a built file by name, next to the running program or among the examples.
pub fn built_file(name: &str, how_to_build: &str) -> Result<PathBuf> {
    let dir = build_dir()?;
    for candidate in [dir.join(name), dir.join("examples").join(name)] {
        if candidate.is_file() {
            return Ok(candidate);
        }
    }
    bail!("{name} is not in {}: build it first with `{how_to_build}`", dir.display())
}

/// A directory holding the named binaries where `user` can execute them.
///
/// # Errors
/// When one has not been built: `cargo build --workspace --bins` makes them.
pub fn staged_binaries(names: &[&str], user: &RunAs) -> Result<PathBuf> {
    let sources = names
        .iter()
        .map(|name| built_file(name, "cargo build --workspace --bins"))
        .collect::<Result<Vec<_>>>()?;
    stage(&sources, user)
}

/// Makes `sources` reachable by `user` under their own names in one directory.
pub fn stage(sources: &[PathBuf], user: &RunAs) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    for source in sources {
        let found = fs::metadata(source).with_context(|| format!("looking at {}", source.display()))?;
        (source, found.ino(), found.len(), found.mtime(), found.mtime_nsec()).hash(&mut hasher);
    }
    let cache = cache_dir()?;
    let staged = cache.join(format!("bin-{:016x}", hasher.finish()));
    let _lock = FileLock::acquire("staging")?;
    if !staged.exists() {
        prune(&cache);
        let partial = cache.join(format!("partial-bin-{}", std::process::id()));
        make_open_dir(&partial)?;
        for source in sources {
            let target = partial.join(source.file_name().context("a binary without a name")?);
            // A link keeps the disk small; across file systems or owners only a copy works.
            if fs::hard_link(source, &target).is_err() {
                fs::copy(source, &target).with_context(|| format!("copying {}", source.display()))?;
            }
        }
        fs::rename(&partial, &staged).with_context(|| format!("moving to {}", staged.display()))?;
    }
    for source in sources {
        let target = staged.join(source.file_name().context("a binary without a name")?);
        ensure!(user.can_execute(&target), "{} cannot be executed by {user:?}", target.display());
    }
    Ok(staged)
}

/// Removes staged builds older than an hour: each rebuild makes a new one.
fn prune(cache: &Path) {
    let Ok(entries) = fs::read_dir(cache) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name.to_string_lossy().starts_with("bin-");
        let old = entry
            .metadata()
            .and_then(|found| found.modified())
            .is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age.as_secs() > 3600));
        if ours && old {
            // A failure costs disk space only.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staged_files_are_reachable_and_staged_once() {
        let user = RunAs::unprivileged().unwrap();
        let me = std::env::current_exe().unwrap();
        let first = stage(std::slice::from_ref(&me), &user).unwrap();
        let second = stage(std::slice::from_ref(&me), &user).unwrap();
        assert_eq!(first, second);
        assert!(user.can_execute(&first.join(me.file_name().unwrap())));
    }

    #[test]
    fn a_binary_that_was_not_built_is_named() {
        let error = staged_binaries(&["regent-nonesuch"], &RunAs::Own).unwrap_err().to_string();
        assert!(error.contains("regent-nonesuch") && error.contains("cargo build"), "{error}");
    }

    #[test]
    fn root_dir_goes_away() {
        let user = RunAs::unprivileged().unwrap();
        let dir = TestDir::new("dirs", &user).unwrap();
        let path = dir.path().to_path_buf();
        fs::create_dir_all(path.join("a/b")).unwrap();
        drop(dir);
        assert!(!path.exists());
        assert!(TestDir::new("bad name", &user).is_err());
    }
}
