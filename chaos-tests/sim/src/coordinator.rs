//! A coordinator: Raft, the replicated state, and a leader's memory around the real lease table and detector. Follows
//! `coordinator/src/{leadership,confirm,heard}` and `service/{agent,relay,peer}`.

use std::collections::BTreeMap;

use regent_core::{
    Body, Confirmed, Cooldowns, Detector, EventKind, FEATURE_LEVEL, FenceProof, Hearing, Leadership,
    LeaseTable, Position, Proposal, State,
};
use regent_types::{CoordinatorId, EffectKey, Heartbeat, Outcome, mutant};

use crate::{
    clock::{Clock, MS, S},
    config::{self, NODES},
    event::{Address, Event, FromAgent, Message, ToAgent},
    executor::Executor,
    invariant::Fact,
    raft::Raft,
    world::World,
};

const TICK_NS: u64 = 100 * MS;
const EXCHANGE_NS: u64 = S;
const ROUND_LIMIT_NS: u64 = 1_500 * MS;

/// A heartbeat that waits for a round, and the way back to its agent.
#[derive(Debug, Clone)]
pub struct Waiting {
    heartbeat: Heartbeat,
    member: usize,
    via: usize,
    session: u64,
}

/// What a round was begun for.
#[derive(Debug, Clone)]
enum Purpose {
    Grants(Vec<Waiting>),
    Exchange,
    /// A candidate's report that counts as a heartbeat.
    Promotion,
}

/// One process and its disk.
#[derive(Debug)]
pub struct Node {
    pub up: bool,
    pub incarnation: u64,
    pub paused_until_ns: u64,
    /// It applies nothing before.
    pub apply_stalls_until_ns: u64,
    pub clock: Clock,
    pub raft: Raft,
    pub state: State,
    pub leases: LeaseTable,
    pub detector: Detector,
    pub cooldowns: Cooldowns,
    pub leadership: Option<Leadership>,
    /// Whom it heard itself.
    own_ns: BTreeMap<usize, u64>,
    told: Option<(u64, Vec<Hearing>)>,
    queue: Vec<Waiting>,
    rounds: BTreeMap<u64, (Purpose, u64)>,
    /// Rounds for promotions that ended well.
    pub promotion_rounds: BTreeMap<u64, Confirmed>,
    /// The last way to each member: coordinator, session, when.
    pub routes: BTreeMap<usize, (usize, u64, u64)>,
    pub executor: Executor,
    pub mailbox: BTreeMap<(usize, EffectKey), Outcome>,
    exchange_at_ns: u64,
    detect_at_ns: u64,
    configured: bool,
    /// A wish under way: its index, and when it is given up.
    wish: Option<(u64, u64)>,
}

impl Node {
    /// Before its first start.
    pub fn new(id: usize, clock: Clock) -> Self {
        Self {
            up: false,
            incarnation: 0,
            paused_until_ns: 0,
            apply_stalls_until_ns: 0,
            clock,
            raft: Raft::new(id, NODES),
            state: State::default(),
            leases: LeaseTable::new(),
            detector: Detector::new(),
            cooldowns: Cooldowns::default(),
            leadership: None,
            own_ns: BTreeMap::new(),
            told: None,
            queue: Vec::new(),
            rounds: BTreeMap::new(),
            promotion_rounds: BTreeMap::new(),
            routes: BTreeMap::new(),
            executor: Executor::default(),
            mailbox: BTreeMap::new(),
            exchange_at_ns: 0,
            detect_at_ns: 0,
            configured: false,
            wish: None,
        }
    }

    fn own(&self, now_ns: u64) -> Vec<Hearing> {
        let ages = self.own_ns.iter().map(|(member, at_ns)| Hearing {
            cluster: config::cluster_name(),
            member: config::member_name(*member),
            age_ms: now_ns.saturating_sub(*at_ns) / MS,
            position: None,
        });
        ages.collect()
    }

    fn inherited(&self, now_ns: u64) -> Vec<Hearing> {
        let mut ages = self.own(now_ns);
        if let Some((at_ns, told)) = self.told.clone() {
            let since_ms = now_ns.saturating_sub(at_ns) / MS;
            ages.extend(told.into_iter().map(|hearing| hearing.later(since_ms)));
        }
        ages
    }

