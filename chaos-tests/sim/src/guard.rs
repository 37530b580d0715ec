//! The guard of a member. Its lease rules are the shipped ones (`regent_guard::lease`); the loop around them is a model of
//! `agent/guard/src/guard/*.rs`, rule by rule: each rule below names the function that it follows.

mod leases;
mod lifecycle;
mod requests;

use regent_guard::lease::{self, Lease};
use regent_types::{
    BootId, Epoch, FencedEvidence, InstanceId, Lsn, PostgresState,
    mutant::{Mutant, is_on},
};

use crate::{
    clock::{MS, S},
    config,
    event::{Client, Event},
    invariant::Fact,
    postgres::{Server, Stop},
    world::World,
};

/// `lease_ttl_max`.
const TTL_MAX_NS: u64 = 12 * S;
/// `shutdown_margin`.
const MARGIN_NS: u64 = 800 * MS;
/// `promise_hold_max`.
pub const HOLD_MAX_MS: u64 = 12_000;
/// `clock_divergence_max`.
const DIVERGENCE_MAX_MS: i64 = 500;
const FENCE_IMMEDIATE_NS: u64 = 1_000 * MS;
const RESTART_PAUSE_NS: u64 = 400 * MS;
const TICK_NS: u64 = 50 * MS;

/// `guard.state` (agent/guard/src/state_file.rs).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub instance: u128,
    pub lineage: Vec<u128>,
    pub boot: u32,
    pub highest: u64,
    pub fenced: u64,
    pub closed: u64,
    pub promised_epoch: u64,
    pub promised_until_ns: u64,
}

/// What the socket takes (agent/guard/src/wire/request.rs).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    Grant { epoch: u64, instance: u128, deadline_ns: u64 },
    Extend { epoch: u64, instance: u128, deadline_ns: u64 },
    StartStandby,
    StartPrimary { epoch: u64 },
    Stop { immediate: bool },
    Fence { epoch: u64, grace_ms: u64 },
    ClosePromises { epoch: u64, void: bool },
    Promise { epoch: u64, hold_ms: u64 },
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Ok,
    Fenced(FencedEvidence),
    Refused(String),
}

/// A request that waits (guard/requests.rs, `Parked`).
#[derive(Debug, Clone)]
enum Parked {
    Grant(lease::Grant),
    Close(u64),
    Promise { epoch: u64, until_ns: u64 },
    Fence { epoch: u64, run: Option<u64>, until_ns: u64 },
    Stop { run: u64 },
}

/// A stop in progress (agent/guard/src/run.rs, `StopPlan`).
#[derive(Debug, Clone, Copy)]
struct Plan {
    stage: Stop,
    immediate_ns: u64,
    kill_ns: u64,
    fencing: bool,
}

const KILL: Plan = Plan { stage: Stop::Kill, immediate_ns: 0, kill_ns: 0, fencing: true };

#[derive(Debug, Clone)]
struct Run {
    id: u64,
    primary: bool,
    started_ns: u64,
    gate_passed: bool,
    plan: Option<Plan>,
}

impl Run {
    fn may_write(&self) -> bool {
        self.primary || self.gate_passed
    }

    fn stop(&mut self, plan: Plan) {
        self.plan = Some(self.plan.map_or(plan, |old| Plan {
            stage: old.stage.max(plan.stage),
            immediate_ns: old.immediate_ns.min(plan.immediate_ns),
            kill_ns: old.kill_ns.min(plan.kill_ns),
            fencing: old.fencing || plan.fencing,
        }));
    }
}

/// The process and its file.
#[derive(Debug, Clone)]
pub struct Guard {
    pub up: bool,
    pub incarnation: u64,
    pub paused_until_ns: u64,
    /// On disk.
    pub durable: File,
    /// What is asked for.
    pub wanted: File,
    /// The write under way.
    writing: Option<(u64, File)>,
    writes: u64,
    pub lease: Option<Lease>,
    floor_ns: u64,
    wall_offset_ms: i64,
    run: Option<Run>,
    restart: Option<(u64, bool)>,
    promoted_epoch: Option<u64>,
    parked: Vec<(Client, Parked)>,
    pub armed: u64,
    pub rogues: u64,
    pub restarts: u64,
}

