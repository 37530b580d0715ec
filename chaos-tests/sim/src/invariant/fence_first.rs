//! Nobody is appointed before the last epoch's fence was decided and proved (DESIGN section 5.4).
//!
//! No mutant gets past the core's own assertions here; seen to fail in this file's test.

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

#[cfg(test)]
mod tests {
    use regent_types::MemberName;

    use super::*;

    #[test]
    fn an_appointment_needs_a_decision_and_a_proof() {
        let appointed = Fact::Appointed { epoch: 2, member: MemberName::new("b").unwrap(), instance: 8 };
        let (decided, proven) =
            (Fact::FenceDecided { epoch: 1 }, Fact::FenceProven { epoch: 1, how: "expired" });
        let judge = |facts: &[&Fact]| {
            let mut judge = FenceFirst::default();
            facts.iter().try_for_each(|fact| judge.observe(0, fact))
        };
        assert!(judge(&[&decided, &proven, &appointed]).is_ok());
        assert!(judge(&[&proven, &appointed]).is_err());
        assert!(judge(&[&decided, &appointed]).is_err());
    }
}
