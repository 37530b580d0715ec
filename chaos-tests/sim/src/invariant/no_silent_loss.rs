//! Promise 2: a planned move loses no acknowledged write, nor does any promotion while commits wait for the standby that
//! is promoted; and whatever else was lost is kept somewhere (DESIGN section 1).
//!
//! Seen to fail with the mutant `HandoverShort`.

use super::{Fact, Invariant};

/// No memory.
pub struct NoSilentLoss;

impl Invariant for NoSilentLoss {
    fn name(&self) -> &'static str {
        "no acknowledged write lost silently"
    }

    fn observe(&mut self, _: u64, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::LostByPromotion { epoch, planned, writes } => {
                let how = if *planned { "a planned move" } else { "a promotion of the synchronous standby" };
                Err(format!(
                    "{how} to epoch {epoch} lacks {} acknowledged writes, first {:?}",
                    writes.len(),
                    writes.first()
                ))
            }
            Fact::Settled { lost } if !lost.is_empty() => {
                Err(format!("{} acknowledged writes are nowhere, first {:?}", lost.len(), lost.first()))
            }
            _ => Ok(()),
        }
    }
}
