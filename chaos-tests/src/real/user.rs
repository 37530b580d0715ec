//! Which user servers run as: PostgreSQL refuses to run as root, so root steps down to another.
//!
//! `nobody` unless `REGENT_TEST_USER` names one: it exists everywhere and owns no database of the
//! machine's. A normal user stays who they are. Never raises privileges.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The user for child processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunAs {
    /// The harness's own user.
    Own,
    /// Another one: the harness is root.
    Other {
        /// Name, for messages.
        name: String,
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
}

impl RunAs {
    /// An unprivileged user: our own, or the one to step down to when we are root.
    pub fn unprivileged() -> Result<Self> {
        // SAFETY: geteuid cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            return Ok(Self::Own);
        }
        let name = std::env::var("REGENT_TEST_USER").unwrap_or_else(|_| "nobody".to_owned());
        let users = std::fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
        let Some((uid, gid)) = lookup(&users, &name) else {
            bail!("no user \"{name}\" in /etc/passwd: set REGENT_TEST_USER to an unprivileged user");
        };
        if uid == 0 {
            bail!("REGENT_TEST_USER \"{name}\" has uid 0: PostgreSQL refuses to run as root");
        }
        Ok(Self::Other { name, uid, gid })
    }

    /// Makes `command` run as this user (supplementary groups are dropped).
    pub fn apply(&self, command: &mut Command) {
        use std::os::unix::process::CommandExt;
        if let Self::Other { uid, gid, .. } = self {
            command.gid(*gid).uid(*uid).env("HOME", std::env::temp_dir());
        }
    }

    /// As [`RunAs::apply`] for a tokio command.
    pub fn apply_tokio(&self, command: &mut tokio::process::Command) {
        self.apply(command.as_std_mut());
    }

    /// Gives one file or directory to this user.
    pub fn chown(&self, path: &Path) -> Result<()> {
        let Self::Other { uid, gid, name } = self else { return Ok(()) };
        std::os::unix::fs::chown(path, Some(*uid), Some(*gid))
            .with_context(|| format!("giving {} to {name}", path.display()))
    }

    /// Makes a directory of this user's.
    pub fn make_dir(&self, path: &Path) -> Result<()> {
        super::cache::make_open_dir(path)?;
        self.chown(path)
    }

    /// Whether this user may execute the file, or enter the directory, `path`.
    pub fn can_execute(&self, path: &Path) -> bool {
        match self {
            Self::Own => access(path.as_os_str()),
            Self::Other { .. } => {
                let mut command = Command::new("/bin/sh");
                command.args(["-c", "test -x \"$0\""]).arg(path).current_dir("/");
                self.apply(&mut command);
                command.status().is_ok_and(|status| status.success())
            }
        }
    }
}

fn access(path: &OsStr) -> bool {
    let Ok(path) = CString::new(path.as_bytes()) else { return false };
    // SAFETY: NUL-terminated.
    unsafe { libc::access(path.as_ptr(), libc::R_OK | libc::X_OK) == 0 }
}

fn lookup(passwd: &str, name: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_never_root() {
        let user = RunAs::unprivileged().unwrap();
        let mut command = Command::new("id");
        command.arg("-u");
        user.apply(&mut command);
        let out = command.output().unwrap();
        assert_ne!(String::from_utf8_lossy(&out.stdout).trim(), "0");
    }

    #[test]
    fn passwd_lines() {
        assert_eq!(
            lookup("root:x:0:0::/:/bin/sh\nnobody:x:65534:65533:n:/:/x", "nobody"),
            Some((65534, 65533))
        );
        assert_eq!(lookup("nobodyelse:x:1:2:::", "nobody"), None);
    }
}
