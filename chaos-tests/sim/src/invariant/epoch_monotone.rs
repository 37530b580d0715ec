//! An epoch is appointed once, to one member and one instance, and each is one above the last (DESIGN section 2).
//!
//! Seen to fail with the mutant `SameEpoch`.

use regent_types::MemberName;

use super::{Fact, Invariant};

/// The newest appointment.
#[derive(Default)]
pub struct EpochMonotone(Option<(u64, MemberName, u128)>);

impl Invariant for EpochMonotone {
    fn name(&self) -> &'static str {
        "epoch monotone"
    }

    fn observe(&mut self, _: u64, fact: &Fact) -> Result<(), String> {
        let Fact::Appointed { epoch, member, instance } = fact else { return Ok(()) };
        let last = self.0.replace((*epoch, member.clone(), *instance));
        let Some((newest, holder, bound)) = last else { return Ok(()) };
        if *epoch == newest && (*member != holder || *instance != bound) {
            return Err(format!(
                "epoch {epoch} belongs to {member} (instance {instance}) and to {holder} ({bound})"
            ));
        }
        if *epoch != newest && *epoch != newest + 1 {
            return Err(format!("epoch {epoch} follows epoch {newest}"));
        }
        Ok(())
    }
}
