//! One run of a hook: JSON on standard input, an exit code and a line of text back, killed with all its children when it is
//! late. Decides nothing: what an exit code means is the hook's own matter.

use std::time::Duration;

use crate::{clock::Clock, process::Process};

/// Longest text of a hook that is kept, characters.
const SAID_MAX: usize = 300;

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself.
    Exit {
        /// Exit code.
        code: i32,
        /// First line of standard output.
        said: String,
        /// Last line of standard error.
        errors: String,
    },
    /// Not started, killed by a signal, or late.
    Failed {
        /// Why.
        reason: String,
    },
}

/// Runs `command` with `argument` after its own ones.
pub async fn run(clock: &Clock, command: &[String], argument: &str, input: &[u8], limit: Duration) -> Ended {
    let failed = |reason: String| Ended::Failed { reason };
    let process = match Process::start(command, &[argument]) {
        Ok(process) => process,
        Err(error) => return failed(format!("{:?} cannot be started: {error}", command[0])),
    };
    match clock.within(limit, process.finish(input.to_vec())).await {
        None => {
            let after = humantime::format_duration(limit);
            failed(format!("no answer within {after}; it was killed with its children"))
        }
        Some(Err(error)) => failed(format!("cannot read its answer: {error}")),
        Some(Ok(ended)) => {
            let said = shorten(ended.output.lines().find(|line| !line.trim().is_empty()));
            let errors = shorten(ended.errors.lines().rev().find(|line| !line.trim().is_empty()));
            match ended.code {
                Some(code) => Ended::Exit { code, said, errors },
                None => failed(format!("it was killed by a signal: {errors}")),
            }
        }
    }
}

fn shorten(line: Option<&str>) -> String {
    line.unwrap_or_default().trim().chars().take(SAID_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str, limit: Duration) -> Ended {
        let command = ["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()];
        run(&Clock::system(), &command, "veto", b"{\"a\":1}\n", limit).await
    }

    #[tokio::test]
    async fn input_argument_and_exit_code_go_over() {
        let script = "read line; echo \"$0 $line\"; echo second; echo oh >&2; exit 1";
        let ended = sh(script, Duration::from_secs(20)).await;
        let said = "veto {\"a\":1}".to_owned();
        assert_eq!(ended, Ended::Exit { code: 1, said, errors: "oh".into() });
    }

    #[tokio::test]
    async fn a_late_one_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("child");
        let script = format!("setsid sleep 600 & echo $! > {}; wait", file.display());
        let ended = sh(&script, Duration::from_secs(3)).await;
        let reason = "no answer within 3s; it was killed with its children".to_owned();
        assert_eq!(ended, Ended::Failed { reason });
        let pid: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        let alive = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        let clock = Clock::system();
        let deadline_ms = clock.now_ms() + 20_000;
        while alive() {
            assert!(clock.now_ms() < deadline_ms, "the child {pid} lives on");
            clock.sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn what_cannot_be_started_says_so() {
        let command = ["/nonexistent/veto".to_owned()];
        let ended = run(&Clock::system(), &command, "veto", b"", Duration::from_secs(5)).await;
        let named = matches!(&ended, Ended::Failed { reason } if reason.contains("/nonexistent/veto"));
        assert!(named, "{ended:?}");
    }
}
