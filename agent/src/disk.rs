//! The fsync probe: writes and fsyncs a small file in the data directory, on a thread of its own, because a disk that is
//! gone blocks whoever touches it. Says how long a probe took, for how long one has not come back, or its error.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use regent_types::DiskProbe;

use crate::clock::{boottime_ns, ms_since};

/// Below this a probe under way still counts as the one before: an fsync takes its time on a busy disk.
const STALLED_AFTER_MS: u64 = 1000;

#[derive(Debug, Default)]
struct Inner {
    begun_ns: Option<u64>,
    last: Option<DiskProbe>,
}

/// The probe's state.
#[derive(Debug, Default, Clone)]
pub struct Disk(Arc<Mutex<Inner>>);

impl Disk {
    /// As of now.
    pub fn state(&self) -> DiskProbe {
        let inner = self.0.lock().expect("no panic while held");
        match inner.begun_ns.map(ms_since) {
            Some(for_ms) if for_ms >= STALLED_AFTER_MS => DiskProbe::Stalled { for_ms },
            _ => inner.last.clone().unwrap_or(DiskProbe::NotProbed),
        }
    }

    /// Starts the thread; it ends with the process.
    pub fn start(&self, data_dir: PathBuf, interval: Duration) -> io::Result<()> {
        let inner = self.0.clone();
        let work = move || {
            loop {
                let begun = boottime_ns();
                inner.lock().expect("no panic while held").begun_ns = Some(begun);
                let outcome = probe(&data_dir);
                let mut state = inner.lock().expect("no panic while held");
                state.begun_ns = None;
                state.last = Some(match outcome {
                    Ok(true) => DiskProbe::Ok { latency_ms: ms_since(begun) },
                    Ok(false) => DiskProbe::NotProbed,
                    Err(error) => DiskProbe::Failed { error: name(&error) },
                });
                drop(state);
                std::thread::sleep(interval);
            }
        };
        std::thread::Builder::new().name("disk-probe".into()).spawn(work).map(drop)
    }
}

/// `false` when there is no data directory.
fn probe(data_dir: &Path) -> io::Result<bool> {
    if !data_dir.join("PG_VERSION").exists() {
        return Ok(false);
    }
    let path = data_dir.join("regent.probe");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all(b"regent-agent tests here whether the disk still works\n")?;
    file.sync_all()?;
    Ok(true)
}

fn name(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EIO) => "EIO".into(),
        Some(libc::EROFS) => "EROFS".into(),
        Some(libc::ENOSPC) => "ENOSPC".into(),
        Some(libc::EDQUOT) => "EDQUOT".into(),
        _ => error.to_string(),
    }
}

/// Free bytes for unprivileged users and total bytes of the file system of `path`, or of its nearest existing parent.
pub fn space(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::ffi::OsStrExt;
    let path = path.ancestors().find(|p| p.exists())?;
    let name = std::ffi::CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: `stat` is plain data that the call fills; `name` is a C string.
    let stat = unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        if libc::statvfs(name.as_ptr(), &mut stat) != 0 {
            return None;
        }
        stat
    };
    Some((stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_a_database_is_not_probed() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!probe(dir.path()).unwrap());
        std::fs::write(dir.path().join("PG_VERSION"), "18\n").unwrap();
        assert!(probe(dir.path()).unwrap());
        assert!(space(&dir.path().join("not/there")).is_some());
    }

    #[test]
    fn a_probe_that_does_not_come_back_is_stalled() {
        let disk = Disk::default();
        disk.0.lock().unwrap().begun_ns = Some(boottime_ns() - 5_000_000_000);
        assert!(matches!(disk.state(), DiskProbe::Stalled { for_ms } if for_ms >= 5000));
    }
}