/// A status, as the agent reads it.
#[derive(Debug, Clone)]
pub struct Status {
    pub file: File,
    pub lease: Option<Lease>,
    pub run: PostgresState,
    pub started_ns: Option<u64>,
    pub rogues: u64,
    pub restarts: u64,
}

impl Guard {
    /// Before its first start.
    pub fn new() -> Self {
        let file = File {
            instance: 0,
            lineage: Vec::new(),
            boot: 0,
            highest: 0,
            fenced: 0,
            closed: 0,
            promised_epoch: 0,
            promised_until_ns: 0,
        };
        Self {
            up: false,
            incarnation: 0,
            paused_until_ns: 0,
            durable: file.clone(),
            wanted: file,
            writing: None,
            writes: 0,
            lease: None,
            floor_ns: 0,
            wall_offset_ms: 0,
            run: None,
            restart: None,
            promoted_epoch: None,
            parked: Vec::new(),
            armed: 0,
            rogues: 0,
            restarts: 0,
        }
    }

    fn usable(&self, now_ns: u64) -> Option<Lease> {
        self.lease.filter(|lease| lease.is_usable(now_ns, MARGIN_NS))
    }

    fn promise_left_ns(&self, now_ns: u64) -> Option<u64> {
        self.wanted.promised_until_ns.checked_sub(now_ns).filter(|left| *left > 0)
    }

    fn promised_to_another(&self, epoch: u64, now_ns: u64) -> Option<String> {
        let left_ns = self.promise_left_ns(now_ns)?;
        let promised = self.wanted.promised_epoch;
        (promised > 0 && epoch > promised)
            .then(|| format!("promised for another {} ms to take no epoch above {promised}", left_ns / MS))
    }
}

/// What the start of a guard makes of what it finds (agent/guard/src/startup.rs, `next_state`).
pub enum Found {
    Good,
    Missing,
}

impl World {
    /// Is it there to answer?
    pub fn guard_answers(&self, member: usize) -> bool {
        let guard = &self.hosts[member].guard;
        guard.up && self.now_ns >= guard.paused_until_ns
    }

    /// A guard starts: it empties what an earlier one left, takes an identity, writes it down (startup.rs).
    pub fn guard_starts(&mut self, member: usize, found: Found) {
        self.server_is_gone(member);
        let (now_ns, boot) = (self.local_ns(member), self.hosts[member].boot);
        let wall_offset_ms = self.hosts[member].wall_offset_ms;
        self.instances += 1;
        let instance = self.instances;
        let longest_ns = now_ns + HOLD_MAX_MS * MS;
        let guard = &mut self.hosts[member].guard;
        let old = guard.durable.clone();
        let fresh = File {
            instance,
            lineage: Vec::new(),
            boot,
            highest: 0,
            fenced: 0,
            closed: 0,
            promised_epoch: 0,
            promised_until_ns: longest_ns,
        };
        let file = match found {
            Found::Good if old.instance > 0 => {
                let same = old.boot == boot;
                let until_ns = if same { old.promised_until_ns } else { longest_ns };
                let promised_until_ns = if old.promised_until_ns > 0 { until_ns } else { 0 };
                let mut lineage = vec![old.instance];
                lineage.extend(old.lineage);
                File {
                    instance,
                    lineage: if same { lineage } else { Vec::new() },
                    boot,
                    promised_until_ns,
                    ..old
                }
            }
            _ => fresh,
        };
        *guard = Guard {
            up: true,
            incarnation: guard.incarnation,
            durable: file.clone(),
            wanted: file,
            writes: guard.writes,
            armed: guard.armed,
            wall_offset_ms,
            ..Guard::new()
        };
        let incarnation = guard.incarnation;
        self.note(format!("guard {} starts as instance {instance} of boot {boot}", self.name(member)));
        self.queue.at(self.now_ns + TICK_NS, Event::GuardTick { member, incarnation });
    }

