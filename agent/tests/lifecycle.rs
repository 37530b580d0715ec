//! From two empty directories to a primary and its standby, a failover, and back: real guard, real PostgreSQL, a coordinator
//! that does what the test says.

mod common;

use std::path::Path;

use common::{
    newest, postgres_bins,
    scene::{pair, promote, rejoin},
};
use regent_types::{Branch, Directive, Epoch, Evidence, Outcome, PostgresState, RejoinMethod};

async fn failover_and_rejoin(bin: &Path) {
    let (coordinator, mut a, b, first) = pair(bin).await;
    assert_eq!(b.sql("SELECT n FROM t").await, ["1"]);
    assert_eq!(a.get("/primary").await.0, 200);
    assert_eq!(a.get("/replica").await.0, 503);
    assert_eq!(b.get("/replica").await.0, 200);
    assert!(a.get("/metrics").await.1.contains("regent_agent_postgres_primary 1"));
    let seen = coordinator.until("a", "standby seen", |h| !h.report.wal.standbys.is_empty()).await;
    assert_eq!(seen.report.wal.standbys[0].member.as_str(), "b");

    // The agent is killed and restarted: PostgreSQL is not touched.
    let started = a.sql("SELECT pg_postmaster_start_time()").await;
    a.kill_agent();
    coordinator.forget("a");
    a.start_agent();
    coordinator.until("a", "primary again", |h| h.report.postgres.state == PostgresState::Primary).await;
    assert_eq!(a.sql("SELECT pg_postmaster_start_time()").await, started);

    // Prepare cuts `b` off; what `a` writes from now on is divergent.
    let prepared = match coordinator
        .direct("b", Directive::Prepare { fenced: Epoch(1), promises_void: true }, None)
        .await
    {
        Outcome::Done(Evidence::Prepared(report)) => report,
        other => panic!("prepare: {other:?}"),
    };
    assert_eq!((prepared.lineage, prepared.promises_closed), (Epoch(1), Epoch(1)));
    assert!(prepared.received_lsn.is_some() && prepared.refused.is_none(), "{prepared:?}");
    a.sql("INSERT INTO t VALUES (100)").await;
    a.sql("INSERT INTO t VALUES (101)").await;

    coordinator.fence_decided(1);
    let fence = Directive::Fence { epoch: Epoch(1), grace_ms: 5_000 };
    match coordinator.direct("a", fence, None).await {
        Outcome::Done(Evidence::Fenced(fenced)) => assert_eq!(fenced.epoch, Epoch(1)),
        other => panic!("fence: {other:?}"),
    }
    coordinator.until("a", "stopped", |h| h.report.postgres.state == PostgresState::Stopped).await;

    let second = promote(&coordinator, "b", 2, false).await;
    assert!(second.timeline > first.timeline);
    assert_eq!(second.system_id, first.system_id);
    b.sql("INSERT INTO t VALUES (2)").await;

    // A directive of the past is refused with both values.
    let stale = Directive::Prepare { fenced: Epoch(1), promises_void: true };
    match coordinator.direct("b", stale, None).await {
        Outcome::Refused { reason } => assert!(reason.contains('1') && reason.contains('2'), "{reason}"),
        other => panic!("stale: {other:?}"),
    }

    let branch = Branch { epoch: Epoch(1), timeline: first.timeline, switch_lsn: second.switch_lsn };
    let rejoined = rejoin(&coordinator, "a", &b, &second, vec![branch.clone()]).await;
    assert_eq!(rejoined.method, RejoinMethod::Rewound, "{rejoined:?}");
    let salvage = rejoined.salvage.expect("a salvage");
    assert_eq!(salvage.transactions, 2, "{salvage:?}");
    assert_eq!(salvage.completeness, regent_types::SalvageCompleteness::Complete);
    assert!(Path::new(&salvage.folder).join("manifest.json").exists());
    assert_eq!(a.sql("SELECT n FROM t ORDER BY 1").await, ["1", "2"]);
    // Asked again under another key: nothing to do.
    let again = rejoin(&coordinator, "a", &b, &second, vec![branch]).await;
    assert_eq!(again.salvage.map(|s| s.folder), Some(salvage.folder));
}

#[tokio::test]
async fn failover_and_rejoin_on_the_oldest_postgresql() {
    failover_and_rejoin(&postgres_bins().remove(0)).await;
}

#[tokio::test]
async fn failover_and_rejoin_on_the_newest_postgresql() {
    failover_and_rejoin(&newest()).await;
}
