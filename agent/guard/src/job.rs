//! A tool job: `initdb`, `pg_basebackup`, `pg_rewind`, `pg_waldump` or single-user recovery, in a namespace of its own.
//!
//! One at a time, only while PostgreSQL is stopped. The agent that asked for it may die and ask again; the guard's death
//! is the job's death, so that nothing writes to the data directory unwatched. The guard never reads a job's output.

use crate::config::Config;
use crate::helper::{self, Helper, Isolation, Program};
use crate::sys;
use crate::wire::{Answer, Fields, JobTool};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// What the caller may add to a job's environment. No PGPASSWORD: the environment is readable in /proc.
const ENV_ALLOWED: [&str; 14] = [
    "LC_ALL",
    "LANG",
    "TZ",
    "PGPASSFILE",
    "PGSSLMODE",
    "PGSSLCERT",
    "PGSSLKEY",
    "PGSSLROOTCERT",
    "PGSSLCRL",
    "PGSSLMINPROTOCOLVERSION",
    "PGCONNECT_TIMEOUT",
    "PGAPPNAME",
    "PGTARGETSESSIONATTRS",
    "PGOPTIONS",
];

/// A job, running or ended.
#[derive(Debug)]
pub struct Job {
    id: u64,
    tool: JobTool,
    log: PathBuf,
    helper: Option<Helper>,
    exit: Option<libc::c_int>,
    problem: Option<String>,
    killed: bool,
}

/// The number for the next job: above every log that is there.
pub fn next_id(config: &Config) -> u64 {
    let Ok(entries) = std::fs::read_dir(&config.state_dir) else { return 1 };
    entries
        .flatten()
        .filter_map(|entry| {
            entry.file_name().to_str()?.strip_prefix("job-")?.strip_suffix(".log")?.parse().ok()
        })
        .max()
        .unwrap_or(0u64)
        .saturating_add(1)
}

impl Job {
    /// Starts a tool.
    pub fn start(
        config: &Config,
        isolation: Isolation,
        lock: RawFd,
        tool: JobTool,
        args: &[String],
        env: &[(String, String)],
    ) -> Result<Self, Answer> {
        if let Some((key, _)) = env.iter().find(|(key, _)| !ENV_ALLOWED.contains(&key.as_str())) {
            return Err(Answer::error(format!(
                "field `env:{key}`: not one of the variables a job may be given ({})",
                ENV_ALLOWED.join(", ")
            )));
        }
        let id = next_id(config);
        let log = config.state_dir.join(format!("job-{id}.log"));
        let spawn = || -> io::Result<Helper> {
            let output = File::options().append(true).create_new(true).mode(0o600).open(&log)?;
            let stdin = helper::dev_null()?;
            let (file, first) = tool.program();
            let path = config.pg_bin.join(file);
            let mut argv = vec![helper::c_string(path.as_os_str().as_bytes())?];
            for arg in first {
                argv.push(helper::c_string(arg)?);
            }
            for arg in args {
                argv.push(helper::c_string(arg)?);
            }
            let mut extra = vec![("LC_ALL", "C")];
            for (key, value) in env {
                extra.retain(|(name, _)| *name != key);
                extra.push((key, value));
            }
            let program = Program {
                path: helper::c_string(path.as_os_str().as_bytes())?,
                argv,
                envp: helper::environment(&extra)?,
                cwd: helper::c_string(config.state_dir.as_os_str().as_bytes())?,
                stdin: stdin.as_raw_fd(),
                output: output.as_raw_fd(),
            };
            helper::spawn(isolation, &program, lock, None)
        };
        let helper = spawn()
            .map_err(|error| Answer::error(format!("job {} could not start: {error}", tool.name())))?;
        Ok(Self { id, tool, log, helper: Some(helper), exit: None, problem: None, killed: false })
    }

    /// Its helper, while anything of it is alive.
    pub fn helper(&self) -> Option<&Helper> {
        self.helper.as_ref()
    }

    /// Takes in what its helper has to say.
    pub fn drain(&mut self) {
        while let Some(event) = self.helper.as_ref().and_then(Helper::receive) {
            match event {
                helper::Event::Started(_) => {}
                helper::Event::MainExited(status) => self.exit = Some(status),
                helper::Event::SetupFailed(errno) => self.problem = Some(problem("namespace", errno)),
                helper::Event::ExecFailed(errno) => self.problem = Some(problem(self.tool.name(), errno)),
            }
        }
    }

    /// Its helper was reaped: the namespace is empty.
    pub fn on_reaped(&mut self) {
        self.drain();
        self.helper = None;
    }

    /// Kills it.
    pub fn kill(&mut self) {
        if let Some(helper) = &self.helper {
            self.killed = true;
            helper.kill();
        }
    }

    /// In words, for `status`.
    pub fn state(&self) -> String {
        match (&self.helper, &self.problem, self.exit) {
            (Some(_), ..) => "running".to_owned(),
            (None, Some(problem), _) => format!("failed: {problem}"),
            (None, None, Some(status)) => sys::describe_exit(status),
            (None, None, None) if self.killed => "signal 9".to_owned(),
            (None, None, None) => "its namespace was killed".to_owned(),
        }
    }

    /// For `job-start`, `job-status` and `job-kill`: `state` is running, exited, signaled or failed.
    pub fn fields(&self) -> Fields {
        let mut fields = Fields::new().with("job", self.id).with("tool", self.tool.name());
        match (&self.helper, &self.problem, self.exit) {
            (Some(_), ..) => fields.push("state", "running"),
            (None, Some(problem), _) => {
                fields.push("state", "failed");
                fields.push("problem", problem);
            }
            (None, None, Some(status)) if libc::WIFEXITED(status) => {
                fields.push("state", "exited");
                fields.push("code", libc::WEXITSTATUS(status));
            }
            (None, None, Some(status)) => {
                fields.push("state", "signaled");
                fields.push("signal", libc::WTERMSIG(status));
            }
            (None, None, None) => {
                fields.push("state", "signaled");
                fields.push("signal", libc::SIGKILL);
            }
        }
        fields.push("log", self.log.display());
        fields
    }
}

fn problem(what: &str, errno: i32) -> String {
    format!("{what}: {}", io::Error::from_raw_os_error(errno))
}