    /// The cluster, once it was configured.
    pub fn cluster(&self) -> Option<&regent_core::Cluster> {
        self.state.clusters.get(&config::cluster_name())
    }
}

impl World {
    /// It starts with its votes and its log, and applies everything again.
    pub fn node_starts(&mut self, node: usize) {
        let (now_ns, old) = (self.now_ns, &mut self.nodes[node]);
        let (incarnation, clock) = (old.incarnation, old.clock);
        let mut raft = std::mem::replace(&mut old.raft, Raft::new(node, NODES));
        raft.restart(now_ns, &mut self.rng);
        self.nodes[node] = Node { up: true, incarnation, raft, ..Node::new(node, clock) };
        self.note(format!("coordinator {node} starts"));
        self.queue.at(now_ns + TICK_NS, Event::NodeTick { node, incarnation });
    }

    /// It is gone.
    pub fn node_dies(&mut self, node: usize, back_in_ns: u64) {
        let dead = &mut self.nodes[node];
        dead.up = false;
        dead.incarnation += 1;
        let incarnation = dead.incarnation;
        self.note(format!("coordinator {node} dies"));
        self.queue.at(self.now_ns + back_in_ns, Event::NodeStarts { node, incarnation });
    }

    /// Its clock, ns.
    pub fn node_ns(&self, node: usize) -> u64 {
        self.nodes[node].clock.local(self.now_ns)
    }

    /// Appends a proposal under this node's name; its index. Now and then its fate is not known, and it is proposed twice.
    pub fn propose(&mut self, node: usize, body: Body) -> Option<u64> {
        let wall_ms = self.now_ns / MS;
        let proposal = Proposal { wall_ms, proposer: CoordinatorId(node as u64 + 1), body };
        let twice = rand::Rng::random_range(&mut self.rng, 0..50) == 0;
        let mut index = self.nodes[node].raft.propose(Some(proposal.clone()));
        if twice {
            index = self.nodes[node].raft.propose(Some(proposal));
        }
        self.beat_raft(node);
        self.node_advances(node);
        index
    }

    fn beat_raft(&mut self, node: usize) {
        let out = self.nodes[node].raft.tick(self.now_ns, &mut self.rng);
        self.send_raft(node, out);
    }

    /// Between coordinators.
    pub fn send_raft(&mut self, node: usize, out: Vec<(usize, crate::raft::Message)>) {
        for (to, message) in out {
            self.send(Address::Node(node), Address::Node(to), Message::Raft(message));
        }
    }

    /// Its periodic work.
    pub fn node_tick(&mut self, node: usize, incarnation: u64) {
        let now = &self.nodes[node];
        if !now.up || now.incarnation != incarnation {
            return;
        }
        if self.now_ns < now.paused_until_ns {
            let at_ns = now.paused_until_ns;
            return self.queue.at(at_ns, Event::NodeTick { node, incarnation });
        }
        self.queue.at(self.now_ns + TICK_NS, Event::NodeTick { node, incarnation });
        self.beat_raft(node);
        self.node_advances(node);
        if self.nodes[node].leadership.is_some() {
            self.begin_rounds(node);
            self.detect(node);
            self.execute(node);
        }
        let now_ns = self.node_ns(node);
        let Node { cooldowns, state, .. } = &mut self.nodes[node];
        cooldowns.observe(now_ns, state);
    }

    /// The executor looks at the state.
    pub fn node_wakes(&mut self, node: usize, incarnation: u64) {
        let now = &self.nodes[node];
        let awake = now.up && now.incarnation == incarnation && self.now_ns >= now.paused_until_ns;
        if awake && now.leadership.is_some() {
            self.execute(node);
        }
    }

