//! What rejoining does to a data directory (agent/src/rejoin), and what the invariants are told of it.

use regent_agent_core::{Mark, Rejoining, Step, UpstreamWal};
use regent_types::{Branch, Epoch, RejoinMethod, SalvageCompleteness, SalvageSummary, Upstream};

use crate::{
    config,
    event::Address,
    invariant::Fact,
    postgres::{Data, lsn, records},
    world::World,
};

impl World {
    /// executor/steps.rs, `rejoining`.
    pub fn rejoining(&mut self, member: usize, epoch: Epoch) -> &mut Rejoining {
        let state = &mut self.hosts[member].agent.state;
        if state.rejoining.as_ref().is_none_or(|record| record.epoch != epoch) {
            let cloned =
                state.rejoining.as_ref().is_some_and(|record| record.cloned) && state.lineage == Epoch::NONE;
            state.rejoining = Some(Rejoining { cloned, ..Rejoining::begin(epoch) });
        }
        state.rejoining.as_mut().expect("made above")
    }

    /// What a step does before it takes its time: marks are on disk first.
    pub fn before_step(&mut self, member: usize, step: &Step) {
        match step {
            Step::Rewind { upstream, .. } => {
                self.rejoining(member, upstream.epoch);
                self.hosts[member].agent.state.mark = Some(Mark::Rewinding);
            }
            Step::Clone { keep_old, .. } => {
                let state = &mut self.hosts[member].agent.state;
                if state.mark.is_none() && !keep_old {
                    state.mark = Some(Mark::Cloning);
                }
            }
            _ => {}
        }
    }

    /// The upstream serves its data now.
    fn source(&self, member: usize, upstream: &Upstream) -> Option<usize> {
        let there = config::member_index(&upstream.member);
        let server = self.hosts[there].server.as_ref()?;
        let serves = server.is_accepting(self.now_ns)
            && self.net.connects(Address::Member(member), Address::Member(there));
        serves.then_some(there)
    }

    /// Where the upstream's WAL begins: here it keeps everything.
    pub fn ask_upstream(&self, member: usize, upstream: &Upstream) -> UpstreamWal {
        match self.source(member, upstream) {
            Some(_) => UpstreamWal::From(lsn(0)),
            None => UpstreamWal::Unreachable("it does not answer".into()),
        }
    }

    /// Keeps what is beyond the branch.
    pub fn salvage(&mut self, member: usize, branch: &Branch, epoch: Epoch) {
        let host = &mut self.hosts[member];
        let writes: Vec<u32> = host.data.writes_from(records(branch.switch_lsn)).collect();
        let summary = SalvageSummary {
            folder: format!("salvage-{}", branch.epoch),
            epoch: branch.epoch,
            timeline: branch.timeline,
            from_lsn: branch.switch_lsn,
            to_lsn: host.data.end(),
            transactions: writes.len() as u64,
            span_ms: 0,
            completeness: SalvageCompleteness::Complete,
            relations: Vec::new(),
            relations_total: 0,
            data: None,
        };
        host.salvaged.extend(writes);
        host.agent.state.salvage = Some(summary);
        self.rejoining(member, epoch).salvaged = true;
        self.note(format!("{} salvages from {}", self.name(member), branch.switch_lsn));
    }

    /// `pg_rewind`: back to the point where the timelines parted, then the source's blocks and WAL.
    pub fn rewind(&mut self, member: usize, upstream: &Upstream) {
        let refused = match self.source(member, upstream) {
            None => Some("rewind failed: the source does not answer".to_owned()),
            Some(there) => {
                let (own, theirs) = (&self.hosts[member].data, &self.hosts[there].data);
                let common = own.history.iter().zip(&theirs.history).take_while(|(a, b)| a == b).count();
                let branched = own.history.len() > common || theirs.history.len() > common;
                let needless = theirs.history.get(common).is_some_and(|(_, at)| own.wal.len() <= *at)
                    && own.history.len() == common;
                (!branched || needless).then(|| "pg_rewind found nothing to rewind".to_owned())
            }
        };
        if let Some(reason) = refused {
            self.rejoining(member, upstream.epoch).clone_reason = Some(reason);
            return;
        }
        let Some(there) = self.source(member, upstream) else { return };
        let fresh = self.copy_of(there, upstream);
        self.replace(member, fresh, false);
        let record = self.rejoining(member, upstream.epoch);
        (record.method, record.copied_bytes) = (Some(RejoinMethod::Rewound), 1);
        self.hosts[member].agent.state.mark = None;
        self.note(format!("{} is rewound", self.name(member)));
    }

    /// `pg_basebackup`.
    pub fn clone_from(&mut self, member: usize, upstream: &Upstream, keep_old: bool) -> Result<(), String> {
        let there = self.source(member, upstream).ok_or("the upstream does not answer")?;
        let fresh = self.copy_of(there, upstream);
        self.replace(member, fresh, keep_old);
        let record = self.rejoining(member, upstream.epoch);
        (record.method, record.copied_bytes, record.cloned) = (Some(RejoinMethod::Cloned), 2, true);
        let state = &mut self.hosts[member].agent.state;
        state.lineage = Epoch::NONE;
        (state.promoting, state.mark) = (None, None);
        self.note(format!("{} is cloned", self.name(member)));
        Ok(())
    }

    fn copy_of(&self, there: usize, upstream: &Upstream) -> Data {
        Data {
            standby: true,
            upstream: Some(upstream.host.clone()),
            clean: false,
            ..self.hosts[there].data.clone()
        }
    }

    /// Another directory takes the place of the old one.
    fn replace(&mut self, member: usize, fresh: Data, keep_old: bool) {
        let old = std::mem::replace(&mut self.hosts[member].data, fresh);
        if keep_old {
            return self.hosts[member].kept.push(old);
        }
        let writes = self.unsalvaged(member, &old, &self.hosts[member].data);
        if !writes.is_empty() {
            let kept = self.hosts[member].kept.clone();
            let writes: Vec<u32> = writes
                .into_iter()
                .filter(|write| !kept.iter().any(|data| data.writes_from(0).any(|id| id == *write)))
                .collect();
            if !writes.is_empty() {
                self.fact(Fact::Discarded { member: config::member_name(member), writes });
            }
        }
    }

    /// Acknowledged writes that only `old` has, and no salvage of this member.
    fn unsalvaged(&self, member: usize, old: &Data, other: &Data) -> Vec<u32> {
        let from = old.divergent_from(other);
        let writes = old.writes_from(from);
        writes
            .filter(|id| self.writes[*id as usize].acknowledged)
            .filter(|id| !self.hosts[member].salvaged.contains(id))
            .collect()
    }

    /// A standby starts at the end of a rejoin: divergent WAL would be recycled from now on.
    pub fn starts_after_rejoin(&mut self, member: usize, upstream: usize) {
        let (own, theirs) = (&self.hosts[member].data, &self.hosts[upstream].data);
        if own.is_part_of(theirs) {
            return;
        }
        let writes = self.unsalvaged(member, own, theirs);
        let attached = self.upstream_of(member) == Some(upstream);
        // What the upstream may still replay or receive is no divergence; it is a primary, so there is nothing like that.
        if attached && !writes.is_empty() {
            self.fact(Fact::StartedDivergent { member: config::member_name(member), writes });
        }
    }
}
