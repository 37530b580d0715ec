//! Clients: they write to every server that takes it, and remember what they were told. They do not follow the name: a
//! client that reaches the wrong server is the danger that all of this is about.

use rand::Rng;

use crate::{clock::MS, config, event::Event, invariant::Fact, postgres::Record, world::World};

/// One write.
#[derive(Debug, Clone)]
pub struct Write {
    pub epoch: u64,
    /// Records of WAL up to it.
    pub end: usize,
    pub acknowledged: bool,
}

impl World {
    /// A client tries.
    pub fn client_writes(&mut self, member: usize) {
        let again_ns = self.rng.random_range(80 * MS..350 * MS);
        self.queue.at(self.now_ns + again_ns, Event::Write { member });
        let takes_ns = self.rng.random_range(MS..15 * MS);
        let (now_ns, synchronous) = (self.now_ns, self.setup.synchronous);
        let host = &mut self.hosts[member];
        let Some(server) = host.server.as_ref().filter(|server| server.is_writable(now_ns)) else { return };
        if now_ns < host.disk_stalls_until_ns {
            return;
        }
        let id = u32::try_from(self.writes.len()).expect("few writes");
        host.data.wal.push(Record::Write(id));
        host.data.replayed = host.data.wal.len();
        let write = Write { epoch: server.epoch, end: host.data.wal.len(), acknowledged: false };
        let run = server.run;
        self.writes.push(write);
        if synchronous {
            self.waiting.push((member, run, id));
        } else {
            self.queue.at(now_ns + takes_ns, Event::Returned { member, run, write: id });
        }
    }

    /// A standby has received: commits that waited for it return.
    pub fn commits_return(&mut self, upstream: usize) {
        if self.waiting.is_empty() {
            return;
        }
        let (waiting, now_ns) = (std::mem::take(&mut self.waiting), self.now_ns);
        for (member, run, id) in waiting {
            let record = Record::Write(id);
            let at = self.writes[id as usize].end - 1;
            let held = |host: &crate::host::Host| host.data.wal.get(at) == Some(&record);
            let alive = self.hosts[member].server.as_ref().is_some_and(|server| server.run == run);
            if !alive {
                continue;
            }
            let others = (0..self.hosts.len()).filter(|other| *other != member);
            let flushed = member == upstream
                && others.into_iter().any(|other| {
                    self.hosts[other].server.as_ref().is_some_and(|server| server.streaming)
                        && self.upstream_of(other) == Some(member)
                        && held(&self.hosts[other])
                });
            if flushed {
                self.queue.at(now_ns + MS, Event::Returned { member, run, write: id });
            } else {
                self.waiting.push((member, run, id));
            }
        }
    }

    /// The commit returns, if the server that made it still lives.
    pub fn client_is_told(&mut self, member: usize, run: u64, write: u32) {
        let now_ns = self.now_ns;
        let server = self.hosts[member].server.as_ref();
        if server.is_none_or(|server| server.run != run || !server.is_writable(now_ns)) {
            return;
        }
        let known = &mut self.writes[write as usize];
        known.acknowledged = true;
        let epoch = known.epoch;
        self.fact(Fact::Acknowledged { member: config::member_name(member), epoch, write });
    }
}
