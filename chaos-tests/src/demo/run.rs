//! The story: a region is cut off, fences itself, is replaced, comes back; every acknowledged row is accounted for.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::narrator::{Narrator, Tone, seconds};
use super::watcher::{Milestones, follow};
use super::{build, tables};
use crate::real::checker::{LossAllowed, Verdict};
use crate::real::clock::{monotonic_ns, wait_until};
use crate::real::deployment::{
    CLUSTER, Deployment, DeploymentOptions, EAST, MEMBERS, NORTH, REJOIN_AT_MOST, WITNESS, Workload,
};
use crate::real::sweep::interrupted;
use crate::real::workload::Attempt;

/// The user ended it.
#[derive(Debug)]
pub struct Interrupted(&'static str);

impl std::fmt::Display for Interrupted {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "interrupted by {}", self.0)
    }
}

impl std::error::Error for Interrupted {}

/// Runs the whole story. An error when a promise broke, or the demo was interrupted.
pub async fn run(options: DeploymentOptions) -> Result<()> {
    let narrator = Narrator::default();
    let deployment = build::prepare(&narrator, options)?;
    let told = tokio::select! {
        told = tell(&narrator, &deployment) => told,
        signal = interrupted() => signal.and_then(|name| Err(Interrupted(name).into())),
    };
    match told {
        Ok(()) => deployment.finish().await,
        Err(error) if error.is::<Interrupted>() => {
            narrator.say(Tone::Act, "ending everything");
            deployment.finish().await?;
            Err(error)
        }
        // Its artefacts are kept.
        Err(error) => Err(error),
    }
}

async fn tell(narrator: &Narrator, deployment: &Deployment) -> Result<()> {
    let _events = build::start(narrator, deployment).await?;
    build::how_to(narrator, deployment)?;

    narrator.chapter("Clients write");
    let workload = Workload::start(deployment).await?;
    narrator.say(Tone::Client, format!("one writer in {WITNESS} follows the DNS name, over the links"));
    narrator.say(
        Tone::Client,
        "in each member's region: one session held open, and one procedure that commits in a loop",
    );
    let before = workload.named().acknowledged();
    wait_until("rows by name", Duration::from_secs(30), async || {
        workload.named().acknowledged() > before + 100
    })
    .await?;
    let leader = deployment.leader().await?;
    narrator.say(
        Tone::Client,
        format!(
            "{} rows acknowledged by name; the leader lives in {leader}",
            workload.named().acknowledged()
        ),
    );

    narrator.chapter(&format!("{NORTH} is cut off: bytes vanish in both directions, no socket is closed"));
    deployment.net().isolate(NORTH)?;
    let milestones = follow(narrator, deployment, &workload, monotonic_ns()).await?;
    deployment
        .wait_status("the failover is done", deployment.timing().failover_at_most(), |status| {
            status.operation().is_none_or(|(kind, _)| kind != "failover")
        })
        .await?;

    narrator.chapter("The link is healed");
    deployment.net().heal();
    narrator.say(
        Tone::Act,
        format!("{NORTH} is back: its divergent WAL is salvaged before anything starts on it"),
    );
    let healed_ns = monotonic_ns();
    let status = deployment.wait_ready(REJOIN_AT_MOST).await.context("the old primary's return")?;
    narrator.say(
        Tone::Good,
        format!(
            "{NORTH} is a standby, confirmed in sync, {} after the heal",
            seconds(monotonic_ns() - healed_ns)
        ),
    );
    for salvage in deployment.salvages(NORTH).await? {
        let folder = salvage.folder.strip_prefix(deployment.files().root()).unwrap_or(&salvage.folder);
        narrator.say(
            Tone::Cluster,
            format!(
                "salvage {}: {} transactions",
                folder.display(),
                salvage.manifest["summary"]["transactions"]
            ),
        );
    }
    ensure!(status.primary() == Some(EAST), "after the heal the primary is {:?}", status.primary());

    narrator.chapter(&format!("Failback: {NORTH} becomes primary again, as planned, and nothing is lost"));
    let back_ns = monotonic_ns();
    let failback = deployment.ctl(&["failback", CLUSTER, "--reason", "the region is back", "--yes"]).await?;
    ensure!(
        failback["summary"]["state"] == "done" && failback["summary"]["to_member"] == NORTH,
        "the failback: {failback:#}"
    );
    for line in tables::steps(&failback) {
        narrator.print(&line);
    }
    workload.wait_write_after(back_ns, Duration::from_secs(30)).await?;
    deployment.wait_ready(REJOIN_AT_MOST).await.context("after the failback")?;
    narrator.say(
        Tone::Good,
        format!("{NORTH} is primary, {EAST} follows; {}", tables::loss(&failback["loss_final"])),
    );

    narrator.chapter("What it took, and what became of every acknowledged row");
    let (attempts, offset) = workload.stop().await?;
    let reports = (deployment.last_operation("failover").await?, deployment.last_operation("rejoin").await?);
    let verdict = deployment.judge(attempts.clone(), offset).await?;
    let before: Vec<Attempt> = attempts.into_iter().filter(|row| row.sent_ns < back_ns).collect();
    conclude(narrator, deployment, &reports, &verdict, &before, milestones)
}

fn conclude(
    narrator: &Narrator,
    deployment: &Deployment,
    (report, rejoin): &(Value, Value),
    verdict: &Verdict,
    attempts: &[Attempt],
    milestones: Milestones,
) -> Result<()> {
    let blocks = [tables::steps(report), tables::phases(report, rejoin), tables::rows(verdict, writer_name)];
    for block in blocks {
        block.iter().for_each(|line| narrator.print(line));
        narrator.print("");
    }
    narrator.print(&format!("  loss, by the coordinator's report: {}", tables::loss(&report["loss_final"])));
    let gap = |at: Option<u64>| at.map_or("never".into(), |at_ns| seconds(at_ns - milestones.cut_ns));
    narrator.print(&format!(
        "  after the cut: isolated side fenced {}, DNS {}, first row by name {}",
        gap(milestones.fenced_ns),
        gap(milestones.redirected_ns),
        gap(milestones.written_ns)
    ));
    let acknowledged = |server: &str| {
        attempts.iter().filter(|row| row.is_acknowledged() && row.server == server).collect::<Vec<_>>()
    };
    let [north, east] = MEMBERS.map(|member| deployment.server_name(member));
    let last = acknowledged(&north?).iter().map(|row| row.done_ns).max();
    let first = acknowledged(&east?).iter().map(|row| row.sent_ns).min();
    if let (Some(last), Some(first)) = (last, first) {
        let apart = first as i128 - last as i128;
        let text = format!(
            "  one writer at a time: last commit in {NORTH} and first in {EAST} are {:.2} s apart, on one clock",
            apart as f64 / 1e9
        );
        narrator.print(&text);
    }
    narrator.print("");
    match verdict.require(LossAllowed::Salvaged) {
        Ok(()) => {
            narrator.say(Tone::Good, "every promise was kept");
            Ok(())
        }
        Err(error) => {
            narrator.say(Tone::Bad, "a promise broke");
            Err(error)
        }
    }
}

fn writer_name(writer: i32) -> String {
    match writer {
        1 => format!("by DNS name, from {WITNESS}"),
        10 => format!("{NORTH}: session held open"),
        11 => format!("{EAST}: session held open"),
        20 => format!("{NORTH}: procedure in a loop"),
        21 => format!("{EAST}: procedure in a loop"),
        other => format!("writer {other}"),
    }
}
