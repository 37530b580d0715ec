//! What goes on in the servers between events: starting, replay, promotion, streaming, the end of a shutdown.

use rand::Rng;

use crate::{
    clock::MS,
    config,
    event::Address,
    invariant::Fact,
    postgres::{Record, Stop},
    world::World,
};

/// A stream carries at most so many records in one tick.
const RECORDS_A_TICK: usize = 40;

impl World {
    /// One tick of one server.
    pub fn postgres_tick(&mut self, member: usize) {
        self.plan_server_tick(member);
        let now_ns = self.now_ns;
        let Some(server) = self.hosts[member].server.as_ref() else { return };
        if server.dies_ns.is_some_and(|dies_ns| now_ns >= dies_ns) {
            return self.server_is_gone(member);
        }
        if now_ns < self.hosts[member].broken_until_ns && server.ready_ns > now_ns {
            return self.server_crashes(member);
        }
        if matches!(server.stopping, Some((Stop::Fast, _))) {
            if now_ns >= self.hosts[member].shutdown_hangs_until_ns && self.streams_are_done(member) {
                self.server_is_gone(member);
            }
            return;
        }
        if now_ns < server.ready_ns || server.stopping.is_some() {
            return;
        }
        if server.in_recovery {
            self.follow(member);
            self.replay(member);
            self.promote(member);
        }
        self.look_at_writers();
    }

    /// The primary ends only after its streams have confirmed everything.
    fn streams_are_done(&self, member: usize) -> bool {
        let end = self.hosts[member].data.wal.len();
        let streaming = (0..self.hosts.len()).filter(|other| {
            self.upstream_of(*other) == Some(member)
                && self.hosts[*other].server.as_ref().is_some_and(|server| server.streaming)
                && self.net.connects(Address::Member(*other), Address::Member(member))
        });
        streaming.into_iter().all(|other| self.hosts[other].data.wal.len() >= end)
    }

    /// Whom its configuration names.
    pub fn upstream_of(&self, member: usize) -> Option<usize> {
        let host = self.hosts[member].data.upstream.as_ref()?;
        (0..self.hosts.len()).find(|at| self.setup.cluster.members[&config::member_name(*at)].host == *host)
    }

    fn follow(&mut self, member: usize) {
        let upstream = self.upstream_of(member).filter(|upstream| *upstream != member);
        let streams = upstream.filter(|upstream| {
            let serves = self.hosts[*upstream].server.as_ref().is_some_and(|server| {
                self.now_ns >= server.ready_ns
                    && !matches!(server.stopping, Some((Stop::Immediate | Stop::Kill, _)))
            });
            serves
                && self.net.connects(Address::Member(member), Address::Member(*upstream))
                && self.hosts[member].data.can_follow(&self.hosts[*upstream].data)
        });
        let streamed = self.hosts[member].server.as_ref().is_some_and(|server| server.streaming);
        if streams.is_some() != streamed
            && let Some(server) = &mut self.hosts[member].server
        {
            server.streaming = streams.is_some();
        }
        let Some(upstream) = streams else { return };
        let lagging = self.rng.random_range(0..10) == 0;
        let theirs = self.hosts[upstream].data.clone();
        if !self.hosts[member].data.is_part_of(&theirs) {
            self.fact(Fact::ForeignHistory { member: config::member_name(member) });
        }
        if !lagging && self.now_ns >= self.hosts[member].disk_stalls_until_ns {
            self.hosts[member].data.receive(&theirs, RECORDS_A_TICK);
            self.commits_return(upstream);
        }
    }

    fn replay(&mut self, member: usize) {
        let stalls = self.now_ns < self.hosts[member].replay_stalls_until_ns;
        let data = &mut self.hosts[member].data;
        if !stalls {
            data.replayed = data.wal.len();
        }
    }

    /// `pg_promote` was called: replay to the end, ask the gate, begin a timeline.
    fn promote(&mut self, member: usize) {
        let host = &self.hosts[member];
        let Some(server) = host.server.as_ref().filter(|server| server.promoting) else { return };
        if host.data.replayed < host.data.wal.len()
            || !self.guard_answers(member)
            || server.stopping.is_some()
        {
            return;
        }
        let Some(epoch) = self.gate(member) else { return };
        self.timelines += 1;
        let mark = self.timelines;
        let data = &mut self.hosts[member].data;
        let timeline = data.history.last().map_or(0, |(timeline, _)| *timeline) + 1;
        data.history.push((timeline, data.wal.len()));
        data.wal.push(Record::Timeline(mark));
        data.replayed = data.wal.len();
        data.standby = false;
        if let Some(server) = &mut self.hosts[member].server {
            (server.in_recovery, server.promoting, server.streaming) = (false, false, false);
            server.epoch = epoch;
        }
        self.note(format!("{} leaves recovery at epoch {epoch}, timeline {timeline}", self.name(member)));
        let name = config::member_name(member);
        self.fact(Fact::Promoted { member: name, epoch });
        self.look_at_writers();
    }

    /// A clock that others wait by: how long a tool takes.
    pub fn tool_takes_ns(&mut self) -> u64 {
        self.rng.random_range(200 * MS..3_000 * MS)
    }
}
