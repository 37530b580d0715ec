//! A directory that outlives a test: fetched PostgreSQL, staged binaries, address locks.
//!
//! Readable by everybody, because servers run as another user than the harness. It is `$REGENT_CACHE`, or
//! `regent-cache-<uid>` in the temp dir; a directory of that name which belongs to somebody else is refused,
//! since binaries are run from it.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The cache directory, made when absent.
pub fn cache_dir() -> Result<PathBuf> {
    // SAFETY: geteuid cannot fail.
    let uid = unsafe { libc::geteuid() };
    let dir = match std::env::var_os("REGENT_CACHE") {
        Some(dir) => PathBuf::from(dir),
        None => std::env::temp_dir().join(format!("regent-cache-{uid}")),
    };
    make_open_dir(&dir)?;
    let found = fs::symlink_metadata(&dir).with_context(|| format!("looking at {}", dir.display()))?;
    ensure!(
        found.is_dir() && found.uid() == uid,
        "cache {} belongs to uid {} (we are {uid}) or is no directory: set REGENT_CACHE to one of your own",
        dir.display(),
        found.uid()
    );
    dir.canonicalize().with_context(|| format!("resolving {}", dir.display()))
}

/// Makes `dir` with mode 0755 whatever the umask; an existing one is left as it is.
pub fn make_open_dir(dir: &Path) -> Result<()> {
    if !dir.exists() {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("opening {} to all users", dir.display()))?;
    }
    Ok(())
}

/// A lock between processes, held until dropped.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Waits for the lock called `name` in the cache.
    pub fn acquire(name: &str) -> Result<Self> {
        let file = Self::open(name)?;
        file.lock().with_context(|| format!("locking {name}"))?;
        Ok(Self { _file: file })
    }

    /// Takes the lock called `name` unless somebody holds it.
    pub fn try_acquire(name: &str) -> Result<Option<Self>> {
        let file = Self::open(name)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error).with_context(|| format!("locking {name}")),
        }
    }

    fn open(name: &str) -> Result<File> {
        let dir = cache_dir()?.join("locks");
        make_open_dir(&dir)?;
        let path = dir.join(name);
        File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))
    }
}
