//! Who is not who he says: a CA of somebody else, and configurations edited behind an administrator's back.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::life::Deployment;

impl Deployment {
    /// Another CA with the same name, and certificates of it for the same identities; the folder.
    pub fn other_authority(&self, identities: &[&str]) -> Result<PathBuf> {
        let dir = self.files.root().join("pki-other");
        self.run_ctl_offline(&["pki", "init"], &["--dir"], &dir)?;
        let args: Vec<&str> = ["pki", "issue"].into_iter().chain(identities.iter().copied()).collect();
        self.run_ctl_offline(&args, &["--dir"], &dir)?;
        Ok(dir)
    }

    /// Replaces a text in the configuration of a process; returns what was there before, for [`Self::write_config`].
    pub fn edit_config(&self, process: &str, from: &str, to: &str) -> Result<String> {
        let path = self.files.config(process);
        let before = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        ensure!(before.contains(from), "{} does not contain {from:?}: {before}", path.display());
        self.write_config(process, &before.replace(from, to))?;
        Ok(before)
    }

    /// Gives a file that the test wrote to the servers' user.
    pub fn chown(&self, path: &Path) -> Result<()> {
        self.world.user().chown(path)
    }

    /// Overwrites the configuration of a process.
    pub fn write_config(&self, process: &str, text: &str) -> Result<()> {
        let path = self.files.config(process);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }
}
