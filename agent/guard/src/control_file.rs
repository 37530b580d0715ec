//! Reads `global/pg_control`: the role and the position that PostgreSQL itself has written down.
//!
//! Only the fields at the start are read; their offsets are the same from PostgreSQL 13 to 18 (compared with
//! `pg_controldata` in the tests, for 15 and 18). Every field read is aligned and within the first 512 bytes, so a read
//! that meets a write sees each one whole.

use crate::wire::ControlView;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// PostgreSQL's `DBState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DbState {
    /// Being created.
    Startup,
    /// A primary, cleanly shut down.
    ShutDown,
    /// A standby, cleanly shut down.
    ShutDownInRecovery,
    /// A primary, shutting down.
    ShuttingDown,
    /// A primary, recovering from a crash.
    InCrashRecovery,
    /// A standby (or a restore), running or crashed.
    InArchiveRecovery,
    /// A primary, running or crashed.
    InProduction,
}

impl DbState {
    fn from_raw(raw: u32) -> Option<Self> {
        use DbState as S;
        [S::Startup, S::ShutDown, S::ShutDownInRecovery, S::ShuttingDown, S::InCrashRecovery]
            .into_iter()
            .chain([S::InArchiveRecovery, S::InProduction])
            .nth(raw as usize)
    }

    /// As `pg_controldata` words it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Startup => "starting up",
            Self::ShutDown => "shut down",
            Self::ShutDownInRecovery => "shut down in recovery",
            Self::ShuttingDown => "shutting down",
            Self::InCrashRecovery => "in crash recovery",
            Self::InArchiveRecovery => "in archive recovery",
            Self::InProduction => "in production",
        }
    }
}

/// One reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// The cluster's identity.
    pub system_id: u64,
    /// The role.
    pub state: DbState,
    /// Latest checkpoint.
    pub checkpoint_lsn: u64,
    /// Its timeline.
    pub timeline: u32,
    /// A standby must replay to here.
    pub min_recovery_lsn: u64,
    /// On this timeline.
    pub min_recovery_timeline: u32,
    /// Changes whenever PostgreSQL writes the file: its time of modification and a sum of its bytes.
    pub stamp: (i64, i64, u64),
}

impl Control {
    /// For an answer.
    pub fn view(&self) -> ControlView {
        ControlView {
            system_id: self.system_id,
            state: self.state.name().to_owned(),
            checkpoint_lsn: self.checkpoint_lsn,
            timeline: self.timeline,
            min_recovery_lsn: self.min_recovery_lsn,
            min_recovery_timeline: self.min_recovery_timeline,
        }
    }
}

const READ_BYTES: usize = 512;

/// Reads the file; `None` when there is none (no data directory yet).
pub fn read(data_dir: &Path) -> io::Result<Option<Control>> {
    let mut file = match File::open(data_dir.join("global/pg_control")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = [0; READ_BYTES];
    file.read_exact(&mut bytes)?;
    let meta = file.metadata()?;
    parse(&bytes, (meta.mtime(), meta.mtime_nsec())).map(Some)
}

fn parse(bytes: &[u8; READ_BYTES], (seconds, nanos): (i64, i64)) -> io::Result<Control> {
    let u32_at = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let u64_at = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let version = u32_at(8);
    if !(1300..1900).contains(&version) {
        return Err(io::Error::other(format!(
            "pg_control version {version} is not one of PostgreSQL 13 to 18 (1300 to 1899)"
        )));
    }
    let state = DbState::from_raw(u32_at(16))
        .ok_or_else(|| io::Error::other(format!("pg_control: unknown state {}", u32_at(16))))?;
    // FNV-1a: only to notice a change.
    let sum = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    Ok(Control {
        system_id: u64_at(0),
        state,
        checkpoint_lsn: u64_at(32),
        timeline: u32_at(48),
        min_recovery_lsn: u64_at(136),
        min_recovery_timeline: u32_at(144),
        stamp: (seconds, nanos, sum),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_versions_and_states_are_refused_with_their_numbers() {
        let mut bytes = [0; READ_BYTES];
        bytes[8..12].copy_from_slice(&1201u32.to_ne_bytes());
        assert!(parse(&bytes, (0, 0)).unwrap_err().to_string().contains("1201"));
        bytes[8..12].copy_from_slice(&1800u32.to_ne_bytes());
        bytes[16..20].copy_from_slice(&6u32.to_ne_bytes());
        assert_eq!(parse(&bytes, (0, 0)).unwrap().state, DbState::InProduction);
        bytes[16..20].copy_from_slice(&7u32.to_ne_bytes());
        assert!(parse(&bytes, (0, 0)).unwrap_err().to_string().contains("unknown state 7"));
    }
}
