//! The schedule of faults: drawn from the seed before the run, so that it can be cut down afterwards.

mod theme;

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    clock::MS,
    config::NODES,
    event::{Address, Event},
    operator::Wish,
    world::World,
};

/// Stands for whoever can write when the fault begins.
pub const PRIMARY: usize = 100;
/// Stands for somebody else.
pub const STANDBY: usize = 101;
/// Stands for the coordinator that leads when the fault begins.
pub const LEADER: usize = 102;

/// What breaks. A member or a region may be [`PRIMARY`] or [`STANDBY`], a coordinator [`LEADER`].
#[derive(Debug, Clone, PartialEq)]
pub enum FaultKind {
    /// Nothing gets from the one to the other.
    CutOneWay(Address, Address),
    /// Nothing gets through in either direction.
    Cut(Address, Address),
    /// A region is cut off from all others.
    Isolate(usize),
    /// A member is cut off from the coordinators, not from the other members.
    NoCoordinators(usize),
    /// Of a thousand messages between regions so many are lost, and delays grow.
    Bad { loss_permille: u32, slow_ms: u64 },
    /// A coordinator dies.
    NodeDies(usize),
    /// It stands still.
    NodeStops(usize),
    /// All of them die.
    NodesDie,
    /// It learns of entries and does not apply them.
    ApplyStalls(usize),
    /// It asks for votes though a leader is there.
    NodeCampaigns(usize),
    /// An agent dies.
    AgentDies(usize),
    /// It stands still.
    AgentStops(usize),
    /// A guard dies, and PostgreSQL with it.
    GuardDies(usize),
    /// It stands still; PostgreSQL does not.
    GuardStops(usize),
    /// A guard dies, and its state file is lost.
    GuardForgets(usize),
    /// PostgreSQL crashes, and does not come up while it lasts.
    PostgresCrashes(usize),
    /// Somebody promotes a standby by hand.
    PromotedByHand(usize),
    /// Power is lost and comes back.
    Reboot(usize),
    /// Writes to the disk hang.
    DiskStalls(usize),
    /// Replay stands still.
    ReplayStalls(usize),
    /// A fast shutdown does not end.
    ShutdownHangs(usize),
    /// The wall clock is set.
    WallJumps(usize, i64),
    /// The DNS provider does not answer.
    DnsDown,
    /// It applies late, and tells nobody.
    DnsLate,
    /// An operator wants something.
    Operator(Wish),
}

/// One line of a schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// When it begins.
    pub at_ms: u64,
    /// For how long.
    pub for_ms: u64,
    /// What.
    pub kind: FaultKind,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>7} ms, for {:>6} ms: {:?}", self.at_ms, self.for_ms, self.kind)
    }
}

/// Faults do not begin before the cluster has come up.
pub const FIRST_MS: u64 = 14_000;

/// The schedule of a seed.
pub fn schedule(seed: u64, members: usize, until_ms: u64) -> Vec<Fault> {
    // A stream of its own: what the run draws does not shift the schedule.
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed_fa17);
    let themes = [0, 0, 1, 1, 2][rng.random_range(0..5)];
    let count = if themes == 0 { rng.random_range(3..14) } else { rng.random_range(0..5) };
    let mut faults: Vec<Fault> = (0..count)
        .map(|_| {
            let at_ms = rng.random_range(FIRST_MS..until_ms - 4_000);
            let longest = if rng.random_range(0..3) == 0 { 32_000 } else { 9_000 };
            let for_ms = rng.random_range(200..longest).min(until_ms - at_ms);
            Fault { at_ms, for_ms, kind: draw(&mut rng, members) }
        })
        .collect();
    for _ in 0..themes {
        let at_ms = rng.random_range(FIRST_MS..until_ms - 36_000);
        faults.extend(theme::draw(&mut rng, at_ms));
    }
    faults.sort_by_key(|fault| fault.at_ms);
    faults
}

