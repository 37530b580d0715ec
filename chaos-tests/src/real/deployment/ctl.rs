//! The real `regentctl`, run as an operator does, with its answers as JSON.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::Instant;

use super::layout::{CLUSTER, MEMBERS, WITNESS};
use super::life::Deployment;
use super::status::Status;
use crate::real::clock::wait_until;
use crate::real::sweep::ROOT_VARIABLE;

/// What a command said.
#[derive(Clone, Debug)]
pub struct CtlAnswer {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

const POLL: Duration = Duration::from_millis(150);
const AT_MOST: Duration = Duration::from_secs(30);

impl Deployment {
    /// `regentctl` for an operator in the witness region, not started.
    pub fn ctl_command(&self, args: &[&str]) -> Command {
        self.ctl_command_from(WITNESS, args)
    }

    fn ctl_command_from(&self, region: &str, args: &[&str]) -> Command {
        let mut command = Command::new(self.bin.join("regentctl"));
        command
            .arg("--config")
            .arg(self.files.ctl_config(region))
            .args(args)
            .env(ROOT_VARIABLE, self.files.root())
            .current_dir("/")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        self.world.user().apply_tokio(&mut command);
        command
    }

    /// What `regent-agent status` says on the member's host, in words.
    pub async fn agent_status(&self, member: &str) -> Result<String> {
        let mut command = Command::new(self.bin.join("regent-agent"));
        command
            .args(["status", "--config"])
            .arg(self.files.config(&format!("agent-{member}")))
            .current_dir("/")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        self.world.user().apply_tokio(&mut command);
        let done = tokio::time::timeout(AT_MOST, command.output()).await.context("regent-agent status")??;
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        if !done.status.success() {
            bail!("regent-agent status: {}: {}", done.status, String::from_utf8_lossy(&done.stderr));
        }
        Ok(said)
    }

    /// Runs `regentctl` for an operator in `region`, whatever it answers.
    pub async fn ctl_from(&self, region: &str, args: &[&str]) -> Result<CtlAnswer> {
        let mut command = self.ctl_command_from(region, args);
        let done = tokio::time::timeout(AT_MOST, command.output())
            .await
            .with_context(|| format!("regentctl {args:?}: no end within {AT_MOST:?}"))?
            .context("running regentctl")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = done.status.code().context("regentctl died of a signal")?;
        Ok(CtlAnswer { code, stdout: text(&done.stdout), stderr: text(&done.stderr) })
    }

    /// Runs `regentctl` in the witness region; an answer other than success is an error.
    pub async fn ctl(&self, args: &[&str]) -> Result<Value> {
        let with_json: Vec<&str> = args.iter().copied().chain(["--output", "json"]).collect();
        let answer = self.ctl_from(WITNESS, &with_json).await?;
        if answer.code != 0 {
            bail!("regentctl {} answers {}: {}", args.join(" "), answer.code, answer.stderr.trim());
        }
        serde_json::from_str(&answer.stdout)
            .with_context(|| format!("regentctl {}: {}", args.join(" "), answer.stdout))
    }

    /// The status as the witness region sees it.
    pub async fn status(&self) -> Result<Status> {
        Ok(Status::new(self.ctl(&["status", CLUSTER]).await?))
    }

