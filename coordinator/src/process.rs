//! One run of an operator's command (a fencing driver, a hook), and whatever it starts. Dropping it kills them all, and so
//! does its end: nothing of a run outlives it.
//!
//! It runs in a process group of its own; children that leave the group are found by a mark in their environment, which
//! they inherit. SIGKILL of this node takes the command itself along (the kernel's parent-death signal); children that
//! outlive it then are the script's to bound, as the contracts say.

use std::{
    io,
    process::{ExitStatus, Stdio},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
};

/// Name of the mark.
const MARK: &str = "REGENT_RUN";
/// Bytes of each stream that are kept; the rest is read and dropped, so that the command never blocks on it.
const KEPT: usize = 64 << 10;

pub(crate) struct Process {
    child: Child,
    group: i32,
    mark: String,
}

/// How it ended and what it printed.
pub(crate) struct Ended {
    /// `None` after a signal.
    pub code: Option<i32>,
    pub output: String,
    pub errors: String,
}

impl Process {
    pub fn start(command: &[String], arguments: &[&str]) -> io::Result<Self> {
        let mark = format!("{:032x}", rand::random::<u128>());
        let mut starting = Command::new(&command[0]);
        starting
            .args(&command[1..])
            .args(arguments)
            .current_dir("/")
            .env(MARK, &mark)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        // SAFETY: prctl is async-signal-safe and touches nothing of the parent.
        unsafe {
            starting.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        let child = starting.spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or_default();
        Ok(Self { child, group, mark })
    }

    /// Hands over the question and waits for the end. A command that does not read it is none the worse for it. Streams
    /// are read until the process ends, not until they are closed: a child left behind may hold them open for ever.
    pub async fn finish(mut self, question: Vec<u8>) -> io::Result<Ended> {
        let mut input = self.child.stdin.take();
        let mut output = Kept::new(self.child.stdout.take());
        let mut errors = Kept::new(self.child.stderr.take());
        let asking = async {
            if let Some(mut input) = input.take() {
                input.write_all(&question).await.ok();
            }
            std::future::pending::<()>().await;
        };
        tokio::pin!(asking);
        let status: ExitStatus = loop {
            tokio::select! {
                biased;
                () = output.read() => {}
                () = errors.read() => {}
                () = &mut asking => {}
                status = self.child.wait() => break status?,
            }
        };
        output.drain().await;
        errors.drain().await;
        Ok(Ended { code: status.code(), output: output.text(), errors: errors.text() })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Only while its leader is not reaped: after that the number may be another group's.
        let group = self.child.id().map(|_| self.group);
        kill_all(group, &self.mark);
    }
}

/// One stream and its last bytes.
struct Kept<R> {
    stream: Option<R>,
    bytes: Vec<u8>,
}

impl<R: tokio::io::AsyncRead + Unpin> Kept<R> {
    fn new(stream: Option<R>) -> Self {
        Self { stream, bytes: Vec::new() }
    }

    /// Reads something; never returns once the stream has ended.
    async fn read(&mut self) {
        let Some(stream) = &mut self.stream else { return std::future::pending().await };
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => self.stream = None,
            Ok(n) => {
                self.bytes.extend_from_slice(&buffer[..n]);
                let surplus = self.bytes.len().saturating_sub(KEPT);
                self.bytes.drain(..surplus);
            }
        }
    }

    /// What is in the pipe already.
    async fn drain(&mut self) {
        while self.stream.is_some() {
            tokio::select! {
                biased;
                () = self.read() => {}
                () = std::future::ready(()) => return,
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// SIGKILL for the group and for every process that carries the mark, until none is left. A few rounds, because a
/// process may fork between the look and the kill.
fn kill_all(group: Option<i32>, mark: &str) {
    if let Some(group) = group.filter(|group| *group > 1) {
        // SAFETY: a signal to a group that this node has made and whose leader it has not reaped.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
    let wanted = format!("{MARK}={mark}");
    for _ in 0..5 {
        let found = marked(wanted.as_bytes());
        if found.is_empty() {
            return;
        }
        for pid in found {
            // SAFETY: a signal to a process that carries this run's mark.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }
}

fn marked(wanted: &[u8]) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted)
    })
    .collect()
}
