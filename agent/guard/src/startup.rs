//! What a starting guard does before it answers anybody: take the lock, empty what an earlier guard left, read the state,
//! take a new identity, and write that down. Before all of it: a PostgreSQL that runs where no guard has ever been is left
//! alone, and the guard ends.
//!
//! The order is the point. The lock comes free only when the earlier guard *and* its helpers can start nothing more; then the
//! scan kills what they had started; only then may this guard say that it *succeeds* the earlier instance, which is a
//! statement that that one is dead. It says so only for a file that it can read, of this boot: a restored snapshot's twin
//! has another boot, and may be alive elsewhere.

use crate::config::Config;
use crate::state_file::{self, Found, LINEAGE_MAX, State};
use crate::{clock, log, procscan, sys, wire};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};
use wire::Fields;

/// How long leftovers may take to die.
const EMPTY_DEADLINE: Duration = Duration::from_secs(30);
/// How long the lock may stay held by a guard that has just died: its helper lets go a moment after it.
const LOCK_GRACE: Duration = Duration::from_secs(2);
/// How long a PostgreSQL that was there before any guard may take to end, once it has been stopped.
const STOPPING_GRACE: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(20);

/// The result: the lock, held as long as the file is open; who this is; what was found.
#[derive(Debug)]
pub struct Started {
    /// Keep it.
    pub lock: File,
    /// On disk already.
    pub state: State,
    /// `ok`, `missing`, `damaged` or `other-boot`.
    pub found: &'static str,
}

fn failed(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Does all of it.
pub fn start(config: &Config) -> io::Result<Started> {
    let dir = &config.state_dir;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed(format_args!("state_dir {}", dir.display())))?;
    refuse_strangers(dir, &config.data_dir)?;
    let lock = take_lock(dir)?;
    empty(&config.data_dir)?;
    let lost_ns = config.promise_hold_max.as_nanos() as u64;
    let (state, found) = identify(dir, clock::boottime_ns() + lost_ns)?;
    log::info(
        "guard instance",
        Fields::new()
            .with("instance", wire::format_instance(state.instance))
            .with("state_file", found)
            .with("highest_epoch", state.highest_epoch)
            .with("fenced_through", state.fenced_through)
            .with("promised_until_ns", state.promised_until_ns),
    );
    Ok(Started { lock, state, found })
}

/// Where no guard has been before, a PostgreSQL that runs is somebody's who does without Regent: it is not killed, the guard
/// does not start. Once a guard has been there, whatever runs outside is a leftover or a mistake, and is emptied.
///
/// Interleaving: `data_dir` names the wrong directory, of a production server that nobody wanted to move.
fn refuse_strangers(dir: &Path, data_dir: &Path) -> io::Result<()> {
    let known = ["guard.lock", "guard.state"].iter().any(|name| dir.join(name).exists());
    if known {
        return Ok(());
    }
    let begun = Instant::now();
    let found = loop {
        let found = procscan::find(data_dir)?;
        if found.is_empty() {
            return Ok(());
        }
        // `pg_ctl stop` returns when the postmaster has removed its pid file, a moment before it ends.
        if begun.elapsed() > STOPPING_GRACE {
            break found;
        }
        std::thread::sleep(RETRY);
    };
    let pids: Vec<String> = found.iter().map(ToString::to_string).collect();
    Err(io::Error::new(
        io::ErrorKind::ResourceBusy,
        format!(
            "PostgreSQL of data_dir {} runs without a guard (pid {}): stop it first (pg_ctl stop -m fast), then start the \
             guard; nothing was killed",
            data_dir.display(),
            pids.join(", ")
        ),
    ))
}

fn take_lock(dir: &Path) -> io::Result<File> {
    let path = dir.join("guard.lock");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed(path.display()))?;
    let begun = Instant::now();
    loop {
        // SAFETY: a valid descriptor.
        match sys::check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(failed(path.display())(error)),
        }
        let mut holder = String::new();
        file.rewind()?;
        file.read_to_string(&mut holder)?;
        let holder = holder.trim();
        let dead = holder.parse::<libc::pid_t>().is_ok_and(|pid| {
            // SAFETY: signal 0 only asks whether the process is there.
            pid > 1 && unsafe { libc::kill(pid, 0) } == -1
        });
        if begun.elapsed() > if dead { EMPTY_DEADLINE } else { LOCK_GRACE } {
            let state = if dead {
                "it is gone, but something it started still holds the lock"
            } else {
                "it is alive"
            };
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("{}: another guard has it, pid {holder}: {state}", path.display()),
            ));
        }
        std::thread::sleep(RETRY);
    }
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

