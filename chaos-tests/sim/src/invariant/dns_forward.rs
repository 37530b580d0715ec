//! The record that clients see never goes back to an older epoch (DESIGN section 9).
//!
//! Seen to fail with the mutant `DnsUpsert`.

use super::{Fact, Invariant};

/// The newest epoch shown.
#[derive(Default)]
pub struct DnsForward(u64);

impl Invariant for DnsForward {
    fn name(&self) -> &'static str {
        "DNS never goes back"
    }

    fn observe(&mut self, _: u64, fact: &Fact) -> Result<(), String> {
        let Fact::RecordShown { epoch, address } = fact else { return Ok(()) };
        if *epoch < self.0 {
            return Err(format!("the record leads to {address} of epoch {epoch} after epoch {}", self.0));
        }
        self.0 = *epoch;
        Ok(())
    }
}
