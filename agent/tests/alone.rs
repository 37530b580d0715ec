//! What a member does without a directive: without a coordinator, after crashes, on a refusal, under a lease.

mod common;

use common::{
    LONG, eventually, newest,
    scene::{fence, pair, prepare},
};
use regent_types::{Directive, Epoch, Evidence, Grant, Outcome, PostgresState};

#[tokio::test]
async fn after_a_reboot_without_coordinator_the_standby_starts_and_the_primary_does_not() {
    let (coordinator, mut a, mut b, _) = pair(&newest()).await;
    coordinator.silence(true);
    for member in [&mut a, &mut b] {
        member.kill_agent();
        member.kill_guard();
        member.start_guard();
        member.start_agent();
    }
    let up = || async { b.connect().await.map(drop) };
    eventually("the standby accepts connections", LONG, up).await;
    assert_eq!(b.sql("SELECT pg_is_in_recovery()").await, ["t"]);
    let stays = || async { a.log("regent-agent").contains("starts only under a lease").then_some(()) };
    eventually("the primary says why it stays stopped", LONG, stays).await;
    assert!(a.connect().await.is_none());
    assert_eq!(a.get("/primary").await.0, 503);
}

#[tokio::test]
async fn a_refusal_fences_without_a_directive() {
    let (coordinator, a, _b, _) = pair(&newest()).await;
    coordinator.fence_decided(1);
    coordinator.until("a", "stopped", |h| h.report.postgres.state == PostgresState::Stopped).await;
    let fenced = coordinator.until("a", "fenced", |h| h.report.guard.fenced_through == Epoch(1)).await;
    assert_eq!(fenced.report.guard.lease_epoch, None);
    assert!(a.connect().await.is_none());
}

#[tokio::test]
async fn a_grant_sent_along_counts_from_the_candidates_report() {
    let (coordinator, _a, b, _) = pair(&newest()).await;
    fence(&coordinator, "a", 1).await;
    let report = prepare(&coordinator, "b", 1).await;
    let grant =
        Grant { epoch: Epoch(2), instance: report.instance, stamp_ns: report.stamp_ns, ttl_ms: 20_000 };
    let directive = Directive::Promote {
        epoch: Epoch(2),
        instance: report.instance,
        initialize: false,
        replay_timeout_ms: 10_000,
    };
    // No heartbeat of `b` is granted anything: the lease comes with the directive alone. Nor is it refused meanwhile.
    let key = coordinator.key(2);
    coordinator.send("b", &key, directive.clone(), Some(grant));
    let outcome = coordinator.outcome(&key).await;
    assert!(matches!(outcome, Outcome::Done(Evidence::Promoted(_))), "{outcome:?}");
    coordinator.appoint("b", 2);
    b.sql("INSERT INTO t VALUES (7)").await;
    // The same key again: the first answer, and no second promotion.
    coordinator.send("b", &key, directive, None);
    assert_eq!(coordinator.outcome(&key).await, outcome);
}

#[tokio::test]
async fn a_promotion_for_another_instance_is_refused() {
    let (coordinator, _a, _b, _) = pair(&newest()).await;
    let directive = Directive::Promote {
        epoch: Epoch(2),
        instance: regent_types::InstanceId(1),
        initialize: false,
        replay_timeout_ms: 1_000,
    };
    let Outcome::Refused { reason } = coordinator.direct("b", directive, None).await else { panic!() };
    assert!(reason.contains("bound to instance 00000000000000000000000000000001"), "{reason}");
}

#[tokio::test]
async fn a_primary_that_fenced_itself_in_a_short_cut_goes_on_with_its_next_lease() {
    let (mut coordinator, a, _b, _) = pair(&newest()).await;
    coordinator.ttl_ms = 3_000;
    coordinator.silence(true);
    // The leases of 20 s that are out run down; the guard shuts PostgreSQL down by itself.
    let down = || async { a.connect().await.is_none().then_some(()) };
    eventually("self-fenced", LONG, down).await;
    assert_eq!(a.get("/primary").await.0, 503);
    coordinator.silence(false);
    let up = || async { (a.get("/primary").await.0 == 200).then_some(()) };
    eventually("primary again", LONG, up).await;
    a.sql("INSERT INTO t VALUES (8)").await;
}

#[tokio::test]
async fn a_validation_writes_through_the_name_and_says_where_it_leads() {
    let (coordinator, a, b, _) = pair(&newest()).await;
    let validate = |address: &str| Directive::Validate {
        name: "127.0.0.1".into(),
        address: address.into(),
        port: a.port,
        epoch: Epoch(1),
    };
    let Outcome::Done(Evidence::Validated { address, .. }) =
        coordinator.direct("b", validate("127.0.0.1"), None).await
    else {
        panic!()
    };
    assert_eq!(address, "127.0.0.1");
    assert_eq!(a.sql("SELECT epoch FROM regent.marker").await, ["1"]);
    let Outcome::Unknown { reason } = coordinator.direct("b", validate("127.0.0.9"), None).await else {
        panic!()
    };
    assert!(reason.contains("127.0.0.9"), "{reason}");
    drop(b);
}

#[tokio::test]
async fn a_restarted_agent_finishes_a_promotion_that_it_did_not_see_end() {
    let (coordinator, _a, mut b, _) = pair(&newest()).await;
    fence(&coordinator, "a", 1).await;
    prepare(&coordinator, "b", 1).await;
    let instance = coordinator.heard("b").unwrap().instance;
    coordinator.appoint("b", 2);
    let directive =
        Directive::Promote { epoch: Epoch(2), instance, initialize: false, replay_timeout_ms: 10_000 };
    let key = coordinator.key(2);
    coordinator.send("b", &key, directive.clone(), None);
    coordinator.until("b", "primary", |h| h.report.postgres.state == PostgresState::Primary).await;
    b.kill_agent();
    coordinator.forget("b");
    b.start_agent();
    coordinator.until("b", "heartbeat", |h| h.report.guard.reachable).await;
    coordinator.send("b", &key, directive, None);
    let evidence = match coordinator.outcome(&key).await {
        Outcome::Done(Evidence::Promoted(evidence)) => evidence,
        other => panic!("{other:?}"),
    };
    assert!(evidence.timeline.0 > 1 && evidence.switch_lsn.0 > 0, "{evidence:?}");
}
