//! The veto: asked by the leader before it declares an automatic failover.
//!
//! Invariants: an operator's failover, an approval and the re-appointment after a restart of the primary's own guard are
//! never asked for; the detector's tick never waits for the command; an answer is good for one declaration of the epoch and
//! kind of trigger that it was asked for, and only while it is fresh.
//!
//! Interleavings: the answer "no objection" arrives when the primary is back. It starts nothing by itself: the detector must
//! still wish for the failover, and `apply` still judges the declaration. And an answer that arrives when the question has
//! become another one (the epoch rose, silence turned into a broken disk) is dropped: each question has a number.

use std::{
    collections::BTreeMap,
    mem::{Discriminant, discriminant},
    sync::{Arc, Mutex, MutexGuard},
};

use regent_core::{Body, Declare, Trigger};
use regent_types::{ClusterName, Epoch};
use serde_json::json;

use super::{
    Hooks, OnFailure,
    run::{Ended, run},
};
use crate::node::Node;

/// An answer older than this is asked for again.
const FRESH_MS: u64 = 5_000;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Asked { at_ms: u64 },
    NoObjection { at_ms: u64 },
    Objection { at_ms: u64, reason: String },
}

struct Case {
    number: u64,
    epoch: Epoch,
    trigger: Discriminant<Trigger>,
    answer: Answer,
}

/// What the command said, per cluster. Leader's memory: a new leader asks anew.
#[derive(Default)]
pub struct Vetoes(Mutex<Cases>);

#[derive(Default)]
struct Cases {
    asked: u64,
    open: BTreeMap<ClusterName, Case>,
}

impl Vetoes {
    fn lock(&self) -> MutexGuard<'_, Cases> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What of the hook holds a failover of this cluster back, if anything does.
    pub fn objection(&self, now_ms: u64, cluster: &ClusterName) -> Option<String> {
        match &self.lock().open.get(cluster)?.answer {
            Answer::Objection { reason, .. } => Some(reason.clone()),
            Answer::Asked { at_ms } => {
                Some(format!("it was asked {} ms ago and has not answered", now_ms.saturating_sub(*at_ms)))
            }
            Answer::NoObjection { .. } => None,
        }
    }

    /// The cluster has no wish any more: the next one is asked for anew.
    pub fn forget(&self, wished: &[Body]) {
        let wants = |name: &ClusterName| {
            wished.iter().any(|body| matches!(body, Body::Declare(declare) if declare.cluster == *name))
        };
        // One that is being asked stays, or a wish that comes and goes would start run after run.
        self.lock().open.retain(|name, case| matches!(case.answer, Answer::Asked { .. }) || wants(name));
    }

    /// Whether the declaration may be proposed now. If nobody has been asked yet, the command is started.
    pub fn permits(node: &Arc<Node>, declare: &Declare) -> bool {
        let Some(hooks) = node.config.hooks.as_ref().filter(|hooks| !hooks.veto.is_empty()) else {
            return true;
        };
        let now_ms = node.clock.now_ms();
        let (epoch, trigger) = (declare.expected_epoch, discriminant(&declare.trigger));
        let mut cases = node.vetoes.lock();
        let case = cases.open.get(&declare.cluster);
        if let Some(case) = case.filter(|case| case.epoch == epoch && case.trigger == trigger) {
            match &case.answer {
                Answer::Asked { .. } => return false,
                Answer::NoObjection { at_ms } if now_ms.saturating_sub(*at_ms) <= FRESH_MS => {
                    cases.open.remove(&declare.cluster);
                    return true;
                }
                Answer::Objection { at_ms, .. }
                    if u128::from(now_ms.saturating_sub(*at_ms)) < hooks.veto_retry.as_millis() =>
                {
                    return false;
                }
                Answer::NoObjection { .. } | Answer::Objection { .. } => {}
            }
        }
        cases.asked += 1;
        let number = cases.asked;
        let answer = Answer::Asked { at_ms: now_ms };
        cases.open.insert(declare.cluster.clone(), Case { number, epoch, trigger, answer });
        drop(cases);
        tokio::spawn(ask(node.clone(), hooks.clone(), declare.clone(), number));
        false
    }
}

