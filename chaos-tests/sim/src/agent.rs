//! The agent process: what it keeps on disk, what it forgets with its end, and its periodic work. The decisions are
//! `regent-agent-core`'s; the loops around them follow `agent/src/{session,keeper,observer,executor,promise}`.

use std::collections::VecDeque;

use regent_agent_core::{
    AgentView, DataView, GuardPromise, GuardView, Mark, OutcomeCache, Server, Session, SessionTimes,
    promise::PromiseList,
};
use regent_types::{
    BootId, ClusterView, DataFacts, DataForm, DiskFacts, DiskProbe, EffectKey, Epoch, GivenPromise,
    GuardFacts, InstanceId, Outcome, ParameterFacts, PostgresFacts, PostgresState, PromiseFacts, Report,
    StandbyFacts, WalFacts, WalRetention,
};

use crate::{
    clock::{MS, S},
    config::{self, NODES},
    event::{Address, Event, FromAgent, Message},
    guard::Status,
    postgres::lsn,
    promise::Promises,
    work::Running,
    world::World,
};

const TICK_NS: u64 = 100 * MS;
const LOOK_NS: u64 = 200 * MS;
const TIMES: SessionTimes =
    SessionTimes { session_timeout_ms: 2_500, backoff_min_ms: 100, backoff_max_ms: 300 };

/// See the module's documentation.
#[derive(Debug)]
pub struct Agent {
    pub up: bool,
    pub incarnation: u64,
    pub paused_until_ns: u64,
    /// On disk.
    pub state: AgentView,
    /// On disk.
    pub list: Option<PromiseList>,
    pub session: Session,
    /// Each connection has a number of its own; 0 is none.
    pub connection: u64,
    pub connections: u64,
    pub connect_at_ns: u64,
    pub beat_at_ns: u64,
    pub look_at_ns: u64,
    pub keep_at_ns: u64,
    pub view: Option<ClusterView>,
    /// The guard as last seen, and the server.
    pub seen: Option<Status>,
    pub sample: Option<(Server, u64)>,
    pub accepted_ns: u64,
    pub removed: Option<Option<u64>>,
    pub promises: Promises,
    pub directives: OutcomeCache,
    pub fences: OutcomeCache,
    pub running: Option<Running>,
    pub fencing: Option<Running>,
    pub numbers: u64,
    pub outbox: VecDeque<(EffectKey, Outcome)>,
    /// A refusal fences until then.
    pub refused_until_ns: u64,
}

impl Agent {
    /// Before its first start.
    pub fn new() -> Self {
        Self {
            up: false,
            incarnation: 0,
            paused_until_ns: 0,
            state: AgentView::default(),
            list: None,
            session: Session::new(TIMES, NODES, 0, 0),
            connection: 0,
            connections: 0,
            connect_at_ns: 0,
            beat_at_ns: 0,
            look_at_ns: 0,
            keep_at_ns: 0,
            view: None,
            seen: None,
            sample: None,
            accepted_ns: 0,
            removed: None,
            promises: Promises::default(),
            directives: OutcomeCache::default(),
            fences: OutcomeCache::default(),
            running: None,
            fencing: None,
            numbers: 0,
            outbox: VecDeque::new(),
            refused_until_ns: 0,
        }
    }
}

impl World {
    /// It starts with what is on its disk.
    pub fn agent_starts(&mut self, member: usize) {
        let now_ns = self.local_ns(member);
        let agent = &mut self.hosts[member].agent;
        let incarnation = agent.incarnation;
        let session = Session::new(TIMES, NODES, 0, incarnation << 32);
        *agent = Agent {
            up: true,
            incarnation,
            state: std::mem::take(&mut agent.state),
            list: agent.list.take(),
            session,
            connections: agent.connections,
            numbers: agent.numbers,
            accepted_ns: now_ns,
            ..Agent::new()
        };
        self.note(format!("agent {} starts", self.name(member)));
        self.queue.at(self.now_ns + TICK_NS, Event::AgentTick { member, incarnation });
    }

    /// It is gone, with everything that it did not write down.
    pub fn agent_dies(&mut self, member: usize, back_in_ns: u64) {
        let agent = &mut self.hosts[member].agent;
        agent.up = false;
        agent.incarnation += 1;
        let incarnation = agent.incarnation;
        (agent.running, agent.fencing) = (None, None);
        self.note(format!("agent {} dies", self.name(member)));
        self.queue.at(self.now_ns + back_in_ns, Event::AgentStarts { member, incarnation });
    }

