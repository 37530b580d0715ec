//! The guard of a member. Its lease rules are the shipped ones (`regent_guard::lease`); the loop around them is a model of
//! `agent/guard/src/guard/*.rs`, rule by rule: each rule below names the function that it follows.

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

    /// The kernel's timer: it works on a stopped process too (agent/guard/src/timer.rs).
    pub fn kernel_timer(&mut self, member: usize, armed: u64) {
        let guard = &self.hosts[member].guard;
        if !guard.up || guard.armed != armed {
            return;
        }
        self.note(format!("the kernel kills guard {} at its deadline", self.name(member)));
        self.guard_dies(member, 500 * MS);
    }

    fn arm(&mut self, member: usize, deadline_ns: u64) {
        let host = &mut self.hosts[member];
        host.guard.armed += 1;
        let armed = host.guard.armed;
        let at_ns = host.clock.world(deadline_ns).max(self.now_ns);
        self.queue.at(at_ns, Event::KernelTimer { member, armed });
    }

    fn relax(&mut self, member: usize) {
        let guard = &mut self.hosts[member].guard;
        if guard.lease.is_none() && !guard.run.as_ref().is_some_and(Run::may_write) {
            guard.armed += 1;
        }
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

    /// A request arrives; a paused guard takes it when it wakes, whoever waits for the answer.
    pub fn guard_asked(&mut self, member: usize, request: Request, client: Client) {
        let guard = &self.hosts[member].guard;
        if !guard.up {
            return self.guard_answers_to(member, client, Answer::Refused("no guard is there".into()));
        }
        if self.now_ns < guard.paused_until_ns {
            let at_ns = guard.paused_until_ns;
            return self.queue.at(at_ns, Event::GuardAsked { member, request, client });
        }
        let now_ns = self.local_ns(member);
        let answer = match request {
            Request::Grant { epoch, instance, deadline_ns } => {
                let grant = lease::Grant { epoch, instance, deadline_ns };
                match self.judge_grant(member, grant, now_ns) {
                    Some(answer) => answer,
                    None => return self.hosts[member].guard.parked.push((client, Parked::Grant(grant))),
                }
            }
            Request::Extend { epoch, instance, deadline_ns } => {
                self.extend(member, lease::Grant { epoch, instance, deadline_ns }, now_ns)
            }
            Request::StartStandby => self.start_standby(member),
            Request::StartPrimary { epoch } => self.start_primary(member, epoch, now_ns),
            Request::Stop { immediate } => {
                let guard = &mut self.hosts[member].guard;
                guard.restart = None;
                match &mut guard.run {
                    None => Answer::Ok,
                    Some(run) => {
                        let stage = if immediate { Stop::Immediate } else { Stop::Fast };
                        run.stop(Plan { stage, immediate_ns: u64::MAX, kill_ns: u64::MAX, fencing: false });
                        let run = run.id;
                        guard.parked.push((client, Parked::Stop { run }));
                        return self.apply_plan(member, now_ns);
                    }
                }
            }
            Request::Fence { epoch, grace_ms } => {
                return self.fence(member, client, epoch, grace_ms * MS, now_ns);
            }
            Request::ClosePromises { epoch, void } => {
                let guard = &mut self.hosts[member].guard;
                let promised = guard.wanted.promised_epoch;
                let forgets = is_on(Mutant::PromiseForgotten);
                match guard.promise_left_ns(now_ns).filter(|_| !forgets && (!void || promised > epoch)) {
                    Some(left_ns) => Answer::Refused(format!(
                        "a promise to epoch {promised} is outstanding for {left_ns} ns"
                    )),
                    None => {
                        self.raise(member, |file| {
                            file.closed = file.closed.max(epoch);
                            (file.promised_epoch, file.promised_until_ns) = (0, 0);
                        });
                        return self.hosts[member].guard.parked.push((client, Parked::Close(epoch)));
                    }
                }
            }
            Request::Promise { epoch, hold_ms } => {
                match self.refuse_promise(member, epoch, hold_ms, now_ns) {
                    Some(reason) => Answer::Refused(reason),
                    None => {
                        let until_ns = now_ns + hold_ms * MS;
                        self.raise(member, |file| {
                            file.promised_epoch = epoch;
                            file.promised_until_ns = file.promised_until_ns.max(until_ns);
                        });
                        if is_on(Mutant::PromiseNotDurable) {
                            return self.guard_answers_to(member, client, Answer::Ok);
                        }
                        let parked = Parked::Promise { epoch, until_ns };
                        return self.hosts[member].guard.parked.push((client, parked));
                    }
                }
            }
        };
        self.guard_answers_to(member, client, answer);
    }

    /// guard/promises.rs, `promise`.
    fn refuse_promise(&self, member: usize, epoch: u64, hold_ms: u64, now_ns: u64) -> Option<String> {
        let guard = &self.hosts[member].guard;
        let wanted = &guard.wanted;
        let highest = wanted.highest.max(wanted.promised_epoch);
        if epoch <= wanted.fenced {
            Some(format!("epoch {epoch} is fenced here: fenced through {}", wanted.fenced))
        } else if epoch <= wanted.closed {
            Some(format!("promises are closed through epoch {}, {epoch} is asked", wanted.closed))
        } else if epoch < highest {
            Some(format!("epoch {epoch} is stale: the highest heard of is {highest}"))
        } else if guard.lease.is_some_and(|lease| lease.epoch == epoch && now_ns < lease.deadline_ns) {
            Some(format!("this member holds the lease of epoch {epoch} itself"))
        } else {
            (hold_ms > HOLD_MAX_MS).then(|| format!("{hold_ms} ms is longer than {HOLD_MAX_MS} ms"))
        }
    }

    /// guard/leases.rs, `grant`. `None`: its epoch is on its way to the disk.
    fn judge_grant(&mut self, member: usize, grant: lease::Grant, now_ns: u64) -> Option<Answer> {
        let fencing = |run: &Run| run.plan.is_some_and(|plan| plan.fencing);
        if self.hosts[member].guard.run.as_ref().is_some_and(fencing) {
            return Some(Answer::Refused("PostgreSQL is being fenced".into()));
        }
        self.check_clocks(member, now_ns);
        let guard = &self.hosts[member].guard;
        if let Some(reason) = guard.promised_to_another(grant.epoch, now_ns) {
            return Some(Answer::Refused(reason));
        }
        let facts = lease::Facts {
            now_ns,
            instance: guard.wanted.instance,
            highest_epoch: guard.wanted.highest,
            fenced_through: guard.wanted.fenced,
            ttl_max_ns: TTL_MAX_NS,
            deadline_floor_ns: guard.floor_ns,
        };
        let lease = match lease::judge(grant, guard.lease, facts) {
            Ok(lease) => lease,
            Err(answer) => return Some(Answer::Refused(format!("{answer:?}"))),
        };
        if guard.durable.highest < lease.epoch {
            if guard.wanted.highest < lease.epoch {
                self.raise(member, |file| file.highest = lease.epoch);
            }
            return None;
        }
        self.arm(member, lease.deadline_ns);
        let wall = self.hosts[member].wall_offset_ms;
        let guard = &mut self.hosts[member].guard;
        if guard.lease.is_none_or(|held| held.epoch != lease.epoch) {
            let text = format!("{} holds a lease of epoch {}", config::member_name(member), lease.epoch);
            self.trace.note(self.now_ns, &text);
        }
        guard.wall_offset_ms = wall;
        guard.lease = Some(lease);
        self.fact(Fact::LeaseHeld { member: config::member_name(member), epoch: lease.epoch });
        Some(Answer::Ok)
    }

    /// guard/promises.rs, `extend`.
    fn extend(&mut self, member: usize, grant: lease::Grant, now_ns: u64) -> Answer {
        self.check_clocks(member, now_ns);
        let Some(lease) = self.hosts[member].guard.usable(now_ns).filter(|lease| lease.epoch == grant.epoch)
        else {
            return Answer::Refused("promises extend a running lease, they make none".into());
        };
        if grant.deadline_ns <= lease.deadline_ns {
            return Answer::Ok;
        }
        let text = format!("{}'s lease of epoch {} runs on by promises", self.name(member), lease.epoch);
        self.note(text);
        self.judge_grant(member, grant, now_ns).unwrap_or(Answer::Ok)
    }

    /// guard/leases.rs, `check_clocks`.
    fn check_clocks(&mut self, member: usize, now_ns: u64) {
        let wall = self.hosts[member].wall_offset_ms;
        let guard = &mut self.hosts[member].guard;
        if (wall - guard.wall_offset_ms).abs() <= DIVERGENCE_MAX_MS {
            return;
        }
        (guard.floor_ns, guard.wall_offset_ms) = (now_ns + TTL_MAX_NS, wall);
        let Some(lease) = guard.lease else { return };
        let ladder = lease.ladder(MARGIN_NS);
        let plan = Plan {
            stage: Stop::Fast,
            immediate_ns: (now_ns + MARGIN_NS / 5 * 3).min(ladder.immediate_ns),
            kill_ns: (now_ns + MARGIN_NS / 10 * 9).min(ladder.kill_ns),
            fencing: true,
        };
        self.fence_self(member, plan, now_ns);
    }

    fn fence_self(&mut self, member: usize, plan: Plan, now_ns: u64) {
        self.note(format!("guard {} fences itself", self.name(member)));
        let guard = &mut self.hosts[member].guard;
        if let Some(run) = guard.run.as_mut().filter(|run| run.may_write()) {
            run.stop(plan);
        }
        guard.lease = None;
        self.relax(member);
        self.apply_plan(member, now_ns);
    }

    /// guard/requests.rs, `fence`.
    fn fence(&mut self, member: usize, client: Client, epoch: u64, grace_ns: u64, now_ns: u64) {
        self.note(format!("guard {} is to fence epoch {epoch}", self.name(member)));
        self.raise(member, |file| file.fenced = file.fenced.max(epoch));
        let guard = &mut self.hosts[member].guard;
        let newer = guard.lease.is_some_and(|lease| lease.epoch > epoch);
        let mut waits_for = None;
        if !newer {
            guard.restart = guard.restart.filter(|(_, primary)| !primary);
            let limit_ns = guard.lease.map_or(u64::MAX, |lease| lease.ladder(MARGIN_NS).kill_ns);
            if let Some(run) = guard.run.as_mut().filter(|run| run.may_write()) {
                waits_for = Some(run.id);
                let immediate_ns = (now_ns + grace_ns).min(limit_ns);
                let kill_ns = (immediate_ns + FENCE_IMMEDIATE_NS).min(limit_ns);
                run.stop(if grace_ns == 0 {
                    KILL
                } else {
                    Plan { stage: Stop::Fast, immediate_ns, kill_ns, fencing: true }
                });
            }
            guard.lease = None;
            self.relax(member);
            self.apply_plan(member, now_ns);
        }
        let until_ns = now_ns + grace_ns + FENCE_IMMEDIATE_NS;
        self.hosts[member].guard.parked.push((client, Parked::Fence { epoch, run: waits_for, until_ns }));
        self.advance_parked(member);
    }

    /// The plan's stage becomes PostgreSQL's.
    fn apply_plan(&mut self, member: usize, now_ns: u64) {
        let Some(plan) = self.hosts[member].guard.run.as_mut().and_then(|run| run.plan.as_mut()) else {
            return;
        };
        if now_ns >= plan.kill_ns {
            plan.stage = Stop::Kill;
        } else if now_ns >= plan.immediate_ns {
            plan.stage = plan.stage.max(Stop::Immediate);
        }
        let stage = plan.stage;
        self.server_stops(member, stage);
    }

    /// guard/lifecycle.rs, `start_standby`.
    fn start_standby(&mut self, member: usize) -> Answer {
        let host = &mut self.hosts[member];
        if let Some(run) = &host.guard.run {
            let runs = run.plan.is_none() && !run.may_write();
            return if runs { Answer::Ok } else { Answer::Refused("PostgreSQL runs".into()) };
        }
        if !host.data.standby {
            return Answer::Refused("there is no standby.signal".into());
        }
        host.guard.restart = None;
        self.begin_run(member, false);
        Answer::Ok
    }

    /// guard/lifecycle.rs, `start_primary`.
    fn start_primary(&mut self, member: usize, epoch: u64, now_ns: u64) -> Answer {
        let host = &mut self.hosts[member];
        let Some(lease) = host.guard.usable(now_ns).filter(|lease| lease.epoch == epoch) else {
            return Answer::Refused(format!("epoch {epoch} may not write here: {:?}", host.guard.lease));
        };
        if let Some(run) = &host.guard.run {
            let runs = run.plan.is_none() && run.may_write();
            return if runs { Answer::Ok } else { Answer::Refused("PostgreSQL runs".into()) };
        }
        if host.data.standby || host.data.is_empty() {
            return Answer::Refused("the data directory is not a primary's".into());
        }
        host.guard.restart = None;
        host.guard.promoted_epoch = Some(lease.epoch);
        self.begin_run(member, true);
        Answer::Ok
    }

    fn begin_run(&mut self, member: usize, primary: bool) {
        let epoch = self.hosts[member].guard.lease.map_or(0, |lease| lease.epoch);
        let started_ns = self.local_ns(member);
        let ready_ns = self.now_ns + self.draw_ms(100, 1_200);
        let host = &mut self.hosts[member];
        host.runs += 1;
        host.guard.run = Some(Run { id: host.runs, primary, started_ns, gate_passed: false, plan: None });
        host.data.clean = false;
        host.server = Some(Server {
            run: host.runs,
            epoch: if primary { epoch } else { 0 },
            ready_ns,
            in_recovery: !primary,
            promoting: false,
            stopping: None,
            dies_ns: None,
            streaming: false,
        });
        let role = if primary { "primary" } else { "standby" };
        self.note(format!("{} starts PostgreSQL as {role}", self.name(member)));
    }

    /// guard/rogue.rs, `gate`: PostgreSQL asks before it leaves recovery. The epoch, or `None` and it is killed.
    pub fn gate(&mut self, member: usize) -> Option<u64> {
        let now_ns = self.local_ns(member);
        let guard = &mut self.hosts[member].guard;
        let lease = guard.usable(now_ns);
        let run = guard.run.as_mut()?;
        if is_on(Mutant::PromoteWithoutLease) {
            run.gate_passed = true;
            return Some(guard.wanted.highest + 1);
        }
        match lease {
            Some(lease) if run.plan.is_none() => {
                run.gate_passed = true;
                guard.promoted_epoch = Some(lease.epoch);
                Some(lease.epoch)
            }
            _ => {
                guard.rogues += 1;
                guard.restart = None;
                run.stop(KILL);
                self.note(format!("{} would leave recovery without a lease: killed", self.name(member)));
                self.apply_plan(member, now_ns);
                None
            }
        }
    }

    /// PostgreSQL and everything of it is gone (guard/lifecycle.rs, `run_ended`).
    pub fn run_ended(&mut self, member: usize) {
        let now_ns = self.local_ns(member);
        let guard = &mut self.hosts[member].guard;
        let Some(run) = guard.run.take() else { return };
        self.relax(member);
        let guard = &mut self.hosts[member].guard;
        if !guard.up || run.plan.is_some() || (run.may_write() && guard.usable(now_ns).is_none()) {
            return self.advance_parked(member);
        }
        guard.restart = Some((now_ns + RESTART_PAUSE_NS, run.may_write()));
        self.advance_parked(member);
    }

    fn advance_parked(&mut self, member: usize) {
        let now_ns = self.local_ns(member);
        for (client, parked) in std::mem::take(&mut self.hosts[member].guard.parked) {
            let guard = &self.hosts[member].guard;
            let answer = match &parked {
                Parked::Grant(grant) => {
                    let grant = *grant;
                    self.judge_grant(member, grant, now_ns)
                }
                Parked::Close(epoch) => (guard.durable.closed >= *epoch).then_some(Answer::Ok),
                Parked::Promise { epoch, until_ns } => {
                    let (epoch, until_ns) = (*epoch, *until_ns);
                    let durable = &guard.durable;
                    if guard.wanted.closed >= epoch {
                        Some(Answer::Refused("promises are closed".into()))
                    } else {
                        let stored = durable.promised_epoch >= epoch && durable.promised_until_ns >= until_ns;
                        stored.then_some(Answer::Ok)
                    }
                }
                Parked::Fence { epoch, run, until_ns } => {
                    let (epoch, run, over) = (*epoch, *run, now_ns >= *until_ns);
                    self.fenced(member, epoch, run, over)
                }
                Parked::Stop { run } => {
                    guard.run.as_ref().is_none_or(|alive| alive.id != *run).then_some(Answer::Ok)
                }
            };
            match answer {
                Some(answer) => self.guard_answers_to(member, client, answer),
                None => self.hosts[member].guard.parked.push((client, parked)),
            }
        }
    }

    /// guard/requests.rs, `fenced`: the mark on disk, and nothing alive that could write.
    fn fenced(&mut self, member: usize, epoch: u64, run: Option<u64>, over: bool) -> Option<Answer> {
        let host = &mut self.hosts[member];
        if host.guard.durable.fenced < epoch {
            return None;
        }
        if run.is_some_and(|run| host.guard.run.as_ref().is_some_and(|alive| alive.id == run)) {
            return None;
        }
        // A standby says that it is in recovery as soon as it runs.
        let known =
            host.server.as_ref().is_some_and(|server| server.in_recovery && self.now_ns >= server.ready_ns);
        let lease = host.guard.lease.map_or(0, |lease| lease.epoch);
        if let Some(run) = host.guard.run.as_mut().filter(|_| lease <= epoch && !known) {
            if over && run.plan.is_none() {
                run.stop(KILL);
                let now_ns = self.local_ns(member);
                self.apply_plan(member, now_ns);
            }
            return None;
        }
        let evidence = FencedEvidence {
            epoch: Epoch(epoch),
            instance: InstanceId(host.guard.durable.instance),
            boot: BootId(format!("boot-{}", host.guard.durable.boot)),
            succeeds: host.guard.durable.lineage.iter().map(|id| InstanceId(*id)).collect(),
            checkpoint_lsn: host.data.checkpoint().map(|at: Lsn| at),
            timeline: host.data.timeline(),
            clean: host.data.clean && host.server.is_none(),
        };
        self.note(format!("guard {} has fenced epoch {epoch}", self.name(member)));
        self.fact(Fact::Fenced { member: config::member_name(member), epoch });
        Some(Answer::Fenced(evidence))
    }

    /// The loop (agent/guard/src/guard.rs, `tick`).
    pub fn guard_tick(&mut self, member: usize, incarnation: u64) {
        let guard = &self.hosts[member].guard;
        if !guard.up || guard.incarnation != incarnation {
            return;
        }
        if self.now_ns < guard.paused_until_ns {
            let at_ns = guard.paused_until_ns;
            return self.queue.at(at_ns, Event::GuardTick { member, incarnation });
        }
        let now_ns = self.local_ns(member);
        self.check_clocks(member, now_ns);
        // guard/leases.rs, `check_deadline`.
        if let Some(lease) =
            self.hosts[member].guard.lease.filter(|lease| !lease.is_usable(now_ns, MARGIN_NS))
        {
            let ladder = lease.ladder(MARGIN_NS);
            let (immediate_ns, kill_ns) = (ladder.immediate_ns, ladder.kill_ns);
            self.fence_self(member, Plan { stage: Stop::Fast, immediate_ns, kill_ns, fencing: true }, now_ns);
        }
        self.apply_plan(member, now_ns);
        let due = self.hosts[member].guard.restart.filter(|(at_ns, _)| now_ns >= *at_ns);
        if let Some((_, primary)) = due {
            self.hosts[member].guard.restart = None;
            let lease = self.hosts[member].guard.usable(now_ns);
            let answer = match (primary, lease) {
                (false, _) => self.start_standby(member),
                (true, Some(lease)) => self.start_primary(member, lease.epoch, now_ns),
                (true, None) => Answer::Refused("the lease has ended".into()),
            };
            if answer == Answer::Ok {
                self.hosts[member].guard.restarts += 1;
            }
        }
        // The look: out of recovery without a lease (guard/rogue.rs).
        let rogue = self.hosts[member].server.as_ref().is_some_and(|server| !server.in_recovery);
        let guard = &mut self.hosts[member].guard;
        if rogue
            && guard.lease.is_none_or(|lease| now_ns >= lease.deadline_ns)
            && let Some(run) = guard.run.as_mut().filter(|run| run.plan.is_none())
        {
            run.stop(KILL);
            self.apply_plan(member, now_ns);
        }
        self.advance_parked(member);
        self.queue.at(self.now_ns + TICK_NS, Event::GuardTick { member, incarnation });
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
