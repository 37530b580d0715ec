//! The `Collect` effect: no candidate could be promoted, so they and the old primary's guard are asked again, about once
//! a second. Proposed only when something has changed, or every few seconds: the log is not for waiting.

use std::time::Duration;

use regent_core::Body;
use regent_types::{CandidateReport, EffectKey, Epoch, FencedEvidence, MemberName};

use super::{Context, fence, prepare};

/// Between two rounds of questions.
const INTERVAL: Duration = Duration::from_secs(1);
/// Unchanged reports are proposed again after so many rounds, in case the core knows something new (a consent).
const REPEAT_ROUNDS: u32 = 5;

pub(super) async fn run(
    context: &Context,
    key: &EffectKey,
    epoch: Epoch,
    member: &MemberName,
    candidates: &[MemberName],
) {
    let mut last: Option<(Option<FencedEvidence>, Vec<CandidateReport>)> = None;
    let mut unchanged = 0;
    let mut n = 0;
    let mut acknowledged = None;
    while context.wanted(key) {
        n += 1;
        if acknowledged.is_none() {
            acknowledged = fence::acknowledge_once(context, key, member, epoch, INTERVAL).await;
        }
        let mut asked = candidates.to_vec();
        if acknowledged.is_some() && !asked.contains(member) {
            asked.push(member.clone());
        }
        let prepared = prepare::prepare(context, key, epoch, &asked, n, INTERVAL).await;
        let news = (acknowledged.clone(), without_stamps(&prepared.reports));
        unchanged = if last.as_ref() == Some(&news) { unchanged + 1 } else { 0 };
        let something = acknowledged.is_some() || !prepared.reports.is_empty();
        if something && unchanged % REPEAT_ROUNDS == 0 {
            context.prepared.begin(context, &key.cluster, &prepared.reports);
            let body = Body::CandidatesReported {
                key: key.clone(),
                acknowledged: acknowledged.clone(),
                candidates: prepared.reports,
            };
            if !context.propose(body).await {
                return;
            }
        }
        last = Some(news);
        context.node.clock.sleep(INTERVAL).await;
    }
}

/// A stamp differs each time and means nothing to a choice.
fn without_stamps(reports: &[CandidateReport]) -> Vec<CandidateReport> {
    reports.iter().map(|report| CandidateReport { stamp_ns: 0, ..report.clone() }).collect()
}
