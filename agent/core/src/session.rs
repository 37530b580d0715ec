//! The session with the coordinators: which one to try, when to leave it, and what an acknowledgement means.
//!
//! A lease is extended only when the acknowledgement names a nonce that *this session* sent, with the stamp it was sent
//! with, for this instance. Counting from another heartbeat's stamp would let a lease outlive the leader's bound.
//! Every other answer extends nothing; a refusal fences (DESIGN section 5). All times are CLOCK_BOOTTIME nanoseconds
//! given by the caller.

use std::collections::VecDeque;

use regent_types::{
    Acknowledgement, ClusterView, Epoch, Grant, InstanceId, LeaseDecision, LeaseRefusal,
    mutant::{Mutant, is_on},
};

/// Who this session speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The guard's instance id.
    pub instance: InstanceId,
    /// Epoch of the live lease, as last known.
    pub lease_epoch: Option<Epoch>,
    /// The guard's fenced mark, as last known.
    pub fenced_through: Epoch,
}

/// The session's times, ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionTimes {
    /// Without an acknowledgement for this long, the next coordinator is tried.
    pub session_timeout_ms: u64,
    /// First pause after a failure.
    pub backoff_min_ms: u64,
    /// Longest pause after a failure.
    pub backoff_max_ms: u64,
}

/// What to do about an acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AckAction {
    /// Hand this lease to the guard at once.
    Extend(Grant),
    /// Tell the guard to fence.
    Fence {
        /// This epoch and below.
        through: Epoch,
        /// Why, as the leader said.
        reason: LeaseRefusal,
    },
    /// Refused, and nothing here needs to be fenced.
    NotHeld(LeaseRefusal),
    /// It does not answer a heartbeat of this session: nothing is done, and why.
    Ignored(String),
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The coordinator said so: it is there, but the leader has changed or cannot be reached through it.
    Goodbye,
    /// An error, or silence.
    Failed,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    nonce: u64,
    stamp_ns: u64,
    instance: InstanceId,
}

/// Heartbeats remembered for their acknowledgement; older ones could only extend by less.
const SENT_MAX: usize = 64;

/// One agent's session, over all coordinators.
#[derive(Debug)]
pub struct Session {
    times: SessionTimes,
    coordinators: usize,
    current: usize,
    /// When the last acknowledgement came, or the connection attempt began.
    heard_ns: u64,
    failures: u32,
    /// The session has had an acknowledgement.
    acknowledged: bool,
    next_nonce: u64,
    sent: VecDeque<Sent>,
}

impl Session {
    /// A session over `coordinators` addresses, beginning at `first`; nonces count from `nonce_base`, which must differ
    /// between runs of the agent.
    pub fn new(times: SessionTimes, coordinators: usize, first: usize, nonce_base: u64) -> Self {
        assert!(coordinators > 0, "the configuration check requires a coordinator");
        let (current, next_nonce) = (first % coordinators, nonce_base);
        let sent = VecDeque::new();
        Self { times, coordinators, current, heard_ns: 0, failures: 0, acknowledged: false, next_nonce, sent }
    }

    /// Heartbeats leave every `interval_ms` from now on: a coordinator is not left for an answer that cannot be there yet.
    pub fn beats_every(&mut self, interval_ms: u64) {
        let needed_ms = interval_ms.saturating_mul(2).saturating_add(1_000);
        self.times.session_timeout_ms = self.times.session_timeout_ms.max(needed_ms);
    }

    /// Index of the coordinator to use.
    pub fn coordinator(&self) -> usize {
        self.current
    }

    /// A connection attempt begins.
    pub fn begin(&mut self, now_ns: u64) {
        self.heard_ns = now_ns;
        self.sent.clear();
    }

    /// A heartbeat is being sent: its nonce.
    pub fn send(&mut self, stamp_ns: u64, instance: InstanceId) -> u64 {
        let nonce = self.next_nonce;
        self.next_nonce = self.next_nonce.wrapping_add(1);
        self.sent.push_back(Sent { nonce, stamp_ns, instance });
        if self.sent.len() > SENT_MAX {
            self.sent.pop_front();
        }
        nonce
    }

    /// When this coordinator is to be left unless it acknowledges before.
    pub fn leave_at_ns(&self) -> u64 {
        self.heard_ns.saturating_add(self.times.session_timeout_ms * 1_000_000)
    }

