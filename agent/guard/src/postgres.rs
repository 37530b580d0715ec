//! PostgreSQL's command line and what must be true of the data directory before a start.
//!
//! What the command line closes, because it beats every configuration file and ALTER SYSTEM:
//! - `recovery_end_command` is the gate: PostgreSQL runs it at the end of recovery *before* it allows writes, and ends
//!   when it dies by a signal or exits above 125. So `pg_ctl promote` or `pg_promote()` without a lease yields no write.
//! - `restart_after_crash=off`: otherwise the postmaster starts recovery anew by itself after a crashed backend and reads the
//!   signal files again: with `standby.signal` gone it would come up writable without passing the gate.
//! - `recovery_target*`: a target left in a configuration file would end recovery on its own.
//! - `data_directory`: a configuration file may not point elsewhere than where the guard looks.

use crate::config::Config;
use crate::control_file::{self, Control, DbState};
use crate::helper::{self, Program};
use crate::run::Kind;
use crate::wire::{Answer, Fields};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The file that keeps PostgreSQL in recovery.
pub const STANDBY_SIGNAL: &str = "standby.signal";
/// The file that makes it recover and then become writable by itself.
pub const RECOVERY_SIGNAL: &str = "recovery.signal";

/// Opens where PostgreSQL's own output goes.
pub fn open_output(config: &Config) -> io::Result<OwnedFd> {
    match &config.log {
        Some(path) => {
            use std::os::unix::fs::OpenOptionsExt;
            let file = File::options().append(true).create(true).mode(0o600).open(path)?;
            Ok(file.into())
        }
        None => {
            use std::os::fd::AsFd;
            io::stderr().as_fd().try_clone_to_owned()
        }
    }
}

/// The gate's command. Whatever goes wrong in it, PostgreSQL must see a death by signal or an exit above 125: anything
/// else is only a warning to it, and it would promote. `%` is PostgreSQL's escape in this setting.
pub fn gate_command(guard: &Path, socket: &Path) -> io::Result<String> {
    let quote = |path: &Path| -> io::Result<String> {
        let text = path.to_str().filter(|text| !text.contains('\''));
        let text =
            text.ok_or_else(|| io::Error::other(format!("{path:?} cannot be quoted for the shell")))?;
        Ok(format!("'{}'", text.replace('%', "%%")))
    };
    Ok(format!("{} gate --socket {} || {{ kill -KILL $$; exit 137; }}", quote(guard)?, quote(socket)?))
}

/// The program for a start.
pub fn program(
    config: &Config,
    guard: &Path,
    kind: Kind,
    stdin: &OwnedFd,
    output: &OwnedFd,
) -> io::Result<Program> {
    let data_dir = config.data_dir.as_os_str().as_bytes();
    // PostgreSQL finds its own files from its name: it must be the whole path.
    let path = config.pg_bin.join("postgres");
    let mut argv: Vec<Vec<u8>> =
        vec![path.as_os_str().as_bytes().to_vec(), b"-D".to_vec(), data_dir.to_vec()];
    for arg in &config.postgres_args {
        argv.push(arg.as_bytes().to_vec());
    }
    let mut set = |setting: Vec<u8>| argv.extend([b"-c".to_vec(), setting]);
    set([b"data_directory=", data_dir].concat());
    set(b"restart_after_crash=off".to_vec());
    if kind == Kind::Standby {
        set(format!("recovery_end_command={}", gate_command(guard, &config.socket())?).into_bytes());
        for target in ["", "_time", "_xid", "_lsn", "_name"] {
            set(format!("recovery_target{target}=").into_bytes());
        }
        set(b"recovery_target_timeline=latest".to_vec());
    }
    Ok(Program {
        path: helper::c_string(path.as_os_str().as_bytes())?,
        argv: argv.into_iter().map(helper::c_string).collect::<Result<_, _>>()?,
        envp: helper::environment(&[])?,
        cwd: helper::c_string(data_dir)?,
        stdin: stdin.as_raw_fd(),
        output: output.as_raw_fd(),
    })
}

fn present(data_dir: &Path, name: &str) -> Result<bool, Answer> {
    data_dir.join(name).try_exists().map_err(|error| Answer::error(format!("{name}: {error}")))
}

/// Reads `pg_control`, or says why there is nothing to start.
pub fn control(data_dir: &Path) -> Result<Control, Answer> {
    match control_file::read(data_dir) {
        Ok(Some(control)) => Ok(control),
        Ok(None) => {
            Err(Answer::refused(format!("{} holds no PostgreSQL data directory", data_dir.display())))
        }
        Err(error) => Err(Answer::error(format!("pg_control of {}: {error}", data_dir.display()))),
    }
}