fn draw(rng: &mut StdRng, members: usize) -> FaultKind {
    let member = rng.random_range(0..members);
    let node = rng.random_range(0..NODES);
    let address = |rng: &mut StdRng| match rng.random_range(0..NODES + members) {
        at if at < NODES => Address::Node(at),
        at => Address::Member(at - NODES),
    };
    match rng.random_range(0..100) {
        0..8 => FaultKind::CutOneWay(address(rng), address(rng)),
        8..14 => FaultKind::Cut(address(rng), address(rng)),
        14..26 => FaultKind::Isolate(rng.random_range(0..NODES)),
        26..32 => FaultKind::NoCoordinators(member),
        32..37 => {
            FaultKind::Bad { loss_permille: rng.random_range(20..400), slow_ms: rng.random_range(0..900) }
        }
        37..42 => FaultKind::NodeDies(node),
        42..47 => FaultKind::NodeStops(node),
        47..49 => FaultKind::NodesDie,
        49 => FaultKind::ApplyStalls(node),
        50..52 => FaultKind::NodeCampaigns(node),
        52..56 => FaultKind::AgentDies(member),
        56..60 => FaultKind::AgentStops(member),
        60..63 => FaultKind::GuardDies(member),
        63..68 => FaultKind::GuardStops(member),
        68..70 => FaultKind::GuardForgets(member),
        70..73 => FaultKind::PostgresCrashes(member),
        73..75 => FaultKind::PromotedByHand(member),
        75..77 => FaultKind::Reboot(member),
        77..79 => FaultKind::DiskStalls(member),
        79..81 => FaultKind::ReplayStalls(member),
        81..83 => FaultKind::ShutdownHangs(member),
        83..85 => FaultKind::WallJumps(member, rng.random_range(-5_000..5_000)),
        85..87 => FaultKind::DnsDown,
        87..89 => FaultKind::DnsLate,
        _ => FaultKind::Operator(Wish::draw(rng, members)),
    }
}

impl World {
    /// Puts the schedule into the queue.
    pub fn plan_faults(&mut self, faults: Vec<Fault>) {
        for (at, fault) in faults.iter().enumerate() {
            self.queue.at(fault.at_ms * MS, Event::FaultBegins(at));
            self.queue.at((fault.at_ms + fault.for_ms) * MS, Event::FaultEnds(at));
        }
        self.faults = faults;
    }

    /// One begins.
    pub fn fault_begins(&mut self, at: usize) {
        let Fault { for_ms, kind, .. } = self.faults[at].clone();
        let kind = self.whom(kind);
        self.faults[at].kind = kind.clone();
        let (for_ns, until_ns) = (for_ms * MS, self.now_ns + for_ms * MS);
        self.note(format!("FAULT {at}: {kind:?} for {for_ms} ms"));
        for (from, to) in self.directions(&kind) {
            self.net.cut(from, to);
        }
        match kind {
            FaultKind::Bad { loss_permille, slow_ms } => {
                (self.net.loss_permille, self.net.slow_ms) = (loss_permille, slow_ms);
            }
            FaultKind::NodeDies(node) if self.nodes[node].up => self.node_dies(node, for_ns),
            FaultKind::NodesDie => {
                for node in 0..self.nodes.len() {
                    if self.nodes[node].up {
                        self.node_dies(node, for_ns + node as u64 * 300 * MS);
                    }
                }
            }
            FaultKind::NodeStops(node) => self.nodes[node].paused_until_ns = until_ns,
            FaultKind::ApplyStalls(node) => self.nodes[node].apply_stalls_until_ns = until_ns,
            FaultKind::NodeCampaigns(node) if self.nodes[node].up => {
                let out = self.nodes[node].raft.campaign(self.now_ns, &mut self.rng);
                self.send_raft(node, out);
            }
            FaultKind::AgentDies(member) if self.hosts[member].agent.up => self.agent_dies(member, for_ns),
            FaultKind::AgentStops(member) => self.hosts[member].agent.paused_until_ns = until_ns,
            FaultKind::GuardDies(member) if self.hosts[member].guard.up => self.guard_dies(member, for_ns),
            FaultKind::GuardStops(member) => self.hosts[member].guard.paused_until_ns = until_ns,
            FaultKind::GuardForgets(member) if self.hosts[member].guard.up => {
                self.hosts[member].torn = true;
                self.guard_dies(member, for_ns);
            }
            FaultKind::PostgresCrashes(member) => {
                self.hosts[member].broken_until_ns = until_ns;
                self.server_crashes(member);
            }
            FaultKind::PromotedByHand(member) => {
                if let Some(server) = &mut self.hosts[member].server {
                    server.promoting = server.in_recovery;
                }
            }
            FaultKind::Reboot(member) if self.hosts[member].guard.up => self.host_reboots(member, for_ns),
            FaultKind::DiskStalls(member) => {
                let host = &mut self.hosts[member];
                (host.disk_stalls_since_ns, host.disk_stalls_until_ns) = (self.now_ns, until_ns);
            }
            FaultKind::ReplayStalls(member) => self.hosts[member].replay_stalls_until_ns = until_ns,
            FaultKind::ShutdownHangs(member) => {
                let host = &mut self.hosts[member];
                host.shutdown_hangs_until_ns = host.shutdown_hangs_until_ns.max(until_ns);
            }
            FaultKind::WallJumps(member, ms) => self.hosts[member].wall_offset_ms += ms,
            FaultKind::DnsDown => self.dns.down_until_ns = until_ns,
            FaultKind::DnsLate => self.dns.slow_until_ns = until_ns,
            FaultKind::Operator(wish) => self.operator_wants(wish),
            _ => {}
        }
    }

