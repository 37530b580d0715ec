//! A laboratory: a directory of its own, a real guard as an unprivileged user, real PostgreSQL. Everything it starts dies with it.
#![allow(dead_code, reason = "each test binary uses its part")]

use regent_guard::client::Client;
use regent_guard::clock::boottime_ns;
use regent_guard::procscan;
use regent_guard::wire::{Answer, Fields, JobTool, PostgresState, Request, Status, StopMode};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

const NOBODY: u32 = 65534;
pub const SECOND_NS: u64 = 1_000_000_000;

/// Every PostgreSQL that is there, oldest first: `REGENT_PG_BIN` (colon-separated), Debian's, the fetched ones, PATH.
pub fn postgres_bins() -> Vec<PathBuf> {
    if let Ok(given) = std::env::var("REGENT_PG_BIN") {
        return given.split(':').map(PathBuf::from).collect();
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/pg");
    let mut found = Vec::new();
    for root in [Path::new("/usr/lib/postgresql").to_owned(), target] {
        let Ok(entries) = std::fs::read_dir(root) else { continue };
        let mut bins: Vec<_> = entries.flatten().map(|entry| entry.path().join("bin")).collect();
        bins.sort();
        found.extend(
            bins.into_iter().filter(|bin| bin.join("initdb").exists()).filter_map(|b| b.canonicalize().ok()),
        );
    }
    if found.is_empty() {
        let path = std::env::var_os("PATH").unwrap_or_default();
        found.extend(std::env::split_paths(&path).find(|bin| bin.join("initdb").exists()));
    }
    assert!(
        !found.is_empty(),
        "no PostgreSQL found: set REGENT_PG_BIN to a directory with initdb and postgres"
    );
    found
}

fn is_root() -> bool {
    // SAFETY: no arguments.
    unsafe { libc::geteuid() == 0 }
}

/// A command that runs as an ordinary user, and dies with the test.
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    // SAFETY: prctl only; set after the change of user, which would clear it.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command
}

