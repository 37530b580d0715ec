//! Events to the operator's command: in order, one at a time, on the leader, after they were committed.
//!
//! At least once: what was told is replicated (`EventsTold`) after each batch, and a new leader goes on from there, so the
//! last ones may be told twice; the sequence number says so. An event whose command fails is tried again, some times, and
//! then given up and counted: one broken event must not hold up all later ones for ever.

use std::{sync::Arc, time::Duration};

use regent_core::Body;

use super::run::{Ended, run};
use crate::{node::Node, service::view};

/// A tick beside the wake-ups, in case one was missed.
const TICK: Duration = Duration::from_secs(1);
/// Before an event is tried again; doubled each time.
const BACKOFF: Duration = Duration::from_secs(1);

/// Runs for ever; does something while this node leads and a command is configured.
pub async fn follow(node: Arc<Node>) {
    let Some(hooks) = node.config.hooks.clone().filter(|hooks| !hooks.event.is_empty()) else {
        std::future::pending::<()>().await;
        return;
    };
    let mut changes = node.shared.changes();
    // Of this leadership; an earlier one's is in the state, as far as it was committed.
    let mut told = (None, 0);
    loop {
        changes.borrow_and_update();
        let leadership = *node.led.borrow();
        let next = {
            let inner = node.shared.lock();
            if told.0 != leadership {
                told = (leadership, inner.state.events_told);
            }
            let mut events = inner.state.events.iter().filter(|event| event.sequence > told.1);
            leadership.and_then(|_| events.next().cloned())
        };
        let Some(event) = next else {
            settle(&node, told.1).await;
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = node.clock.sleep(TICK) => {}
            }
            continue;
        };
        let input = serde_json::to_string(&view::event(&event)).expect("an event has text keys") + "\n";
        let mut pause = BACKOFF;
        for attempt in 1..=hooks.event_attempts {
            let ended = run(&node.clock, &hooks.event, "event", input.as_bytes(), hooks.event_timeout).await;
            if matches!(ended, Ended::Exit { code: 0, .. }) {
                node.metrics.events_told.add(1);
                break;
            }
            node.metrics.events_failed.add(1);
            tracing::warn!(sequence = event.sequence, attempt, ?ended, "the event hook failed");
            if *node.led.borrow() != leadership {
                break;
            }
            if attempt == hooks.event_attempts {
                node.metrics.events_given_up.add(1);
                tracing::error!(sequence = event.sequence, "the event hook is given up for this event");
                break;
            }
            node.clock.sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(30));
        }
        if *node.led.borrow() == leadership {
            told.1 = event.sequence;
        }
    }
}

/// Everything was told: the state remembers it.
async fn settle(node: &Node, through: u64) {
    let behind = node.led.borrow().is_some() && node.shared.lock().state.events_told < through;
    if behind && let Err(error) = node.proposer.propose(Body::EventsTold { through }).await {
        tracing::debug!(%error, "what was told is not recorded; a new leader would tell it again");
    }
}
