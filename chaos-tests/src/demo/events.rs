//! The cluster's own words, live: `regentctl watch` beside the story.

use std::process::Stdio;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinHandle;

use super::narrator::{Narrator, Tone};
use crate::real::deployment::Deployment;

/// Prints each event until dropped.
#[derive(Debug)]
pub struct Events {
    task: JoinHandle<()>,
}

impl Events {
    /// Begins with the first event.
    pub fn follow(deployment: &Deployment, narrator: Narrator) -> Result<Self> {
        let mut child = deployment
            .ctl_command(&["watch", "--output", "json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting regentctl watch")?;
        let output = child.stdout.take().context("regentctl watch has no output")?;
        let task = tokio::spawn(async move {
            // Held: it is killed when the task goes.
            let _child = child;
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(event) = serde_json::from_str(&line) {
                    narrator.say(Tone::Cluster, words(&event));
                }
            }
        });
        Ok(Self { task })
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn words(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or("").to_owned();
    format!("epoch {}  {}: {} [{}]", event["epoch"], text("kind"), text("text"), text("rule"))
}
