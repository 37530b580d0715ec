//! While a primary runs on by promises nobody is promoted over it, unless its guard has ended it (DESIGN section 6).
//!
//! `PromiseWithoutMargin` and `PromiseForgotten` break it together with the single writer; seen to fail in this file's test.

use std::collections::BTreeMap;

use regent_types::MemberName;

use super::{Fact, Invariant};

/// Leases that run on by promises: epoch and end.
#[derive(Default)]
pub struct PromiseRespected(BTreeMap<MemberName, (u64, u64)>);

impl Invariant for PromiseRespected {
    fn name(&self) -> &'static str {
        "promise respected"
    }

    fn observe(&mut self, now_ns: u64, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Extended { member, epoch, until_ns } => {
                self.0.insert(member.clone(), (*epoch, *until_ns));
            }
            Fact::GuardDied { member } => {
                self.0.remove(member);
            }
            Fact::Fenced { member, epoch } if self.0.get(member).is_some_and(|(of, _)| of <= epoch) => {
                self.0.remove(member);
            }
            Fact::WriterBegins { member, epoch } => {
                let broken = self
                    .0
                    .iter()
                    .find(|(other, (of, until_ns))| *other != member && of < epoch && now_ns < *until_ns);
                if let Some((other, (of, until_ns))) = broken {
                    let left_ms = (until_ns - now_ns) / 1_000_000;
                    return Err(format!(
                        "{member} can write at epoch {epoch}, {other} was promised epoch {of} for another {left_ms} ms"
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
    use super::*;

    #[test]
    fn a_promise_holds_until_its_end_or_until_its_primary_is_fenced() {
        let (a, b) = (MemberName::new("a").unwrap(), MemberName::new("b").unwrap());
        let extended = Fact::Extended { member: a.clone(), epoch: 1, until_ns: 100 };
        let begins = Fact::WriterBegins { member: b, epoch: 2 };
        let judge = |facts: &[(u64, &Fact)]| {
            let mut judge = PromiseRespected::default();
            facts.iter().try_for_each(|(at_ns, fact)| judge.observe(*at_ns, fact))
        };
        assert!(judge(&[(0, &extended), (99, &begins)]).is_err());
        assert!(judge(&[(0, &extended), (100, &begins)]).is_ok());
        assert!(
            judge(&[(0, &extended), (5, &Fact::Fenced { member: a.clone(), epoch: 1 }), (9, &begins)])
                .is_ok()
        );
        assert!(judge(&[(0, &extended), (5, &Fact::GuardDied { member: a }), (9, &begins)]).is_ok());
    }
}
