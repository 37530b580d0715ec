//! A standby never streams into WAL that is not a part of its upstream's: PostgreSQL itself compares timelines and
//! positions only, so a wrong judgement of ancestry corrupts silently (DESIGN section 8, *Choose*).
//!
//! `LineageIgnored` breaks *salvage before start* earlier; not seen to fail by itself yet.

use super::{Fact, Invariant};

/// No memory.
pub struct OneHistory;

impl Invariant for OneHistory {
    fn name(&self) -> &'static str {
        "one history"
    }

    fn observe(&mut self, _: u64, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::ForeignHistory { member } => {
                Err(format!("{member} streams into WAL that its upstream never wrote"))
            }
            _ => Ok(()),
        }
    }
}
