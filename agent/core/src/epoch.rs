//! The epoch check of the receiver (STYLE, street rule 3): a lower epoch than one already seen is refused, with both
//! values. The caller persists a higher one before it obeys.

use regent_types::Epoch;

/// A directive of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("epoch {asked} is older than epoch {seen}, which this member has seen")]
pub struct StaleEpoch {
    /// What the directive carries.
    pub asked: Epoch,
    /// The highest epoch known here.
    pub seen: Epoch,
}

/// Refuses `asked` when it is below `seen`. Equal is a repetition, and fine.
pub fn check_epoch(asked: Epoch, seen: Epoch) -> Result<(), StaleEpoch> {
    if asked < seen { Err(StaleEpoch { asked, seen }) } else { Ok(()) }
}