    /// Polls the status until `condition` holds; the error carries the last status.
    pub async fn wait_status(
        &self,
        what: &str,
        within: Duration,
        mut condition: impl FnMut(&Status) -> bool,
    ) -> Result<Status> {
        let deadline = Instant::now() + within;
        let mut last = None;
        loop {
            match self.status().await {
                Ok(status) if condition(&status) => return Ok(status),
                other => last = Some(other).or(last),
            }
            if Instant::now() >= deadline {
                let last = match last {
                    Some(Ok(status)) => status.to_string(),
                    Some(Err(error)) => format!("{error:#}"),
                    None => "never asked".into(),
                };
                bail!("not within {within:?}: {what}. The last status: {last}");
            }
            self.require_alive()?;
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until the cluster has a primary and a standby in sync, nothing runs, and DNS is of its epoch.
    pub async fn wait_ready(&self, within: Duration) -> Result<Status> {
        self.wait_status("a primary, a standby in sync and no operation", within, |status| {
            let Some(primary) = status.primary() else { return false };
            let standby = if primary == MEMBERS[0] { MEMBERS[1] } else { MEMBERS[0] };
            status.idle()
                && status.member(primary)["accepting"] == true
                && status.member(primary)["postgres"] == "primary"
                && status.sync_confirmed(standby)
                && status.dns_epoch() == Some(status.epoch())
        })
        .await
    }

    /// Waits until `member` is primary and no failover runs any more.
    pub async fn wait_failover(&self, member: &str) -> Result<Status> {
        self.wait_status(&format!("{member} is primary"), self.timing.failover_at_most(), |status| {
            status.primary() == Some(member) && status.operation().is_none_or(|(kind, _)| kind != "failover")
        })
        .await
    }

    /// The region of the leader.
    pub async fn leader(&self) -> Result<String> {
        // Of the group, which may have no cluster yet.
        let status = Status::new(self.ctl(&["status"]).await?);
        status.leader_region().map(str::to_owned).context("no coordinator leads")
    }

    /// Makes the coordinator of `region` the leader, by killing whoever else leads. Only with `leader_anywhere`.
    pub async fn lead_from(&self, region: &str) -> Result<()> {
        for _ in 0..15 {
            let leader = self.wait_leader().await?;
            if leader == region {
                return Ok(());
            }
            let name = format!("coordinator-{leader}");
            self.kill(&name);
            let others = wait_until("another leader", AT_MOST, async || {
                self.leader().await.is_ok_and(|now| now != leader)
            });
            let elected = others.await;
            self.restart(&name)?;
            elected?;
        }
        bail!("{region} was not elected in 15 elections")
    }

    /// The leader's region, as soon as there is one.
    pub async fn wait_leader(&self) -> Result<String> {
        let mut found = None;
        wait_until("a leader", AT_MOST, async || {
            found = self.leader().await.ok();
            found.is_some()
        })
        .await?;
        found.context("no leader")
    }

    /// Summaries of the cluster's operations, newest first.
    pub async fn history(&self) -> Result<Vec<Value>> {
        let answer = self.ctl(&["history", CLUSTER]).await?;
        let list = answer.get("operations").cloned().unwrap_or(answer);
        list.as_array().cloned().with_context(|| format!("not a list of operations: {list}"))
    }

    /// The report of an operation.
    pub async fn operation(&self, id: u64) -> Result<Value> {
        self.ctl(&["history", CLUSTER, &id.to_string()]).await
    }

    /// The report of the newest operation of a kind (`failover`, `rejoin`, `bootstrap`).
    pub async fn last_operation(&self, kind: &str) -> Result<Value> {
        let history = self.history().await?;
        let found = history.iter().find(|operation| operation["kind"] == kind);
        let id = found.and_then(|operation| operation["id"].as_u64());
        self.operation(id.with_context(|| format!("no {kind} in the history: {history:?}"))?).await
    }

    /// How many operations of a kind there were.
    pub async fn count(&self, kind: &str) -> Result<usize> {
        Ok(self.history().await?.iter().filter(|operation| operation["kind"] == kind).count())
    }

    /// The process id of the member's postmaster, as the host numbers it.
    pub async fn postmaster(&self, member: &str) -> Result<i32> {
        let status = self.guard(member).await?;
        let pid =
            status["postmaster_pid"].as_i64().or_else(|| status["postmaster_pid"].as_str()?.parse().ok());
        let pid = pid.filter(|pid| *pid > 1);
        Ok(pid.with_context(|| format!("{member} has no postmaster: {status}"))? as i32)
    }

    /// What the member's guard says of itself.
    pub async fn guard(&self, member: &str) -> Result<Value> {
        let mut command = Command::new(self.bin.join("regent-guard"));
        command
            .args(["status", "--output", "json", "--config"])
            .arg(self.files.config(&format!("guard-{member}")))
            .env(ROOT_VARIABLE, self.files.root())
            .current_dir("/")
            .kill_on_drop(true);
        self.world.user().apply_tokio(&mut command);
        let done = tokio::time::timeout(Duration::from_secs(5), command.output())
            .await
            .context("regent-guard status: no answer")??;
        ensure!(
            done.status.success(),
            "regent-guard status: {}",
            String::from_utf8_lossy(&done.stderr).trim()
        );
        serde_json::from_slice(&done.stdout).context("regent-guard status: not JSON")
    }
}