/// Makes the data directory ready for a standby start. Returns whether a `recovery.signal` was removed.
pub fn prepare_standby(data_dir: &Path, create: bool) -> Result<bool, Answer> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| Answer::error(format!("{what}: {error}"))
    };
    let standby = present(data_dir, STANDBY_SIGNAL)?;
    if !standby && !create {
        return Err(Answer::refused(format!(
            "{STANDBY_SIGNAL} is missing in {}: without it PostgreSQL would start writable (create=1 makes it)",
            data_dir.display()
        )));
    }
    if !standby {
        let file = File::create(data_dir.join(STANDBY_SIGNAL)).map_err(failed(STANDBY_SIGNAL))?;
        file.sync_all().map_err(failed(STANDBY_SIGNAL))?;
    }
    let removed = present(data_dir, RECOVERY_SIGNAL)?;
    if removed {
        fs::remove_file(data_dir.join(RECOVERY_SIGNAL)).map_err(failed(RECOVERY_SIGNAL))?;
    }
    if removed || !standby {
        File::open(data_dir).and_then(|dir| dir.sync_all()).map_err(failed("data directory"))?;
    }
    Ok(removed)
}

/// Checks that the data directory is a primary's. `promoted` is true when this guard saw it pass the gate under the same
/// lease and it then crashed before `pg_control` said "in production".
pub fn check_primary(data_dir: &Path, control: &Control, promoted: bool) -> Result<(), Answer> {
    for name in [STANDBY_SIGNAL, RECOVERY_SIGNAL] {
        if present(data_dir, name)? {
            return Err(Answer::refused(format!(
                "{name} is present in {}: not a primary's",
                data_dir.display()
            )));
        }
    }
    if present(data_dir, "backup_label")? {
        return Err(Answer::refused(format!(
            "backup_label is present in {}: a base backup that was never recovered",
            data_dir.display()
        )));
    }
    let primary = match control.state {
        DbState::ShutDown | DbState::ShuttingDown | DbState::InCrashRecovery | DbState::InProduction => true,
        DbState::InArchiveRecovery => promoted,
        DbState::Startup | DbState::ShutDownInRecovery => false,
    };
    if primary {
        return Ok(());
    }
    Err(Answer::Refused {
        reason: format!("pg_control says `{}`: not a primary's data directory", control.state.name()),
        fields: Fields::new().with("state", control.state.name()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn control_in(state: DbState) -> Control {
        Control {
            system_id: 1,
            state,
            checkpoint_lsn: 0,
            timeline: 1,
            min_recovery_lsn: 0,
            min_recovery_timeline: 0,
            stamp: (0, 0, 0),
        }
    }

    #[test]
    fn the_gate_command_is_quoted_for_shell_and_postgres() {
        let command = gate_command(&PathBuf::from("/a b/50%"), &PathBuf::from("/s")).unwrap();
        assert_eq!(command, "'/a b/50%%' gate --socket '/s' || { kill -KILL $$; exit 137; }");
        assert!(gate_command(&PathBuf::from("/it's"), &PathBuf::from("/s")).is_err());
    }

    #[test]
    fn a_standby_start_removes_recovery_signal_and_wants_standby_signal() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(RECOVERY_SIGNAL), "").unwrap();
        assert!(matches!(prepare_standby(dir.path(), false), Err(Answer::Refused { .. })));
        assert_eq!(prepare_standby(dir.path(), true), Ok(true));
        assert!(dir.path().join(STANDBY_SIGNAL).exists() && !dir.path().join(RECOVERY_SIGNAL).exists());
        assert_eq!(prepare_standby(dir.path(), false), Ok(false));
    }

    #[test]
    fn only_a_primary_is_started_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let check = |state, promoted| check_primary(dir.path(), &control_in(state), promoted);
        assert_eq!(check(DbState::ShutDown, false), Ok(()));
        assert_eq!(check(DbState::InProduction, false), Ok(()));
        assert_eq!(check(DbState::InArchiveRecovery, true), Ok(()));
        assert!(check(DbState::InArchiveRecovery, false).is_err());
        assert!(check(DbState::ShutDownInRecovery, true).is_err());
        for name in [STANDBY_SIGNAL, RECOVERY_SIGNAL, "backup_label"] {
            fs::write(dir.path().join(name), "").unwrap();
            let Err(Answer::Refused { reason, .. }) = check(DbState::ShutDown, false) else {
                panic!("{name}")
            };
            assert!(reason.contains(name), "{reason}");
            fs::remove_file(dir.path().join(name)).unwrap();
        }
    }
}
