//! The agent's session with a coordinator: heartbeats up, acknowledgements and directives down (agent/src/session.rs).

use regent_agent_core::{AckAction, Ending, Identity, promise::PromiseList};
use regent_types::{
    Acknowledgement, BootId, Epoch, Grant, Heartbeat, InstanceId, LeaseDecision, LeaseRefusal,
};

use crate::{
    clock::{MS, S},
    config,
    event::{Address, Client, Event, FromAgent, Message, ToAgent},
    guard::Request,
    world::World,
};

/// `REFUSED_GRACE_MS`.
const REFUSED_GRACE_MS: u64 = 5_000;

impl World {
    /// Connects, beats, leaves.
    pub fn keep_session(&mut self, member: usize) {
        let now_ns = self.local_ns(member);
        let agent = &mut self.hosts[member].agent;
        if agent.connection > 0 && now_ns >= agent.session.leave_at_ns() {
            self.leave(member);
        }
        let agent = &mut self.hosts[member].agent;
        if agent.connection == 0 {
            if now_ns < agent.connect_at_ns || agent.seen.is_none() {
                return;
            }
            agent.connections += 1;
            agent.connection = agent.connections;
            agent.session.begin(now_ns);
            agent.beat_at_ns = now_ns;
        }
        if now_ns >= self.hosts[member].agent.beat_at_ns {
            self.beat(member);
        }
    }

    fn leave(&mut self, member: usize) {
        let now_ns = self.local_ns(member);
        let agent = &mut self.hosts[member].agent;
        agent.connection = 0;
        agent.connect_at_ns = now_ns + agent.session.lost(Ending::Failed) * MS;
    }

    fn identity(&self, member: usize) -> Option<Identity> {
        let status = self.hosts[member].agent.seen.as_ref()?;
        let view = self.guard_view(member, status);
        Some(Identity {
            instance: view.instance,
            // The session asks what was held, not what is live.
            lease_epoch: status.lease.map(|lease| Epoch(lease.epoch)),
            fenced_through: view.fenced_through,
        })
    }

    fn beat(&mut self, member: usize) {
        let Some(me) = self.identity(member) else { return };
        let report = self.report(member);
        let now_ns = self.local_ns(member);
        let interval_ms = self.setup.cluster.policy.heartbeat_interval_ms;
        let host = &mut self.hosts[member];
        let agent = &mut host.agent;
        let told_ms = agent.view.as_ref().and_then(|view| view.heartbeat_interval_ms);
        agent.beat_at_ns = now_ns + told_ms.unwrap_or(interval_ms) * MS;
        let heartbeat = Heartbeat {
            cluster: config::cluster_name(),
            member: config::member_name(member),
            instance: me.instance,
            boot: BootId(format!("boot-{}", host.boot)),
            stamp_ns: now_ns,
            nonce: agent.session.send(now_ns, me.instance),
            report,
            members_version: agent.view.as_ref().map_or(0, |view| view.members_version),
            group: None,
        };
        let (to, session) = (Address::Node(agent.session.coordinator()), agent.connection);
        let what = FromAgent::Heartbeat(Box::new(heartbeat));
        self.send(Address::Member(member), to, Message::Up { session, what });
    }

    /// A message for the agent.
    pub fn agent_receives(&mut self, member: usize, from: Address, message: Message) {
        match message {
            Message::Down { session, what } if session == self.hosts[member].agent.connection => match what {
                ToAgent::Acknowledgement(acknowledgement) => self.acknowledged(member, &acknowledgement),
                ToAgent::Directive(key, directive, grant) => self.submit(member, key, *directive, grant),
            },
            Message::PromiseAsked { round, request } => self.promise_asked(member, from, round, &request),
            Message::PromiseAnswered { round, answer } => self.promise_answered(member, from, round, answer),
            _ => {}
        }
    }

    fn acknowledged(&mut self, member: usize, acknowledgement: &Acknowledgement) {
        let now_ns = self.local_ns(member);
        let Some(me) = self.identity(member) else { return };
        let agent = &mut self.hosts[member].agent;
        let (action, stamp) = agent.session.acknowledged(acknowledgement, me, now_ns);
        if stamp.is_some() {
            let refused = match &acknowledgement.lease {
                LeaseDecision::Refused(refusal) => Some(refusal),
                LeaseDecision::Granted(_) => None,
            };
            agent.promises.answered_ns = now_ns;
            agent.promises.unknown =
                matches!(refused, Some(LeaseRefusal::Unknown { .. } | LeaseRefusal::Removed { .. }));
            if let Some(view) = &acknowledgement.view {
                agent.view = Some(view.clone());
                if let Some(heard) = PromiseList::of(view)
                    && agent.list.as_ref().is_none_or(|known| known.gives_way_to(&heard))
                {
                    agent.list = Some(heard);
                }
            }
            agent.removed = Some(match refused {
                Some(LeaseRefusal::Removed { version, .. }) => Some(*version),
                Some(LeaseRefusal::Unknown { .. }) => agent.state.removed,
                _ => None,
            });
        }
        match action {
            AckAction::Extend(grant) => {
                agent.promises.extended = None;
                self.hand_over(member, &grant, Client::Nobody);
            }
            AckAction::Fence { through, .. } => {
                if now_ns >= agent.refused_until_ns {
                    agent.refused_until_ns = now_ns + S;
                    let request = Request::Fence { epoch: through.0, grace_ms: REFUSED_GRACE_MS };
                    self.ask_guard(member, request, Client::Nobody);
                }
            }
            AckAction::NotHeld(_) | AckAction::Ignored(_) => {}
        }
    }

    /// A lease goes to the guard.
    pub fn hand_over(&mut self, member: usize, grant: &Grant, client: Client) {
        let InstanceId(instance) = grant.instance;
        let request = Request::Grant { epoch: grant.epoch.0, instance, deadline_ns: grant.deadline_ns() };
        self.ask_guard(member, request, client);
    }

    /// Over the guard's socket; what is asked later may arrive earlier.
    pub fn ask_guard(&mut self, member: usize, request: Request, client: Client) {
        let takes_ns = self.draw_ms(0, 12);
        self.queue.at(self.now_ns + takes_ns, Event::GuardAsked { member, request, client });
    }
}
