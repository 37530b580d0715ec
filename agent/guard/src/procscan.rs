//! Finds and kills processes of the data directory that this guard did not start.
//!
//! The interleaving it prevents: a guard dies while the kernel is still killing its namespace, or somebody has started
//! PostgreSQL by hand; a new guard starts, is granted a lease or fenced, and an old backend still commits. Nothing is
//! answered before no such process is left.
//!
//! It looks only at processes of the guard's own user (any other could not open the data directory) and only at
//! PostgreSQL's programs: a shell that happens to stand in the data directory is left alone.

use crate::sys;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const PROGRAMS: [&str; 6] = ["postgres", "postmaster", "initdb", "pg_basebackup", "pg_rewind", "pg_resetwal"];

/// A PID namespace, by its inode.
pub type PidNamespace = (u64, u64);

/// The PID namespace of a process; `None` when it has none any more or may not be looked at.
pub fn pid_namespace(pid: libc::pid_t) -> Option<PidNamespace> {
    let meta = fs::metadata(format!("/proc/{pid}/ns/pid")).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// Sends SIGKILL to every process of `data_dir` outside the namespaces `spare`; returns how many were found alive.
pub fn kill_all(data_dir: &Path, spare: &[PidNamespace]) -> io::Result<usize> {
    scan(data_dir, spare, true).map(|found| found.len())
}

/// Processes of `data_dir`, whoever has started them.
pub fn find(data_dir: &Path) -> io::Result<Vec<libc::pid_t>> {
    scan(data_dir, &[], false)
}

fn scan(data_dir: &Path, spare: &[PidNamespace], kill: bool) -> io::Result<Vec<libc::pid_t>> {
    // SAFETY: no arguments.
    let (uid, own) = unsafe { (libc::geteuid(), libc::getpid()) };
    let dir = DataDir::new(data_dir);
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<libc::pid_t>().ok()) else {
            continue;
        };
        if pid == own || entry.metadata().map_or(true, |meta| meta.uid() != uid) {
            continue;
        }
        // The descriptor pins the process: what is checked below is what is killed.
        let Ok(handle) = open_pid(pid) else { continue };
        if !dir.is_used_by(pid) || pid_namespace(pid).is_some_and(|ns| spare.contains(&ns)) {
            continue;
        }
        found.push(pid);
        if !kill {
            continue;
        }
        // SAFETY: a valid descriptor, no siginfo.
        unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, handle.as_raw_fd(), libc::SIGKILL, 0usize, 0);
        }
    }
    Ok(found)
}

fn open_pid(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved; pidfds are close-on-exec.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    sys::owned(fd as libc::c_int)
}

struct DataDir {
    paths: Vec<PathBuf>,
    inode: Option<(u64, u64)>,
}

impl DataDir {
    fn new(path: &Path) -> Self {
        let mut paths = vec![path.to_owned()];
        paths.extend(path.canonicalize().ok().filter(|canonical| canonical != path));
        let inode = fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
        Self { paths, inode }
    }

    fn is_used_by(&self, pid: libc::pid_t) -> bool {
        is_postgres(pid) && (self.is_cwd_of(pid) || self.is_argument_of(pid))
    }

    fn is_cwd_of(&self, pid: libc::pid_t) -> bool {
        let link = format!("/proc/{pid}/cwd");
        let by_inode = fs::metadata(&link).ok().map(|meta| (meta.dev(), meta.ino()));
        if by_inode.is_some() && by_inode == self.inode {
            return true;
        }
        // A directory that was removed and made anew: the old one's processes still are of this data directory.
        fs::read_link(&link).is_ok_and(|path| {
            let path = path.to_string_lossy();
            let path = path.strip_suffix(" (deleted)").unwrap_or(&path);
            self.paths.iter().any(|own| own.as_os_str() == path)
        })
    }

    fn is_argument_of(&self, pid: libc::pid_t) -> bool {
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
        line.split(|byte| *byte == 0).any(|argument| {
            let argument = String::from_utf8_lossy(argument);
            let value = argument.strip_prefix("-D").unwrap_or(&argument);
            let value = value.split_once('=').map_or(value, |(_, value)| value);
            value.starts_with('/') && self.paths.iter().any(|own| Path::new(value) == own)
        })
    }
}

fn is_postgres(pid: libc::pid_t) -> bool {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok();
    let name = exe.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let name = name.or_else(|| fs::read_to_string(format!("/proc/{pid}/comm")).ok()).unwrap_or_default();
    let name = name.trim();
    PROGRAMS.contains(&name.strip_suffix(" (deleted)").unwrap_or(name))
}
