//! Faults of one host, below what its agent and guard are told: processes killed, files spoilt, PostgreSQL told things
//! behind its guard's back.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use super::life::Deployment;

/// What becomes of a guard's state file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoiltState {
    /// A byte is flipped.
    Damaged,
    /// It is gone.
    Missing,
    /// Written before a reboot, whole.
    OtherBoot,
}

/// One run of PostgreSQL, as its guard knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresRun {
    /// The postmaster, seen from here.
    pub postmaster: i32,
    /// When the guard started it, CLOCK_BOOTTIME.
    pub started_at_ns: u64,
    /// The guard's instance id.
    pub instance: String,
    /// Local restarts by this guard.
    pub restarts: u64,
}

impl PostgresRun {
    fn read(status: &Value) -> Option<Self> {
        let text = |key: &str| status[key].as_str();
        Some(Self {
            postmaster: text("postmaster_pid")?.parse().ok()?,
            started_at_ns: text("started_at_ns")?.parse().ok()?,
            instance: text("instance")?.to_owned(),
            restarts: text("restarts")?.parse().ok()?,
        })
    }
}

impl Deployment {
    /// The running PostgreSQL of a member; an error when none runs.
    pub async fn postgres_run(&self, member: &str) -> Result<PostgresRun> {
        let status = self.guard(member).await?;
        PostgresRun::read(&status)
            .with_context(|| format!("no PostgreSQL runs at {member}: its guard says {status}"))
    }

    /// SIGKILL to the member's postmaster alone; its backends are whoever's business it is.
    pub async fn kill_postmaster(&self, member: &str) -> Result<PostgresRun> {
        let run = self.postgres_run(member).await?;
        // The id may have gone to another process since the guard answered.
        let cwd = fs::read_link(format!("/proc/{}/cwd", run.postmaster)).context("the postmaster is gone")?;
        ensure!(cwd == self.files.data(member), "process {} is in {}", run.postmaster, cwd.display());
        // SAFETY: plain numbers.
        let done = unsafe { libc::kill(run.postmaster, libc::SIGKILL) };
        ensure!(done == 0, "SIGKILL to {}: {}", run.postmaster, std::io::Error::last_os_error());
        Ok(run)
    }

    /// `pg_ctl promote` as an administrator would: inside the namespace, because `pg_ctl` signals the pid that
    /// `postmaster.pid` names. Returns when the signal was sent.
    pub async fn pg_ctl_promote(&self, member: &str) -> Result<()> {
        let run = self.postgres_run(member).await?;
        let mut command = Command::new("nsenter");
        command
            .args(["--preserve-credentials", "-U", "-p", "-t", &run.postmaster.to_string()])
            .arg(self.postgres.program("pg_ctl"))
            .args(["promote", "-W", "-D"])
            .arg(self.files.data(member))
            .current_dir("/")
            .kill_on_drop(true);
        self.world.user().apply_tokio(&mut command);
        let done = tokio::time::timeout(Duration::from_secs(10), command.output())
            .await
            .context("pg_ctl promote: no end")?
            .context("running nsenter")?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "pg_ctl promote: {}", said.trim());
        Ok(())
    }

    /// Writes a file into the member's data directory, as its owner.
    pub fn put_in_data(&self, member: &str, name: &str, text: &str) -> Result<()> {
        self.put(&self.files.data(member).join(name), text)
    }

    fn put(&self, path: &Path, text: &str) -> Result<()> {
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
        self.world.user().chown(path)
    }

    /// Spoils the state file of the member's guard, which must not run.
    pub fn spoil_guard_state(&self, member: &str, how: SpoiltState) -> Result<()> {
        let path = self.files.guard_state(member).join("guard.state");
        if how == SpoiltState::Missing {
            return fs::remove_file(&path).with_context(|| format!("removing {}", path.display()));
        }
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let spoilt = match how {
            SpoiltState::OtherBoot => of_another_boot(&text)?,
            _ => text.replacen("highest_epoch=", "highest_epoch=9", 1),
        };
        ensure!(spoilt != text, "nothing was spoilt in {text}");
        self.put(&path, &spoilt)
    }
}

/// The same state as an earlier boot would have left it, with its checksum.
fn of_another_boot(text: &str) -> Result<String> {
    let (body, _) = text.rsplit_once("crc32=").context("no checksum in the guard's state file")?;
    let lines = body.lines().map(|line| match line.strip_prefix("boot_id=") {
        Some(_) => "boot_id=00000000-0000-4000-8000-000000000000\n".to_owned(),
        None => format!("{line}\n"),
    });
    let body: String = lines.collect();
    let sum = crc32(body.as_bytes());
    Ok(format!("{body}crc32={sum:08x}\n"))
}

/// CRC-32 (IEEE).
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_file_of_another_boot_has_a_right_checksum() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let text = of_another_boot("magic 1\nboot_id=abc\nfenced_through=1\ncrc32=00000000\n").unwrap();
        let (body, sum) = text.split_at(text.rfind("crc32=").unwrap());
        assert_eq!(body, "magic 1\nboot_id=00000000-0000-4000-8000-000000000000\nfenced_through=1\n");
        assert_eq!(sum, format!("crc32={:08x}\n", crc32(body.as_bytes())));
    }
}
