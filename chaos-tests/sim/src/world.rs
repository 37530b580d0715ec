//! The whole, and how it takes what happens next.

use std::rc::Rc;

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    agent::Agent,
    client::Write,
    clock::{Clock, MS, S},
    config::{self, NODES, Setup},
    coordinator::Node,
    coverage::Coverage,
    dns::Dns,
    event::{Address, Event, Message, Queue},
    fault::Fault,
    guard::{Found, Guard},
    host::Host,
    invariant::{Broken, Fact, Judges},
    net::Net,
    postgres::Data,
    trace::Trace,
};

/// See the module's documentation.
pub struct World {
    pub now_ns: u64,
    pub setup: Setup,
    pub queue: Queue,
    pub rng: StdRng,
    pub trace: Trace,
    pub net: Net,
    pub nodes: Vec<Node>,
    pub hosts: Vec<Host>,
    pub dns: Dns,
    pub faults: Vec<Fault>,
    /// The safety phase is over: nothing breaks any more.
    pub calm: bool,
    pub writes: Vec<Write>,
    /// Commits that wait for a standby: member, run, write.
    pub waiting: Vec<(usize, u64, u32)>,
    /// Who can write, at which epoch.
    pub writers: Vec<Option<u64>>,
    pub judges: Judges,
    pub broken: Option<Broken>,
    pub coverage: Coverage,
    pub requests: u64,
    pub instances: u128,
    pub timelines: u64,
    pub systems: u64,
    /// The newest entry that anybody has applied.
    pub applied_most: u64,
    /// The liveness phase has found everything well.
    pub settled: Option<u64>,
    /// Why it has not, when last looked at.
    pub unsettled: String,
}

impl World {
    /// Everything is there and nothing has started.
    pub fn new(seed: u64, told: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let setup = Setup::draw(&mut rng);
        let drift_max = setup.drift_max_ppm;
        let clock = |rng: &mut StdRng| Clock {
            // The worst rates are the interesting ones.
            drift_ppm: match rng.random_range(0..4) {
                0 => drift_max,
                1 => -drift_max,
                _ => rng.random_range(-drift_max..=drift_max),
            },
            zero_ns: -i128::from(rng.random_range(S..1_000 * S)),
        };
        let nodes: Vec<Node> = (0..NODES).map(|id| Node::new(id, clock(&mut rng))).collect();
        let hosts: Vec<Host> = (0..setup.members)
            .map(|_| Host {
                guard: Guard::new(),
                agent: Agent::new(),
                server: None,
                runs: 0,
                data: Data::default(),
                kept: Vec::new(),
                salvaged: Vec::new(),
                boot: 1,
                clock: clock(&mut rng),
                wall_offset_ms: 0,
                disk_stalls_until_ns: 0,
                disk_stalls_since_ns: 0,
                replay_stalls_until_ns: 0,
                shutdown_hangs_until_ns: 0,
                torn: false,
                left: None,
                broken_until_ns: 0,
            })
            .collect();
        let places = (0..NODES).map(|node| (Address::Node(node), node));
        let members = (0..setup.members).map(|member| (Address::Member(member), config::region(member)));
        let net = Net::new(places.chain(members));
        let writers = vec![None; setup.members];
        let mut world = Self {
            now_ns: 0,
            setup,
            queue: Queue::default(),
            rng,
            trace: Trace::new(told),
            net,
            nodes,
            hosts,
            dns: Dns::default(),
            faults: Vec::new(),
            calm: false,
            writes: Vec::new(),
            waiting: Vec::new(),
            writers,
            judges: Judges::default(),
            broken: None,
            coverage: Coverage::default(),
            requests: 0,
            instances: 100,
            timelines: 0,
            systems: 0,
            applied_most: 0,
            settled: None,
            unsettled: String::new(),
        };
        world.start();
        world
    }

    fn start(&mut self) {
        let policy = &self.setup.cluster.policy;
        let text = format!(
            "{} members, {}, lease {} ms, drift {} ppm, partition time-out {} ms, promises {} ms, cooldown {} ms",
            self.setup.members,
            if self.setup.synchronous { "synchronous" } else { "asynchronous" },
            policy.lease.ttl_ms,
            policy.lease.rho_ppm,
            policy.partition_timeout_ms,
            policy.promise_ms,
            policy.cooldown_ms
        );
        self.note(text);
        for node in 0..self.nodes.len() {
            self.node_starts(node);
        }
        for member in 0..self.hosts.len() {
            self.guard_starts(member, Found::Missing);
            // A host that was never used before has promised nothing.
            let guard = &mut self.hosts[member].guard;
            guard.durable.promised_until_ns = 0;
            guard.wanted.promised_until_ns = 0;
            self.agent_starts(member);
            self.plan_server_tick(member);
            self.queue.at(S, Event::Write { member });
            self.queue.at(S + 50 * MS, Event::Write { member });
        }
    }

