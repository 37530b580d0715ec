//! What can happen next, and when: the queue of the simulation. Events of one instant come in the order in which they
//! were made.

use std::{collections::BTreeMap, rc::Rc};

use regent_agent_core::promise::{Refusal, Request as PromiseRequest};
use regent_core::Hearing;
use regent_types::{Acknowledgement, Directive, EffectKey, Grant, Heartbeat, Outcome};

use crate::{guard::Request, raft};

/// Who sends and receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// A coordinator.
    Node(usize),
    /// A member's host.
    Member(usize),
}

/// From an agent.
#[derive(Debug, Clone)]
pub enum FromAgent {
    /// See `regent_types`.
    Heartbeat(Box<Heartbeat>),
    /// What came of a directive.
    Outcome(EffectKey, Box<Outcome>),
}

/// To an agent.
#[derive(Debug, Clone)]
pub enum ToAgent {
    /// Lease or refusal.
    Acknowledgement(Box<Acknowledgement>),
    /// Something to do.
    Directive(EffectKey, Box<Directive>, Option<Grant>),
}

/// One message. Streams are taken apart into messages that can each be lost, late, doubled or overtaken: that is more than
/// TCP does to them, on purpose.
#[derive(Debug, Clone)]
pub enum Message {
    /// Between coordinators.
    Raft(raft::Message),
    /// An agent to the coordinator of its session.
    Up { session: u64, what: FromAgent },
    /// A follower passes it on to the leader.
    Relayed { member: usize, session: u64, what: FromAgent },
    /// The leader to the coordinator that holds the session.
    Back { member: usize, session: u64, what: ToAgent },
    /// A coordinator to an agent.
    Down { session: u64, what: ToAgent },
    /// A confirmed leader tells the ages of silence.
    Ages { term: u64, ages: Vec<Hearing> },
    /// A follower's answer: whom it heard itself.
    Heard { ages: Vec<Hearing> },
    /// A primary's agent asks for a promise.
    PromiseAsked { round: u64, request: Box<PromiseRequest> },
    /// The answer.
    PromiseAnswered { round: u64, answer: Result<u64, Refusal> },
}

/// Whom a guard answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Client {
    /// Nobody waits.
    Nobody,
    /// The directive at work `number` of this incarnation of the agent.
    Work { incarnation: u64, number: u64 },
    /// The asker of a promise.
    Promise { asker: usize, round: u64, held_ms: u64 },
    /// The agent's own round of promises.
    Extend { incarnation: u64 },
}

/// What happens.
#[derive(Debug, Clone)]
pub enum Event {
    /// A message arrives.
    Deliver { from: Address, to: Address, message: Rc<Message> },
    /// A coordinator's periodic work.
    NodeTick { node: usize, incarnation: u64 },
    /// A coordinator's executor has something to do.
    NodeWakes { node: usize, incarnation: u64 },
    /// An agent's periodic work.
    AgentTick { member: usize, incarnation: u64 },
    /// A step of a directive has been carried out.
    StepDone { member: usize, incarnation: u64, number: u64 },
    /// A guard's loop.
    GuardTick { member: usize, incarnation: u64 },
    /// A request arrives at the guard's socket.
    GuardAsked { member: usize, request: Request, client: Client },
    /// The guard's writer has ended.
    GuardStored { member: usize, incarnation: u64, number: u64 },
    /// The kernel's timer.
    KernelTimer { member: usize, armed: u64 },
    /// PostgreSQL and its streams get on.
    PostgresTick { member: usize },
    /// A client writes to whoever takes it.
    Write { member: usize },
    /// A commit returns to its client.
    Returned { member: usize, run: u64, write: u32 },
    /// A process comes back.
    NodeStarts { node: usize, incarnation: u64 },
    /// The agent comes back.
    AgentStarts { member: usize, incarnation: u64 },
    /// The guard comes back.
    GuardStarts { member: usize, incarnation: u64 },
    /// A fault of the schedule begins.
    FaultBegins(usize),
    /// It ends.
    FaultEnds(usize),
    /// A change reaches the DNS provider.
    DnsArrives { node: usize, incarnation: u64, change: crate::dns::Change, answered: bool },
    /// Liveness is looked at.
    Look,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Queue {
    events: BTreeMap<(u64, u64), Event>,
    made: u64,
}

impl Queue {
    /// At this instant.
    pub fn at(&mut self, at_ns: u64, event: Event) {
        self.made += 1;
        self.events.insert((at_ns, self.made), event);
    }

    /// The next one.
    pub fn next(&mut self) -> Option<(u64, Event)> {
        self.events.pop_first().map(|((at_ns, _), event)| (at_ns, event))
    }
}