    /// Its periodic work.
    pub fn agent_tick(&mut self, member: usize, incarnation: u64) {
        let agent = &self.hosts[member].agent;
        if !agent.up || agent.incarnation != incarnation {
            return;
        }
        if self.now_ns < agent.paused_until_ns {
            let at_ns = agent.paused_until_ns;
            return self.queue.at(at_ns, Event::AgentTick { member, incarnation });
        }
        self.queue.at(self.now_ns + TICK_NS, Event::AgentTick { member, incarnation });
        let now_ns = self.local_ns(member);
        if now_ns >= self.hosts[member].agent.look_at_ns {
            self.hosts[member].agent.look_at_ns = now_ns + LOOK_NS;
            self.agent_looks(member);
        }
        self.keep_session(member);
        self.poll_work(member);
        self.keep(member);
        self.ask_promises(member);
        self.send_outcomes(member);
    }

    /// The observer: guard and server, remembered with their age.
    pub fn agent_looks(&mut self, member: usize) {
        let now_ns = self.local_ns(member);
        if let Some(status) = self.guard_status(member) {
            self.hosts[member].agent.seen = Some(status);
        }
        let server = self.server_view(member);
        let agent = &mut self.hosts[member].agent;
        if let Some(server) = server {
            agent.accepted_ns = now_ns;
            agent.sample = Some((server, now_ns));
        }
    }

    fn send_outcomes(&mut self, member: usize) {
        let connection = self.hosts[member].agent.connection;
        if connection == 0 {
            return;
        }
        let to = Address::Node(self.hosts[member].agent.session.coordinator());
        while let Some((key, outcome)) = self.hosts[member].agent.outbox.pop_front() {
            let what = FromAgent::Outcome(key, Box::new(outcome));
            self.send(Address::Member(member), to, Message::Up { session: connection, what });
        }
    }

    /// The server as a probe sees it now (agent/src/postgres/probe.rs).
    pub fn server_view(&self, member: usize) -> Option<Server> {
        let host = &self.hosts[member];
        let server = host.server.as_ref().filter(|server| server.is_accepting(self.now_ns))?;
        let standby = server.in_recovery;
        Some(Server {
            in_recovery: standby,
            lsn: Some(host.data.end()),
            replayed: standby.then(|| lsn(host.data.replayed)),
            replay_paused: false,
            replay_idle: host.data.replayed == host.data.wal.len(),
            receiver: standby && (server.streaming || host.data.upstream.is_some()),
            streaming: standby && server.streaming,
            timeline: host.data.timeline(),
            switch_lsn: host.data.switch_lsn(),
        })
    }

    /// The data directory (agent/src/data.rs).
    pub fn data_view(&self, member: usize) -> DataView {
        let host = &self.hosts[member];
        let form = match host.agent.state.mark {
            Some(Mark::Rewinding) => DataForm::Rewinding,
            Some(Mark::Cloning) => DataForm::Cloning,
            None if host.data.is_empty() => DataForm::Empty,
            None if host.data.standby => DataForm::Standby,
            None => DataForm::Primary,
        };
        let upstream = host.data.upstream.as_ref().map(|host| (host.clone(), 5432));
        DataView {
            form,
            system_id: host.data.system(),
            timeline: host.data.timeline(),
            checkpoint_lsn: host.data.checkpoint(),
            clean: host.data.clean,
            upstream,
            switch_lsn: host.data.switch_lsn(),
            archive: false,
        }
    }

    /// A status as the planner wants it (agent/src/guard.rs, `view`).
    pub fn guard_view(&self, member: usize, status: &Status) -> GuardView {
        let now_ns = self.local_ns(member);
        let file = &status.file;
        let live = status.lease.filter(|lease| lease.deadline_ns > now_ns);
        let promise = (file.promised_until_ns > now_ns).then_some(GuardPromise {
            epoch: (file.promised_epoch > 0).then_some(Epoch(file.promised_epoch)),
            until_ns: file.promised_until_ns,
        });
        GuardView {
            instance: InstanceId(file.instance),
            boot: BootId(format!("boot-{}", file.boot)),
            highest_epoch: Epoch(file.highest),
            fenced_through: Epoch(file.fenced),
            promises_closed: Epoch(file.closed),
            lease_epoch: live.map(|lease| Epoch(lease.epoch)),
            run: status.run,
            started_at_ns: status.started_ns,
            job_running: false,
            refused: None,
            succeeds: file.lineage.iter().map(|id| InstanceId(*id)).collect(),
            promise,
        }
    }

