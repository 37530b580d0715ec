//! The processes of simulated agents, as the benchmark sees them.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use regent_chaos::real::sweep::ROOT_VARIABLE;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{
    INTERVAL,
    child::{Plan, PlannedMember, Samples},
    group::{Group, cluster},
};
use crate::proc;

struct Simulator {
    child: Child,
    pid: i32,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

/// All of them.
pub struct Simulators {
    all: Vec<Simulator>,
    sessions: std::collections::BTreeMap<u64, usize>,
}

impl Simulators {
    /// Starts them and waits until every member of every cluster is settled.
    pub async fn start(group: &Group, members: usize, processes: usize) -> Result<Self> {
        let address = |id: u64| (id, group.url(id));
        let mut plans: Vec<Vec<_>> = (0..processes).map(|_| Vec::new()).collect();
        for number in 0..members / 2 {
            let near = [("m1", [1, 2, 3]), ("m2", [3, 2, 1])];
            for (at, (member, order)) in near.into_iter().enumerate() {
                plans[(2 * number + at) % processes].push(PlannedMember {
                    cluster: cluster(number),
                    member: member.to_owned(),
                    coordinators: order.map(address).to_vec(),
                });
            }
        }
        let mut all = Vec::new();
        for (number, members_here) in plans.into_iter().enumerate() {
            let plan = Plan {
                pki: group.pki(),
                members: members_here,
                interval: INTERVAL,
                ramp: Duration::from_millis(1000 + 5 * members as u64),
            };
            let path = group.root().join(format!("agents-{number}.json"));
            fs::write(&path, serde_json::to_string(&plan)?)?;
            let mut child = Command::new(std::env::current_exe()?)
                .arg("simulate-agents")
                .arg("--plan")
                .arg(&path)
                .env(ROOT_VARIABLE, group.root())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .context("starting simulated agents")?;
            let pid = child.id().context("simulated agents ended at once")? as i32;
            let input = child.stdin.take().context("no standard input")?;
            let lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
            all.push(Simulator { child, pid, input, lines });
        }
        let mut simulators = Self { all, sessions: Default::default() };
        simulators.answers().await.context("while the clusters are bootstrapped")?;
        Ok(simulators)
    }

    /// Lets all measure at the same time.
    pub async fn measure(&mut self, length: Duration) -> Result<Samples> {
        for one in &mut self.all {
            one.input.write_all(format!("measure {}\n", length.as_millis()).as_bytes()).await?;
        }
        let samples = self.answers().await?;
        self.sessions = samples.sessions.clone();
        Ok(samples)
    }

    async fn answers(&mut self) -> Result<Samples> {
        let mut sum = Samples::default();
        for one in &mut self.all {
            let Some(line) = one.lines.next_line().await? else {
                bail!("simulated agents ended: {}", one.child.wait().await?);
            };
            sum.add(serde_json::from_str(&line)?);
        }
        Ok(sum)
    }

    /// Sessions that were not at `leader` at the end of the last measurement.
    pub fn relayed(&self, leader: u64) -> usize {
        self.sessions.iter().filter(|(id, _)| **id != leader).map(|(_, count)| count).sum()
    }

    /// CPU time of all so far.
    pub fn cpu_ms(&self) -> Result<u64> {
        self.all.iter().map(|one| proc::cpu_ms(one.pid)).sum()
    }

    /// Ends them.
    pub async fn stop(self) -> Result<()> {
        for one in self.all {
            let Simulator { mut child, input, .. } = one;
            drop(input);
            child.wait().await?;
        }
        Ok(())
    }
}
