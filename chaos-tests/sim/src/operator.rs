//! Operators who want things at bad moments. They ask whoever believes to lead, and see what that one sees.

use rand::Rng;
use regent_core::{Body, OperatorRequest, Readiness, RequestKind};
use regent_types::{Automation, Epoch, RequestId};

use crate::{config, world::World};

/// What an operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    Failover,
    FailoverTo(usize),
    Switchover,
    Failback,
    Abort,
    Pause,
    Resume,
    Approve,
    Acknowledge,
    ByApproval,
    Automatic,
    Restart(usize),
    Reload(usize),
    ShortLease,
    LongLease,
    Remove(usize),
    Add(usize),
}

impl Wish {
    /// Any of them.
    pub fn draw(rng: &mut rand::rngs::StdRng, members: usize) -> Self {
        let member = rng.random_range(0..members);
        match rng.random_range(0..30) {
            0..2 => Wish::Failover,
            2..4 => Wish::FailoverTo(member),
            4..12 => Wish::Switchover,
            12..14 => Wish::Failback,
            14..16 => Wish::Abort,
            16 => Wish::Pause,
            17..19 => Wish::Resume,
            19 => Wish::Approve,
            20 => Wish::Acknowledge,
            21 => Wish::ByApproval,
            22 => Wish::Automatic,
            23 => Wish::Restart(member),
            24 => Wish::Reload(member),
            25 => Wish::ShortLease,
            26 => Wish::LongLease,
            27 => Wish::Remove(member),
            _ => Wish::Add(member),
        }
    }
}

impl World {
    /// To everybody who believes to lead: one that was deposed cannot commit it.
    pub fn operator_wants(&mut self, wish: Wish) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].up && self.nodes[node].leadership.is_some() {
                self.request(node, wish);
            }
        }
    }

    fn request(&mut self, node: usize, wish: Wish) {
        let now_ns = self.node_ns(node);
        let now = &self.nodes[node];
        let Some(cluster) = now.cluster() else { return };
        let evidence = || now.detector.evidence(now_ns, cluster);
        let readiness = || -> Box<Readiness> { Box::new(now.detector.readiness(now_ns, cluster)) };
        let policy = |ttl_ms: u64| {
            let mut to = cluster.config.policy.clone();
            to.lease.ttl_ms = ttl_ms;
            to.promise_ms = to.promise_ms.min(ttl_ms);
            RequestKind::SetPolicy {
                from: Box::new(cluster.config.policy.clone()),
                to: Box::new(to),
                election_worst_ms: crate::raft::ELECTION_WORST_MS,
                guards: std::collections::BTreeMap::new(),
            }
        };
        let kind = match wish {
            Wish::Failover => RequestKind::Failover { to: None, consent_to_loss: None, evidence: evidence() },
            Wish::FailoverTo(member) => RequestKind::Failover {
                to: Some(config::member_name(member)),
                consent_to_loss: None,
                evidence: evidence(),
            },
            Wish::Switchover => RequestKind::Switchover { to: None, readiness: readiness() },
            Wish::Failback => RequestKind::Failback { readiness: readiness() },
            Wish::Abort => RequestKind::Abort,
            Wish::Pause => RequestKind::Pause,
            Wish::Resume => RequestKind::Resume,
            Wish::Approve => RequestKind::Approve { evidence: evidence(), readiness: readiness() },
            Wish::Acknowledge => RequestKind::Acknowledge,
            Wish::ByApproval => RequestKind::SetAutomation { automation: Automation::Approve },
            Wish::Automatic => RequestKind::SetAutomation { automation: Automation::Automatic },
            Wish::Restart(member) => RequestKind::Restart {
                member: config::member_name(member),
                reload_only: false,
                behind: Default::default(),
            },
            Wish::Reload(member) => RequestKind::Restart {
                member: config::member_name(member),
                reload_only: true,
                behind: Default::default(),
            },
            Wish::ShortLease => policy(6_000),
            Wish::LongLease => policy(8_000),
            Wish::Remove(member) => RequestKind::RemoveMember { member: config::member_name(member) },
            Wish::Add(member) => {
                let name = config::member_name(member);
                let config = Box::new(self.setup.cluster.members[&name].clone());
                RequestKind::AddMember { member: name, config }
            }
        };
        let expected_epoch: Epoch = cluster.epoch;
        self.requests += 1;
        let request = OperatorRequest {
            cluster: config::cluster_name(),
            actor: "regent://operator/alice".into(),
            reason: "chance".into(),
            expected_epoch,
            request_id: RequestId::new(format!("request-{}", self.requests)).expect("a good id"),
            kind,
        };
        self.note(format!("an operator asks coordinator {node} for {wish:?}"));
        self.propose(node, Body::Request(request));
    }
}
