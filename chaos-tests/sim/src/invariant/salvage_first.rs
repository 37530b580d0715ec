//! Divergent WAL is kept before anything starts on it or takes its place (DESIGN section 8, *Rejoin*).
//!
//! Seen to fail with the mutants `SalvageSkipped` and `LineageIgnored`.

use super::{Fact, Invariant};

/// No memory.
pub struct SalvageFirst;

impl Invariant for SalvageFirst {
    fn name(&self) -> &'static str {
        "salvage before start"
    }

    fn observe(&mut self, _: u64, fact: &Fact) -> Result<(), String> {
        let (what, member, writes) = match fact {
            Fact::Discarded { member, writes } => ("was replaced", member, writes),
            Fact::StartedDivergent { member, writes } => ("is started as a standby", member, writes),
            _ => return Ok(()),
        };
        Err(format!(
            "the directory of {member} {what} with {} acknowledged writes that nobody else has and no salvage, first {:?}",
            writes.len(),
            writes.first()
        ))
    }
}
