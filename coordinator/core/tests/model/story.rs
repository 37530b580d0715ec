//! A schedule in words.

use stateright::Model;

use crate::{
    rules::Protocol,
    seed,
    step::{Action, Reporters, Wish},
    world::World,
};

/// One line a step, with the tick and who can write after it.
pub fn tell(protocol: &Protocol, actions: &[Action]) -> String {
    let mut world = World::new(protocol);
    let mut lines = vec![line(protocol, &world, "node 0 leads in term 1; a holds a lease of epoch 1")];
    for action in actions {
        let said = words(&world, *action);
        world = protocol.next_state(&world, *action).expect("the step was found in this very state");
        lines.push(line(protocol, &world, &said));
        if writers(protocol, &world).len() > 1 {
            break;
        }
    }
    lines.join("\n")
}

fn writers(protocol: &Protocol, world: &World) -> Vec<String> {
    let members = 0..world.members.len();
    let writable = members.filter(|member| world.is_writable(protocol, *member));
    writable.map(|member| seed::name(member).to_string()).collect()
}

fn line(protocol: &Protocol, world: &World, said: &str) -> String {
    let writers = writers(protocol, world);
    let writers = if writers.is_empty() { "nobody".to_owned() } else { writers.join(" AND ") };
    format!("  tick {} | {said:<88} | writable: {writers}", world.tick)
}

fn words(world: &World, action: Action) -> String {
    let (term, leader) = (world.leading.term, world.leading.node);
    let name = seed::name;
    match action {
        Action::Tick => "time passes".into(),
        Action::Elect { node, keep_tail } => {
            let tail = match (&world.tail, keep_tail) {
                (None, _) => "",
                (Some(_), true) => "; it has the entry appended last, and commits it",
                (Some(_), false) => "; the entry appended last is lost",
            };
            format!("node {node} is elected for term {}{tail}", term + 1)
        }
        Action::Append(wish) => format!("leader {leader} appends: {}", wished(wish)),
        Action::Commit => "a quorum has the entry: it is committed".into(),
        Action::Apply { node } => format!("node {node} applies entry {}", world.nodes[node].applied + 1),
        Action::Beat { member, node } => format!("a heartbeat of {} arrives at node {node}", name(member)),
        Action::Round { node } => {
            let led = world.nodes[node].table.leases.leadership();
            let who = if led == Some(world.leading) { "the leader" } else { "deposed, and does not know" };
            format!("node {node} ({who}) takes the heartbeats before now for confirmed")
        }
        Action::Grant { node, member } => format!("node {node} grants {} a lease", name(member)),
        Action::Receive { node, member } => {
            format!("the acknowledgement of node {node} arrives at {}", name(member))
        }
        Action::Promote { member, epoch } => format!("{} obeys Promote of epoch {epoch}", name(member)),
        Action::Fence { member, epoch } => format!("the guard of {} fences epoch {epoch}", name(member)),
        Action::Drive { entry } => {
            let fencing = world.log[entry].fencing.as_ref().expect("offered only with a fence");
            format!("a driver has made {} of epoch {} dead", name(fencing.member), fencing.epoch)
        }
        Action::Restart { member } => format!("the guard of {} restarts", name(member)),
        Action::Ask { member } => format!("{} asks everybody for a promise", name(member)),
        Action::Vow { member } => format!("{} promises", name(member)),
        Action::Extend => "the promises are there: the lease is extended".into(),
        Action::LookEarly { node } => format!("node {node} finds its bound passed, before any FenceDecided"),
    }
}

fn wished(wish: Wish) -> String {
    let who = |reporters| match reporters {
        Reporters::Everybody => "everybody reports",
        Reporters::FencedMember => "only the fenced member reports",
    };
    match wish {
        Wish::Declare => "failover declared, FenceDecided with it".into(),
        Wish::DeclareRestarted => "failover declared (the guard restarted), FenceDecided with it".into(),
        Wish::Expired { node } => format!("fence proven, the bound of node {node} has passed; appointment"),
        Wish::ExpiredEarly { node } => format!("fence proven by the early look of node {node}; appointment"),
        Wish::Acknowledged(reporters) => {
            format!("fence proven, the guard has acknowledged ({})", who(reporters))
        }
        Wish::Driven => "fence proven by the driver's word; appointment".into(),
        Wish::Reported(reporters) => format!("candidates reported ({})", who(reporters)),
        Wish::Overdue => "the promotion is given up, FenceDecided of its epoch".into(),
        Wish::Promoted => "the promotion is verified".into(),
    }
}