    /// Follows Raft: leadership first, then what is committed, then rounds that have ended.
    fn node_advances(&mut self, node: usize) {
        self.follow_leadership(node);
        let applied_before = self.nodes[node].state.applied_index;
        let stalls = self.now_ns < self.nodes[node].apply_stalls_until_ns;
        while !stalls && self.nodes[node].state.applied_index < self.nodes[node].raft.commit() as u64 {
            self.apply_next(node);
        }
        if self.nodes[node].state.applied_index > applied_before && self.nodes[node].leadership.is_some() {
            // The executor wakes with every entry.
            let incarnation = self.nodes[node].incarnation;
            self.queue.at(self.now_ns + MS, Event::NodeWakes { node, incarnation });
        }
        for (number, leadership, read_index) in self.nodes[node].raft.confirmed() {
            self.round_ends(node, number, Confirmed { leadership, read_index });
        }
    }

    /// coordinator/src/leadership.rs, `change`.
    fn follow_leadership(&mut self, node: usize) {
        let now_ns = self.node_ns(node);
        let now = &mut self.nodes[node];
        let current = now.raft.leadership();
        if now.leadership == current {
            return;
        }
        if now.leadership.is_some() {
            now.told = Some((now_ns, now.detector.ages(now_ns)));
            now.leases.end();
            now.detector.end_leadership();
        }
        if let Some(current) = current {
            now.leases.begin(current, now_ns);
            let inherited = now.inherited(now_ns);
            now.detector.begin_leadership(current, now_ns, inherited);
        }
        now.leadership = current;
        (now.queue, now.rounds, now.promotion_rounds) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        (now.routes, now.mailbox, now.executor) = (BTreeMap::new(), BTreeMap::new(), Executor::default());
        (now.configured, now.wish) = (false, None);
        if let Some(current) = current {
            self.note(format!("coordinator {node} leads ({current})"));
        }
    }

    fn apply_next(&mut self, node: usize) {
        let index = self.nodes[node].state.applied_index + 1;
        let entry = self.nodes[node].raft.log[index as usize - 1].clone();
        let at = Position { index, leadership: entry.leadership };
        let now = &mut self.nodes[node];
        let Some(proposal) = &entry.proposal else { return now.state.pass(at) };
        let first = index > self.applied_most;
        let before = if first { now.cluster().cloned() } else { None };
        let leads = now.leadership == Some(entry.leadership);
        let reply = now.state.apply(at, proposal);
        if let Ok(applied) = &reply
            && leads
            && mutant::is_on(mutant::Mutant::EffectInLeaderMemory)
        {
            now.executor.remember(&applied.effects);
        }
        if !first {
            return;
        }
        self.applied_most = index;
        match reply {
            Ok(applied) => {
                for event in &applied.events {
                    self.note(format!("entry {index}: {:?} [{}] {}", event.kind, event.rule, event.text));
                }
                for effect in &applied.effects {
                    self.coverage.created(&effect.kind);
                }
                let promoted = applied.events.iter().any(|event| event.kind == EventKind::Promoted);
                self.tell_of_entry(node, before, promoted);
            }
            Err(rejection) => self.note(format!("entry {index}: rejected: {rejection}")),
        }
    }

    /// What an entry means for the invariants.
    fn tell_of_entry(&mut self, node: usize, before: Option<regent_core::Cluster>, promoted: bool) {
        let Some(after) = self.nodes[node].cluster().cloned() else { return };
        let fenced_before = before.as_ref().map_or(0, |cluster| cluster.fenced_through.0);
        if after.fenced_through.0 != fenced_before {
            self.fact(Fact::FenceDecided { epoch: after.fenced_through.0 });
        }
        for operation in after.operation.iter().chain(&after.finished) {
            for record in &operation.fences {
                let how = match &record.proof {
                    FenceProof::Acknowledged(_) => "acknowledged",
                    FenceProof::LeaseExpired { .. } => "expired",
                    FenceProof::Operator { .. } => "operator",
                    FenceProof::External(_) => "external",
                };
                self.fact(Fact::FenceProven { epoch: record.epoch.0, how });
            }
        }
        if let Some(appointment) = &after.appointment {
            self.fact(Fact::Appointed {
                epoch: appointment.epoch.0,
                member: appointment.member.clone(),
                instance: appointment.instance.0,
            });
        }
        if promoted {
            self.tell_of_promotion(&after);
        }
    }

