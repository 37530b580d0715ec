//! What one scenario owns: its directory, its addresses, its links and its processes.
//!
//! Invariant: when a `World` is dropped, by a panic too, no process of it is alive and its addresses are
//! free. The janitor covers the harness's own sudden death; a demo selects on
//! [`super::sweep::interrupted`] and lets the `World` go out of scope.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::address::LoopbackBlock;
use super::dirs::TestDir;
use super::link::Net;
use super::process::{Process, ProcessSpec};
use super::sweep::{Janitor, sweep};
use super::user::RunAs;

/// A scenario's surroundings. Fields drop in the order written, after the sweep of `Drop`.
#[derive(Debug)]
pub struct World {
    _janitor: Janitor,
    net: Net,
    dir: TestDir,
    addresses: LoopbackBlock,
    user: RunAs,
}

impl World {
    /// A world with an empty directory and links between `regions`, none of them cut or slow.
    pub fn new(name: &str, regions: &[&str]) -> Result<Self> {
        let user = RunAs::unprivileged()?;
        let dir = TestDir::new(name, &user)?;
        Ok(Self {
            _janitor: Janitor::start(dir.path())?,
            net: Net::new(regions)?,
            addresses: LoopbackBlock::reserve()?,
            dir,
            user,
        })
    }

    /// The root directory.
    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Makes a directory below the root, owned by the unprivileged user.
    pub fn make_dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.root().join(name);
        self.user.make_dir(&path)?;
        Ok(path)
    }

    /// The links between regions.
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// Addresses that no other scenario uses.
    pub fn addresses(&self) -> &LoopbackBlock {
        &self.addresses
    }

    /// The user that servers run as.
    pub fn user(&self) -> &RunAs {
        &self.user
    }

    /// Starts a process as the unprivileged user.
    pub fn spawn(&self, spec: ProcessSpec) -> Result<Process> {
        Process::spawn(&spec.user(self.user.clone()), self.root())
    }

    /// Kills everything of this world now.
    pub fn sweep(&self) -> Result<()> {
        sweep(self.root(), Duration::from_secs(10))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Err(error) = self.sweep() {
            eprintln!("{error:#}");
        }
    }
}
