//! Promise 1: at most one member could commit a write at any instant (DESIGN section 1).
//!
//! Judged by what a server *could* do, not by what a client was told, so that no luck hides a second writer.
//! Seen to fail with the mutants `GrantUnconfirmed`, `FenceUndecided`, `BoundWithoutKill`, `BoundWithoutStretch`,
//! `BoundNotFromElection`, `PromoteOnSilence`, `PromiseWithoutMargin`, `PromiseForgotten`, `KillLeavesBackend`.

use std::collections::BTreeMap;

use regent_types::MemberName;

use super::{Fact, Invariant};

/// Who can write, at which epoch, since when.
#[derive(Default)]
pub struct SingleWriter(BTreeMap<MemberName, (u64, u64)>);

impl Invariant for SingleWriter {
    fn name(&self) -> &'static str {
        "single writer"
    }

    fn observe(&mut self, now_ns: u64, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::WriterBegins { member, epoch } => {
                self.0.insert(member.clone(), (*epoch, now_ns));
                let mut others = self.0.iter().filter(|(other, _)| *other != member);
                match others.next() {
                    None => Ok(()),
                    Some((other, (of, since_ns))) => Err(format!(
                        "{member} can write at epoch {epoch} while {other} can at epoch {of}, since {} ms",
                        since_ns / 1_000_000
                    )),
                }
            }
            Fact::WriterEnds { member } => {
                self.0.remove(member);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
