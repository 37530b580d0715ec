//! Fence: ask the guard, hand back what it answered. The guard is asked in each run, also when it is fenced already: its
//! answer is the proof, a status is not.

use regent_types::{Epoch, Evidence};

use super::{Next, Step};
use crate::Facts;

pub(super) fn plan(epoch: Epoch, grace_ms: u64, facts: &Facts) -> Next {
    match &facts.worked.fenced {
        Some(evidence) if evidence.epoch >= epoch => Next::Done(Evidence::Fenced(evidence.clone())),
        _ => Next::Step(Step::GuardFence { epoch, grace_ms }),
    }
}
