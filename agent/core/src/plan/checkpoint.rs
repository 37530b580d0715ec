//! Checkpoint: before a switchover fences the primary, so that its shutdown has little left to write. Nothing is fenced
//! yet: a refusal or a failure here costs nothing.

use regent_types::{Epoch, Evidence, PostgresState};

use super::{Next, Step};
use crate::Facts;

pub(super) fn plan(epoch: Epoch, facts: &Facts) -> Next {
    let guard = &facts.guard;
    if guard.run != PostgresState::Primary || guard.lease_epoch != Some(epoch) {
        return Next::Refuse(format!(
            "this member is not the primary of epoch {epoch} (PostgreSQL {:?}, lease for epoch {:?})",
            guard.run, guard.lease_epoch
        ));
    }
    match &facts.worked.checkpointed {
        Some(evidence) => Next::Done(Evidence::Checkpointed(evidence.clone())),
        None => Next::Step(Step::Checkpoint(epoch)),
    }
}
