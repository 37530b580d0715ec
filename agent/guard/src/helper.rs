//! The helper: init of the PID namespace in which one run of PostgreSQL, or one tool job, lives and dies.
//!
//! The guard clones it for each run. It starts the main process, reaps what is orphaned to it, passes on the signals the
//! guard asks for, and ends as soon as the main process ends. It decides nothing and touches no disk.
//!
//! Invariants, and the interleavings they prevent:
//! - *The helper's death is the namespace's death* (the kernel kills every process of a namespace whose init ends), and
//!   `waitpid(helper)` returns only after all of them are reaped. So a backend in a commit loop cannot outlive a postmaster
//!   that was killed: the helper notices and ends. And "the helper is reaped" is the proof that nothing is left.
//! - *The guard's death is the helper's*: the parent-death signal, which no process here clears by changing credentials. The signal
//!   is asked for before the socket to the guard is looked at: a guard that died earlier shows as a closed socket, one that
//!   dies later sends the signal. There is no gap between.
//! - *The helper has the deadline too*, on a timer of its own, so that a guard which is stuck in the kernel (a read from a dead
//!   disk cannot be interrupted, not even by SIGKILL) does not stretch the lease. The guard's timer is the first line, this is
//!   the second; it is always set to the guard's deadline, never later.
//! - The helper keeps the guard's lock descriptor open: a new guard gets the lock only when this helper, too, can start nothing more.
//!
//! What an operator sees of it: `postmaster.pid` names the pid *inside* the namespace (usually 2), so `pg_ctl` from outside signals the
//! wrong process or none; use the guard, or enter the namespace with `nsenter -U -p`. In a user namespace only the guard's own user and
//! group exist: files of others belong to `nobody` there (a root-owned TLS key is refused by PostgreSQL; give it to PostgreSQL's user), `peer`
//! authentication knows no other user, and setuid programs in `archive_command` do not gain anything. With CAP_SYS_ADMIN
//! (systemd: `AmbientCapabilities=`) the guard makes the PID namespace alone and none of this applies but the pid.

use crate::sys;
use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// How a run is kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// A PID namespace: the guard is allowed to make one.
    Pid,
    /// A PID namespace in a user namespace that maps the guard's own user and group and nobody else.
    UserAndPid,
    /// Neither is possible. Good enough for a standby, never for a primary.
    None,
}

impl Isolation {
    fn clone_flags(self) -> libc::c_int {
        match self {
            Self::Pid => libc::CLONE_NEWPID,
            Self::UserAndPid => libc::CLONE_NEWPID | libc::CLONE_NEWUSER,
            Self::None => 0,
        }
    }
}

/// What the namespace is for.
#[derive(Debug)]
pub struct Program {
    /// The file to execute.
    pub path: CString,
    /// Its arguments, the name first.
    pub argv: Vec<CString>,
    /// Its whole environment.
    pub envp: Vec<CString>,
    /// Where it starts: PostgreSQL in its data directory from its first instant, so that a scan finds it.
    pub cwd: CString,
    /// Standard input.
    pub stdin: RawFd,
    /// Standard output and error.
    pub output: RawFd,
}

/// What a helper tells its guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The main process exists; its pid as the guard sees it.
    Started(libc::pid_t),
    /// The namespace could not be set up.
    SetupFailed(i32),
    /// The program could not be executed.
    ExecFailed(i32),
    /// The main process has ended, with this wait status. The namespace is ending too, but has not yet.
    MainExited(libc::c_int),
}

/// The guard's side of a helper.
#[derive(Debug)]
pub struct Helper {
    /// The helper's process id, valid until it is reaped.
    pub pid: libc::pid_t,
    sock: OwnedFd,
    closed: Cell<bool>,
}