    /// What a heartbeat carries (agent/src/report.rs).
    pub fn report(&self, member: usize) -> Report {
        let (now_ns, host) = (self.local_ns(member), &self.hosts[member]);
        let agent = &host.agent;
        let guard = agent.seen.as_ref().map(|status| self.guard_view(member, status));
        let left_ns = agent.seen.as_ref().and_then(|s| s.lease?.deadline_ns.checked_sub(now_ns));
        let accepting = agent.sample.as_ref().is_some_and(|(_, at_ns)| now_ns - at_ns < S)
            && agent.accepted_ns + S > now_ns;
        let data = self.data_view(member);
        let stalls_ms =
            (self.now_ns < host.disk_stalls_until_ns).then(|| (self.now_ns - host.disk_stalls_since_ns) / MS);
        Report {
            guard: GuardFacts {
                reachable: self.guard_answers(member),
                refused: None,
                highest_epoch: guard.as_ref().map_or(Epoch::NONE, |guard| guard.highest_epoch),
                fenced_through: guard.as_ref().map_or(Epoch::NONE, |guard| guard.fenced_through),
                lease_epoch: guard.as_ref().and_then(|guard| guard.lease_epoch),
                lease_remaining_ms: left_ns.map(|left_ns| left_ns / MS),
                succeeds: guard.as_ref().map_or(Vec::new(), |guard| guard.succeeds.clone()),
                restarts: agent.seen.as_ref().map_or(0, |status| status.restarts),
                rogue_promotions: agent.seen.as_ref().map_or(0, |status| status.rogues),
                state_file: "ok".into(),
                lease_ttl_max_ms: Some(12_000),
            },
            postgres: PostgresFacts {
                state: guard.as_ref().map_or(PostgresState::Unknown, |guard| guard.run),
                accepting,
                not_accepting_for_ms: if accepting { 0 } else { (now_ns - agent.accepted_ns) / MS },
                major: Some(18),
                logical_slots_at_risk: 0,
            },
            data: DataFacts {
                form: data.form,
                system_id: data.system_id,
                timeline: data.timeline,
                lineage: agent.state.lineage,
            },
            wal: self.wal_facts(member, now_ns),
            disk: DiskFacts {
                probe: stalls_ms
                    .map_or(DiskProbe::Ok { latency_ms: 1 }, |for_ms| DiskProbe::Stalled { for_ms }),
                free_bytes: Some(1 << 40),
                total_bytes: Some(1 << 41),
                slot_retained_bytes: Some(0),
            },
            job: None,
            salvages: Vec::new(),
            promise: self.promise_facts(member, guard.as_ref()),
            parameters: ParameterFacts::default(),
            synchronous: None,
            blocked_writes: None,
        }
    }

    fn promise_facts(&self, member: usize, guard: Option<&GuardView>) -> PromiseFacts {
        let (now_ns, agent) = (self.local_ns(member), &self.hosts[member].agent);
        let given = guard.and_then(|guard| guard.promise).map(|promise| GivenPromise {
            epoch: promise.epoch,
            remaining_ms: promise.until_ns.saturating_sub(now_ns).div_ceil(MS),
        });
        let list = agent.list.as_ref().filter(|list| agent.promises.covers(list, now_ns));
        let asks = agent.list.iter().flat_map(|list| &list.view.promotable).map(|one| one.member.clone());
        PromiseFacts {
            list: list.map(|list| (list.epoch, list.view.version)),
            given,
            extended: None,
            asks: asks.collect(),
        }
    }

    fn wal_facts(&self, member: usize, now_ns: u64) -> WalFacts {
        let Some((server, at_ns)) = &self.hosts[member].agent.sample else { return WalFacts::default() };
        let standby = server.in_recovery;
        WalFacts {
            write_lsn: server.lsn.filter(|_| !standby),
            received_lsn: server.lsn.filter(|_| standby),
            replayed_lsn: server.replayed.filter(|_| standby),
            streaming: standby && server.streaming,
            timeline: server.timeline,
            replay_lag_ms: Some(0),
            sample_age_ms: (now_ns - at_ns) / MS,
            standbys: if standby { Vec::new() } else { self.standbys_of(member) },
            retention: (!standby)
                .then(|| WalRetention { oldest_lsn: Some(lsn(0)), ..WalRetention::default() }),
        }
    }

    /// Who streams from here (`pg_stat_replication`).
    pub fn standbys_of(&self, member: usize) -> Vec<StandbyFacts> {
        let others = (0..self.hosts.len()).filter(|other| *other != member);
        let streaming = others.filter(|other| {
            self.upstream_of(*other) == Some(member)
                && self.hosts[*other].server.as_ref().is_some_and(|server| server.streaming)
        });
        let facts = streaming.map(|other| StandbyFacts {
            member: config::member_name(other),
            state: "streaming".into(),
            flush_lsn: Some(self.hosts[other].data.end()),
            replay_lsn: Some(lsn(self.hosts[other].data.replayed)),
        });
        facts.collect()
    }
}