fn own(path: &Path) {
    if is_root() {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

/// Polls until it is so; panics with the description at the deadline.
pub fn wait_until(what: &str, timeout: Duration, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < timeout, "still not after {timeout:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub const LONG: Duration = Duration::from_secs(60);

/// Seconds since 1970 with fractions, as PostgreSQL's `extract(epoch from clock_timestamp())`.
pub fn wall_seconds() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

pub struct Lab {
    pub dir: tempfile::TempDir,
    pub bin: PathBuf,
    pub guard: Option<Child>,
    pub lease_ttl_max: &'static str,
    pub shutdown_margin: &'static str,
    /// More lines for guard.toml.
    pub more: String,
    /// More environment for the guard.
    pub env: Vec<(&'static str, PathBuf)>,
    /// Run in the guard's process before it starts.
    pub before_exec: Option<fn() -> std::io::Result<()>>,
}

impl Lab {
    /// A directory and a copy of the guard that its user can read. No database yet.
    pub fn empty(bin: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("regent-guard-").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        own(dir.path());
        let exe = dir.path().join("regent-guard");
        std::fs::copy(env!("CARGO_BIN_EXE_regent-guard"), &exe).unwrap();
        std::fs::set_permissions(&exe, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            dir,
            bin: bin.to_owned(),
            guard: None,
            lease_ttl_max: "60s",
            shutdown_margin: "2s",
            more: String::new(),
            env: Vec::new(),
            before_exec: None,
        }
    }

    /// With a database cluster, and the guard running.
    pub fn start(bin: &Path) -> Self {
        let mut lab = Self::empty(bin);
        lab.initdb();
        lab.start_guard();
        lab
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub fn client(&self) -> Client {
        Client::new(self.path("state/guard.sock"))
    }

    pub fn initdb(&self) {
        let output = command(self.bin.join("initdb"))
            .args(["--no-sync", "-A", "trust", "-U", "postgres", "-D"])
            .arg(self.data())
            .env("LC_ALL", "C")
            .current_dir("/")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        self.configure();
        // initdb's own checkpoint was written with wal_level=minimal, from which no hot standby starts: write one with the real settings.
        let single = command(self.bin.join("postgres"))
            .args(["--single", "-D"])
            .arg(self.data())
            .arg("postgres")
            .stdin(Stdio::null())
            .current_dir("/")
            .output()
            .unwrap();
        assert!(single.status.success(), "{single:?}");
    }

    pub fn configure(&self) {
        let conf = self.data().join("postgresql.conf");
        let mut text = std::fs::read_to_string(&conf).unwrap();
        text.push_str(&format!(
            "\nlisten_addresses = ''\nunix_socket_directories = '{}'\nwal_log_hints = on\nmax_wal_senders = 4\n\
             shared_buffers = 4MB\nfsync = on\nlog_min_messages = warning\n",
            self.dir.path().display()
        ));
        std::fs::write(conf, text).unwrap();
    }

    pub fn write_config(&self) -> PathBuf {
        let config = self.path("guard.toml");
        let text = format!(
            "state_dir = '{0}/state'\ndata_dir = '{0}/data'\npg_bin = '{1}'\nlease_ttl_max = '{2}'\n\
             shutdown_margin = '{3}'\nlog = '{0}/postgres.log'\n{4}\n",
            self.dir.path().display(),
            self.bin.display(),
            self.lease_ttl_max,
            self.shutdown_margin,
            self.more
        );
        std::fs::write(&config, text).unwrap();
        config
    }

    pub fn guard_command(&self) -> Command {
        let config = self.write_config();
        let mut guard = command(self.path("regent-guard"));
        guard.args(["run", "--config"]).arg(config).current_dir("/").envs(self.env.clone());
        if let Some(before_exec) = self.before_exec {
            // SAFETY: the hooks make system calls only.
            unsafe { guard.pre_exec(before_exec) };
        }
        guard
    }

    /// Starts the guard and waits until it answers.
    pub fn start_guard(&mut self) {
        assert!(self.guard.is_none());
        let log = std::fs::File::options().append(true).create(true).open(self.path("guard.log")).unwrap();
        own(&self.path("guard.log"));
        let guard =
            self.guard_command().stderr(log).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let pid = guard.id();
        self.guard = Some(guard);
        wait_until("the guard answers", LONG, || {
            let ended = self.guard.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the guard ended: {ended:?}\n{}", self.log());
            self.client().status(Duration::from_secs(5)).is_ok_and(|status| status.pid == pid)
        });
    }

    pub fn log(&self) -> String {
        let guard = std::fs::read_to_string(self.path("guard.log")).unwrap_or_default();
        let postgres = std::fs::read_to_string(self.path("postgres.log")).unwrap_or_default();
        format!("--- guard.log\n{guard}\n--- postgres.log\n{postgres}")
    }

    pub fn status(&self) -> Status {
        self.client()
            .status(Duration::from_secs(10))
            .unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    pub fn call(&self, request: &Request) -> Answer {
        self.client()
            .call(request, LONG)
            .unwrap_or_else(|error| panic!("{request:?}: {error}\n{}", self.log()))
    }

    #[track_caller]
    pub fn ok(&self, request: &Request) -> Fields {
        match self.call(request) {
            Answer::Ok(fields) => fields,
            other => panic!("{request:?}: {other:?}\n{}", self.log()),
        }
    }

    #[track_caller]
    pub fn refused(&self, request: &Request, part: &str) -> Fields {
        match self.call(request) {
            Answer::Refused { reason, fields } if reason.contains(part) => fields,
            other => {
                panic!("{request:?}: {other:?} where a refusal with `{part}` was expected\n{}", self.log())
            }
        }
    }

    pub fn grant_request(&self, epoch: u64, seconds: f64) -> Request {
        let deadline_ns = boottime_ns() + (seconds * SECOND_NS as f64) as u64;
        Request::Grant { epoch, instance: self.status().instance, deadline_ns }
    }

    /// Grants and returns the deadline.
    #[track_caller]
    pub fn grant(&self, epoch: u64, seconds: f64) -> u64 {
        self.ok(&self.grant_request(epoch, seconds)).number("deadline_ns").unwrap()
    }

    /// A lease and a running primary.
    #[track_caller]
    pub fn start_primary(&self, epoch: u64, seconds: f64) -> u64 {
        let deadline = self.grant(epoch, seconds);
        self.ok(&Request::StartPrimary { epoch });
        self.wait_for(PostgresState::Primary);
        self.wait_for_sql();
        deadline
    }

    #[track_caller]
    pub fn start_standby(&self) {
        self.ok(&Request::StartStandby { create: true });
        self.wait_for(PostgresState::Standby);
        self.wait_for_sql();
    }

    #[track_caller]
    pub fn wait_for(&self, state: PostgresState) {
        let begun = Instant::now();
        loop {
            let status = self.status();
            if status.postgres == state {
                return;
            }
            assert!(begun.elapsed() < LONG, "not {state}: {status:#?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn wait_for_sql(&self) {
        let begun = Instant::now();
        while !self.psql("select 1").status.success() {
            assert!(begun.elapsed() < LONG, "no connections\n{}", self.log());
        }
    }

    fn psql_command(&self, sql: &str) -> Command {
        let mut psql =
            command(if self.bin.join("psql").exists() { self.bin.join("psql") } else { "psql".into() });
        psql.args([
            "-X",
            "-A",
            "-t",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "postgres",
            "-d",
            "postgres",
            "-h",
        ])
        .arg(self.dir.path())
        .args(["-c", sql])
        .env("PGCONNECT_TIMEOUT", "5")
        .current_dir("/");
        psql
    }

    pub fn psql(&self, sql: &str) -> Output {
        self.psql_command(sql).output().unwrap()
    }

    #[track_caller]
    pub fn sql(&self, sql: &str) -> String {
        let output = self.psql(sql);
        assert!(output.status.success(), "{sql}: {output:?}\n{}", self.log());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A session whose procedure commits a row in a loop, with the time of each.
    pub fn commit_loop(&self) -> Child {
        self.sql("create table if not exists beats (at float8)");
        let sql = "do $$ begin loop insert into beats values (extract(epoch from clock_timestamp())); commit; end loop; end $$";
        let child = self.psql_command(sql).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("the loop commits", LONG, || {
            self.sql("select count(*) from beats").parse::<u64>().unwrap() > 10
        });
        child
    }

    /// When the last row was committed, in [`wall_seconds`].
    pub fn last_beat(&self) -> f64 {
        self.sql("select max(at) from beats").parse().unwrap()
    }

    /// Processes of PostgreSQL in the data directory.
    pub fn processes(&self) -> Vec<libc::pid_t> {
        let data = self.data().canonicalize().unwrap();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == data) {
                found.push(pid);
            }
        }
        found
    }

    pub fn helper_pid(&self) -> libc::pid_t {
        let log = self.log();
        let line = log.lines().rfind(|line| line.contains("helper_pid=")).unwrap();
        let pid = line.split("helper_pid=").nth(1).unwrap();
        pid.split_whitespace().next().unwrap().parse().unwrap()
    }

    pub fn signal_guard(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.guard.as_ref().unwrap().id()).unwrap();
        regent_guard::sys::kill(pid, signal).unwrap();
    }

    /// Waits for the guard's end; returns its exit status.
    pub fn reap_guard(&mut self) -> std::process::ExitStatus {
        let mut guard = self.guard.take().unwrap();
        let begun = Instant::now();
        loop {
            if let Some(status) = guard.try_wait().unwrap() {
                return status;
            }
            if begun.elapsed() > LONG {
                let _ = guard.kill();
                panic!("the guard does not end\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn stop_postgres(&self) -> Fields {
        self.ok(&Request::Stop { mode: StopMode::Fast, timeout_ms: 60_000 })
    }

    pub fn job(&self, tool: JobTool, args: &[&str]) -> Answer {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        self.call(&Request::JobStart { tool, args, env: vec![] })
    }

    /// What `pg_controldata` says under this heading.
    pub fn controldata(&self, heading: &str) -> String {
        let output = command(self.bin.join("pg_controldata"))
            .arg(self.data())
            .env("LC_ALL", "C")
            .current_dir("/")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with(heading))
            .unwrap_or_else(|| panic!("{heading}: {text}"));
        line[heading.len()..].trim_start_matches(':').trim().to_owned()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            let _ = guard.kill();
            let _ = guard.wait();
        }
        let begun = Instant::now();
        while self.data().exists()
            && !self.processes().is_empty()
            && begun.elapsed() < Duration::from_secs(10)
        {
            let _ = procscan::kill_all(&self.data(), &[]);
            std::thread::sleep(Duration::from_millis(10));
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}
