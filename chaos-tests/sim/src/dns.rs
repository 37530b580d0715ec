//! A DNS provider outside: it changes the record by compare-and-swap with the epoch beside it (DESIGN section 9), and it
//! may be down, slow, or apply what nobody was told of. The client's rules are those of `coordinator/src/dns/route53`:
//! read, refuse what is newer, find what is there already, otherwise one change that names exactly what was read.

use rand::Rng;
use regent_core::DnsRecord;

use crate::{clock::MS, event::Event, invariant::Fact, world::World};

/// The record.
pub type Shown = Option<(u64, std::net::IpAddr)>;

/// A change on its way.
#[derive(Debug, Clone)]
pub struct Change {
    /// What was read.
    pub found: Shown,
    /// What is to be there.
    pub wanted: (u64, std::net::IpAddr),
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Dns {
    pub shown: Shown,
    pub down_until_ns: u64,
    pub slow_until_ns: u64,
}

impl World {
    /// One attempt of a coordinator. The change arrives later, if it is needed.
    pub fn dns_ensure(&mut self, node: usize, record: &DnsRecord) -> Result<bool, String> {
        if self.now_ns < self.dns.down_until_ns {
            return Err("the provider does not answer".into());
        }
        let wanted = (record.epoch.0, record.address);
        let found = self.dns.shown;
        if found == Some(wanted) {
            return Ok(true);
        }
        if let Some((epoch, _)) = found.filter(|(epoch, _)| *epoch > wanted.0) {
            return Err(format!("the record is of epoch {epoch}, this one of epoch {}", wanted.0));
        }
        let slow = self.now_ns < self.dns.slow_until_ns;
        let takes_ns = if slow { self.draw_ms(500, 12_000) } else { self.draw_ms(10, 200) };
        let answered = !slow && self.rng.random_range(0..10) > 0;
        let incarnation = self.nodes[node].incarnation;
        let change = Change { found, wanted };
        self.queue.at(self.now_ns + takes_ns, Event::DnsArrives { node, incarnation, change, answered });
        Err("the change is under way".into())
    }

    /// The change arrives at the provider: all of it or nothing.
    pub fn dns_arrives(&mut self, change: &Change) {
        let plain = regent_types::mutant::is_on(regent_types::mutant::Mutant::DnsUpsert);
        if self.dns.shown != change.found && !plain {
            return;
        }
        self.dns.shown = Some(change.wanted);
        self.note(format!("the record outside is {} (epoch {})", change.wanted.1, change.wanted.0));
        self.fact(Fact::RecordShown { epoch: change.wanted.0, address: change.wanted.1 });
    }

    /// Time between two attempts.
    pub fn dns_pause_ns(&mut self) -> u64 {
        self.rng.random_range(300 * MS..900 * MS)
    }
}
