//! The `Collect` effect: no candidate could be promoted, so they and one fenced guard are asked again, about once a
//! second. Proposed only when something has changed, or every few seconds: the log is not for waiting.
//!
//! Each proposal that changes nothing is answered by the core with a new `Collect`, perhaps for another guard, so what was
//! told last is remembered beside the tasks.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use regent_core::Body;
use regent_types::{
    CandidateReport, ClusterName, Directive, EffectKey, Epoch, Evidence, FencedEvidence, MemberName,
    OperationId, Outcome,
};

use super::{Context, ask, prepare};

/// Between two rounds of questions.
const INTERVAL: Duration = Duration::from_secs(1);
/// Unchanged reports are proposed again after this long: the core may know something new (a consent), and it asks the
/// fenced guards in turns.
const REPEAT_MS: u64 = 5_000;

type News = (Option<FencedEvidence>, Vec<CandidateReport>);

struct Last {
    operation: OperationId,
    news: News,
    at_ms: u64,
}

/// What was last proposed, per cluster and guard asked.
#[derive(Default)]
pub(super) struct Told(Mutex<BTreeMap<(ClusterName, MemberName), Last>>);

impl Told {
    /// Whether `news` are worth an entry in the log; if so they count as told.
    fn worth(&self, key: &EffectKey, member: &MemberName, news: &News, now_ms: u64) -> bool {
        let mut told = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let place = (key.cluster.clone(), member.clone());
        let known = told.get(&place).is_some_and(|last| {
            last.operation == key.operation
                && last.news == *news
                && now_ms.saturating_sub(last.at_ms) < REPEAT_MS
        });
        if !known {
            told.insert(place, Last { operation: key.operation, news: news.clone(), at_ms: now_ms });
        }
        !known
    }
}

pub(super) async fn run(
    context: &Context,
    key: &EffectKey,
    epoch: Epoch,
    member: &MemberName,
    candidates: &[MemberName],
) {
    let mut n = 0;
    while context.wanted(key) {
        // Two keys a round: the fence's before the preparation's.
        n += 2;
        let acknowledged = acknowledge(context, key, member, epoch, n).await;
        let mut asked = candidates.to_vec();
        if acknowledged.is_some() && !asked.contains(member) {
            asked.push(member.clone());
        }
        let directive = Directive::Prepare { fenced: epoch, promises_void: promises_void(context, key) };
        let reports = prepare::prepare(context, key, directive, &asked, n + 1, INTERVAL).await;
        let news = (acknowledged.clone(), without_stamps(&reports));
        let something = acknowledged.is_some() || !reports.is_empty();
        if something && context.told.worth(key, member, &news, context.node.clock.now_ms()) {
            context.prepared.begin(context, &key.cluster, &reports);
            let body = Body::CandidatesReported { key: key.clone(), acknowledged, candidates: reports };
            if !context.propose(body).await {
                return;
            }
        }
        context.node.clock.sleep(INTERVAL).await;
    }
}

/// One attempt to have the guard fence. Asked anew in every round, because its process may be another by now and only the
/// one that reports may be re-appointed; whose answer proves what is the core's to judge.
async fn acknowledge(
    context: &Context,
    key: &EffectKey,
    member: &MemberName,
    epoch: Epoch,
    n: u32,
) -> Option<FencedEvidence> {
    context.node.sessions.pick(&(key.cluster.clone(), member.clone()), None)?;
    let sub = ask::sub_key(key, context.leadership.term, n);
    let directive = Directive::Fence { epoch, grace_ms: 0 };
    match context.node.clock.within(INTERVAL, ask::ask(context, member, &sub, directive, None)).await {
        Some(Outcome::Done(Evidence::Fenced(evidence))) if evidence.epoch >= epoch => Some(evidence),
        _ => None,
    }
}

/// Whether the recorded proof is more than an expiry, so that no promise has to be waited for.
fn promises_void(context: &Context, key: &EffectKey) -> bool {
    let inner = context.node.shared.lock();
    inner.state.clusters.get(&key.cluster).is_some_and(regent_core::Cluster::promises_void)
}

/// Stamps and times left differ each time and mean nothing to a choice.
fn without_stamps(reports: &[CandidateReport]) -> Vec<CandidateReport> {
    let still = |report: &CandidateReport| CandidateReport {
        stamp_ns: 0,
        promise_left_ms: report.promise_left_ms.map(|_| 0),
        ..report.clone()
    };
    reports.iter().map(still).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_news_are_told_again_only_after_a_while() {
        let told = Told::default();
        let cluster = ClusterName::new("c").unwrap();
        let (a, b) = (MemberName::new("a").unwrap(), MemberName::new("b").unwrap());
        let key = EffectKey { cluster, operation: OperationId(1), step: 1, epoch: Epoch(1) };
        let news = (None, Vec::new());
        assert!(told.worth(&key, &a, &news, 0));
        assert!(!told.worth(&EffectKey { step: 2, ..key.clone() }, &a, &news, 4_999));
        assert!(told.worth(&key, &b, &news, 4_999), "another guard is asked");
        assert!(told.worth(&key, &a, &news, 5_000));
        let later = EffectKey { operation: OperationId(2), ..key };
        assert!(told.worth(&later, &a, &news, 5_001), "another operation");
    }
}