/// Whether the command has a say in this declaration.
pub fn concerns(trigger: &Trigger) -> bool {
    matches!(trigger, Trigger::Partition { .. } | Trigger::PostgresDown { .. } | Trigger::DiskFailure { .. })
}

async fn ask(node: Arc<Node>, hooks: Hooks, declare: Declare, number: u64) {
    node.metrics.vetoes_asked.add(1);
    let evidence = &declare.evidence;
    let question = json!({
        "version": 1,
        "hook": "veto",
        "coordinator": node.config.node_id.0,
        "cluster": declare.cluster.as_str(),
        "epoch": declare.expected_epoch.0,
        "primary": declare.member.as_str(),
        "trigger": declare.trigger,
        "primary_lsn": evidence.primary_lsn.map(|lsn| lsn.to_string()),
        "primary_age_ms": evidence.primary_age_ms,
        "candidates": evidence.heard,
    });
    let input = format!("{question}\n");
    let ended = run(&node.clock, &hooks.veto, "veto", input.as_bytes(), hooks.veto_timeout).await;
    let answer = judge(&ended, hooks.veto_on_failure, node.clock.now_ms());
    if let Ended::Failed { .. } = ended {
        node.metrics.vetoes_failed.add(1);
    }
    tracing::warn!(cluster = %declare.cluster, ?ended, ?answer, "the veto hook has answered");
    let mut news = None;
    {
        let mut cases = node.vetoes.lock();
        let case = cases.open.get_mut(&declare.cluster);
        let Some(case) = case.filter(|case| case.number == number) else { return };
        if let Answer::Objection { reason, .. } = &answer {
            node.metrics.vetoes.add(1);
            news = Some(reason.clone());
        }
        case.answer = answer;
    }
    if let Some(reason) = news {
        let body = Body::Vetoed { cluster: declare.cluster, epoch: declare.expected_epoch, reason };
        if let Err(error) = node.proposer.propose(body).await {
            tracing::debug!(%error, "the veto was not recorded");
        }
    }
}

fn judge(ended: &Ended, on_failure: OnFailure, at_ms: u64) -> Answer {
    let failed = |problem: String| match on_failure {
        OnFailure::Allow => Answer::NoObjection { at_ms },
        OnFailure::Deny => Answer::Objection { at_ms, reason: format!("the veto hook failed: {problem}") },
    };
    match ended {
        Ended::Exit { code: 0, .. } => Answer::NoObjection { at_ms },
        Ended::Exit { code: 1, said, .. } => {
            let reason = if said.is_empty() { "no reason was given" } else { said };
            Answer::Objection { at_ms, reason: reason.to_owned() }
        }
        Ended::Exit { code, errors, .. } => failed(format!("exit code {code}; {errors}")),
        Ended::Failed { reason } => failed(reason.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exit_code_1_objects_and_a_failure_counts_as_configured() {
        let exit = |code| Ended::Exit { code, said: "maintenance".into(), errors: "oh".into() };
        let objection = |reason: &str| Answer::Objection { at_ms: 7, reason: reason.into() };
        assert_eq!(judge(&exit(0), OnFailure::Deny, 7), Answer::NoObjection { at_ms: 7 });
        assert_eq!(judge(&exit(1), OnFailure::Allow, 7), objection("maintenance"));
        assert_eq!(judge(&exit(2), OnFailure::Allow, 7), Answer::NoObjection { at_ms: 7 });
        let denied = objection("the veto hook failed: exit code 2; oh");
        assert_eq!(judge(&exit(2), OnFailure::Deny, 7), denied);
        let late = Ended::Failed { reason: "late".into() };
        assert_eq!(judge(&late, OnFailure::Allow, 7), Answer::NoObjection { at_ms: 7 });
        assert_eq!(judge(&late, OnFailure::Deny, 7), objection("the veto hook failed: late"));
    }
}