const GO: u8 = b'G';
const SIGNAL: u8 = b'S';
const DEADLINE: u8 = b'D';
const STARTED: u8 = b'C';
const SETUP_FAILED: u8 = b'F';
const EXEC_FAILED: u8 = b'E';
const EXITED: u8 = b'X';
const MESSAGE_BYTES: usize = 9;

fn send(fd: RawFd, kind: u8, value: u64) -> io::Result<()> {
    let mut bytes = [kind; MESSAGE_BYTES];
    bytes[1..].copy_from_slice(&value.to_ne_bytes());
    // SAFETY: the buffer has MESSAGE_BYTES bytes.
    let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), MESSAGE_BYTES, libc::MSG_NOSIGNAL) };
    if sent == MESSAGE_BYTES as isize { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn decode(bytes: &[u8; MESSAGE_BYTES]) -> (u8, u64) {
    (bytes[0], u64::from_ne_bytes(bytes[1..].try_into().expect("eight bytes")))
}

/// clone(2) as a fork: no stack of its own, no thread bookkeeping. The caller is single-threaded.
fn clone_process(flags: libc::c_int) -> io::Result<libc::pid_t> {
    // SAFETY: with a null stack this is a fork into new namespaces; the child leaves through _exit or exec.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags | libc::SIGCHLD), 0, 0, 0, 0) };
    if pid == -1 { Err(io::Error::last_os_error()) } else { Ok(pid as libc::pid_t) }
}

/// Finds out which isolation works, by trying it.
pub fn probe() -> Result<Isolation, String> {
    let mut reason = String::new();
    for isolation in [Isolation::Pid, Isolation::UserAndPid] {
        match try_isolation(isolation) {
            Ok(()) => return Ok(isolation),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(format!("a PID namespace cannot be made: {reason}"))
}

fn try_isolation(isolation: Isolation) -> io::Result<()> {
    // SAFETY: no arguments.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let child = clone_process(isolation.clone_flags())?;
    if child == 0 {
        let tried = map_ids(isolation, uid, gid).and_then(|()| {
            // SAFETY: the grandchild only exits.
            let grandchild = sys::check(unsafe { libc::fork() })?;
            if grandchild == 0 {
                // SAFETY: as above.
                unsafe { libc::_exit(0) };
            }
            sys::wait_for(grandchild)
        });
        let code = tried.map_or_else(|error| error.raw_os_error().unwrap_or(libc::EIO), |_| 0);
        // SAFETY: ends the child.
        unsafe { libc::_exit(code) };
    }
    let status = sys::wait_for(child)?;
    match (libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
        (true, 0) => Ok(()),
        (true, errno) => Err(io::Error::from_raw_os_error(errno)),
        (false, _) => Err(io::Error::other(sys::describe_exit(status))),
    }
}

fn map_ids(isolation: Isolation, uid: u32, gid: u32) -> io::Result<()> {
    if isolation != Isolation::UserAndPid {
        return Ok(());
    }
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// Starts a helper and its program. The helper kills the namespace at `deadline_ns` (CLOCK_BOOTTIME) when one is given.
/// Must be called from the thread that lives as long as the process: the parent-death signal belongs to it.
pub fn spawn(
    isolation: Isolation,
    program: &Program,
    lock: RawFd,
    deadline_ns: Option<u64>,
) -> io::Result<Helper> {
    let mut pair = [0; 2];
    // SAFETY: `pair` has room for two descriptors.
    sys::check(unsafe {
        libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, pair.as_mut_ptr())
    })?;
    let (ours, theirs) = (sys::owned(pair[0])?, sys::owned(pair[1])?);
    let on: libc::c_int = 1;
    // SAFETY: the option's value is a c_int of that size; F_SETFL takes flags.
    sys::check(unsafe {
        libc::setsockopt(
            ours.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PASSCRED,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    })?;
    // SAFETY: as above.
    sys::check(unsafe { libc::fcntl(ours.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })?;
    let argv = pointers(&program.argv);
    let envp = pointers(&program.envp);
    // SAFETY: no arguments.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let pid = clone_process(isolation.clone_flags())?;
    if pid == 0 {
        let child =
            Child { isolation, program, argv: &argv, envp: &envp, sock: theirs.as_raw_fd(), lock, uid, gid };
        drop(ours);
        child.run();
    }
    let helper = Helper { pid, sock: ours, closed: Cell::new(false) };
    if let Err(error) = send(helper.sock.as_raw_fd(), GO, deadline_ns.unwrap_or(0)) {
        // The helper sees a closed socket and ends by itself; it is reaped with the other children.
        crate::log::error(
            "helper did not take its start message",
            crate::wire::Fields::new().with("error", error),
        );
    }
    Ok(helper)
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

impl Helper {
    /// The descriptor to poll for [`Helper::receive`]; -1 once the helper has closed its side: a namespace can take long to
    /// die (a process in a dead disk's read), and a closed socket polls as ready all that time.
    pub fn poll_fd(&self) -> RawFd {
        if self.closed.get() { -1 } else { self.sock.as_raw_fd() }
    }

    /// Asks for a signal to the main process.
    pub fn signal(&self, signal: libc::c_int) -> io::Result<()> {
        send(self.sock.as_raw_fd(), SIGNAL, signal as u64)
    }

    /// Sets the helper's own deadline; `None` for none.
    pub fn set_deadline(&self, deadline_ns: Option<u64>) -> io::Result<()> {
        send(self.sock.as_raw_fd(), DEADLINE, deadline_ns.unwrap_or(0))
    }

    /// Kills the helper and so the namespace. It is empty when the helper is reaped.
    pub fn kill(&self) {
        if let Err(error) = sys::kill(self.pid, libc::SIGKILL) {
            crate::log::error(
                "kill of the namespace failed",
                crate::wire::Fields::new().with("error", error),
            );
        }
    }

    /// The next thing the helper has to say, if any.
    pub fn receive(&self) -> Option<Event> {
        let mut bytes = [0u8; MESSAGE_BYTES];
        let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: MESSAGE_BYTES };
        let mut control = [0u64; 8];
        // SAFETY: msghdr is plain data.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control) as _;
        // SAFETY: every pointer in the header is valid for its length.
        let got = unsafe { libc::recvmsg(self.sock.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) };
        if got != MESSAGE_BYTES as isize {
            let nothing_yet = got == -1 && io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock;
            self.closed.set(!nothing_yet);
            return None;
        }
        let (kind, value) = decode(&bytes);
        match kind {
            STARTED => sender(&header).map(Event::Started),
            SETUP_FAILED => Some(Event::SetupFailed(value as i32)),
            EXEC_FAILED => Some(Event::ExecFailed(value as i32)),
            EXITED => Some(Event::MainExited(value as libc::c_int)),
            _ => None,
        }
    }
}

/// The sender's pid, translated by the kernel into the receiver's namespace.
fn sender(header: &libc::msghdr) -> Option<libc::pid_t> {
    // SAFETY: the kernel filled the header; CMSG_FIRSTHDR checks the length.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(header);
        if message.is_null() || (*message).cmsg_type != libc::SCM_CREDENTIALS {
            return None;
        }
        let credentials = libc::CMSG_DATA(message).cast::<libc::ucred>().read_unaligned();
        (credentials.pid > 1).then_some(credentials.pid)
    }
}

/// The helper's side. Everything it needs was prepared before the clone.
struct Child<'a> {
    isolation: Isolation,
    program: &'a Program,
    argv: &'a [*const libc::c_char],
    envp: &'a [*const libc::c_char],
    sock: RawFd,
    lock: RawFd,
    uid: u32,
    gid: u32,
}

/// Ends the helper, and with it the namespace.
fn exit(code: i32) -> ! {
    // SAFETY: never returns; no destructors of the guard run here.
    unsafe { libc::_exit(code) }
}

impl Child<'_> {
    fn run(&self) -> ! {
        // SAFETY: prctl with these arguments involves no memory of ours.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } == -1 {
            self.fail(SETUP_FAILED);
        }
        let mut bytes = [0u8; MESSAGE_BYTES];
        // SAFETY: the buffer has MESSAGE_BYTES bytes.
        let got = unsafe { libc::recv(self.sock, bytes.as_mut_ptr().cast(), MESSAGE_BYTES, 0) };
        let (kind, deadline_ns) = decode(&bytes);
        if got != MESSAGE_BYTES as isize || kind != GO || self.guard_is_gone() {
            exit(1);
        }
        if map_ids(self.isolation, self.uid, self.gid).is_err() {
            self.fail(SETUP_FAILED);
        }
        let (Ok(signals), Ok(timer)) = (sys::signal_fd(&[libc::SIGCHLD]), deadline_timer()) else {
            self.fail(SETUP_FAILED);
        };
        self.close_others(&[signals.as_raw_fd(), timer.as_raw_fd()]);
        // SAFETY: no memory of ours is involved; failure only costs the second line its independence from paging.
        unsafe {
            libc::prctl(libc::PR_SET_NAME, c"regent-init".as_ptr());
            libc::mlockall(libc::MCL_CURRENT | libc::MCL_ONFAULT);
        }
        if set_timer(&timer, deadline_ns).is_err() {
            self.fail(SETUP_FAILED);
        }
        // SAFETY: the helper is single-threaded; the child execs or exits.
        let main = unsafe { libc::fork() };
        match main {
            -1 => self.fail(EXEC_FAILED),
            0 => self.exec(),
            main => self.watch(main, &signals, &timer),
        }
    }

    fn fail(&self, kind: u8) -> ! {
        let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        let _ = send(self.sock, kind, errno as u64);
        exit(1)
    }

    fn guard_is_gone(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.sock, events: 0, revents: 0 };
        // SAFETY: one valid pollfd.
        let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
        ready != 0 && poll.revents & (libc::POLLHUP | libc::POLLERR) != 0
    }

    /// The guard's clients and its end of other helpers must not stay open here: they would not notice the guard's death.
    fn close_others(&self, own: &[RawFd]) {
        let mut keep = vec![0, 1, 2, self.sock, self.lock, self.program.stdin, self.program.output];
        keep.extend(own);
        close_all_but(&mut keep);
    }

    fn watch(&self, main: libc::pid_t, signals: &OwnedFd, timer: &OwnedFd) -> ! {
        let poll_in = |fd: RawFd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        loop {
            let mut fds = [poll_in(timer.as_raw_fd()), poll_in(self.sock), poll_in(signals.as_raw_fd())];
            // SAFETY: three valid pollfds.
            if unsafe { libc::poll(fds.as_mut_ptr(), 3, -1) } == -1 {
                continue;
            }
            if fds[0].revents != 0 {
                self.end(main, 2);
            }
            if fds[1].revents != 0 {
                self.obey(main, timer);
            }
            if fds[2].revents != 0 {
                while sys::read_signal(signals.as_raw_fd()).is_some() {}
                while let Some((pid, status)) = sys::reap() {
                    if pid == main {
                        let _ = send(self.sock, EXITED, status as u64);
                        self.end(main, 0);
                    }
                }
            }
        }
    }

    fn obey(&self, main: libc::pid_t, timer: &OwnedFd) {
        let mut bytes = [0u8; MESSAGE_BYTES];
        // SAFETY: the buffer has MESSAGE_BYTES bytes.
        let got =
            unsafe { libc::recv(self.sock, bytes.as_mut_ptr().cast(), MESSAGE_BYTES, libc::MSG_DONTWAIT) };
        if got == -1 && io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock {
            return;
        }
        if got != MESSAGE_BYTES as isize {
            self.end(main, 1);
        }
        match decode(&bytes) {
            (SIGNAL, signal) => {
                let _ = sys::kill(main, signal as libc::c_int);
            }
            // A deadline that cannot be set must not be one that is not there.
            (DEADLINE, deadline_ns) if set_timer(timer, deadline_ns).is_err() => self.end(main, 1),
            _ => {}
        }
    }

    /// Without a namespace the main process has to be killed by name; its backends follow by themselves or by the guard's scan.
    fn end(&self, main: libc::pid_t, code: i32) -> ! {
        if self.isolation == Isolation::None {
            let _ = sys::kill(main, libc::SIGKILL);
        }
        exit(code)
    }

    /// The main process: a session of its own (a ^C on the guard's terminal is not for it), default signals, nothing inherited.
    fn exec(&self) -> ! {
        let _ = send(self.sock, STARTED, 0);
        let none = sys::sigset(&[]);
        // SAFETY: plain system calls on values that outlive them; argv and envp end with null.
        unsafe {
            libc::setsid();
            if self.isolation == Isolation::None {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            }
            libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
            if libc::chdir(self.program.cwd.as_ptr()) == -1
                || libc::dup2(self.program.stdin, 0) == -1
                || libc::dup2(self.program.output, 1) == -1
                || libc::dup2(self.program.output, 2) == -1
            {
                self.fail(EXEC_FAILED);
            }
            libc::execve(self.program.path.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr());
        }
        self.fail(EXEC_FAILED)
    }
}

