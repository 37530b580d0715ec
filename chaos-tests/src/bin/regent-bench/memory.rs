//! Idle memory of every process of a two-member deployment at the product's own time-outs.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use regent_chaos::real::deployment::{Deployment, DeploymentOptions};
use serde::Serialize;

use crate::output;
use crate::proc::Memory;
use crate::stats::Spread;

/// Goals of resident memory, MB.
const GOALS_MB: [(&str, f64); 3] = [("agent", 20.0), ("guard", 3.0), ("coordinator", 40.0)];

#[derive(Serialize)]
struct Kind {
    kind: &'static str,
    goal_mb: f64,
    /// One value for each run: the greatest of its processes of the kind.
    rss_mb: Spread,
    pss_mb: Spread,
    anonymous_mb: Spread,
    processes_per_run: usize,
}

/// Measures `runs` fresh deployments, each after `idle`.
pub async fn run(runs: usize, idle: Duration) -> Result<()> {
    output::head(&format!(
        "Memory after bootstrap of a cluster of two members and {} s idle",
        idle.as_secs()
    ));
    let mut seen: BTreeMap<&str, Vec<(Memory, usize)>> = BTreeMap::new();
    for number in 1..=runs {
        for (kind, memory, processes) in once(idle).await? {
            eprintln!("run {number}: {kind} RSS {:.1} MB", memory.rss_kb as f64 / 1024.0);
            seen.entry(kind).or_default().push((memory, processes));
        }
    }
    let kinds: Vec<Kind> = GOALS_MB
        .iter()
        .map(|(kind, goal_mb)| {
            let all = &seen[kind];
            let spread = |of: fn(&Memory) -> u64| Spread::of(all.iter().map(|(m, _)| of(m) as f64 / 1024.0));
            Kind {
                kind,
                goal_mb: *goal_mb,
                rss_mb: spread(|m| m.rss_kb),
                pss_mb: spread(|m| m.pss_kb),
                anonymous_mb: spread(|m| m.anonymous_kb),
                processes_per_run: all[0].1,
            }
        })
        .collect();
    let rows: Vec<Vec<String>> = kinds
        .iter()
        .map(|kind| {
            vec![
                kind.kind.to_owned(),
                format!("{:.0}", kind.goal_mb),
                kind.rss_mb.show(1),
                kind.pss_mb.show(1),
                kind.anonymous_mb.show(1),
                format!("{} x {}", kind.rss_mb.runs, kind.processes_per_run),
            ]
        })
        .collect();
    output::table(&["MB", "goal", "RSS", "PSS", "anonymous", "runs x processes"], &rows);
    output::write("memory", kinds)
}

/// The greatest process of each kind, and how many there are.
async fn once(idle: Duration) -> Result<Vec<(&'static str, Memory, usize)>> {
    let options = DeploymentOptions::new("bench-memory").partition_timeout(Duration::from_secs(300));
    let deployment = Deployment::start(options).await?;
    tokio::time::sleep(idle).await;
    let mut all = Vec::new();
    for (kind, _) in GOALS_MB {
        let names = deployment.running().into_iter().filter(|name| name.starts_with(&format!("{kind}-")));
        let mut of_kind = Vec::new();
        for name in names {
            let pid = deployment.process(&name)?.pid();
            // A guard has a helper, which is the init of PostgreSQL's namespace: both count.
            let mut sum = Memory::of(pid)?;
            for child in children(pid, &format!("regent-{kind}"))? {
                let memory = Memory::of(child)?;
                sum.rss_kb += memory.rss_kb;
                sum.pss_kb += memory.pss_kb;
                sum.anonymous_kb += memory.anonymous_kb;
            }
            of_kind.push(sum);
        }
        let count = of_kind.len();
        let greatest = of_kind.into_iter().max_by_key(|memory| memory.rss_kb);
        all.push((kind, greatest.with_context(|| format!("no {kind} runs"))?, count));
    }
    deployment.finish().await?;
    Ok(all)
}

/// Children of `pid` that run the same program. PostgreSQL does not.
fn children(pid: i32, program: &str) -> Result<Vec<i32>> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let all = text.split_whitespace().filter_map(|child| child.parse().ok());
    Ok(all
        .filter(|child: &i32| {
            fs::read_link(format!("/proc/{child}/exe"))
                .is_ok_and(|exe| exe.file_name().is_some_and(|name| name == program))
        })
        .collect())
}
