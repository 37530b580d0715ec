//! What operators ask, of any node.

use regent_proto::v1::{
    Automation, AutomationRequest, FailoverRequest, StatusRequest, WatchRequest, failover_reply::Answer,
};
use tonic::Code;

use crate::{agent::Handle, group::Group};

fn failover(epoch: u64, request_id: &str) -> FailoverRequest {
    FailoverRequest {
        cluster: "c".into(),
        reason: "a test".into(),
        expected_epoch: epoch,
        request_id: request_id.into(),
        ..Default::default()
    }
}

fn automation(epoch: u64, request_id: &str) -> AutomationRequest {
    AutomationRequest {
        cluster: "c".into(),
        reason: "a test".into(),
        expected_epoch: epoch,
        request_id: request_id.into(),
        dry_run: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_changes_nothing_and_a_failover_by_hand_moves_the_primary() {
    let group = Group::start().await;
    let m1 = Handle::start("m1", 1, group.urls());
    let m2 = Handle::start("m2", 2, group.urls());
    let follower = group.follower().await;
    group.until_in_sync(follower).await;
    let mut operator = group.operator(follower).await;

    let dry = FailoverRequest { dry_run: true, ..failover(1, "dry") };
    let reply = operator.trigger_failover(dry).await.unwrap().into_inner();
    let Some(Answer::Plan(plan)) = reply.answer else { panic!("{reply:?}") };
    assert_eq!(
        (plan.from_member.as_deref(), plan.to_member.as_deref()),
        (Some("m1"), Some("m2")),
        "{plan:?}"
    );
    assert!(plan.blockers.is_empty(), "{plan:?}");
    assert!(plan.candidates.iter().any(|candidate| candidate.member == "m2" && candidate.chosen));
    let names: Vec<&str> = plan.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["fence", "promote", "redirect", "validate"]);
    let cluster = group.cluster(follower).await.unwrap();
    assert_eq!((cluster.epoch, cluster.fenced_through), (1, 0), "a dry run is dry");

    for (request, code, word) in [
        (FailoverRequest { reason: " ".into(), ..failover(1, "a") }, Code::InvalidArgument, "reason"),
        (failover(1, ""), Code::InvalidArgument, "request_id"),
        (FailoverRequest { target: Some("M2".into()), ..failover(1, "a") }, Code::InvalidArgument, "target"),
        (FailoverRequest { target: Some("m3".into()), ..failover(1, "a") }, Code::NotFound, "m3"),
        (FailoverRequest { cluster: "x".into(), ..failover(1, "a") }, Code::NotFound, "cluster x"),
        (failover(9, "a"), Code::Aborted, "epoch 9 was expected, the current one is 1"),
        (FailoverRequest { target: Some("m1".into()), ..failover(1, "a") }, Code::FailedPrecondition, "m1"),
    ] {
        let status = operator.trigger_failover(request.clone()).await.unwrap_err();
        assert_eq!(status.code(), code, "{request:?}: {status}");
        assert!(status.message().contains(word), "{request:?}: {status}");
    }

    let reply = operator.trigger_failover(failover(1, "once")).await.unwrap().into_inner();
    let Some(Answer::Operation(id)) = reply.answer else { panic!("{reply:?}") };
    group
        .until(follower, "m2 primary", |c| c.primary.as_deref() == Some("m2") && c.operation.is_none())
        .await;
    let again = operator.trigger_failover(failover(1, "once")).await.unwrap().into_inner();
    assert_eq!(again.answer, Some(Answer::Operation(id)), "the same request id returns the first answer");
    let report = group.operation(follower, id).await;
    assert_eq!(report.requested_by, "regent://operator/plaintext");
    assert_eq!(report.request_id.as_deref(), Some("once"));
    assert_eq!(report.summary.as_ref().unwrap().to_epoch, Some(2));
    drop((m1, m2));
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_stops_automation_and_is_seen_by_watchers_everywhere() {
    let group = Group::start().await;
    let m1 = Handle::start("m1", 1, group.urls());
    let m2 = Handle::start("m2", 2, group.urls());
    let follower = group.follower().await;
    group.until_in_sync(follower).await;
    let mut operator = group.operator(follower).await;
    let watch = WatchRequest { from_sequence: 0, cluster: Some("c".into()) };
    let mut events = operator.watch(watch).await.unwrap().into_inner();

    let dry = AutomationRequest { dry_run: true, ..automation(1, "d") };
    assert!(operator.pause(dry).await.unwrap().into_inner().changed);
    assert_eq!(group.cluster(follower).await.unwrap().automation, Automation::Automatic as i32);
    let paused = operator.pause(automation(1, "p")).await.unwrap().into_inner();
    assert_eq!((paused.automation, paused.changed), (Automation::Paused as i32, true));
    let twice = operator.pause(automation(1, "q")).await.unwrap_err();
    assert_eq!(twice.code(), Code::FailedPrecondition, "{twice}");
    let repeated = operator.pause(automation(1, "p")).await.unwrap().into_inner();
    assert!(!repeated.changed, "the same request id a second time");
    group.until(follower, "paused", |c| c.automation == Automation::Paused as i32).await;

    // Leases go on while automation is paused.
    let before = m1.lock().granted.len();
    crate::group::eventually("leases go on", || async { (m1.lock().granted.len() > before).then_some(()) })
        .await;
    operator.resume(automation(1, "r")).await.unwrap();

    let mut kinds = Vec::new();
    let mut last = 0;
    while kinds.last().map(String::as_str) != Some("resumed") {
        let event = events.message().await.unwrap().expect("the stream goes on");
        assert_eq!(event.sequence, last + 1, "events come in order and without holes");
        last = event.sequence;
        kinds.push(event.kind);
    }
    assert_eq!(kinds.first().map(String::as_str), Some("cluster_configured"));
    assert!(kinds.iter().any(|kind| kind == "paused"), "{kinds:?}");
    drop(m2);
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_alone_answers_from_its_own_state_and_says_so() {
    let group = Group::start().await;
    let m1 = Handle::start("m1", 1, group.urls());
    let m2 = Handle::start("m2", 2, group.urls());
    let leader = group.leader().await;
    group.until_in_sync(leader).await;
    group.isolate(leader, true);
    let cluster = crate::group::eventually("a status without a leader", || async {
        let status = group.status(leader).await;
        status.leader.is_none().then_some(status)
    })
    .await;
    assert_eq!(cluster.clusters[0].primary.as_deref(), Some("m1"));
    let mut operator = group.operator(leader).await;
    let refused = operator.pause(automation(1, "p")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    let unknown = operator.get_status(StatusRequest { cluster: Some("nope".into()) }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    drop((m1, m2));
    group.stop().await;
}