/// Closes every descriptor but these. What the guard opens is close-on-exec anyway; this is for processes that do not exec.
pub fn close_all_but(keep: &mut Vec<RawFd>) {
    keep.sort_unstable();
    keep.dedup();
    let mut from: u32 = 0;
    let range = |from: u32, to: u32| {
        // SAFETY: closing descriptors that nothing in this process uses any more.
        unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
    };
    for fd in keep.iter().map(|fd| *fd as u32) {
        if fd > from {
            range(from, fd - 1);
        }
        from = fd + 1;
    }
    range(from, u32::MAX);
}

fn deadline_timer() -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved.
    sys::owned(unsafe { libc::timerfd_create(libc::CLOCK_BOOTTIME, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) })
}

fn set_timer(timer: &OwnedFd, deadline_ns: u64) -> io::Result<()> {
    let value = libc::itimerspec { it_interval: sys::timespec(0), it_value: sys::timespec(deadline_ns) };
    // SAFETY: `value` is valid; the old value is not asked for.
    sys::check(unsafe {
        libc::timerfd_settime(
            timer.as_raw_fd(),
            libc::TFD_TIMER_ABSTIME,
            &raw const value,
            std::ptr::null_mut(),
        )
    })
    .map(|_| ())
}

/// Makes a C string of something that was checked to have no NUL in it.
pub fn c_string(text: impl AsRef<[u8]>) -> io::Result<CString> {
    CString::new(text.as_ref())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "contains a NUL byte"))
}

/// The environment for a child: the guard's own without PostgreSQL's variables (PGPORT would change the server), plus `extra`.
pub fn environment(extra: &[(&str, &str)]) -> io::Result<Vec<CString>> {
    use std::os::unix::ffi::OsStrExt;
    let mut all = Vec::new();
    for (key, value) in std::env::vars_os() {
        let name = key.to_string_lossy();
        if name.starts_with("PG") || extra.iter().any(|(extra, _)| *extra == name) {
            continue;
        }
        all.push(c_string([key.as_bytes(), b"=", value.as_bytes()].concat())?);
    }
    for (key, value) in extra {
        all.push(c_string(format!("{key}={value}"))?);
    }
    Ok(all)
}

/// An empty standard input.
pub fn dev_null() -> io::Result<OwnedFd> {
    let path: &CStr = c"/dev/null";
    // SAFETY: the path is a C string.
    sys::owned(unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) })
}