    /// The coordinator is left: how long to pause before the next, ms. A full round of failures pauses longer, so that a
    /// cluster without a leader is not hammered.
    ///
    /// The first is the nearest: after a session that worked it is tried again, unless its own silence ended that. Through
    /// any other each directive and each answer travels between regions once more than it must.
    pub fn lost(&mut self, ending: Ending) -> u64 {
        let worked = self.failures == 0 && self.acknowledged;
        self.current = match ending {
            Ending::Goodbye if worked => 0,
            Ending::Failed if worked && self.current != 0 => 0,
            _ => (self.current + 1) % self.coordinators,
        };
        self.acknowledged = false;
        self.sent.clear();
        let rounds = self.failures / u32::try_from(self.coordinators).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        let pause = self.times.backoff_min_ms.saturating_mul(1 << rounds.min(4));
        pause.min(self.times.backoff_max_ms)
    }

    /// An acknowledgement came. Also returns the heartbeat's stamp for the latency figure.
    pub fn acknowledged(
        &mut self,
        ack: &Acknowledgement,
        me: Identity,
        now_ns: u64,
    ) -> (AckAction, Option<u64>) {
        let Some(position) = self.sent.iter().position(|s| s.nonce == ack.nonce) else {
            return (AckAction::Ignored(format!("nonce {} was not sent in this session", ack.nonce)), None);
        };
        let sent = self.sent[position];
        self.sent.drain(..=position);
        self.heard_ns = now_ns;
        self.failures = 0;
        self.acknowledged = true;
        let action = match &ack.lease {
            LeaseDecision::Granted(grant) => judge_grant(grant, sent, me, now_ns),
            LeaseDecision::Refused(refusal) => judge_refusal(refusal, ack.view.as_ref(), me),
        };
        (action, Some(sent.stamp_ns))
    }
}

fn judge_grant(grant: &Grant, sent: Sent, me: Identity, now_ns: u64) -> AckAction {
    if grant.stamp_ns != sent.stamp_ns {
        return AckAction::Ignored(format!(
            "the grant counts from {} ns, the heartbeat was sent at {} ns",
            grant.stamp_ns, sent.stamp_ns
        ));
    }
    if grant.instance != me.instance || sent.instance != me.instance {
        return AckAction::Ignored(format!(
            "the grant is for instance {}, the heartbeat's was {}, the guard's is {}",
            grant.instance, sent.instance, me.instance
        ));
    }
    if grant.epoch <= me.fenced_through {
        return AckAction::Ignored(format!(
            "the grant is for epoch {}, fenced through {}",
            grant.epoch, me.fenced_through
        ));
    }
    if grant.deadline_ns() <= now_ns {
        return AckAction::Ignored(format!(
            "the grant ended at {} ns, it is {now_ns} ns now",
            grant.deadline_ns()
        ));
    }
    if is_on(Mutant::DeadlineFromReceipt) {
        return AckAction::Extend(Grant { stamp_ns: now_ns, ..grant.clone() });
    }
    AckAction::Extend(grant.clone())
}

/// A refusal is an answer: what it closes is fenced. `NotAppointed{epoch}` closes everything below `epoch`, and `epoch`
/// itself when this member believes it holds it: fencing too much costs availability, too little a second writer.
fn judge_refusal(refusal: &LeaseRefusal, view: Option<&ClusterView>, me: Identity) -> AckAction {
    let below = |epoch: Epoch| Epoch(epoch.0.saturating_sub(1));
    let held = me.lease_epoch.unwrap_or(Epoch::NONE);
    let named = match refusal {
        LeaseRefusal::Fenced { fenced_through, .. } => *fenced_through,
        LeaseRefusal::NotAppointed { epoch, .. } if held == *epoch => *epoch,
        LeaseRefusal::NotAppointed { epoch, holder: Some(_) } => below(*epoch),
        LeaseRefusal::OtherInstance { epoch, .. } if held == *epoch => *epoch,
        LeaseRefusal::OtherInstance { epoch, .. } => below(*epoch),
        LeaseRefusal::NotAppointed { .. }
        | LeaseRefusal::Unknown { .. }
        | LeaseRefusal::Removed { .. }
        | LeaseRefusal::Importing { .. } => Epoch::NONE,
    };
    let through = named.max(view.map_or(Epoch::NONE, |v| v.fenced_through));
    if through > me.fenced_through {
        AckAction::Fence { through, reason: refusal.clone() }
    } else {
        AckAction::NotHeld(refusal.clone())
    }
}
