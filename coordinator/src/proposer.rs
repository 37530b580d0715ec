//! Proposals into the log, replies out of it.

use std::{sync::Arc, time::Duration};

use regent_core::{Applied, Body, Proposal, Rejection, decode_reply};
use regent_raft::{ProposeError, RaftNode};
use regent_types::CoordinatorId;

use crate::{clock::Clock, shared::Shared};

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
    shared: Arc<Shared>,
}

impl Proposer {
    /// A proposer of `node`.
    pub fn new(raft: RaftNode, clock: Clock, node: CoordinatorId, shared: Arc<Shared>) -> Self {
        Self { raft, clock, node, shared }
    }

    /// The proposal as it would enter the log now.
    pub fn proposal(&self, body: Body) -> Proposal {
        Proposal { wall_ms: self.clock.wall_ms(), proposer: self.node, body }
    }

    /// Has `body` committed and applied.
    pub async fn propose(&self, body: Body) -> Result<Applied, ProposeFailure> {
        // Before it is in the log: there, a member of an older version would have to stop over it.
        let (needs, group) = (body.level(), self.shared.lock().state.level());
        if needs > group && !matches!(body, Body::RaiseLevel { .. }) {
            return Err(Rejection::Level { needs, group }.into());
        }
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
