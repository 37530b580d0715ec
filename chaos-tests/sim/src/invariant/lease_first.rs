//! No server is writable that never had a lease for its epoch (DESIGN section 5.5).
//!
//! Seen to fail with the mutant `PromoteWithoutLease`.

use std::collections::BTreeSet;

use regent_types::MemberName;

use super::{Fact, Invariant};

/// Leases that were held.
#[derive(Default)]
pub struct LeaseFirst(BTreeSet<(MemberName, u64)>);

impl Invariant for LeaseFirst {
    fn name(&self) -> &'static str {
        "lease before writing"
    }

    fn observe(&mut self, _: u64, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::LeaseHeld { member, epoch } => {
                self.0.insert((member.clone(), *epoch));
                Ok(())
            }
            Fact::WriterBegins { member, epoch } if !self.0.contains(&(member.clone(), *epoch)) => {
                Err(format!("{member} can write at epoch {epoch}, for which it never had a lease"))
            }
            _ => Ok(()),
        }
    }
}
