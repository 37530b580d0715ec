//! The loop: one thread, one `poll`, every deadline a timeout of it. Dispatches and does nothing else.
//!
//! What the parts decide is in the submodules: `requests` (what a client may have), `lifecycle` (starting, stopping, the end of a
//! run, restarts), `leases` (deadlines and self-fencing), `promises` (given and received), `rogue` (PostgreSQL out of recovery without a lease), `report` (status).
//!
//! Invariants over all of them:
//! - the kernel timer is armed whenever a lease is held or something that may be writable is alive;
//! - a lease is held only for an epoch that is durable in the state file;
//! - at most one run and one job exist, and never both.

mod leases;
mod lifecycle;
mod promises;
mod report;
mod requests;
mod rogue;

use crate::clock::{self, MS};
use crate::config::Config;
use crate::control_file::Control;
use crate::helper::{self, Event, Isolation};
use crate::job::Job;
use crate::lease::Lease;
use crate::log;
use crate::persist::Persist;
use crate::run::{Kind, Run, Stage, StopPlan};
use crate::server::{ClientId, Server};
use crate::startup::Started;
use crate::sys;
use crate::timer::KernelTimer;
use crate::watchdog::Watchdog;
use crate::wire::Fields;
use requests::Parked;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

/// How often `pg_control` and the clocks are looked at, also while nothing runs: somebody could start PostgreSQL by hand.
const TICK_NS: u64 = 200 * MS;
/// On SIGTERM: fast shutdown, then immediate, then kill.
const EXIT_FAST_NS: u64 = 30_000 * MS;
const EXIT_IMMEDIATE_NS: u64 = 5_000 * MS;

/// A local restart that is due.
#[derive(Debug, Clone, Copy)]
struct Restart {
    at_ns: u64,
    kind: Kind,
}

/// The guard.
pub struct Guard {
    config: Config,
    exe: PathBuf,
    /// Held as long as the guard lives.
    lock: File,
    found: &'static str,
    persist: Persist,
    isolation: Isolation,
    namespaces: Result<(), String>,
    timer: Result<KernelTimer, String>,
    watchdog: Option<Watchdog>,
    memory_locked: String,
    server: Server,
    signals: OwnedFd,

    lease: Option<Lease>,
    wall_minus_boot_ns: i128,
    deadline_floor_ns: u64,

    run: Option<Run>,
    runs: u64,
    restart: Option<Restart>,
    backoff_ns: u64,
    restarts: u64,
    /// The epoch under which the gate was opened last.
    promoted_epoch: Option<u64>,
    job: Option<Job>,
    /// Processes that this guard did not start, or cannot contain, are being killed until none is found.
    sweeping: bool,
    /// `pg_control` while nothing of ours runs: a change to "in production" is somebody else's PostgreSQL.
    idle_control: Option<Control>,
    next_look_ns: u64,

    parked: Vec<(ClientId, Parked)>,
    terminating: bool,
    last_exit: Option<String>,
    last_error: Option<String>,
    rogue_promotions: u64,
    last_rogue: Option<String>,
}