    /// Nothing acknowledged may be missing after a planned move, or while a commit waits for the standby.
    fn tell_of_promotion(&mut self, after: &regent_core::Cluster) {
        let Some(appointment) = &after.appointment else { return };
        let operation = after.operation.as_ref().or(after.finished.back());
        let Some(operation) = operation else { return };
        let Some(from) = operation.from.as_ref().filter(|from| from.member != appointment.member) else {
            return;
        };
        let planned = operation.kind.is_planned();
        if !planned && !self.setup.synchronous {
            return;
        }
        let there = config::member_index(&appointment.member);
        let has: std::collections::BTreeSet<u32> = self.hosts[there].data.writes_from(0).collect();
        let lost: Vec<u32> = (0u32..)
            .zip(&self.writes)
            .filter(|(id, write)| write.acknowledged && write.epoch == from.epoch.0 && !has.contains(id))
            .map(|(id, _)| id)
            .collect();
        if !lost.is_empty() {
            let epoch = appointment.epoch.0;
            self.fact(Fact::LostByPromotion { epoch, planned, writes: lost });
        }
    }

    /// A message arrives.
    pub fn node_receives(&mut self, node: usize, from: Address, message: Message) {
        let now_ns = self.node_ns(node);
        match (message, from) {
            (Message::Raft(message), Address::Node(peer)) => {
                let out = self.nodes[node].raft.receive(self.now_ns, peer, message, &mut self.rng);
                self.send_raft(node, out);
                self.node_advances(node);
            }
            (Message::Up { session, what }, Address::Member(member)) => {
                self.nodes[node].own_ns.insert(member, now_ns);
                if self.nodes[node].leadership.is_some() {
                    return self.take_up(node, member, node, session, what);
                }
                if let Some(leader) = self.nodes[node].raft.leader().filter(|leader| *leader != node) {
                    let relayed = Message::Relayed { member, session, what };
                    self.send(Address::Node(node), Address::Node(leader), relayed);
                }
            }
            (Message::Relayed { member, session, what }, Address::Node(via))
                if self.nodes[node].leadership.is_some() =>
            {
                self.take_up(node, member, via, session, what);
            }
            (Message::Back { member, session, what }, _) => {
                self.send(Address::Node(node), Address::Member(member), Message::Down { session, what });
            }
            (Message::Ages { term, ages }, Address::Node(leader)) => {
                if term >= self.nodes[node].raft.term() {
                    self.nodes[node].told = Some((now_ns, ages));
                }
                let ages = self.nodes[node].own(now_ns);
                self.send(Address::Node(node), Address::Node(leader), Message::Heard { ages });
            }
            (Message::Heard { ages }, Address::Node(follower)) => {
                let id = CoordinatorId(follower as u64 + 1);
                if self.nodes[node].leadership.is_some() {
                    self.nodes[node].detector.on_relay_report(now_ns, id, ages);
                }
            }
            _ => {}
        }
    }

    /// The leader takes what an agent says.
    fn take_up(&mut self, node: usize, member: usize, via: usize, session: u64, what: FromAgent) {
        let now_ns = self.node_ns(node);
        let now = &mut self.nodes[node];
        if now.routes.get(&member).is_none_or(|(_, known, _)| *known <= session) {
            now.routes.insert(member, (via, session, now_ns));
        }
        match what {
            FromAgent::Heartbeat(heartbeat) => {
                now.detector.on_heartbeat(now_ns, &heartbeat);
                now.queue.push(Waiting { heartbeat: *heartbeat, member, via, session });
            }
            FromAgent::Outcome(key, outcome) => {
                now.mailbox.insert((member, key), *outcome);
                self.execute(node);
            }
        }
    }

    /// The leader to an agent, the way that it came.
    pub fn send_to_agent(&mut self, node: usize, member: usize, via: usize, session: u64, what: ToAgent) {
        let message = if via == node {
            return self.send(Address::Node(node), Address::Member(member), Message::Down { session, what });
        } else {
            Message::Back { member, session, what }
        };
        self.send(Address::Node(node), Address::Node(via), message);
    }

