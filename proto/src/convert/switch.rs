//! What switchovers ask of agents.

use regent_types::{CheckpointedEvidence, Epoch};

use super::{ConvertError, Converted, list, parsed};
use crate::v1;

impl From<CheckpointedEvidence> for v1::CheckpointedEvidence {
    fn from(evidence: CheckpointedEvidence) -> Self {
        Self {
            epoch: evidence.epoch.0,
            write_lsn: evidence.write_lsn.to_string(),
            standbys: evidence.standbys.into_iter().map(Into::into).collect(),
            elapsed_ms: evidence.elapsed_ms,
        }
    }
}

impl TryFrom<v1::CheckpointedEvidence> for CheckpointedEvidence {
    type Error = ConvertError;
    fn try_from(evidence: v1::CheckpointedEvidence) -> Converted<Self> {
        Ok(Self {
            epoch: Epoch(evidence.epoch),
            write_lsn: parsed(&evidence.write_lsn, "write_lsn")?,
            standbys: list(evidence.standbys, "standbys")?,
            elapsed_ms: evidence.elapsed_ms,
        })
    }
}
