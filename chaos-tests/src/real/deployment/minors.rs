//! Two minor versions of one major, and the link by which a member finds its PostgreSQL.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::life::Deployment;
use crate::real::pg::PgInstall;

impl Deployment {
    fn link(&self, member: &str) -> PathBuf {
        self.files.member(member).join("postgres")
    }

    /// What a member's files name.
    pub(super) fn pg_bin(&self, member: &str) -> PathBuf {
        match self.options.switchable_postgres {
            true => self.link(member),
            false => self.postgres.bin_dir.clone(),
        }
    }

    pub(super) fn link_postgres(&self, member: &str) -> Result<()> {
        if !self.options.switchable_postgres {
            return Ok(());
        }
        self.switch_postgres(member, &self.minors()?.0)
    }

    /// The older and the newer of two installations of the major.
    pub fn minors(&self) -> Result<(PgInstall, PgInstall)> {
        PgInstall::minors(self.options.postgres_major, self.world.user())
    }

    /// Lets the member find this PostgreSQL at its next start.
    pub fn switch_postgres(&self, member: &str, install: &PgInstall) -> Result<()> {
        let link = self.link(member);
        let beside = link.with_extension("new");
        symlink(&install.bin_dir, &beside).with_context(|| format!("making {}", beside.display()))?;
        fs::rename(&beside, &link).with_context(|| format!("switching {}", link.display()))
    }
}
