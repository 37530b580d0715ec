//! Events as an operator follows them, and coordinators that stop themselves between two steps.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::layout::{CLUSTER, REGIONS};
use super::life::Deployment;
use crate::real::clock::wait_until;
use crate::real::process::Process;

impl Deployment {
    /// Follows `regentctl watch` from the oldest event on until one is `wanted`; the error carries the last ones.
    pub async fn wait_event(
        &self,
        what: &str,
        within: Duration,
        mut wanted: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        let mut command = self.ctl_command(&["watch", "--cluster", CLUSTER, "--output", "json"]);
        let mut child = command.stdout(Stdio::piped()).spawn().context("running regentctl watch")?;
        let mut lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        let mut seen = Vec::new();
        let found = tokio::time::timeout(within, async {
            while let Some(line) = lines.next_line().await? {
                let event: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
                if wanted(&event) {
                    return Ok(event);
                }
                seen.push(format!("{}: {}", event["kind"], event["text"]));
            }
            bail!("regentctl watch has ended")
        })
        .await
        .unwrap_or_else(|_| Err(anyhow::anyhow!("not within {within:?}")));
        child.kill().await.ok();
        found.with_context(|| format!("waiting for the event: {what}; there were {}", seen.join("\n")))
    }
}

/// Follows coordinators that stop themselves (`DeploymentOptions::stop_hook`), each stop once.
#[derive(Debug, Default)]
pub struct Stops {
    seen: BTreeMap<&'static str, usize>,
}

impl Stops {
    /// Waits for the next stop: the step that was committed, and the stopped process, to be continued.
    pub async fn next(
        &mut self,
        deployment: &Deployment,
        within: Duration,
    ) -> Result<(String, Arc<Process>)> {
        let mut found = None;
        let poll = async || {
            for region in REGIONS {
                let Ok(process) = deployment.process(&format!("coordinator-{region}")) else { continue };
                let log = process.log_text();
                let mut stops = log.lines().filter_map(|line| line.strip_prefix(STOPPING));
                let seen = self.seen.entry(region).or_default();
                if let Some(step) = stops.nth(*seen) {
                    *seen += 1;
                    found = Some((step.to_owned(), process));
                    return true;
                }
            }
            false
        };
        wait_until("a coordinator stops itself after a step", within, poll).await?;
        found.context("no stop")
    }
}

const STOPPING: &str = "test hook: stopping this process after ";
