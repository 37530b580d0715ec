//! Regent's protocols: the generated messages, clients and servers of `regent/v1/*.proto`, and the conversions
//! between them and the nouns of `regent-types`.
//!
//! Reading a message is where it is checked: a missing part, an unknown enumeration or a malformed name is refused
//! with an error that names the field and the value. This crate does no I/O and decides nothing else.

mod convert;
mod json;
mod session;

pub use convert::ConvertError;
pub use session::{FromAgent, FromCoordinator, Hello, PROTOCOL_VERSION};

/// Messages and services of agents, peers and operators.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("regent.v1");
}

/// Messages and service of the replicated log, opaque to everything but regent-raft.
#[allow(missing_docs, clippy::all)]
pub mod raft {
    tonic::include_proto!("regent.raft.v1");
}

/// Every `.proto` file, encoded, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/regent_descriptor.bin"));
