//! The agents' sessions on the leader, and who waits for which outcome.
//!
//! Decides only to whom a directive goes: the session of the instance that it names, else the member's newest. Nothing
//! here waits: a session whose channel is full is cut off, so that one slow agent holds up nobody.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use regent_proto::{FromCoordinator, v1::CoordinatorMessage};
use regent_types::{ClusterName, EffectKey, InstanceId, MemberName, Outcome};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Messages that may wait for one agent.
pub const SESSION_QUEUE: usize = 64;
/// Instances of one member that may hold sessions at a time: two machines with one identity must both be answered.
const INSTANCES_MAX: usize = 4;

/// The way to an agent.
pub type ToAgent = mpsc::Sender<Result<CoordinatorMessage, Status>>;

/// One member, in the whole group.
pub type Who = (ClusterName, MemberName);

/// A live session.
#[derive(Clone)]
pub struct Session {
    /// Unique on this node.
    pub id: u64,
    /// The guard's instance id, from the last heartbeat.
    pub instance: InstanceId,
    /// Cancelled to end it.
    pub end: CancellationToken,
    tx: ToAgent,
}

impl Session {
    /// Sends without waiting. A full channel ends the session.
    pub fn send(&self, message: FromCoordinator) -> bool {
        let sent = self.tx.try_send(Ok(message.into())).is_ok();
        if !sent {
            self.end.cancel();
        }
        sent
    }
}

#[derive(Default)]
struct Inner {
    sessions: BTreeMap<Who, Vec<Session>>,
    waiting: BTreeMap<(Who, EffectKey), Vec<mpsc::Sender<Outcome>>>,
}

/// All sessions of this node.
#[derive(Default)]
pub struct Sessions {
    inner: Mutex<Inner>,
    next: AtomicU64,
    changed: watch::Sender<u64>,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A new session; an older one of the same instance is ended.
    pub fn register(&self, who: Who, instance: InstanceId, tx: ToAgent) -> Session {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let session = Session { id, instance, end: CancellationToken::new(), tx };
        let mut inner = self.lock();
        let all = inner.sessions.entry(who).or_default();
        all.retain(|old| {
            let stale = old.instance == instance;
            if stale {
                old.end.cancel();
            }
            !stale
        });
        if all.len() >= INSTANCES_MAX {
            all.remove(0).end.cancel();
        }
        all.push(session.clone());
        drop(inner);
        self.changed.send_modify(|n| *n += 1);
        session
    }

    /// The guard behind a session has restarted.
    pub fn update_instance(&self, who: &Who, id: u64, instance: InstanceId) {
        let mut inner = self.lock();
        let all = inner.sessions.get_mut(who).into_iter().flatten();
        for session in all.filter(|session| session.id == id) {
            session.instance = instance;
        }
        drop(inner);
        self.changed.send_modify(|n| *n += 1);
    }

    /// A session has ended.
    pub fn remove(&self, who: &Who, id: u64) {
        let mut inner = self.lock();
        if let Some(all) = inner.sessions.get_mut(who) {
            all.retain(|session| session.id != id);
            if all.is_empty() {
                inner.sessions.remove(who);
            }
        }
        drop(inner);
        self.changed.send_modify(|n| *n += 1);
    }

    /// The session of `instance`, or the newest when none is named.
    pub fn pick(&self, who: &Who, instance: Option<InstanceId>) -> Option<Session> {
        let inner = self.lock();
        let all = inner.sessions.get(who)?;
        match instance {
            Some(wanted) => all.iter().rev().find(|session| session.instance == wanted).cloned(),
            None => all.last().cloned(),
        }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.lock().sessions.values().map(Vec::len).sum()
    }

    /// Wakes when sessions came or went.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// From now on outcomes of `key` from `who` arrive at the receiver.
    pub fn expect(&self, who: Who, key: EffectKey) -> mpsc::Receiver<Outcome> {
        let (tx, rx) = mpsc::channel(8);
        let mut inner = self.lock();
        inner.waiting.retain(|_, all| {
            all.retain(|tx| !tx.is_closed());
            !all.is_empty()
        });
        inner.waiting.entry((who, key)).or_default().push(tx);
        rx
    }

    /// An outcome arrived from `who`, whose identity was checked. False when nobody waits for it.
    pub fn deliver(&self, who: &Who, key: &EffectKey, outcome: &Outcome) -> bool {
        let inner = self.lock();
        let all = inner.waiting.get(&(who.clone(), key.clone()));
        all.is_some_and(|all| all.iter().filter(|tx| tx.try_send(outcome.clone()).is_ok()).count() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who() -> Who {
        (ClusterName::new("c").unwrap(), MemberName::new("m").unwrap())
    }

    #[test]
    fn a_newer_session_of_one_instance_replaces_the_older_and_other_instances_stay() {
        let sessions = Sessions::default();
        let (tx, _rx) = mpsc::channel(4);
        let first = sessions.register(who(), InstanceId(1), tx.clone());
        let other = sessions.register(who(), InstanceId(2), tx.clone());
        let second = sessions.register(who(), InstanceId(1), tx);
        assert!(first.end.is_cancelled() && !other.end.is_cancelled());
        assert_eq!(sessions.pick(&who(), Some(InstanceId(2))).unwrap().id, other.id);
        assert_eq!(sessions.pick(&who(), None).unwrap().id, second.id);
        assert!(sessions.pick(&who(), Some(InstanceId(3))).is_none());
        sessions.remove(&who(), second.id);
        assert_eq!(sessions.pick(&who(), None).unwrap().id, other.id);
    }

    #[test]
    fn a_full_channel_ends_the_session() {
        let sessions = Sessions::default();
        let (tx, _rx) = mpsc::channel(1);
        let session = sessions.register(who(), InstanceId(1), tx);
        assert!(session.send(FromCoordinator::Goodbye { reason: "a".into() }));
        assert!(!session.send(FromCoordinator::Goodbye { reason: "b".into() }));
        assert!(session.end.is_cancelled());
    }

    #[test]
    fn an_outcome_reaches_who_waits_for_that_key_of_that_member() {
        let sessions = Sessions::default();
        let key = EffectKey {
            cluster: who().0,
            operation: regent_types::OperationId(1),
            step: 1,
            epoch: regent_types::Epoch(1),
        };
        let mut rx = sessions.expect(who(), key.clone());
        let other = (who().0, MemberName::new("other").unwrap());
        let outcome = Outcome::Refused { reason: "no".into() };
        assert!(!sessions.deliver(&other, &key, &outcome));
        assert!(sessions.deliver(&who(), &key, &outcome));
        assert_eq!(rx.try_recv().unwrap(), outcome);
    }
}
