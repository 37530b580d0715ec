//! `regent-bench simulate-agents`: many agents in one process. Standard input says `measure MS`, standard output answers
//! with one line of JSON each; the process ends with its standard input, so it never outlives the benchmark.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result};
use regent_chaos::real::clock::wait_until;
use regent_pki::TlsFiles;
use regent_types::{ClusterName, MemberName};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::agent::{self, Agent, boottime_ns};

/// How long an acknowledgement of the measured time may be late before it counts as missing.
const LATE: Duration = Duration::from_secs(3);
const SETTLED_WITHIN: Duration = Duration::from_secs(300);

/// What one process simulates.
#[derive(Serialize, Deserialize)]
pub struct Plan {
    /// Certificates.
    pub pki: PathBuf,
    /// The agents.
    pub members: Vec<PlannedMember>,
    /// Between two heartbeats.
    pub interval: Duration,
    /// The first connections are spread over this time.
    pub ramp: Duration,
}

/// One simulated agent.
#[derive(Serialize, Deserialize)]
pub struct PlannedMember {
    /// Its cluster.
    pub cluster: String,
    /// Its name.
    pub member: String,
    /// Id and address of the coordinators, the own region's first.
    pub coordinators: Vec<(u64, String)>,
}

/// One line of standard output.
#[derive(Default, Serialize, Deserialize)]
pub struct Samples {
    /// Coordinator that the session is at, latency in microseconds.
    pub latency_us: Vec<(u64, u64)>,
    /// Heartbeats sent in the measured time without an acknowledgement.
    pub unacknowledged: u64,
    /// Sessions that ended in the measured time.
    pub sessions_lost: u64,
    /// Members per coordinator.
    pub sessions: BTreeMap<u64, usize>,
}

impl Samples {
    /// How many acknowledgements.
    pub fn count(&self) -> u64 {
        self.latency_us.len() as u64
    }

    /// Adds another process's.
    pub fn add(&mut self, other: Samples) {
        self.latency_us.extend(other.latency_us);
        self.unacknowledged += other.unacknowledged;
        self.sessions_lost += other.sessions_lost;
        for (id, count) in other.sessions {
            *self.sessions.entry(id).or_default() += count;
        }
    }

    /// Sorted latencies of the sessions at the leader, and of those that a follower relays.
    pub fn split(&self, leader: u64) -> (Vec<u64>, Vec<u64>) {
        let of = |direct: bool| {
            let wanted = self.latency_us.iter().filter(|(id, _)| (*id == leader) == direct);
            let mut all: Vec<u64> = wanted.map(|(_, us)| *us).collect();
            all.sort_unstable();
            all
        };
        (of(true), of(false))
    }
}

#[derive(Default)]
struct Inner {
    window: Option<(u64, u64)>,
    sent: u64,
    lost: u64,
    latency_us: Vec<(u64, u64)>,
    /// Coordinator of each member that is settled.
    settled: BTreeMap<usize, u64>,
    last_lost: String,
}

/// What all agents of a process report to.
#[derive(Default)]
pub struct Recorder {
    inner: Mutex<Inner>,
}

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A heartbeat is about to be sent.
    pub fn sent(&self, stamp_ns: u64) {
        let mut inner = self.lock();
        inner.sent += u64::from(inner.within(stamp_ns));
    }

    /// It was answered.
    pub fn acknowledged(&self, coordinator: u64, stamp_ns: u64, now_ns: u64) {
        let mut inner = self.lock();
        if inner.within(stamp_ns) {
            inner.latency_us.push((coordinator, now_ns.saturating_sub(stamp_ns) / 1000));
        }
    }

    /// Whether a member has what it wants.
    pub fn settled(&self, index: usize, coordinator: u64, settled: bool) {
        let mut inner = self.lock();
        if settled {
            inner.settled.insert(index, coordinator);
        } else {
            inner.settled.remove(&index);
        }
    }

    /// A session has ended.
    pub fn lost(&self, index: usize, reason: String) {
        let mut inner = self.lock();
        inner.settled.remove(&index);
        inner.lost += 1;
        inner.last_lost = reason;
    }
}

impl Inner {
    fn within(&self, stamp_ns: u64) -> bool {
        self.window.is_some_and(|(from, until)| (from..until).contains(&stamp_ns))
    }
}

/// Runs until standard input ends.
pub async fn run(path: &Path) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let plan: Plan = serde_json::from_str(&text).with_context(|| format!("in {}", path.display()))?;
    let (recorder, count) = (Arc::new(Recorder::default()), plan.members.len());
    for (index, PlannedMember { cluster, member, coordinators }) in plan.members.into_iter().enumerate() {
        let file = |end: &str| plan.pki.join(format!("agent-{cluster}-{member}.{end}"));
        let tls = TlsFiles { ca: plan.pki.join("ca.crt"), cert: file("crt"), key: file("key") };
        let agent = Agent {
            cluster: ClusterName::new(cluster.clone())?,
            member: MemberName::new(member.clone())?,
            coordinators,
            tls,
            interval: plan.interval,
            delay: plan.ramp.mul_f64(rand::random()),
            index,
        };
        tokio::spawn(agent::run(agent, recorder.clone()));
    }
    let settled = wait_until("all members are settled", SETTLED_WITHIN, async || {
        recorder.lock().settled.len() == count
    });
    settled.await.with_context(|| {
        let inner = recorder.lock();
        format!("{} of {count} are; the last session ended with: {}", inner.settled.len(), inner.last_lost)
    })?;
    println!("{}", serde_json::to_string(&Samples::default())?);
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let ms = line.strip_prefix("measure ").and_then(|ms| ms.parse().ok());
        let length = Duration::from_millis(ms.with_context(|| format!("{line:?} is not \"measure MS\""))?);
        println!("{}", serde_json::to_string(&measure(&recorder, length).await)?);
    }
    Ok(())
}

async fn measure(recorder: &Recorder, length: Duration) -> Samples {
    let from = boottime_ns();
    let lost_before = {
        let mut inner = recorder.lock();
        (inner.sent, inner.latency_us) = (0, Vec::new());
        inner.window = Some((from, from + length.as_nanos() as u64));
        inner.lost
    };
    tokio::time::sleep(length).await;
    // An error only says that some are missing, and that is counted.
    let _ = wait_until("all acknowledgements", LATE, async || {
        let inner = recorder.lock();
        inner.latency_us.len() as u64 == inner.sent
    })
    .await;
    let mut inner = recorder.lock();
    inner.window = None;
    let mut sessions = BTreeMap::new();
    for coordinator in inner.settled.values() {
        *sessions.entry(*coordinator).or_default() += 1;
    }
    let latency_us = std::mem::take(&mut inner.latency_us);
    Samples {
        unacknowledged: inner.sent - latency_us.len() as u64,
        latency_us,
        sessions_lost: inner.lost - lost_before,
        sessions,
    }
}
