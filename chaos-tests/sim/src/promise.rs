//! Promises between members, both sides (agent/src/promise). What is asked and given is decided by
//! `regent_agent_core::promise`, and enforced by the guards.

use std::collections::BTreeSet;

use regent_agent_core::promise::{
    Asking, Holder, PromiseList, Promiser, Refusal, Request as Asked, asking, promise, promised_deadline_ns,
};
use regent_types::{Epoch, LeaseTerms, MemberName};

use crate::{
    clock::{MS, S},
    config,
    event::{Address, Client, Message},
    guard::{Answer, Request},
    invariant::Fact,
    world::World,
};

const LOOK_NS: u64 = 200 * MS;

/// A round under way.
#[derive(Debug, Clone)]
struct Round {
    number: u64,
    epoch: u64,
    sent_ns: u64,
    ends_ns: u64,
    waits_for: BTreeSet<usize>,
    terms: LeaseTerms,
}

/// What the agent remembers.
#[derive(Debug, Default)]
pub struct Promises {
    pub answered_ns: u64,
    pub unknown: bool,
    ended: Option<Epoch>,
    promised_until_ns: u64,
    pub extended: Option<(u64, u64)>,
    round: Option<Round>,
    rounds: u64,
    ask_at_ns: u64,
}

impl Promises {
    /// agent/src/promise/mod.rs, `covers`.
    pub fn covers(&self, list: &PromiseList, now_ns: u64) -> bool {
        self.promised_until_ns <= now_ns.saturating_add(list.view.terms.ttl_ms * MS)
    }
}

impl World {
    /// The primary's side: asks when it has to.
    pub fn ask_promises(&mut self, member: usize) {
        let now_ns = self.local_ns(member);
        let host = &mut self.hosts[member];
        let promises = &mut host.agent.promises;
        if promises.round.as_ref().is_some_and(|round| now_ns >= round.ends_ns) {
            promises.round = None;
            promises.ask_at_ns = now_ns + 300 * MS;
        }
        if promises.round.is_some() || now_ns < promises.ask_at_ns {
            return;
        }
        promises.ask_at_ns = now_ns + LOOK_NS;
        let name = config::member_name(member);
        let agent = &host.agent;
        let lease = agent.seen.as_ref().and_then(|status| status.lease);
        let holder = Holder {
            member: &name,
            now_ns,
            lease: lease.filter(|l| l.deadline_ns > now_ns).map(|l| (Epoch(l.epoch), l.deadline_ns)),
            answered_ns: Some(agent.promises.answered_ns).filter(|at_ns| *at_ns > 0),
            heartbeat_interval_ms: self.setup.cluster.policy.heartbeat_interval_ms,
            ended: agent.promises.ended,
            list: agent.list.as_ref(),
        };
        let Asking::Ask { epoch, members, terms } = asking(&holder) else { return };
        let promises = &mut self.hosts[member].agent.promises;
        promises.rounds += 1;
        let number = promises.rounds;
        promises.round = Some(Round {
            number,
            epoch: epoch.0,
            sent_ns: now_ns,
            ends_ns: now_ns + (5 * S).min(terms.ttl_ms * MS / 4),
            waits_for: members.iter().map(|(member, _)| config::member_index(member)).collect(),
            terms,
        });
        for (promiser, _) in members {
            let to = Address::Member(config::member_index(&promiser));
            let request = Box::new(Asked {
                cluster: config::cluster_name(),
                member: name.clone(),
                epoch,
                promiser,
                terms,
            });
            self.send(Address::Member(member), to, Message::PromiseAsked { round: number, request });
        }
    }

    /// The promiser's side.
    pub fn promise_asked(&mut self, member: usize, from: Address, round: u64, request: &Asked) {
        let Address::Member(asker) = from else { return };
        let answer = self.judge_promise(member, asker, request);
        match answer {
            Ok(held_ms) => {
                let client = Client::Promise { asker, round, held_ms };
                self.ask_guard(member, Request::Promise { epoch: request.epoch.0, hold_ms: held_ms }, client);
            }
            Err(refusal) => {
                let answer = Message::PromiseAnswered { round, answer: Err(refusal) };
                self.send(Address::Member(member), from, answer);
            }
        }
    }

    fn judge_promise(&self, member: usize, asker: usize, request: &Asked) -> Result<u64, Refusal> {
        let silent = || Refusal { reason: "the guard does not answer".into(), epoch_ended: false };
        let status = self.guard_status(member).ok_or_else(silent)?;
        let agent = &self.hosts[member].agent;
        let names: (MemberName, MemberName) = (config::member_name(member), config::member_name(asker));
        promise(
            request,
            &Promiser {
                cluster: &config::cluster_name(),
                member: &names.0,
                caller: Some(&names.1),
                view: agent.view.as_ref(),
                unknown: agent.promises.unknown,
                seen: agent.state.highest_epoch.max(Epoch(status.file.highest)),
                fenced_through: Epoch(status.file.fenced),
                promises_closed: Epoch(status.file.closed),
            },
        )
    }

    /// The guard has the promise on its disk, or not.
    pub fn promise_stored(&mut self, member: usize, asker: usize, round: u64, held_ms: u64, answer: Answer) {
        let answer = match answer {
            Answer::Refused(reason) => Err(Refusal { reason, epoch_ended: false }),
            _ => Ok(held_ms),
        };
        self.send(
            Address::Member(member),
            Address::Member(asker),
            Message::PromiseAnswered { round, answer },
        );
    }

    /// An answer: when everybody has promised, the lease gets its later deadline.
    pub fn promise_answered(
        &mut self,
        member: usize,
        from: Address,
        number: u64,
        answer: Result<u64, Refusal>,
    ) {
        let now_ns = self.local_ns(member);
        let Address::Member(promiser) = from else { return };
        let agent = &mut self.hosts[member].agent;
        let instance = agent.seen.as_ref().map_or(0, |status| status.file.instance);
        let promises = &mut agent.promises;
        let Some(round) =
            promises.round.as_mut().filter(|round| round.number == number && now_ns < round.ends_ns)
        else {
            return;
        };
        if let Err(refusal) = answer {
            if refusal.epoch_ended {
                promises.ended = Some(Epoch(round.epoch));
            }
            promises.round = None;
            promises.ask_at_ns = now_ns + 375 * MS;
            return;
        }
        round.waits_for.remove(&promiser);
        if !round.waits_for.is_empty() {
            return;
        }
        let (epoch, deadline_ns) = (round.epoch, promised_deadline_ns(round.sent_ns, round.terms));
        promises.round = None;
        promises.ask_at_ns = now_ns + 375 * MS;
        promises.promised_until_ns = promises.promised_until_ns.max(deadline_ns);
        promises.extended = Some((epoch, deadline_ns));
        let client = Client::Extend { incarnation: agent.incarnation };
        self.ask_guard(member, Request::Extend { epoch, instance, deadline_ns }, client);
    }

    /// The guard runs on by promises.
    pub fn extended(&mut self, member: usize) {
        let Some((epoch, deadline_ns)) = self.hosts[member].agent.promises.extended else { return };
        let until_ns = self.hosts[member].clock.world(deadline_ns);
        self.fact(Fact::Extended { member: config::member_name(member), epoch, until_ns });
        self.agent_looks(member);
    }
}
