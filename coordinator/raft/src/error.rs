//! Every way in which a call can fail. None of these is a decision of the replicated machine: its refusals are replies.

use std::path::PathBuf;

use thiserror::Error;

use crate::store::StoreError;

/// Why a node did not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// An option that cannot work.
    #[error("option {field} = {value}: {reason}")]
    Option {
        /// Name of the option.
        field: &'static str,
        /// What it was.
        value: String,
        /// What it should have been.
        reason: String,
    },
    /// The directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log was made by a group of other members.
    #[error(
        "the configuration names the members {configured:?}, but the log in {dir} was made by {stored:?}"
    )]
    Members {
        /// The directory.
        dir: PathBuf,
        /// Ids in the options.
        configured: Vec<u64>,
        /// Ids in the log.
        stored: Vec<u64>,
    },
    /// Log and snapshot could be read but not be brought to life, e.g. because the machine refused the snapshot.
    #[error("cannot recover the state in {dir}: {reason}")]
    Recover {
        /// The directory.
        dir: PathBuf,
        /// What went wrong.
        reason: String,
    },
}

/// Why a proposal was not answered by the machine.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// Nothing was appended. Ask `leader`; `None` means that there is none at present that can commit.
    #[error("not the leader; the leader is {}", leader_text(leader))]
    NotLeader {
        /// Who leads, as far as this node knows.
        leader: Option<u64>,
    },
    /// The command is longer than the options allow. Nothing was appended.
    #[error("command of {bytes} bytes exceeds the limit of {max} bytes")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// No answer in time, or the leadership changed under it: the command may be applied, now or later, or never.
    #[error("the fate of the command is unknown: {reason}")]
    Unknown {
        /// Which of them.
        reason: String,
    },
    /// This node has stopped; what was in flight is unknown.
    #[error("the node has stopped: {reason}")]
    Fatal {
        /// Why it stopped.
        reason: String,
    },
}

/// Why a leadership was not confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfirmError {
    /// This node does not lead, or lost its leadership in the round.
    #[error("not the leader; the leader is {}", leader_text(leader))]
    NotLeader {
        /// Who leads, as far as this node knows.
        leader: Option<u64>,
    },
    /// No quorum answered, or the machine did not catch up, before the deadline.
    #[error("leadership not confirmed: {reason}")]
    NoQuorum {
        /// Which of them.
        reason: String,
    },
    /// This node has stopped.
    #[error("the node has stopped: {reason}")]
    Fatal {
        /// Why it stopped.
        reason: String,
    },
}

/// Why the leadership was not handed over.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TransferError {
    /// Only a leader can hand over.
    #[error("not the leader; the leader is {}", leader_text(leader))]
    NotLeader {
        /// Who leads, as far as this node knows.
        leader: Option<u64>,
    },
    /// The target is no voter.
    #[error("node {to} is no voter of this group; voters are {voters:?}")]
    NoVoter {
        /// The target.
        to: u64,
        /// Who could be one.
        voters: Vec<u64>,
    },
    /// The target lacks entries or is silent. To hand over to it would stop all proposals until it has caught up.
    #[error(
        "node {to} is not caught up: it has index {matched:?}, this node {last:?}, last heard {heard_ms:?} ms ago"
    )]
    Behind {
        /// The target.
        to: u64,
        /// Highest index known to be on the target.
        matched: Option<u64>,
        /// Highest index here.
        last: Option<u64>,
        /// Age of the target's last acknowledgement.
        heard_ms: Option<u64>,
    },
    /// The target did not take over in time; this node gave up its leadership so that someone does.
    #[error("node {to} did not take over before the deadline; an election was started instead")]
    Overdue {
        /// The target.
        to: u64,
    },
    /// This node has stopped.
    #[error("the node has stopped: {reason}")]
    Fatal {
        /// Why it stopped.
        reason: String,
    },
}

fn leader_text(leader: &Option<u64>) -> String {
    leader.map_or("unknown".to_string(), |node| format!("node {node}"))
}
