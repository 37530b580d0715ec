//! Coordinators that applied the same entries have the same state: `apply` depends on nothing else (DESIGN section 4).
//!
//! Not seen to fail yet: no mutant makes `apply` depend on its process.

use super::{Fact, Invariant};

/// No memory.
pub struct ReplicasAgree;

impl Invariant for ReplicasAgree {
    fn name(&self) -> &'static str {
        "replicas agree"
    }

    fn observe(&mut self, _: u64, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Replicas { same: false } => Err("two coordinators differ after the same entry".to_owned()),
            _ => Ok(()),
        }
    }
}
