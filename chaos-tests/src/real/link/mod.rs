//! Faulty links between regions, in user space: no privileges, and no packet filter of the host's touched.
//!
//! A service is reached from another region through a proxy of the directed pair of links. Each direction
//! has its own delay and its own cut. What a cut does:
//!
//! - TCP: nothing passes and no socket is closed. Bytes on the way are *held* and delivered in order after the
//!   heal, as TCP's retransmissions would; the sender is held back once its window is full, because the
//!   proxy stops reading. So no connection is ever corrupt. New connections are accepted by the kernel (a
//!   user-space proxy cannot withhold a SYN's answer) and then say nothing; those given up meanwhile are
//!   dropped at the heal, as a SYN never answered would be.
//! - UDP: datagrams are lost.
//!
//! Two differences from a real network, both making the faults harsher or plainer: delivery resumes at the
//! heal instead of after a retransmission's back-off, and with one direction cut the other goes on for ever,
//! where real TCP would stop for want of acknowledgements.
//!
//! A connection's end travels over the link like data: a cut hides it too. To model the loss of a whole host,
//! cut its links before killing its processes.

mod net;
mod relay;
mod state;
mod udp;

pub use net::{CutDirection, Net};
pub use state::LinkStats;

#[cfg(test)]
mod tests;