    /// One round serves every heartbeat that arrived before it began.
    fn begin_rounds(&mut self, node: usize) {
        let now_ns = self.node_ns(node);
        self.nodes[node].rounds.retain(|_, (_, limit_ns)| now_ns < *limit_ns);
        let batch = std::mem::take(&mut self.nodes[node].queue);
        if !batch.is_empty() {
            if mutant::is_on(mutant::Mutant::GrantUnconfirmed) {
                let now = &self.nodes[node];
                let Some(leadership) = now.leadership else { return };
                let confirmed = Confirmed { leadership, read_index: now.state.applied_index };
                return self.answer(node, confirmed, batch);
            }
            self.begin_round(node, Purpose::Grants(batch));
        }
        if now_ns >= self.nodes[node].exchange_at_ns {
            self.nodes[node].exchange_at_ns = now_ns + EXCHANGE_NS;
            self.begin_round(node, Purpose::Exchange);
        }
        self.beat_raft(node);
    }

    fn begin_round(&mut self, node: usize, purpose: Purpose) -> Option<u64> {
        let limit_ns = self.node_ns(node) + ROUND_LIMIT_NS;
        let number = self.nodes[node].raft.begin_round()?;
        self.nodes[node].rounds.insert(number, (purpose, limit_ns));
        Some(number)
    }

    /// For reports that count as heartbeats.
    pub fn begin_promotion_round(&mut self, node: usize) -> Option<u64> {
        let number = self.begin_round(node, Purpose::Promotion);
        self.beat_raft(node);
        number
    }

    fn round_ends(&mut self, node: usize, number: u64, confirmed: Confirmed) {
        let now_ns = self.node_ns(node);
        let Some((purpose, limit_ns)) = self.nodes[node].rounds.remove(&number) else { return };
        if now_ns >= limit_ns {
            return;
        }
        match purpose {
            Purpose::Grants(batch) => self.answer(node, confirmed, batch),
            Purpose::Promotion => {
                self.nodes[node].promotion_rounds.insert(number, confirmed);
            }
            Purpose::Exchange => {
                let (ages, term) = (self.nodes[node].detector.ages(now_ns), self.nodes[node].raft.term());
                for to in (0..self.nodes.len()).filter(|to| *to != node) {
                    let message = Message::Ages { term, ages: ages.clone() };
                    self.send(Address::Node(node), Address::Node(to), message);
                }
            }
        }
    }

    fn answer(&mut self, node: usize, confirmed: Confirmed, batch: Vec<Waiting>) {
        let now_ns = self.node_ns(node);
        for Waiting { heartbeat, member, via, session } in batch {
            let Node { leases, state, .. } = &mut self.nodes[node];
            let Ok(acknowledgement) = leases.grant(now_ns, &confirmed, state, &heartbeat) else { continue };
            let what = ToAgent::Acknowledgement(Box::new(acknowledgement));
            self.send_to_agent(node, member, via, session, what);
        }
    }

    /// coordinator/src/leadership.rs, `tick`.
    fn detect(&mut self, node: usize) {
        let (now_ns, world_ns) = (self.node_ns(node), self.now_ns);
        let wall_ms = world_ns / MS;
        let now = &mut self.nodes[node];
        if now_ns < now.detect_at_ns {
            return;
        }
        now.detect_at_ns = now_ns + 2 * TICK_NS;
        if let Some((index, limit_ns)) = now.wish {
            if now.state.applied_index < index && now_ns < limit_ns {
                return;
            }
            now.wish = None;
        }
        let mut wanted = Vec::new();
        if !now.configured {
            now.configured = true;
            if now.cluster().is_none() {
                wanted.push(Body::Configure(Box::new(self.setup.cluster.clone())));
            }
        }
        // Every coordinator of a run is of the same version (coordinator/src/levels.rs, `raise`).
        if now.state.level() < FEATURE_LEVEL {
            wanted.push(Body::RaiseLevel { level: FEATURE_LEVEL });
        }
        let Node { leases, state, detector, cooldowns, .. } = now;
        wanted.extend(leases.settled(now_ns, state));
        wanted.extend(cooldowns.over(now_ns, state));
        wanted.extend(detector.tick(now_ns, state, NODES));
        wanted.extend(detector.planned(now_ns, wall_ms, state));
        wanted.extend(leases.acknowledged_lists(state));
        for body in wanted {
            let index = self.propose(node, body);
            self.nodes[node].wish = index.map(|index| (index, now_ns + 3 * S));
        }
    }
}