fn empty(data_dir: &Path) -> io::Result<()> {
    let begun = Instant::now();
    let mut total = 0;
    loop {
        let found = procscan::kill_all(data_dir, &[])?;
        if found == 0 {
            break;
        }
        if total == 0 {
            log::warn("killing what an earlier guard left", Fields::new().with("processes", found));
        }
        total += found;
        if begun.elapsed() > EMPTY_DEADLINE {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{found} processes of {} do not die", data_dir.display()),
            ));
        }
        std::thread::sleep(RETRY);
    }
    Ok(())
}

fn identify(dir: &Path, longest_until_ns: u64) -> io::Result<(State, &'static str)> {
    let boot_id = clock::boot_id().map_err(failed("boot id"))?;
    let instance = sys::random_u128().map_err(failed("getrandom"))?;
    let read = state_file::load(dir).map_err(failed(format_args!("state file in {}", dir.display())))?;
    if let Found::Damaged(reason) = &read {
        let kept = state_file::keep_damaged(dir).map_err(failed("keeping the damaged state file"))?;
        log::error("the state file is damaged", Fields::new().with("reason", reason).with("kept_as", kept));
    }
    let (state, found) = next_state(read, instance, boot_id, longest_until_ns);
    state_file::store(dir, &state).map_err(failed(format_args!("state file in {}", dir.display())))?;
    Ok((state, found))
}

/// The new instance's state, from what was found. Marks survive a reboot; speaking for an earlier instance does not.
///
/// A promise that is lost with its file, or whose end was written on another boot's clock, counts as the longest that
/// could have been given: it ends at `longest_until_ns`. Interleaving that it prevents: a standby promises, its host
/// reboots, a new boot's clock is behind the old one's, and the standby is promoted beside a primary that runs on by its promise.
fn next_state(read: Found, instance: u128, boot_id: String, longest_until_ns: u64) -> (State, &'static str) {
    let fresh = State {
        instance,
        previous_instance: None,
        lineage: vec![],
        boot_id,
        highest_epoch: 0,
        fenced_through: 0,
        promises_closed: 0,
        promised_epoch: 0,
        promised_until_ns: longest_until_ns,
    };
    match read {
        Found::Missing => (fresh, "missing"),
        Found::Damaged(_) => (fresh, "damaged"),
        Found::Good(old) => {
            let promised = old.promised_until_ns > 0;
            let same_boot = old.boot_id == fresh.boot_id;
            let until_ns = if same_boot { old.promised_until_ns } else { longest_until_ns };
            let marks = State {
                highest_epoch: old.highest_epoch,
                fenced_through: old.fenced_through,
                promises_closed: old.promises_closed,
                promised_epoch: old.promised_epoch,
                promised_until_ns: if promised { until_ns } else { 0 },
                ..fresh
            };
            if !same_boot {
                return (marks, "other-boot");
            }
            let mut lineage = vec![old.instance];
            lineage.extend(old.lineage);
            lineage.truncate(LINEAGE_MAX);
            (State { previous_instance: Some(old.instance), lineage, ..marks }, "ok")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn old(boot: &str) -> Found {
        Found::Good(State {
            instance: 5,
            previous_instance: Some(4),
            lineage: vec![4],
            boot_id: boot.into(),
            highest_epoch: 9,
            fenced_through: 8,
            promises_closed: 7,
            promised_epoch: 9,
            promised_until_ns: 100,
        })
    }

    #[test]
    fn a_promise_that_is_lost_counts_as_the_longest_one() {
        let promised = |read: Found| {
            let (state, _) = next_state(read, 6, "b".into(), 5000);
            (state.promised_epoch, state.promised_until_ns)
        };
        assert_eq!(promised(old("b")), (9, 100), "known, on this boot's clock");
        assert_eq!(promised(old("a")), (9, 5000), "on another boot's clock");
        assert_eq!(promised(Found::Missing), (0, 5000));
        assert_eq!(promised(Found::Damaged("x".into())), (0, 5000));
        let Found::Good(state) = old("a") else { panic!() };
        let none = State { promised_epoch: 0, promised_until_ns: 0, ..state };
        assert_eq!(promised(Found::Good(none)), (0, 0), "it says that there was none");
    }

    #[test]
    fn it_succeeds_only_a_readable_instance_of_this_boot() {
        let (state, found) = next_state(old("b"), 6, "b".into(), 5000);
        assert_eq!((found, state.previous_instance, state.lineage), ("ok", Some(5), vec![5, 4]));
        let (state, found) = next_state(old("a"), 6, "b".into(), 5000);
        assert_eq!((found, state.previous_instance, state.lineage), ("other-boot", None, vec![]));
        assert_eq!((state.highest_epoch, state.fenced_through, state.promises_closed), (9, 8, 7));
        for (read, word) in [(Found::Missing, "missing"), (Found::Damaged("x".into()), "damaged")] {
            let (state, found) = next_state(read, 6, "b".into(), 5000);
            assert_eq!((found, state.previous_instance, state.highest_epoch), (word, None, 0));
        }
    }
}
