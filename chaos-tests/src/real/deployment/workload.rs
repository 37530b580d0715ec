//! The writers of every scenario: one by name over the links, and to each member a session held open and a procedure
//! that commits in a loop, both straight.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};

use super::layout::{EAST, MEMBERS, NORTH};
use super::life::Deployment;
use crate::real::checker::{LossAllowed, Verdict};
use crate::real::clock::{WallOffset, wait_until};
use crate::real::workload::{
    Attempt, Endpoint, Journal, Login, LoopProcedure, RunningWriter, WriterSpec, install_schema,
};

const PAUSE: Duration = Duration::from_millis(25);
const SOON: Duration = Duration::from_secs(30);

/// The writer that follows the name.
const BY_NAME: i32 = 1;
/// Held sessions: 10 + the member's place.
const HELD: i32 = 10;
/// Looping procedures: 20 + the member's place.
const LOOPING: i32 = 20;

/// Writers of reopened sessions: from here on, two at a time.
const REOPENED: i32 = 1000;

fn spec(login: &Login, writer_id: i32, endpoint: Endpoint) -> WriterSpec {
    WriterSpec {
        login: login.clone(),
        pause: PAUSE,
        statement_within: Duration::from_secs(3),
        connect_within: Duration::from_secs(1),
        ..WriterSpec::new(writer_id, endpoint)
    }
}

/// Writers at work.
#[derive(Debug)]
pub struct Workload {
    named: RunningWriter,
    held: BTreeMap<&'static str, RunningWriter>,
    looping: BTreeMap<&'static str, LoopProcedure>,
    more: Vec<RunningWriter>,
    lost_loops: Vec<LoopProcedure>,
    reopened: i32,
    offset: WallOffset,
}

impl Workload {
    /// Makes the table, opens every session, and waits until rows are acknowledged by name and in the loop.
    pub async fn start(deployment: &Deployment) -> Result<Self> {
        let offset = WallOffset::sample();
        // The status may be a heartbeat old: a primary that fenced itself for a moment, while coordinators were being made to
        // change their leader, is waited for.
        wait_until("the workload's table on the primary", SOON, async || {
            let Ok(session) = deployment.app(NORTH).await else { return false };
            install_schema(&session).await.is_ok()
        })
        .await?;
        wait_until("the workload's table on the standby", SOON, async || {
            let Ok(session) = deployment.app(EAST).await else { return false };
            session.client().query_one("SELECT count(*) FROM chaos_rows", &[]).await.is_ok()
        })
        .await?;
        let login = deployment.login();
        let (mut held, mut looping) = (BTreeMap::new(), BTreeMap::new());
        for (place, member) in MEMBERS.into_iter().enumerate() {
            let address = deployment.direct(member)?;
            let writer = spec(&login, HELD + place as i32, Endpoint::Direct(address));
            held.insert(member, writer.start_held().await?);
            let procedure = LoopProcedure::start(&login, address, LOOPING + place as i32, PAUSE).await?;
            looping.insert(member, procedure);
        }
        let workload = Self {
            named: spec(&login, BY_NAME, deployment.by_name()?).start(),
            held,
            looping,
            more: Vec::new(),
            lost_loops: Vec::new(),
            reopened: 0,
            offset,
        };
        let (named, procedure) = (workload.named.journal(), workload.looping[NORTH].journal());
        wait_until("rows acknowledged by name and in the loop", SOON, async || {
            named.acknowledged() > 2 && procedure.acknowledged() > 2
        })
        .await
        .with_context(|| format!("by name: {:?}", named.last_trouble()))?;
        Ok(workload)
    }

    /// Another writer whose rows are judged too; ids from 100 on are free.
    pub fn add(&mut self, writer: RunningWriter) {
        self.more.push(writer);
    }

    /// Opens a held session and a looping procedure at the member anew, in place of those that a fault has ended. Waits
    /// until both have rows acknowledged, so the member must be the primary.
    pub async fn reopen(&mut self, deployment: &Deployment, member: &'static str) -> Result<()> {
        let (held, looping) = self.replace(deployment, member).await?;
        wait_until("rows acknowledged over reopened sessions", SOON, async || {
            held.acknowledged() > 2 && looping.acknowledged() > 2
        })
        .await
        .with_context(|| format!("held: {:?}, looping: {:?}", held.last_trouble(), looping.last_trouble()))
    }

    /// As [`Workload::reopen`], of every member whose sessions are gone, standbys too.
    pub async fn reopen_lost(&mut self, deployment: &Deployment) -> Result<()> {
        for member in MEMBERS.into_iter().filter(|member| self.sessions_lost(member)).collect::<Vec<_>>() {
            self.replace(deployment, member).await?;
        }
        Ok(())
    }

    async fn replace(&mut self, deployment: &Deployment, member: &'static str) -> Result<(Journal, Journal)> {
        let (login, address) = (deployment.login(), deployment.direct(member)?);
        let writer_id = REOPENED + 2 * self.reopened;
        self.reopened += 1;
        let writer = spec(&login, writer_id, Endpoint::Direct(address)).start_held().await?;
        let procedure = LoopProcedure::start(&login, address, writer_id + 1, PAUSE).await?;
        let journals = (writer.journal().clone(), procedure.journal().clone());
        self.more.extend(self.held.insert(member, writer));
        self.lost_loops.extend(self.looping.insert(member, procedure));
        Ok(journals)
    }

    /// What the writer by name was told.
    pub fn named(&self) -> &Journal {
        self.named.journal()
    }

    /// What the session held open to the member was told.
    pub fn held(&self, member: &str) -> &Journal {
        self.held[member].journal()
    }

    /// What the procedure at the member has committed.
    pub fn looping(&self, member: &str) -> &Journal {
        self.looping[member].journal()
    }

    /// Whether both sessions to the member are gone.
    pub fn sessions_lost(&self, member: &str) -> bool {
        self.held[member].is_done() && self.looping[member].is_done()
    }

    /// Waits until the writer by name has a row acknowledged that it sent after `instant_ns`.
    pub async fn wait_write_after(&self, instant_ns: u64, within: Duration) -> Result<Attempt> {
        let journal = self.named();
        wait_until("a row acknowledged by name", within, async || {
            journal.first_acknowledged_after(instant_ns).is_some()
        })
        .await
        .with_context(|| format!("by name: {:?}", journal.last_trouble()))?;
        Ok(journal.first_acknowledged_after(instant_ns).expect("it was there"))
    }

    /// Stops all writers and returns everything they were told.
    pub async fn stop(self) -> Result<(Vec<Attempt>, WallOffset)> {
        let mut attempts = self.named.stop().await?;
        for writer in self.held.into_values().chain(self.more) {
            attempts.extend(writer.stop().await?);
        }
        for procedure in self.looping.into_values().chain(self.lost_loops) {
            attempts.extend(procedure.stop().await?);
        }
        Ok((attempts, self.offset))
    }

    /// Stops all writers and errs when an acknowledged row is nowhere, or two members accepted commits at one time.
    pub async fn finish(self, deployment: &Deployment, allowed: LossAllowed) -> Result<Verdict> {
        let (attempts, offset) = self.stop().await?;
        let verdict = deployment.judge(attempts, offset).await?;
        verdict.require(allowed)?;
        Ok(verdict)
    }
}
