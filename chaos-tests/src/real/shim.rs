//! The harness's side of the failing disk (`chaos-tests/shim`): where the library is, and what it is told.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::dirs::{built_file, stage};
use super::process::ProcessSpec;
use super::user::RunAs;

/// What the disk below the watched path does to fsyncs, writes and writing opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// Works.
    Ok,
    /// Blocks every such call until told otherwise.
    Stall,
    /// Blocks fsyncs only.
    StallFsync,
    /// Fails with an input/output error.
    Eio,
    /// Fails as a file system remounted read-only.
    ReadOnly,
    /// Fails as a full disk.
    Full,
}

impl Disk {
    fn words(self) -> &'static str {
        match self {
            Self::Ok => "ok\n",
            Self::Stall => "stall\n",
            Self::StallFsync => "stall fsync\n",
            Self::Eio => "eio\n",
            Self::ReadOnly => "erofs\n",
            Self::Full => "enospc\n",
        }
    }
}

/// A disk that can be made to fail below one directory, for the processes started with it.
#[derive(Clone, Debug)]
pub struct Shim {
    library: PathBuf,
    watched: PathBuf,
    control: PathBuf,
}

impl Shim {
    /// A working disk below `watched`, controlled by the file `control`, which must lie elsewhere.
    ///
    /// # Errors
    /// When the library has not been built: each `cargo test` or `cargo nextest run` of this package does.
    pub fn new(watched: &Path, control: &Path, user: &RunAs) -> Result<Self> {
        let built = built_file("libregent_shim.so", "cargo build -p regent-chaos --examples")?;
        let library = stage(std::slice::from_ref(&built), user)?.join("libregent_shim.so");
        // The kernel tells canonical paths of descriptors.
        let watched = watched.canonicalize().with_context(|| format!("resolving {}", watched.display()))?;
        let shim = Self { library, watched, control: control.to_path_buf() };
        shim.set(Disk::Ok)?;
        Ok(shim)
    }

    /// Makes the disk behave so from the next call on; a stalled call notices within 10 ms.
    pub fn set(&self, disk: Disk) -> Result<()> {
        // Renamed into place: a reader never sees half a word.
        let partial = self.control.with_extension("partial");
        fs::write(&partial, disk.words()).with_context(|| format!("writing {}", partial.display()))?;
        fs::rename(&partial, &self.control).with_context(|| format!("moving to {}", self.control.display()))
    }

    /// The variables a process needs to be under this disk.
    pub fn variables(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("LD_PRELOAD", self.library.clone()),
            ("REGENT_SHIM_PATH", self.watched.clone()),
            ("REGENT_SHIM_CONTROL", self.control.clone()),
        ]
    }

    /// Puts a process under this disk.
    pub fn apply(&self, spec: ProcessSpec) -> ProcessSpec {
        self.variables().into_iter().fold(spec, |spec, (key, value)| spec.env(key, value))
    }
}
