//! What most tests begin with: a primary and its standby, made from nothing.

use std::path::Path;

use regent_types::{
    Branch, DataForm, Directive, Epoch, Evidence, Outcome, PromotedEvidence, RejoinMethod, RejoinedEvidence,
};

use super::{coordinator::Coordinator, member::Member};

pub async fn promote(
    coordinator: &Coordinator,
    member: &str,
    epoch: u64,
    initialize: bool,
) -> PromotedEvidence {
    let instance = coordinator.until(member, "heartbeat", |h| h.report.guard.reachable).await.instance;
    coordinator.appoint(member, epoch);
    let directive =
        Directive::Promote { epoch: Epoch(epoch), instance, initialize, replay_timeout_ms: 20_000 };
    match coordinator.direct(member, directive, None).await {
        Outcome::Done(Evidence::Promoted(evidence)) => evidence,
        other => panic!("promote: {other:?}"),
    }
}

pub async fn rejoin(
    coordinator: &Coordinator,
    member: &str,
    upstream: &Member,
    at: &PromotedEvidence,
    branches: Vec<Branch>,
) -> RejoinedEvidence {
    let upstream = upstream.upstream(at.epoch.0, at.timeline);
    let directive = Directive::Rejoin { upstream, branches, rewind_timeout_ms: 60_000 };
    match coordinator.direct(member, directive, None).await {
        Outcome::Done(Evidence::Rejoined(evidence)) => evidence,
        other => panic!("rejoin: {other:?}"),
    }
}

/// Two members, `a` primary at epoch 1 with a table, `b` its standby.
pub async fn pair(bin: &Path) -> (Coordinator, Member, Member, PromotedEvidence) {
    let coordinator = Coordinator::start(&["a", "b"]).await;
    let a = Member::start("a", bin, &coordinator.url);
    let b = Member::start("b", bin, &coordinator.url);
    coordinator.until("a", "empty", |h| h.report.data.form == DataForm::Empty).await;
    let first = promote(&coordinator, "a", 1, true).await;
    a.sql("CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    coordinator.until("b", "heartbeat", |_| true).await;
    let cloned = rejoin(&coordinator, "b", &a, &first, vec![]).await;
    assert_eq!(cloned.method, RejoinMethod::Cloned);
    coordinator.until("b", "streaming", |h| h.report.wal.streaming).await;
    (coordinator, a, b, first)
}

/// FenceDecided, and the guard's proof.
pub async fn fence(coordinator: &Coordinator, member: &str, epoch: u64) -> regent_types::FencedEvidence {
    coordinator.fence_decided(epoch);
    let fence = Directive::Fence { epoch: Epoch(epoch), grace_ms: 10_000 };
    match coordinator.direct(member, fence, None).await {
        Outcome::Done(Evidence::Fenced(fenced)) => fenced,
        other => panic!("fence: {other:?}"),
    }
}

/// The receiver stopped, the position reported.
pub async fn prepare(coordinator: &Coordinator, member: &str, fenced: u64) -> regent_types::CandidateReport {
    match coordinator
        .direct(member, Directive::Prepare { fenced: Epoch(fenced), promises_void: true }, None)
        .await
    {
        Outcome::Done(Evidence::Prepared(report)) => report,
        other => panic!("prepare: {other:?}"),
    }
}

/// `a` fenced with a row that only it has (100), `b` promoted at epoch 2.
pub async fn diverged(bin: &Path) -> (Coordinator, Member, Member, PromotedEvidence, Branch) {
    let (coordinator, a, b, first) = pair(bin).await;
    prepare(&coordinator, "b", 1).await;
    a.sql("INSERT INTO t VALUES (100)").await;
    fence(&coordinator, "a", 1).await;
    let second = promote(&coordinator, "b", 2, false).await;
    let branch = Branch { epoch: Epoch(1), timeline: first.timeline, switch_lsn: second.switch_lsn };
    (coordinator, a, b, second, branch)
}
