//! One run of a command: its own process group, JSON on standard input, and killed with its group when it is late.

use std::{process::Stdio, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};

use crate::clock::Clock;

/// Bytes of each stream that are kept.
const KEPT: u64 = 4096;

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with the first line that it printed.
    Exit {
        /// Exit code.
        code: i32,
        /// First line of standard output.
        said: String,
        /// The last words on standard error.
        errors: String,
    },
    /// Not started, killed by a signal, or late.
    Failed {
        /// Why.
        reason: String,
    },
}

/// Kills the group when dropped before the command has ended.
struct Group(Option<i32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0.filter(|group| *group > 1) {
            // SAFETY: a signal to a group that this process has made and whose leader it has not reaped.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
    }
}

/// Runs `command` with `argument` after its own ones.
pub async fn run(clock: &Clock, command: &[String], argument: &str, input: &[u8], limit: Duration) -> Ended {
    let Some((program, arguments)) = command.split_first() else {
        return Ended::Failed { reason: "no command".into() };
    };
    let started = Command::new(program)
        .args(arguments)
        .arg(argument)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => return Ended::Failed { reason: format!("{program} cannot be started: {error}") },
    };
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()));
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let whole = async {
        let ask = async {
            if let Some(mut stdin) = stdin {
                // One that does not read its input is none the worse for it.
                stdin.write_all(input).await.ok();
            }
        };
        let mut said = Vec::new();
        let mut errors = Vec::new();
        let hear = async {
            if let Some(stdout) = stdout {
                stdout.take(KEPT).read_to_end(&mut said).await.ok();
            }
        };
        let complain = async {
            if let Some(stderr) = stderr {
                stderr.take(KEPT).read_to_end(&mut errors).await.ok();
            }
        };
        tokio::join!(ask, hear, complain);
        (child.wait().await, said, errors)
    };
    match clock.within(limit, whole).await {
        None => Ended::Failed { reason: format!("no answer within {} ms, killed", limit.as_millis()) },
        Some((Err(error), ..)) => Ended::Failed { reason: error.to_string() },
        Some((Ok(status), said, errors)) => {
            // Reaped: the number may be another group's by now.
            group.0 = None;
            let line = |bytes: &[u8], last: bool| {
                let text = String::from_utf8_lossy(bytes);
                let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                let line = if last { lines.next_back() } else { lines.next() };
                line.unwrap_or_default().chars().take(300).collect::<String>()
            };
            let errors = line(&errors, true);
            match status.code() {
                Some(code) => Ended::Exit { code, said: line(&said, false), errors },
                None => Ended::Failed { reason: format!("{status}; {errors}") },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str, limit_ms: u64) -> Ended {
        let command = ["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()];
        run(&Clock::system(), &command, "veto", b"{\"a\":1}", Duration::from_millis(limit_ms)).await
    }

    #[tokio::test]
    async fn input_argument_and_exit_code_go_over() {
        let ended = sh("read line; echo \"$0 $line\"; echo second; echo oh >&2; exit 1", 20_000).await;
        let said = "veto {\"a\":1}".to_owned();
        assert_eq!(ended, Ended::Exit { code: 1, said, errors: "oh".into() });
    }

    #[tokio::test]
    async fn a_late_one_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("child");
        let ended = sh(&format!("sleep 600 & echo $! > {}; wait", mark.display()), 2_000).await;
        assert_eq!(ended, Ended::Failed { reason: "no answer within 2000 ms, killed".into() });
        let pid: i32 = std::fs::read_to_string(&mark).unwrap().trim().parse().unwrap();
        // A killed child of a killed parent is reaped by the init of this machine, or stays a zombie.
        let alive = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !(stat.is_empty() || stat.contains(") Z "))
        };
        for _ in 0..500 {
            if !alive() {
                return;
            }
            tokio::task::yield_now().await;
            std::thread::yield_now();
        }
        assert!(!alive(), "the child {pid} lives on");
    }

    #[tokio::test]
    async fn what_cannot_be_started_says_so() {
        let command = ["/nonexistent/veto".to_owned()];
        let ended = run(&Clock::system(), &command, "veto", b"", Duration::from_secs(5)).await;
        assert!(
            matches!(&ended, Ended::Failed { reason } if reason.contains("/nonexistent/veto")),
            "{ended:?}"
        );
    }
}
