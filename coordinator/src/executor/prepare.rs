//! Preparing candidates: stop the WAL receiver, close promises, report. A report's stamp counts as a heartbeat, so that
//! the winner's lease can leave together with its promotion instead of one round trip later.
//!
//! Invariant: a grant made here obeys rule 5.2 as any other: the quorum round began after the report arrived, the lock
//! is held over state and table, and the table judges. Without one, the agent's next heartbeat brings the lease.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use regent_raft::Confirmed;
use regent_types::{
    CandidateReport, ClusterName, Directive, EffectKey, Epoch, Evidence, Grant, Heartbeat, InstanceId,
    LeaseDecision, MemberName, Outcome,
};
use tokio::{sync::watch, task::JoinSet};

use super::{Context, ask};

/// How long the others may take after the first candidate has answered.
const AFTER_FIRST: Duration = Duration::from_millis(1500);
/// Longest wait for a round that runs beside the commit.
const GRANT_WAIT: Duration = Duration::from_millis(1000);

/// Prepares all of `members` at once. Waits for those that have a session until [`AFTER_FIRST`] after the first answer,
/// and not longer than `limit`.
pub(super) async fn prepare(
    context: &Context,
    key: &EffectKey,
    directive: Directive,
    members: &[MemberName],
    n: u32,
    limit: Duration,
) -> Vec<CandidateReport> {
    let mut asked = JoinSet::new();
    for member in members {
        let (context, member) = (context.clone(), member.clone());
        let (key, directive) = (ask::sub_key(key, context.leadership.term, n), directive.clone());
        asked.spawn(async move {
            loop {
                let outcome = ask::ask(&context, &member, &key, directive.clone(), None).await;
                match outcome {
                    Outcome::Done(Evidence::Prepared(report)) if report.member == member => return report,
                    other => tracing::info!(%member, ?other, "a candidate did not prepare; asking again"),
                }
                context.node.clock.sleep(Duration::from_millis(300)).await;
            }
        });
    }
    let clock = &context.node.clock;
    let started_ms = clock.now_ms();
    let mut patience = limit;
    let mut reports: Vec<CandidateReport> = Vec::new();
    let sessions = &context.node.sessions;
    loop {
        let outstanding = members.iter().filter(|m| !reports.iter().any(|report| report.member == **m));
        let reachable = outstanding
            .filter(|m| sessions.pick(&(key.cluster.clone(), (*m).clone()), None).is_some())
            .count();
        if asked.is_empty() || (reachable == 0 && !reports.is_empty()) {
            break;
        }
        let elapsed = Duration::from_millis(clock.now_ms().saturating_sub(started_ms));
        let Some(left) = patience.checked_sub(elapsed) else { break };
        let answer = clock.within(left.min(Duration::from_millis(100)), asked.join_next()).await;
        if let Some(Some(Ok(report))) = answer {
            if reports.is_empty() {
                patience = patience.min(elapsed + AFTER_FIRST);
            }
            reports.push(report);
        }
    }
    reports.sort_by(|a, b| a.member.cmp(&b.member));
    reports
}

/// A round that was begun after the reports arrived; `None` until it has ended, `Some(None)` when it failed.
type Round = watch::Receiver<Option<Option<Confirmed>>>;

/// Reports that may count as heartbeats, with the quorum round that was begun after they arrived.
#[derive(Default)]
pub struct Prepared {
    entries: Mutex<BTreeMap<(ClusterName, MemberName), (Heartbeat, Round)>>,
}

impl Prepared {
    /// Begins a round for reports that have just arrived. Called right before they are proposed, so that the round and
    /// the commit run beside each other.
    pub(super) fn begin(&self, context: &Context, cluster: &ClusterName, reports: &[CandidateReport]) {
        let heartbeats: Vec<Heartbeat> = {
            let inner = context.node.shared.lock();
            let now_ns = context.node.clock.now_ns();
            reports
                .iter()
                .filter_map(|report| {
                    let (last, _) = inner.detector.last_report(now_ns, cluster, &report.member)?;
                    Some(Heartbeat {
                        instance: report.instance,
                        boot: report.boot.clone(),
                        stamp_ns: report.stamp_ns,
                        nonce: 0,
                        ..last.clone()
                    })
                })
                .collect()
        };
        let (tx, rx) = watch::channel(None);
        let mut entries = self.entries.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for heartbeat in heartbeats {
            entries.insert((cluster.clone(), heartbeat.member.clone()), (heartbeat, rx.clone()));
        }
        drop(entries);
        let node = context.node.clone();
        tokio::spawn(async move {
            let round = node.raft.confirm_leadership(node.clock.deadline(GRANT_WAIT)).await;
            tx.send_replace(Some(round.ok()));
        });
    }

    /// The lease that goes with a promotion, if the report's round confirmed this leadership.
    pub(super) async fn grant(
        &self,
        context: &Context,
        cluster: &ClusterName,
        member: &MemberName,
        epoch: Epoch,
        instance: InstanceId,
    ) -> Option<Grant> {
        let key = (cluster.clone(), member.clone());
        // Taken: a report is a heartbeat once.
        let taken = self.entries.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(&key);
        let (heartbeat, mut round) = taken?;
        let clock = &context.node.clock;
        let ended = clock.within(GRANT_WAIT, round.wait_for(Option::is_some)).await?.ok()?;
        let confirmed = (*ended)??;
        drop(ended);
        let mut inner = context.node.shared.lock();
        let confirmed = inner.confirmed(&confirmed);
        let inner = &mut *inner;
        let answer = inner.leases.grant(clock.now_ns(), &confirmed, &inner.state, &heartbeat).ok()?;
        match answer.lease {
            LeaseDecision::Granted(grant) if grant.epoch == epoch && grant.instance == instance => {
                Some(grant)
            }
            LeaseDecision::Granted(_) | LeaseDecision::Refused(_) => None,
        }
    }
}
