//! A member's host: guard, agent, server, data directory, clock; and what takes how long on it.

use rand::Rng;
use regent_types::mutant::{Mutant, is_on};

use crate::{
    agent::Agent,
    clock::{Clock, MS},
    event::Event,
    guard::Guard,
    invariant::Fact,
    postgres::{Data, Record, Server, Stop},
    world::World,
};

/// One member.
#[derive(Debug)]
pub struct Host {
    pub guard: Guard,
    pub agent: Agent,
    pub server: Option<Server>,
    /// Servers started here.
    pub runs: u64,
    pub data: Data,
    /// Directories that were kept beside.
    pub kept: Vec<Data>,
    /// Writes that a salvage holds.
    pub salvaged: Vec<u32>,
    /// Counts boots.
    pub boot: u32,
    /// CLOCK_BOOTTIME.
    pub clock: Clock,
    /// What was done to the wall clock, ms.
    pub wall_offset_ms: i64,
    /// Writes to the disk hang until then.
    pub disk_stalls_until_ns: u64,
    /// Since when they do.
    pub disk_stalls_since_ns: u64,
    /// Replay stands still until then.
    pub replay_stalls_until_ns: u64,
    /// A fast shutdown does not end before this.
    pub shutdown_hangs_until_ns: u64,
    /// The guard's state file is lost with its next end.
    pub torn: bool,
    /// A backend that outlived its server: its epoch, and until when. Only with the mutant that leaves one.
    pub left: Option<(u64, u64)>,
    /// A local server cannot be started before this.
    pub broken_until_ns: u64,
}

impl World {
    /// CLOCK_BOOTTIME of a member, ns.
    pub fn local_ns(&self, member: usize) -> u64 {
        self.hosts[member].clock.local(self.now_ns)
    }

    /// Time between two bounds.
    pub fn draw_ms(&mut self, least: u64, most: u64) -> u64 {
        self.rng.random_range(least * MS..=most * MS)
    }

    /// A coin.
    pub fn rng_is_even(&mut self) -> bool {
        self.rng.random()
    }

    /// From a kill to the last process dead: as long as the policy allows.
    pub fn kill_takes_ns(&mut self) -> u64 {
        let kill_ms = self.setup.cluster.policy.lease.kill_ms;
        let longest_ms = kill_ms - 50;
        // The longest is the interesting one.
        if self.rng_is_even() { longest_ms * MS } else { self.draw_ms(1, longest_ms) }
    }

    /// A write and its fsync.
    pub fn fsync_takes_ns(&mut self, member: usize) -> u64 {
        let stalls_ns = self.hosts[member].disk_stalls_until_ns.saturating_sub(self.now_ns);
        stalls_ns + self.draw_ms(1, 25)
    }

    /// The server is told to stop.
    pub fn server_stops(&mut self, member: usize, how: Stop) {
        let now_ns = self.now_ns;
        let takes_ns = match how {
            Stop::Fast => self.draw_ms(80, 400),
            Stop::Immediate => self.draw_ms(20, 200),
            Stop::Kill => self.kill_takes_ns(),
        };
        let host = &mut self.hosts[member];
        let Some(server) = &mut host.server else { return };
        if server.stopping.is_some_and(|(stage, _)| stage >= how) {
            return;
        }
        let was_writable = server.is_writable(now_ns);
        server.stopping = Some((how, now_ns));
        match how {
            Stop::Fast if was_writable => host.data.wal.push(Record::Shutdown),
            Stop::Fast => {}
            Stop::Immediate | Stop::Kill => {
                server.dies_ns = Some(server.dies_ns.unwrap_or(u64::MAX).min(now_ns + takes_ns));
            }
        }
        if how == Stop::Fast {
            // The streams are what it waits for; looked at with every tick.
            let hangs_ns = host.shutdown_hangs_until_ns.max(now_ns + takes_ns);
            self.hosts[member].shutdown_hangs_until_ns = hangs_ns;
        }
    }

    /// No process of the server is left.
    pub fn server_is_gone(&mut self, member: usize) {
        let host = &mut self.hosts[member];
        let Some(server) = host.server.take() else { return };
        let fast = matches!(server.stopping, Some((Stop::Fast, _)));
        if is_on(Mutant::KillLeavesBackend) && !fast && !server.in_recovery && server.epoch > 0 {
            host.left = Some((server.epoch, self.now_ns + 6_000 * MS));
        }
        host.data.clean = fast;
        host.data.replayed = host.data.wal.len();
        let text = format!(
            "PostgreSQL of {} is gone ({})",
            self.name(member),
            if fast { "shut down" } else { "unclean" }
        );
        self.note(text);
        self.look_at_writers();
        if !self.hosts[member].guard.up {
            self.fact(Fact::GuardDied { member: crate::config::member_name(member) });
        }
        self.run_ended(member);
    }

    /// Who can write has changed, perhaps.
    pub fn look_at_writers(&mut self) {
        let now_ns = self.now_ns;
        for member in 0..self.hosts.len() {
            let server = self.hosts[member].server.as_ref();
            let left =
                self.hosts[member].left.filter(|(_, until_ns)| now_ns < *until_ns).map(|(epoch, _)| epoch);
            let epoch =
                server.filter(|server| server.is_writable(now_ns)).map(|server| server.epoch).or(left);
            if self.writers[member] != epoch {
                self.writers[member] = epoch;
                let name = crate::config::member_name(member);
                self.fact(match epoch {
                    Some(epoch) => Fact::WriterBegins { member: name, epoch },
                    None => Fact::WriterEnds { member: name },
                });
            }
        }
    }

    /// The machine loses power and comes back.
    pub fn host_reboots(&mut self, member: usize, back_in_ns: u64) {
        self.note(format!("the host of {} loses power", self.name(member)));
        self.agent_dies(member, back_in_ns + 700 * MS);
        self.guard_dies(member, back_in_ns);
        let drift_max = self.setup.drift_max_ppm;
        let drift_ppm = self.rng.random_range(-drift_max..=drift_max);
        let now_ns = self.now_ns;
        let host = &mut self.hosts[member];
        // Gone at once: no kernel is left that would take its time.
        host.boot += 1;
        host.clock = Clock { drift_ppm, zero_ns: i128::from(now_ns) };
        self.server_is_gone(member);
    }

    /// The server crashes by itself.
    pub fn server_crashes(&mut self, member: usize) {
        if let Some(server) = &mut self.hosts[member].server {
            server.stopping = Some((Stop::Immediate, self.now_ns));
            self.server_is_gone(member);
        }
    }

    /// Its next look at itself.
    pub fn plan_server_tick(&mut self, member: usize) {
        self.queue.at(self.now_ns + 50 * MS, Event::PostgresTick { member });
    }
}