    /// A member's name.
    pub fn name(&self, member: usize) -> regent_types::MemberName {
        config::member_name(member)
    }

    /// Into the trace.
    pub fn note(&mut self, text: String) {
        self.trace.note(self.now_ns, &text);
    }

    /// Tells the invariants.
    pub fn fact(&mut self, fact: Fact) {
        if let Err(broken) = self.judges.observe(self.now_ns, &fact)
            && self.broken.is_none()
        {
            self.note(format!("BROKEN PROMISE: {}: {}", broken.invariant, broken.what));
            self.broken = Some(broken);
        }
    }

    /// Sends a message over the network.
    pub fn send(&mut self, from: Address, to: Address, message: Message) {
        let message = Rc::new(message);
        if from == to {
            return self.queue.at(self.now_ns, Event::Deliver { from, to, message });
        }
        for delay_ns in self.net.delays(&mut self.rng, from, to) {
            self.queue.at(self.now_ns + delay_ns, Event::Deliver { from, to, message: message.clone() });
        }
    }

    /// Takes the next event; false when nothing is left, or when it is over.
    pub fn step(&mut self, until_ns: u64) -> bool {
        let Some((at_ns, event)) = self.queue.next() else { return false };
        if at_ns > until_ns || self.broken.is_some() {
            self.now_ns = until_ns;
            self.queue.at(at_ns, event);
            return false;
        }
        self.now_ns = at_ns;
        self.dispatch(event);
        self.look_at_writers();
        true
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, message } => self.deliver(from, to, message),
            Event::NodeTick { node, incarnation } => self.node_tick(node, incarnation),
            Event::NodeWakes { node, incarnation } => self.node_wakes(node, incarnation),
            Event::AgentTick { member, incarnation } => self.agent_tick(member, incarnation),
            Event::StepDone { member, incarnation, number } => self.step_done(member, incarnation, number),
            Event::GuardTick { member, incarnation } => self.guard_tick(member, incarnation),
            Event::GuardAsked { member, request, client } => self.guard_asked(member, request, client),
            Event::GuardStored { member, incarnation, number } => {
                self.guard_stored(member, incarnation, number);
            }
            Event::KernelTimer { member, armed } => self.kernel_timer(member, armed),
            Event::PostgresTick { member } => self.postgres_tick(member),
            Event::Write { member } => self.client_writes(member),
            Event::Returned { member, run, write } => self.client_is_told(member, run, write),
            Event::NodeStarts { node, incarnation } => {
                if !self.nodes[node].up && self.nodes[node].incarnation == incarnation {
                    self.node_starts(node);
                }
            }
            Event::AgentStarts { member, incarnation } => {
                if !self.hosts[member].agent.up && self.hosts[member].agent.incarnation == incarnation {
                    self.agent_starts(member);
                }
            }
            Event::GuardStarts { member, incarnation } => {
                let guard = &self.hosts[member].guard;
                if !guard.up && guard.incarnation == incarnation {
                    let torn = std::mem::take(&mut self.hosts[member].torn);
                    self.guard_starts(member, if torn { Found::Missing } else { Found::Good });
                }
            }
            Event::FaultBegins(at) => self.fault_begins(at),
            Event::FaultEnds(at) => self.fault_ends(at),
            Event::DnsArrives { node, incarnation, change, answered } => {
                self.trace.mark(&[node as u64, incarnation, u64::from(answered)]);
                self.dns_arrives(&change);
            }
            Event::Look => self.look(),
        }
    }

    fn deliver(&mut self, from: Address, to: Address, message: Rc<Message>) {
        // What is in a paused process's socket waits for it.
        let paused_ns = match to {
            Address::Node(node) => self.nodes[node].paused_until_ns,
            Address::Member(member) => self.hosts[member].agent.paused_until_ns,
        };
        if self.now_ns < paused_ns {
            return self.queue.at(paused_ns, Event::Deliver { from, to, message });
        }
        let message = Rc::unwrap_or_clone(message);
        match (from, to) {
            (from, Address::Node(node)) if self.nodes[node].up => self.node_receives(node, from, message),
            (from, Address::Member(member)) if self.hosts[member].agent.up => {
                self.agent_receives(member, from, message);
            }
            _ => {}
        }
    }
}
