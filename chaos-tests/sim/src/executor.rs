//! The leader's executor: one task per effect in the state, begun anew by every leader, so each effect is carried out at
//! least once (coordinator/src/executor/mod.rs). The tasks themselves are in `task.rs`.

use std::collections::BTreeMap;

use regent_core::{Effect, EffectKind};
use regent_types::{CandidateReport, EffectKey, Grant, Heartbeat, LeaseDecision, MemberName, mutant};

use crate::{config, task::Task, world::World};

/// What a leadership works on.
#[derive(Debug, Default)]
pub struct Executor {
    pub tasks: BTreeMap<EffectKey, Task>,
    /// Candidates' reports that may count as heartbeats, with their rounds.
    pub prepared: BTreeMap<MemberName, (Heartbeat, u64, u64)>,
    /// What was told of candidates that cannot be promoted, and when.
    pub told: BTreeMap<MemberName, (u64, String, u64)>,
    /// Only with the mutant that keeps effects there.
    remembered: Vec<Effect>,
}

impl Executor {
    /// A mutant's memory.
    pub fn remember(&mut self, effects: &[Effect]) {
        self.remembered.extend_from_slice(effects);
    }
}

impl World {
    /// Starts and stops tasks so that they match the state, and gets on with each.
    pub fn execute(&mut self, node: usize) {
        let now = &mut self.nodes[node];
        let mut effects: Vec<Effect> = now.cluster().map_or(Vec::new(), |cluster| cluster.effects().to_vec());
        if mutant::is_on(mutant::Mutant::EffectInLeaderMemory) {
            let remembered = &now.executor.remembered;
            effects.retain(|effect| remembered.iter().any(|known| known.key == effect.key));
        }
        now.executor.tasks.retain(|key, _| effects.iter().any(|effect| effect.key == *key));
        for effect in effects {
            now.executor.tasks.entry(effect.key.clone()).or_insert_with(|| Task::new(&effect));
        }
        let keys: Vec<EffectKey> = now.executor.tasks.keys().cloned().collect();
        for key in keys {
            // A proposal of an earlier task may have retired this effect, or ended the leadership.
            let wanted = self.wants(node, &key);
            let Some(mut task) = self.nodes[node].executor.tasks.remove(&key).filter(|_| wanted) else {
                continue;
            };
            let leadership = self.nodes[node].leadership;
            self.get_on(node, &key, &mut task);
            if self.nodes[node].leadership == leadership {
                self.nodes[node].executor.tasks.insert(key, task);
            }
        }
    }

    /// Whether the state still wants it.
    pub fn wants(&self, node: usize, key: &EffectKey) -> bool {
        let now = &self.nodes[node];
        now.leadership.is_some()
            && now.cluster().is_some_and(|cluster| cluster.effects().iter().any(|effect| effect.key == *key))
    }

    /// Begins a round for reports that have just arrived (executor/prepare.rs, `Prepared::begin`).
    pub fn prepare_grants(&mut self, node: usize, reports: &[CandidateReport]) {
        let now_ns = self.node_ns(node);
        let name = config::cluster_name();
        let heartbeats: Vec<Heartbeat> = reports
            .iter()
            .filter_map(|report| {
                let (last, _) = self.nodes[node].detector.last_report(now_ns, &name, &report.member)?;
                Some(Heartbeat {
                    instance: report.instance,
                    boot: report.boot.clone(),
                    stamp_ns: report.stamp_ns,
                    nonce: 0,
                    ..last.clone()
                })
            })
            .collect();
        let Some(round) = self.begin_promotion_round(node) else { return };
        for heartbeat in heartbeats {
            let entry = (heartbeat.clone(), round, now_ns);
            self.nodes[node].executor.prepared.insert(heartbeat.member.clone(), entry);
        }
    }

    /// The lease that goes with a promotion: `Err` while its round is under way.
    pub fn prepared_grant(&mut self, node: usize, effect: &EffectKind) -> Result<Option<Grant>, ()> {
        let EffectKind::Agent { member, directive: regent_types::Directive::Promote { epoch, instance, .. } } =
            effect
        else {
            return Ok(None);
        };
        let now_ns = self.node_ns(node);
        let now = &mut self.nodes[node];
        let Some((_, round, began_ns)) = now.executor.prepared.get(member) else { return Ok(None) };
        let Some(confirmed) = now.promotion_rounds.get(round).copied() else {
            if now_ns.saturating_sub(*began_ns) < 1_000_000_000 {
                return Err(());
            }
            now.executor.prepared.remove(member);
            return Ok(None);
        };
        let Some((heartbeat, _, _)) = now.executor.prepared.remove(member) else { return Ok(None) };
        let Ok(answer) = now.leases.grant(now_ns, &confirmed, &now.state, &heartbeat) else {
            return Ok(None);
        };
        Ok(match answer.lease {
            LeaseDecision::Granted(grant) if grant.epoch == *epoch && grant.instance == *instance => {
                Some(grant)
            }
            _ => None,
        })
    }
}