impl Guard {
    /// Everything but the loop.
    pub fn new(config: Config, exe: PathBuf, started: Started) -> io::Result<Self> {
        let signals = sys::signal_fd(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP])?;
        let probed = helper::probe();
        let timer = KernelTimer::new().map_err(|error| format!("no CLOCK_BOOTTIME kill timer: {error}"));
        let server = Server::listen(&config.socket()).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", config.socket().display()))
        })?;
        let watchdog = config.watchdog.as_ref().map(|wanted| {
            if wanted.is_double {
                let fields = Fields::new().with("device", wanted.device.display());
                log::error(
                    "THE WATCHDOG IS A TEST DOUBLE: it resets nothing; never use it in production",
                    fields,
                );
            }
            let timeout_ms = u64::try_from(wanted.timeout.as_millis()).expect("at most half an hour");
            Watchdog::new(wanted.device.clone(), timeout_ms, wanted.is_double)
        });
        let memory_locked = lock_memory();
        let persist = Persist::new(config.state_dir.clone(), started.lock.as_raw_fd(), started.state);
        let mut guard = Self {
            config,
            exe,
            lock: started.lock,
            found: started.found,
            persist,
            isolation: probed.clone().unwrap_or(Isolation::None),
            namespaces: probed.map(|_| ()),
            timer,
            watchdog,
            memory_locked,
            server,
            signals,
            lease: None,
            wall_minus_boot_ns: clock::wall_minus_boot_ns(),
            deadline_floor_ns: 0,
            run: None,
            runs: 0,
            restart: None,
            backoff_ns: lifecycle::BACKOFF_FIRST_NS,
            restarts: 0,
            promoted_epoch: None,
            job: None,
            sweeping: false,
            idle_control: None,
            next_look_ns: 0,
            parked: Vec::new(),
            terminating: false,
            last_exit: None,
            last_error: None,
            rogue_promotions: 0,
            last_rogue: None,
        };
        guard.note_idle();
        if let Err(reason) = guard.automatic() {
            log::error("automatic failover is refused for this member", Fields::new().with("reason", reason));
        }
        log::info(
            "guard is ready",
            Fields::new()
                .with("isolation", format!("{:?}", guard.isolation))
                .with("memory_locked", &guard.memory_locked)
                .with("socket", guard.config.socket().display()),
        );
        Ok(guard)
    }

    /// Runs until told to end (SIGTERM, SIGINT), PostgreSQL being shut down first.
    pub fn run(&mut self) -> io::Result<()> {
        loop {
            self.tick();
            if self.terminating && self.run.is_none() {
                log::info("guard ends", Fields::new());
                return Ok(());
            }
            self.wait()?;
        }
    }

    fn tick(&mut self) {
        let now_ns = clock::boottime_ns();
        if now_ns >= self.next_look_ns {
            self.next_look_ns = now_ns + TICK_NS;
            self.check_clocks(now_ns);
            self.look(now_ns);
        }
        self.check_deadline(now_ns);
        self.keep_watchdog(now_ns);
        if let Some(run) = &mut self.run {
            run.advance(now_ns);
        }
        self.restart_if_due(now_ns);
        self.advance_parked(now_ns);
    }

    /// Sleeps until something happens or is due, and takes it in.
    fn wait(&mut self) -> io::Result<()> {
        let poll_in = |fd: RawFd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let no_fd = -1;
        let run_fd = self.run.as_ref().map_or(no_fd, |run| run.helper.poll_fd());
        let job_fd = self.job.as_ref().and_then(Job::helper).map_or(no_fd, helper::Helper::poll_fd);
        let mut fds = vec![poll_in(self.signals.as_raw_fd()), poll_in(run_fd), poll_in(job_fd)];
        let sockets = self.server.poll_set();
        fds.extend(sockets.iter().map(|(_, fd, events)| libc::pollfd {
            fd: *fd,
            events: *events,
            revents: 0,
        }));
        // SAFETY: `fds` is a valid array of that length.
        let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, self.timeout_ms()) };
        if ready == -1 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        }
        // What a helper says comes before its death is taken in, so that nothing of it is lost.
        self.hear_run();
        if let Some(job) = &mut self.job {
            job.drain();
        }
        if fds[0].revents != 0 {
            self.take_signals();
        }
        let mut gone = Vec::new();
        for ((client, _, _), fd) in sockets.iter().zip(&fds[3..]) {
            match client {
                None if fd.revents != 0 => self.server.accept(),
                Some(id) if fd.revents != 0 => {
                    self.server.pump(*id);
                    if fd.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0 {
                        gone.push(*id);
                    }
                }
                _ => {}
            }
        }
        // What was asked before the hang-up is obeyed: a fence must not depend on who waits for its answer.
        self.take_requests();
        for id in gone {
            self.server.drop_client(id);
        }
        Ok(())
    }

    /// Rounded up: waking a little late is the kernel timer's case, waking early in a loop would burn a core.
    fn timeout_ms(&self) -> libc::c_int {
        let now_ns = clock::boottime_ns();
        let dues = [
            Some(self.next_look_ns),
            self.run.as_ref().and_then(Run::next_due_ns),
            self.lease.map(|lease| lease.ladder(self.margin_ns()).fast_ns),
            self.restart.map(|restart| restart.at_ns),
            self.parked.iter().filter_map(|(_, parked)| parked.due_ns()).filter(|due| *due > now_ns).min(),
        ];
        let next = dues.into_iter().flatten().min().unwrap_or(now_ns + TICK_NS);
        let left_ms = next.saturating_sub(now_ns).div_ceil(MS);
        libc::c_int::try_from(left_ms.min(1000)).expect("at most 1000")
    }

    fn margin_ns(&self) -> u64 {
        self.config.shutdown_margin.as_nanos() as u64
    }

    fn hear_run(&mut self) {
        while let Some((event, run)) = self.run.as_mut().and_then(|run| Some((run.helper.receive()?, run))) {
            let fields = Fields::new().with("run", run.id);
            match event {
                Event::Started(pid) => {
                    run.postmaster = Some(pid);
                    log::info("PostgreSQL process started", fields.with("pid", pid));
                }
                Event::MainExited(status) => run.exit = Some(sys::describe_exit(status)),
                Event::ExecFailed(errno) | Event::SetupFailed(errno) => {
                    let error = io::Error::from_raw_os_error(errno);
                    let text = format!("PostgreSQL could not be started: {event:?}: {error}");
                    log::error(&text, fields);
                    run.exit = Some(text.clone());
                    self.last_error = Some(text);
                }
            }
        }
    }

    fn take_signals(&mut self) {
        while let Some(signal) = sys::read_signal(self.signals.as_raw_fd()) {
            let signal = signal as libc::c_int;
            if signal != libc::SIGTERM && signal != libc::SIGINT {
                continue;
            }
            log::info("told to end", Fields::new().with("signal", signal));
            self.terminating = true;
            self.restart = None;
            if let Some(run) = &mut self.run {
                let immediate_ns = clock::boottime_ns() + EXIT_FAST_NS;
                let plan = StopPlan {
                    stage: Stage::Fast,
                    immediate_ns,
                    kill_ns: immediate_ns + EXIT_IMMEDIATE_NS,
                    fencing: false,
                };
                run.stop(plan, "the guard was told to end");
            }
        }
        while let Some((pid, status)) = sys::reap() {
            if self.persist.on_exit(pid, status) {
                continue;
            }
            if self.run.as_ref().is_some_and(|run| run.helper.pid == pid) {
                self.hear_run();
                self.run_ended(status);
            } else if let Some(job) =
                self.job.as_mut().filter(|job| job.helper().is_some_and(|h| h.pid == pid))
            {
                job.on_reaped();
                log::info("job ended", job.fields());
                self.note_idle();
            }
        }
    }
}

/// Locks the guard's memory, so that a dead or thrashing disk cannot hold it up. With a small RLIMIT_MEMLOCK, locking what comes
/// later would make allocations fail, which would kill the guard and PostgreSQL with it: then only what is there is locked.
fn lock_memory() -> String {
    const ROOM_BYTES: u64 = 64 << 20;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid to write to.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } == 0;
    let room = known && (limit.rlim_cur == libc::RLIM_INFINITY || limit.rlim_cur >= ROOM_BYTES);
    let flags = libc::MCL_CURRENT | libc::MCL_ONFAULT | if room { libc::MCL_FUTURE } else { 0 };
    // SAFETY: no memory of ours is involved.
    match sys::check(unsafe { libc::mlockall(flags) }) {
        Ok(_) if room => "all".to_owned(),
        Ok(_) => format!("current-only: RLIMIT_MEMLOCK is {} bytes, all needs {ROOM_BYTES}", limit.rlim_cur),
        Err(error) => format!("no: {error} (RLIMIT_MEMLOCK is {} bytes)", limit.rlim_cur),
    }
}
