//! Nobody is appointed before the last epoch's fence was decided and proved (DESIGN section 5.4).
//!
//! Seen to fail with the mutants `PromoteOnSilence` and `SameEpoch`.

use std::collections::BTreeSet;

use super::{Fact, Invariant};

/// What is fenced and proved.
#[derive(Default)]
pub struct FenceFirst {
    decided: u64,
    proven: BTreeSet<u64>,
}

impl Invariant for FenceFirst {
    fn name(&self) -> &'static str {
        "fence before promotion"
    }

    fn observe(&mut self, _: u64, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::FenceDecided { epoch } => self.decided = self.decided.max(*epoch),
            Fact::FenceProven { epoch, .. } => {
                self.proven.insert(*epoch);
            }
            Fact::Appointed { epoch, member, .. } if *epoch > 1 => {
                let last = epoch - 1;
                if self.decided < last {
                    return Err(format!(
                        "{member} is appointed at epoch {epoch}, fenced through {}",
                        self.decided
                    ));
                }
                if !self.proven.contains(&last) {
                    return Err(format!(
                        "{member} is appointed at epoch {epoch} without a proof for epoch {last}"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
