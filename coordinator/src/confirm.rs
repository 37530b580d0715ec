//! The read-index loop: waiting heartbeats are batched, one quorum round serves all that arrived before it began, then
//! each is answered under the lock (DESIGN section 5.2). Heartbeats cost no log writes.
//!
//! Invariant: a heartbeat is answered only by a round that began after it arrived. A round that fails answers nobody;
//! the agents' next heartbeats try again, and a deposed leader thus extends nothing.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use regent_proto::FromCoordinator;
use regent_raft::ConfirmError;
use regent_types::{Heartbeat, LeaseDecision};
use tokio::sync::{Notify, Semaphore};

use crate::{node::Node, sessions::Session};

/// Between the beginnings of two rounds, ms: what a heartbeat waits at most before its round begins.
const ROUND_SPACING: Duration = Duration::from_millis(50);
/// A round that takes longer than this serves nobody.
const ROUND_TIMEOUT: Duration = Duration::from_millis(1500);
/// Rounds under way at a time: with long links the next begins before the last has ended.
const ROUNDS_MAX: usize = 8;

struct Waiting {
    heartbeat: Heartbeat,
    session: Session,
    arrived_ns: u64,
}

/// Heartbeats that wait for a round.
#[derive(Default)]
pub struct Queue {
    waiting: Mutex<Vec<Waiting>>,
    wake: Notify,
}

impl Queue {
    /// A heartbeat arrived.
    pub fn push(&self, heartbeat: Heartbeat, session: Session, arrived_ns: u64) {
        let mut waiting = self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        waiting.push(Waiting { heartbeat, session, arrived_ns });
        drop(waiting);
        self.wake.notify_one();
    }

    fn take(&self) -> Vec<Waiting> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

/// Runs rounds for ever.
pub async fn run(node: Arc<Node>) {
    let rounds = Arc::new(Semaphore::new(ROUNDS_MAX));
    loop {
        node.queue.wake.notified().await;
        let Ok(permit) = rounds.clone().acquire_owned().await else { return };
        // Taken before the round begins: all of these have arrived.
        let batch = node.queue.take();
        if batch.is_empty() {
            continue;
        }
        let one = node.clone();
        tokio::spawn(async move {
            round(&one, batch).await;
            drop(permit);
        });
        node.clock.sleep(ROUND_SPACING).await;
    }
}

async fn round(node: &Node, batch: Vec<Waiting>) {
    let confirmed = match node.raft.confirm_leadership(node.clock.deadline(ROUND_TIMEOUT)).await {
        Ok(confirmed) => confirmed,
        Err(error) => {
            node.metrics.rounds_failed.add(1);
            tracing::debug!(%error, heartbeats = batch.len(), "no heartbeat answered in this round");
            if let ConfirmError::NotLeader { .. } = error {
                batch.iter().for_each(|waiting| waiting.session.end.cancel());
            }
            return;
        }
    };
    node.metrics.rounds.add(1);
    for waiting in batch {
        let answer = {
            let mut inner = node.shared.lock();
            let now_ns = node.clock.now_ns();
            let confirmed = inner.confirmed(&confirmed);
            let inner = &mut *inner;
            inner.leases.grant(now_ns, &confirmed, &inner.state, &waiting.heartbeat)
        };
        match answer {
            Ok(acknowledgement) => {
                if matches!(acknowledgement.lease, LeaseDecision::Granted(_)) {
                    node.metrics.leases_granted.add(1);
                }
                waiting.session.send(FromCoordinator::Acknowledgement(Box::new(acknowledgement)));
                let took_ns = node.clock.now_ns().saturating_sub(waiting.arrived_ns);
                node.metrics.acknowledgement_ms.observe(took_ns / 1_000_000);
            }
            Err(error) => tracing::debug!(%error, "heartbeat not answered"),
        }
    }
}
