//! Drain: a switchover's target streams on while the old primary shuts down, and says what it has replayed once nothing
//! more can come.
//!
//! PostgreSQL's walsender ends only after the standby has confirmed everything up to the shutdown checkpoint, so the end of
//! the stream is the sign; it is no proof. A stream that breaks for another reason makes a report that is short, and the
//! core rolls back: it compares what was replayed with the shutdown checkpoint that the old primary's guard names.
//!
//! Interleaving to fear: the receiver is stopped while WAL still arrives, and what is reported is less than what the target
//! has. That is short too, and rolled back.

use regent_types::{Epoch, PostgresState};

use super::{Limits, Next, Step, Wait, prepare, waited_ms};
use crate::Facts;

pub(super) fn plan(fenced: Epoch, timeout_ms: u64, facts: &Facts, limits: &Limits) -> Next {
    let server = facts.server.as_ref().filter(|_| facts.guard.run == PostgresState::Standby);
    // Until it is detached, everything may still arrive; afterwards the rest is a preparation like any other.
    if let Some(server) = server.filter(|_| facts.data.upstream.is_some() && !facts.worked.detached) {
        let has_streamed = facts.worked.waiting_since_ns.contains_key(&Wait::Drained);
        if server.streaming && waited_ms(facts, Wait::Drained) < timeout_ms {
            let why = format!("the stream goes on, received {:?}", server.lsn);
            return Next::Step(Step::Wait { wait: Wait::Drained, why });
        }
        // Between two streams: the next one may bring what is missing.
        if !has_streamed && !server.streaming && waited_ms(facts, Wait::Streaming) < limits.stream_gap_ms {
            let why = format!("no stream yet, received {:?}", server.lsn);
            return Next::Step(Step::Wait { wait: Wait::Streaming, why });
        }
    }
    let limits = Limits { replay_idle_ms: limits.replay_idle_ms.max(timeout_ms), ..*limits };
    prepare::plan(fenced, false, facts, &limits)
}
