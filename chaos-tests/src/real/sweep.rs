//! Makes sure that a scenario leaves no process behind.
//!
//! Every PostgreSQL backend has a session of its own, so neither process groups nor parent-death signals
//! reach it. A process belongs to a scenario when its environment carries [`ROOT_VARIABLE`] with that
//! root, or when it is one of ours by name (PostgreSQL overwrites its environment to set its title) and its
//! working directory or an argument lies below the root. A person's shell or `tail` in that directory is
//! spared. [`Janitor`] does the same from outside when the harness is killed with SIGKILL.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Set to the scenario's root directory in every child, inherited by what it starts.
pub const ROOT_VARIABLE: &str = "REGENT_CHAOS_ROOT";
const OUR_NAMES: &[&str] = &["postgres", "regent", "pg_", "initdb"];

/// Processes that belong to the scenario in `root`, except this one.
pub fn survivors(root: &Path) -> Vec<i32> {
    let own = std::process::id() as i32;
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own && belongs(*pid, root))
        .collect()
}

fn belongs(pid: i32, root: &Path) -> bool {
    let proc = Path::new("/proc").join(pid.to_string());
    let mark = [ROOT_VARIABLE.as_bytes(), b"=", root.as_os_str().as_bytes()].concat();
    let environ = fs::read(proc.join("environ")).unwrap_or_default();
    if environ.split(|byte| *byte == 0).any(|entry| entry == mark) {
        return !is_zombie(&proc);
    }
    let name = fs::read_to_string(proc.join("comm")).unwrap_or_default();
    if !OUR_NAMES.iter().any(|ours| name.starts_with(ours)) || is_zombie(&proc) {
        return false;
    }
    if fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd.starts_with(root)) {
        return true;
    }
    let cmdline = fs::read(proc.join("cmdline")).unwrap_or_default();
    cmdline.split(|byte| *byte == 0).any(|arg| mentions(arg, root))
}

/// Whether an argument is, or contains after `=`, a path below the root.
fn mentions(arg: &[u8], root: &Path) -> bool {
    arg.split(|byte| *byte == b'=').any(|part| Path::new(OsStr::from_bytes(part)).starts_with(root))
}

fn is_zombie(proc: &Path) -> bool {
    let stat = fs::read_to_string(proc.join("stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// Kills everything of the scenario, and errs when something is alive after `within`.
pub fn sweep(root: &Path, within: Duration) -> Result<()> {
    let deadline = Instant::now() + within;
    loop {
        // Scanned again after each round: a process may have forked while we looked.
        let alive = survivors(root);
        if alive.is_empty() {
            return Ok(());
        }
        for pid in &alive {
            // SAFETY: plain numbers; the id was seen to belong to the scenario a moment ago.
            unsafe {
                libc::kill(*pid, libc::SIGKILL);
            }
        }
        if Instant::now() > deadline {
            bail!("still alive below {} after {within:?}: {alive:?}", root.display());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A watcher outside the harness: when the harness is gone, it kills what the scenario left.
#[derive(Debug)]
pub struct Janitor {
    child: Child,
}

impl Janitor {
    /// Starts it for `root`.
    pub fn start(root: &Path) -> Result<Self> {
        // Reads until the pipe's other end closes, which the kernel does for a killed harness. Three rounds, as
        // a process may fork meanwhile. The root travels in the environment under another name than the mark,
        // so that the script does not find itself.
        const SCRIPT: &str = r#"
            cat >/dev/null
            for round in 1 2 3; do
              for p in /proc/[0-9]*; do
                pid=${p#/proc/}
                [ "$pid" = "$$" ] && continue
                hit=
                if tr '\0' '\n' 2>/dev/null <"$p/environ" | grep -qxF "$MARK=$SWEEP"; then hit=1; else
                  read -r comm 2>/dev/null <"$p/comm" || continue
                  case "$comm" in postgres*|regent*|pg_*|initdb*)
                    case "$(readlink "$p/cwd" 2>/dev/null)/" in "$SWEEP"/*) hit=1;; esac
                    tr '\0=' '\n\n' 2>/dev/null <"$p/cmdline" | grep -qF "$SWEEP/" && hit=1;;
                  esac
                fi
                [ -n "$hit" ] && kill -9 "$pid" 2>/dev/null
              done
            done
            exit 0"#;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SCRIPT])
            .env("SWEEP", root)
            .env("MARK", ROOT_VARIABLE)
            .env_remove(ROOT_VARIABLE)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: setsid is async-signal-safe. A session of its own survives a kill of the harness's group.
        unsafe {
            command.pre_exec(|| if libc::setsid() < 0 { Err(io::Error::last_os_error()) } else { Ok(()) });
        }
        Ok(Self { child: command.spawn().context("starting the janitor")? })
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        // The scenario has swept by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Resolves when the user or the system asks the harness to end: SIGINT, SIGTERM or SIGHUP.
pub async fn interrupted() -> Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => Ok("SIGINT"),
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = hangup.recv() => Ok("SIGHUP"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_interrupt_is_told_and_not_obeyed() {
        let asked = interrupted();
        tokio::pin!(asked);
        assert!(futures::poll!(asked.as_mut()).is_pending());
        // SAFETY: the handlers are in place since the first poll.
        unsafe { libc::raise(libc::SIGTERM) };
        let told = tokio::time::timeout(Duration::from_secs(5), asked).await;
        assert_eq!(told.unwrap().unwrap(), "SIGTERM");
    }

    #[test]
    fn arguments_that_mention_the_root() {
        let root = Path::new("/tmp/regent-x-1");
        assert!(mentions(b"/tmp/regent-x-1/data", root));
        assert!(mentions(b"--config=/tmp/regent-x-1/a.toml", root));
        assert!(!mentions(b"/tmp/regent-x-12/data", root));
        assert!(!mentions(b"", root));
    }
}
