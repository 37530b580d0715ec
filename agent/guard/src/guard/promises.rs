//! Promises (DESIGN section 6): given to another member's primary, and received for this member's lease.
//!
//! Invariants, each with the interleaving that breaks promise 1 without it:
//! - a promise is on disk, with its boot, before it is answered. Without it: the host loses power after the answer, comes
//!   back without the promise, and is promoted beside the primary that runs on by it;
//! - promises to E are closed only when none is outstanding, and none is given once they are closed (or being closed).
//!   Without it the coordinator takes "none outstanding" for a proof and the promise follows;
//! - a promise only extends a lease that holds. Without it a primary that has fenced itself comes back by promises, though
//!   a promotion may have been proved meanwhile.
//!
//! Refusals mistake towards the primary's end: its lease runs out as usual.

use super::Guard;
use super::requests::Parked;
use crate::clock::MS;
use crate::lease::Grant;
use crate::log;
use crate::server::ClientId;
use crate::wire::{Answer, Fields};

impl Guard {
    /// What is left of a promise that was given, or may have been, ns.
    fn promise_left_ns(&self, now_ns: u64) -> Option<u64> {
        self.persist.wanted().promised_until_ns.checked_sub(now_ns).filter(|left_ns| *left_ns > 0)
    }

    /// Gives a promise, or says why not. `None`: it is on its way to the disk.
    pub(super) fn promise(
        &mut self,
        client: ClientId,
        epoch: u64,
        hold_ms: u64,
        now_ns: u64,
    ) -> Option<Answer> {
        let wanted = self.persist.wanted();
        let fields = Fields::new()
            .with("epoch", epoch)
            .with("highest_epoch", wanted.highest_epoch)
            .with("fenced_through", wanted.fenced_through)
            .with("promises_closed", wanted.promises_closed)
            .with("promised_epoch", wanted.promised_epoch);
        let hold_max_ms = self.config.promise_hold_max.as_millis() as u64;
        let reason = if self.terminating {
            Some("the guard is ending".to_owned())
        } else if epoch <= wanted.fenced_through {
            Some(format!("epoch {epoch} is fenced here: fenced through {}", wanted.fenced_through))
        } else if epoch <= wanted.promises_closed {
            Some(format!("promises are closed through epoch {}, {epoch} is asked", wanted.promises_closed))
        } else if epoch < wanted.highest_epoch.max(wanted.promised_epoch) {
            let highest = wanted.highest_epoch.max(wanted.promised_epoch);
            Some(format!("epoch {epoch} is stale: the highest heard of is {highest}"))
        } else if self.live_lease(now_ns).is_some_and(|lease| lease.epoch == epoch) {
            Some(format!("this member holds the lease of epoch {epoch} itself"))
        } else if hold_ms > hold_max_ms {
            Some(format!("a promise of {hold_ms} ms is longer than promise_hold_max, {hold_max_ms} ms"))
        } else {
            None
        };
        if let Some(reason) = reason {
            return Some(Answer::Refused { reason, fields });
        }
        let until_ns = now_ns + hold_ms * MS;
        if self.promise_left_ns(now_ns).is_none() {
            log::info("promise given", Fields::new().with("epoch", epoch).with("hold_ms", hold_ms));
        }
        self.persist.raise(|state| {
            state.promised_epoch = epoch;
            state.promised_until_ns = state.promised_until_ns.max(until_ns);
        });
        self.parked.push((client, Parked::Promise { epoch, until_ns }));
        None
    }

    /// The promise is on disk.
    pub(super) fn promised(&self, epoch: u64, until_ns: u64) -> Option<Answer> {
        // Closed as void while it was being written: it was never given.
        let closed = self.persist.wanted().promises_closed;
        if closed >= epoch {
            return Some(Answer::refused(format!(
                "promises are closed through epoch {closed}, {epoch} is asked"
            )));
        }
        let durable = self.persist.durable();
        if durable.promised_epoch >= epoch && durable.promised_until_ns >= until_ns {
            let fields = Fields::new().with("epoch", epoch).with("promised_until_ns", until_ns);
            return Some(Answer::Ok(fields));
        }
        self.persist.failed().map(Answer::error)
    }

    /// Closes promises to `epoch` and below for ever. While one is outstanding only when it is void.
    pub(super) fn close_promises(
        &mut self,
        client: ClientId,
        epoch: u64,
        void: bool,
        now_ns: u64,
    ) -> Option<Answer> {
        let promised_epoch = self.persist.wanted().promised_epoch;
        if let Some(left_ns) = self.promise_left_ns(now_ns).filter(|_| !void || promised_epoch > epoch) {
            let left_ms = left_ns.div_ceil(MS);
            return Some(Answer::Refused {
                reason: format!(
                    "a promise to epoch {promised_epoch} is outstanding for another {left_ms} ms"
                ),
                fields: Fields::new().with("promised_epoch", promised_epoch).with("left_ms", left_ms),
            });
        }
        self.persist.raise(|state| {
            state.promises_closed = state.promises_closed.max(epoch);
            (state.promised_epoch, state.promised_until_ns) = (0, 0);
        });
        self.parked.push((client, Parked::ClosePromises(epoch)));
        None
    }

    pub(super) fn promises_closed(&self, epoch: u64) -> Option<Answer> {
        let durable = self.persist.durable().promises_closed;
        if durable >= epoch {
            return Some(Answer::Ok(Fields::new().with("promises_closed", durable)));
        }
        self.persist.failed().map(Answer::error)
    }

    /// A grant of a higher epoch than the one that a promise was given to, while it is outstanding. Whoever was chosen has closed
    /// its promises before, so this only ever stops a coordinator that has forgotten to ask.
    pub(super) fn promised_to_another(&self, epoch: u64, now_ns: u64) -> Option<Answer> {
        let left_ms = self.promise_left_ns(now_ns)?.div_ceil(MS);
        let promised_epoch = self.persist.wanted().promised_epoch;
        (promised_epoch > 0 && epoch > promised_epoch).then(|| Answer::Refused {
            reason: format!(
                "promised for another {left_ms} ms to take no epoch above {promised_epoch}, {epoch} is granted"
            ),
            fields: Fields::new().with("promised_epoch", promised_epoch).with("left_ms", left_ms),
        })
    }

    /// Everybody who could be promoted has promised: the running lease gets a later deadline.
    pub(super) fn extend(&mut self, grant: Grant, now_ns: u64) -> Answer {
        // First: a pause that was not noticed yet ends the lease.
        self.check_clocks(now_ns);
        let Some(lease) = self.usable_lease(now_ns).filter(|lease| lease.epoch == grant.epoch) else {
            let mut fields = Fields::new().with("epoch", grant.epoch).with("now_ns", now_ns);
            fields.push_some("lease_epoch", self.lease.map(|lease| lease.epoch));
            fields.push_some("lease_deadline_ns", self.lease.map(|lease| lease.deadline_ns));
            let reason = format!("promises extend a running lease of epoch {}, they make none", grant.epoch);
            return Answer::Refused { reason, fields };
        };
        if grant.deadline_ns <= lease.deadline_ns {
            return Answer::Ok(
                Fields::new().with("epoch", lease.epoch).with("deadline_ns", lease.deadline_ns),
            );
        }
        // Its epoch is on disk, since a lease of it is held.
        self.grant(grant, now_ns).unwrap_or_else(|| Answer::error("the lease's epoch is not on disk"))
    }
}
