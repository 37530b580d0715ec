//! An epoch is appointed once, to one member and one instance, and each is one above the last (DESIGN section 2).
//!
//! The mutant `SameEpoch` runs into the core's own assertions first; seen to fail in this file's test.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_one_holder_and_none_is_left_out() {
        let appointed = |epoch, member: &str, instance| Fact::Appointed {
            epoch,
            member: MemberName::new(member).unwrap(),
            instance,
        };
        let judge = |facts: [Fact; 2]| {
            let mut judge = EpochMonotone::default();
            facts.iter().try_for_each(|fact| judge.observe(0, fact))
        };
        assert!(judge([appointed(1, "a", 7), appointed(2, "b", 8)]).is_ok());
        assert!(judge([appointed(1, "a", 7), appointed(1, "a", 7)]).is_ok());
        assert!(judge([appointed(1, "a", 7), appointed(1, "b", 8)]).is_err());
        assert!(judge([appointed(1, "a", 7), appointed(1, "a", 9)]).is_err());
        assert!(judge([appointed(2, "a", 7), appointed(1, "a", 7)]).is_err());
        assert!(judge([appointed(1, "a", 7), appointed(3, "b", 8)]).is_err());
    }
}
