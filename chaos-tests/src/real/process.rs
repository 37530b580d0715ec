//! One supervised child process with a log file.
//!
//! Invariants: a child is killed when its handle is dropped, and by the kernel when the harness dies
//! (`PR_SET_PDEATHSIG`). That signal comes when the *thread* that forked ends, so all children are forked by
//! one thread that lives as long as the harness. What a child itself starts is [`super::sweep`]'s business.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::clock::wait_until;
use super::sweep::ROOT_VARIABLE;
use super::user::RunAs;

/// What to start.
#[derive(Clone, Debug)]
pub struct ProcessSpec {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    cwd: PathBuf,
    user: RunAs,
}

impl ProcessSpec {
    /// A process called `name` in messages and log files.
    pub fn new(name: &str, program: impl Into<PathBuf>) -> Self {
        Self {
            name: name.to_owned(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            cwd: PathBuf::from("/"),
            user: RunAs::Own,
        }
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable; the harness's own environment is inherited.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the working directory (default `/`).
    pub fn cwd(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cwd = dir.into();
        self
    }

    /// Sets the user.
    pub fn user(mut self, user: RunAs) -> Self {
        self.user = user;
        self
    }
}

/// A running (or ended) child.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: i32,
    log_path: PathBuf,
    child: Mutex<Child>,
}

impl Process {
    /// Starts `spec` with its output appended to `<root>/logs/<name>.log`, marked as belonging to `root`.
    pub fn spawn(spec: &ProcessSpec, root: &Path) -> Result<Self> {
        let logs = root.join("logs");
        super::cache::make_open_dir(&logs)?;
        let log_path = logs.join(format!("{}.log", spec.name));
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log_path)
            .with_context(|| format!("opening {}", log_path.display()))?;
        let mut command = Command::new(&spec.program);
        command
            .args(&spec.args)
            .env(ROOT_VARIABLE, root)
            .envs(spec.env.iter().map(|(key, value)| (key, value)))
            .current_dir(&spec.cwd)
            // A group of its own: ^C in the terminal is the harness's to handle.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        spec.user.apply(&mut command);
        let child = fork_on_lasting_thread(command)
            .with_context(|| format!("starting {} ({})", spec.name, spec.program.display()))?;
        let pid = child.id() as i32;
        Ok(Self { name: spec.name.clone(), pid, log_path, child: Mutex::new(child) })
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Where its output goes.
    pub fn log_path(&self) -> &Path {
        &self.log_path
    }

    /// All it has written so far.
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log_path).unwrap_or_default()).into_owned()
    }

    /// Its exit status, when it has ended.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child().try_wait().ok().flatten()
    }

    /// Whether it has not ended (a stopped process is running).
    pub fn is_running(&self) -> bool {
        self.exit_status().is_none()
    }

    /// Sends a signal; an error when it has already ended.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let mut child = self.child();
        // Checked under the lock: an unreaped child's id cannot have gone to another process.
        if let Some(status) = child.try_wait()? {
            bail!("{} has already ended ({status}): signal {signal} not sent", self.name);
        }
        // SAFETY: plain numbers.
        let done = unsafe { libc::kill(self.pid, signal) };
        if done != 0 {
            return Err(std::io::Error::last_os_error())
                .with_context(|| format!("signal {signal} to {} ({})", self.name, self.pid));
        }
        Ok(())
    }

    /// SIGKILL, and reaps it.
    pub fn kill(&self) {
        let mut child = self.child();
        if matches!(child.try_wait(), Ok(None)) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM.
    pub fn term(&self) -> Result<()> {
        self.signal(libc::SIGTERM)
    }

    /// SIGSTOP.
    pub fn stop(&self) -> Result<()> {
        self.signal(libc::SIGSTOP)
    }

    /// SIGCONT.
    pub fn cont(&self) -> Result<()> {
        self.signal(libc::SIGCONT)
    }

    /// Waits for the end; the error carries the end of the log.
    pub async fn wait_exit(&self, within: Duration) -> Result<ExitStatus> {
        wait_until(&format!("end of {}", self.name), within, async || !self.is_running())
            .await
            .with_context(|| self.log_tail())?;
        Ok(self.exit_status().expect("it has ended"))
    }

    /// Waits until its log contains `text`; the error says so when it ended without.
    pub async fn wait_log(&self, text: &str, within: Duration) -> Result<()> {
        let found = wait_until(&format!("\"{text}\" in the log of {}", self.name), within, async || {
            self.log_text().contains(text) || !self.is_running()
        })
        .await;
        if self.log_text().contains(text) {
            return Ok(());
        }
        found.with_context(|| self.log_tail())?;
        let status = self.exit_status().map(|status| (status.code(), status.signal()));
        bail!("{} ended ({status:?}) without \"{text}\": {}", self.name, self.log_tail())
    }

    /// The last lines of its log, for messages.
    pub fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<_> = text.lines().collect();
        let from = lines.len().saturating_sub(15);
        format!("log of {} ends:\n{}", self.name, lines[from..].join("\n"))
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

type Job = (Command, mpsc::SyncSender<std::io::Result<Child>>);

fn fork_on_lasting_thread(command: Command) -> std::io::Result<Child> {
    static FORKER: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    let forker = FORKER.get_or_init(|| {
        let (jobs, inbox) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("forker".into())
            .spawn(move || {
                for (mut command, answer) in inbox {
                    die_with_parent(&mut command);
                    let _ = answer.send(command.spawn());
                }
            })
            .expect("a thread can be started");
        Mutex::new(jobs)
    });
    let (answer, result) = mpsc::sync_channel(1);
    forker
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .send((command, answer))
        .expect("the forking thread lives as long as the process");
    result.recv().expect("the forking thread answers every job")
}

/// Asks the kernel to kill the child when the forking thread ends. Runs after the change of user, which
/// would clear it.
fn die_with_parent(command: &mut Command) {
    // SAFETY: getpid cannot fail.
    let parent = unsafe { libc::getpid() };
    // SAFETY: the closure makes async-signal-safe calls only.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            // The parent may have died before the request was made.
            if libc::getppid() != parent {
                libc::_exit(1);
            }
            Ok(())
        });
    }
}