    /// The guard is no more, and its namespace with it: the last process of PostgreSQL is dead within `kill`.
    pub fn guard_dies(&mut self, member: usize, back_in_ns: u64) {
        let kill_ns = self.kill_takes_ns();
        let now_ns = self.now_ns;
        let host = &mut self.hosts[member];
        host.guard.up = false;
        host.guard.incarnation += 1;
        host.guard.armed += 1;
        if let Some(server) = &mut host.server {
            server.dies_ns = Some(server.dies_ns.unwrap_or(u64::MAX).min(now_ns + kill_ns));
            server.stopping = Some((Stop::Kill, now_ns));
        }
        // A write that was under way may or may not have reached the disk.
        if let Some((_, file)) = host.guard.writing.take()
            && self.rng_is_even()
        {
            self.hosts[member].guard.durable = file;
        }
        let incarnation = self.hosts[member].guard.incarnation;
        self.note(format!("guard {} dies", self.name(member)));
        // Its sockets close.
        for (client, _) in std::mem::take(&mut self.hosts[member].guard.parked) {
            self.guard_answers_to(member, client, Answer::Refused("the guard is gone".into()));
        }
        // Its successor waits for the lock, which comes free when the namespace is empty.
        let at_ns = now_ns + back_in_ns.max(kill_ns + MS);
        self.queue.at(at_ns, Event::GuardStarts { member, incarnation });
    }

    /// Asks for a change of the file (agent/guard/src/persist.rs).
    fn raise(&mut self, member: usize, change: impl FnOnce(&mut File)) {
        change(&mut self.hosts[member].guard.wanted);
        self.kick(member);
    }

    fn kick(&mut self, member: usize) {
        let takes_ns = self.fsync_takes_ns(member);
        let guard = &mut self.hosts[member].guard;
        if guard.writing.is_some() || guard.wanted == guard.durable {
            return;
        }
        guard.writes += 1;
        guard.writing = Some((guard.writes, guard.wanted.clone()));
        let (incarnation, number) = (guard.incarnation, guard.writes);
        self.queue.at(self.now_ns + takes_ns, Event::GuardStored { member, incarnation, number });
    }

    /// The writer has ended.
    pub fn guard_stored(&mut self, member: usize, incarnation: u64, number: u64) {
        let guard = &mut self.hosts[member].guard;
        if guard.incarnation != incarnation || guard.writing.as_ref().is_none_or(|(of, _)| *of != number) {
            return;
        }
        if let Some((_, file)) = guard.writing.take() {
            guard.durable = file;
        }
        self.kick(member);
        self.advance_parked(member);
    }

    /// What `status` says; `None` when nobody answers.
    pub fn guard_status(&self, member: usize) -> Option<Status> {
        if !self.guard_answers(member) {
            return None;
        }
        let host = &self.hosts[member];
        let guard = &host.guard;
        let run = match (&guard.run, &host.server) {
            (None, _) | (_, None) => PostgresState::Stopped,
            (Some(_), Some(server)) if server.stopping.is_some() => PostgresState::Stopping,
            (Some(_), Some(server)) if self.now_ns < server.ready_ns => PostgresState::Starting,
            (Some(_), Some(server)) if server.in_recovery => PostgresState::Standby,
            (Some(_), Some(_)) => PostgresState::Primary,
        };
        Some(Status {
            file: guard.durable.clone(),
            lease: guard.lease,
            run,
            started_ns: guard.run.as_ref().map(|run| run.started_ns),
            rogues: guard.rogues,
            restarts: guard.restarts,
        })
    }
}
