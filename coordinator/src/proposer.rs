//! Proposals into the log, replies out of it.

use std::time::Duration;

use regent_core::{Applied, Body, Proposal, Rejection, decode_reply};
use regent_raft::{ProposeError, RaftNode};
use regent_types::CoordinatorId;

use crate::clock::Clock;

/// Longest wait for a commit.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a proposal was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ProposeFailure {
    /// The state refuses: data for the operator.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Another node leads, or none.
    #[error("this node does not lead")]
    NotLeader {
        /// Who does, if known.
        leader: Option<u64>,
    },
    /// It may be applied, now or later, or never.
    #[error("it is not known whether the proposal was committed")]
    Unknown {
        /// Why.
        reason: String,
    },
}

/// Proposes under this node's name.
#[derive(Clone)]
pub struct Proposer {
    raft: RaftNode,
    clock: Clock,
    node: CoordinatorId,
}

impl Proposer {
    /// A proposer of `node`.
    pub fn new(raft: RaftNode, clock: Clock, node: CoordinatorId) -> Self {
        Self { raft, clock, node }
    }

    /// The proposal as it would enter the log now.
    pub fn proposal(&self, body: Body) -> Proposal {
        Proposal { wall_ms: self.clock.wall_ms(), proposer: self.node, body }
    }

    /// Has `body` committed and applied.
    pub async fn propose(&self, body: Body) -> Result<Applied, ProposeFailure> {
        let command = self.proposal(body).encode();
        let deadline = self.clock.deadline(COMMIT_TIMEOUT);
        match self.raft.propose(command, deadline).await {
            Ok((_, reply)) => {
                let unreadable =
                    |error: regent_core::CodecError| ProposeFailure::Unknown { reason: error.to_string() };
                Ok(decode_reply(&reply).map_err(unreadable)??)
            }
            Err(ProposeError::NotLeader { leader }) => Err(ProposeFailure::NotLeader { leader }),
            Err(error) => Err(ProposeFailure::Unknown { reason: error.to_string() }),
        }
    }
}
