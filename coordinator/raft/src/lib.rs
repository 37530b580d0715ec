//! One replicated log among the coordinators. All use of openraft is in this crate.
//!
//! It decides who leads and in which order commands are applied, on every node the same. It never looks into a command
//! ([`Machine`] does), knows no cluster, member or epoch, and grants nothing by a clock: a leadership is authority only
//! at the instants at which a quorum confirmed it ([`RaftNode::confirm_leadership`]).
//!
//! Invariants:
//! - a proposal is answered only after a quorum has fsynced it and this node has applied it;
//! - the vote is on disk before anyone hears of it;
//! - a leadership is named by term *and* node, never by the term alone.

mod codec;
mod error;
mod gate;
mod leadership;
mod machine;
mod network;
mod node;
mod options;
mod server;
mod snapshot;
mod state_machine;
mod status;
mod store;
mod transfer;
mod types;

pub use error::{ConfirmError, ProposeError, StartError, TransferError};
pub use leadership::LeadershipChange;
pub use machine::{LeadershipId, LogPosition, Machine};
pub use network::tuned;
pub use node::{Confirmed, GroupMembership, RaftNode};
pub use options::{Connector, NodeAddress, Options};
pub use regent_proto::raft::raft_service_server::RaftServiceServer;
pub use server::{PeerNode, RaftRpc};
pub use status::{FollowerStatus, Status};
pub use store::StoreError;