    /// Who is meant by [`PRIMARY`], [`STANDBY`] and [`LEADER`] now.
    fn whom(&self, kind: FaultKind) -> FaultKind {
        let primary = self.writers.iter().position(Option::is_some).unwrap_or(0);
        let member = |of: usize| match of {
            PRIMARY => primary,
            STANDBY => usize::from(primary == 0),
            of => of,
        };
        let leads = |node: &crate::coordinator::Node| node.up && node.leadership.is_some();
        let leader = self.nodes.iter().rposition(leads).unwrap_or(0);
        let node = |of: usize| if of == LEADER { leader } else { of };
        let address = |of: Address| match of {
            Address::Member(of) => Address::Member(member(of)),
            Address::Node(of) => Address::Node(node(of)),
        };
        let region = |of: usize| match of {
            PRIMARY | STANDBY => self.net.region(Address::Member(member(of))),
            of => of,
        };
        match kind {
            FaultKind::CutOneWay(from, to) => FaultKind::CutOneWay(address(from), address(to)),
            FaultKind::Cut(a, b) => FaultKind::Cut(address(a), address(b)),
            FaultKind::Isolate(of) => FaultKind::Isolate(region(of)),
            FaultKind::NoCoordinators(of) => FaultKind::NoCoordinators(member(of)),
            FaultKind::AgentDies(of) => FaultKind::AgentDies(member(of)),
            FaultKind::AgentStops(of) => FaultKind::AgentStops(member(of)),
            FaultKind::GuardDies(of) => FaultKind::GuardDies(member(of)),
            FaultKind::GuardStops(of) => FaultKind::GuardStops(member(of)),
            FaultKind::GuardForgets(of) => FaultKind::GuardForgets(member(of)),
            FaultKind::PostgresCrashes(of) => FaultKind::PostgresCrashes(member(of)),
            FaultKind::Reboot(of) => FaultKind::Reboot(member(of)),
            FaultKind::DiskStalls(of) => FaultKind::DiskStalls(member(of)),
            FaultKind::ReplayStalls(of) => FaultKind::ReplayStalls(member(of)),
            FaultKind::NodeDies(of) => FaultKind::NodeDies(node(of)),
            FaultKind::NodeStops(of) => FaultKind::NodeStops(node(of)),
            FaultKind::ApplyStalls(of) => FaultKind::ApplyStalls(node(of)),
            FaultKind::Operator(Wish::FailoverTo(of)) => FaultKind::Operator(Wish::FailoverTo(member(of))),
            kind => kind,
        }
    }

    /// One ends; what ends by its own time is not undone twice.
    pub fn fault_ends(&mut self, at: usize) {
        let kind = self.faults[at].kind.clone();
        self.note(format!("fault {at} ends"));
        for (from, to) in self.directions(&kind) {
            self.net.mend(from, to);
        }
        if matches!(kind, FaultKind::Bad { .. }) {
            (self.net.loss_permille, self.net.slow_ms) = (0, 0);
        }
    }

    fn directions(&self, kind: &FaultKind) -> Vec<(Address, Address)> {
        let all = self.net.addresses();
        match kind {
            FaultKind::CutOneWay(from, to) if from != to => vec![(*from, *to)],
            FaultKind::Cut(a, b) if a != b => vec![(*a, *b), (*b, *a)],
            FaultKind::Isolate(region) => {
                let inside = |address: Address| self.net.region(address) == *region;
                let pairs = all.iter().flat_map(|from| all.iter().map(move |to| (*from, *to)));
                pairs.filter(|(from, to)| inside(*from) != inside(*to)).collect()
            }
            FaultKind::NoCoordinators(member) => {
                let member = Address::Member(*member);
                let nodes = all.into_iter().filter(|address| matches!(address, Address::Node(_)));
                nodes.flat_map(|node| [(member, node), (node, member)]).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Everything works from now on.
    pub fn all_is_well(&mut self) {
        let now_ns = self.now_ns;
        self.calm = true;
        (self.dns.down_until_ns, self.dns.slow_until_ns) = (0, 0);
        for node in &mut self.nodes {
            node.paused_until_ns = now_ns;
            node.apply_stalls_until_ns = now_ns;
        }
        for host in &mut self.hosts {
            host.agent.paused_until_ns = now_ns;
            host.guard.paused_until_ns = now_ns;
            host.disk_stalls_until_ns = now_ns;
            host.replay_stalls_until_ns = now_ns;
            host.broken_until_ns = now_ns;
        }
        self.note("every fault is over".to_owned());
    }
}
