//! The ways back that are not a plain rewind.

mod common;

use std::{os::unix::fs::PermissionsExt, path::Path, time::Duration};

use common::{
    LONG, eventually,
    member::Member,
    newest,
    scene::{diverged, fence, pair, prepare, promote, rejoin},
};
use regent_types::{Branch, Directive, Epoch, Evidence, Outcome, RejoinMethod};

/// From now on the guard's `pg_rewind` begins, damages nothing, and never ends.
async fn rewind_hangs(member: &mut Member) {
    let folder = member.path("tools");
    std::fs::create_dir(&folder).unwrap();
    for entry in std::fs::read_dir(&member.bin).unwrap().flatten() {
        std::os::unix::fs::symlink(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    let rewind = folder.join("pg_rewind");
    std::fs::remove_file(&rewind).unwrap();
    std::fs::write(&rewind, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    std::fs::set_permissions(&rewind, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    member.configure(&folder);
    // The guard reads its configuration at its start; `a` is fenced and stopped, so nothing is lost.
    member.kill_guard();
    member.start_guard();
}

#[tokio::test]
async fn a_rewind_over_its_budget_is_followed_by_a_clone() {
    let (coordinator, mut a, b, second, branch) = diverged(&newest()).await;
    rewind_hangs(&mut a).await;
    coordinator.forget("a");
    coordinator.until("a", "heartbeat", |h| h.report.guard.reachable).await;
    let upstream = b.upstream(2, second.timeline);
    let directive = Directive::Rejoin { upstream, branches: vec![branch], rewind_timeout_ms: 700 };
    let Outcome::Done(Evidence::Rejoined(evidence)) = coordinator.direct("a", directive, None).await else {
        panic!()
    };
    assert_eq!(evidence.method, RejoinMethod::Cloned);
    assert!(evidence.reason.unwrap().contains("700 ms"));
    assert!(evidence.copied_bytes > 0);
    assert_eq!(evidence.salvage.unwrap().transactions, 1);
    assert_eq!(a.sql("SELECT n FROM t").await, ["1"]);
}

#[tokio::test]
async fn an_agent_killed_in_a_rewind_clones_after_its_restart_and_salvages_once() {
    let (coordinator, mut a, b, second, branch) = diverged(&newest()).await;
    rewind_hangs(&mut a).await;
    coordinator.forget("a");
    coordinator.until("a", "heartbeat", |h| h.report.guard.reachable).await;
    let upstream = b.upstream(2, second.timeline);
    let directive = Directive::Rejoin { upstream, branches: vec![branch], rewind_timeout_ms: 600_000 };
    let key = coordinator.key(2);
    coordinator.send("a", &key, directive.clone(), None);
    let rewinding = |h: &regent_types::Heartbeat| h.report.job.as_ref().is_some_and(|j| j.kind == "rewind");
    coordinator.until("a", "rewinding", rewinding).await;
    a.kill_agent();
    coordinator.forget("a");
    a.start_agent();
    coordinator.until("a", "heartbeat", |h| h.report.guard.reachable).await;
    // The same directive again, as a coordinator does when the session is back.
    coordinator.send("a", &key, directive, None);
    let Outcome::Done(Evidence::Rejoined(evidence)) = coordinator.outcome(&key).await else { panic!() };
    assert_eq!(evidence.method, RejoinMethod::Cloned);
    assert!(evidence.reason.unwrap().contains("interrupted"));
    assert_eq!(evidence.salvage.unwrap().transactions, 1);
    assert_eq!(std::fs::read_dir(a.path("salvage")).unwrap().count(), 1);
    assert_eq!(a.sql("SELECT n FROM t").await, ["1"]);
}

#[tokio::test]
async fn a_clean_switchover_repoints_the_old_primary_and_loses_nothing() {
    let (coordinator, a, b, first) = pair(&newest()).await;
    a.sql("INSERT INTO t VALUES (2)").await;
    let fenced = fence(&coordinator, "a", 1).await;
    assert!(fenced.clean, "{fenced:?}");
    // The shutdown checkpoint has reached the standby before the primary was gone.
    let received = |h: &regent_types::Heartbeat| h.report.wal.received_lsn > fenced.checkpoint_lsn;
    coordinator.until("b", "the shutdown checkpoint", received).await;
    prepare(&coordinator, "b", 1).await;
    let second = promote(&coordinator, "b", 2, false).await;
    let branch = Branch { epoch: Epoch(1), timeline: first.timeline, switch_lsn: second.switch_lsn };
    let back = rejoin(&coordinator, "a", &b, &second, vec![branch]).await;
    assert_eq!((back.method, back.salvage), (RejoinMethod::Repointed, None));
    b.sql("INSERT INTO t VALUES (3)").await;
    let replicated = || async { (a.sql("SELECT count(*) FROM t").await == ["3"]).then_some(()) };
    eventually("the row at the old primary", LONG, replicated).await;
    // And back again: the same pair, the other way round.
    fence(&coordinator, "b", 2).await;
    prepare(&coordinator, "a", 2).await;
    let third = promote(&coordinator, "a", 3, false).await;
    let branch = Branch { epoch: Epoch(2), timeline: second.timeline, switch_lsn: third.switch_lsn };
    let again = rejoin(&coordinator, "b", &a, &third, vec![branch]).await;
    assert_eq!(again.method, RejoinMethod::Repointed, "{again:?}");
}

#[tokio::test]
async fn a_directory_without_a_known_lineage_is_kept_beside_the_clone() {
    let (coordinator, mut a, b, second, branch) = diverged(&newest()).await;
    a.kill_agent();
    std::fs::remove_file(a.path("agent/agent.state")).unwrap();
    coordinator.forget("a");
    a.start_agent();
    coordinator.until("a", "lineage lost", |h| h.report.data.lineage == Epoch::NONE).await;
    let back = rejoin(&coordinator, "a", &b, &second, vec![branch]).await;
    assert_eq!(back.method, RejoinMethod::Cloned);
    let kept = std::fs::read_dir(a.path("pg")).unwrap().flatten();
    let kept: Vec<String> = kept.filter_map(|e| e.file_name().into_string().ok()).collect();
    assert!(kept.iter().any(|n| n.starts_with("data.regent-kept-")), "{kept:?}");
    assert!(Path::new(&a.data()).join("standby.signal").exists());
}

#[tokio::test]
async fn the_members_own_settings_survive_a_rewind() {
    let (coordinator, a, b, second, branch) = diverged(&newest()).await;
    let conf = a.data().join("postgresql.conf");
    let text = std::fs::read_to_string(&conf).unwrap() + "work_mem = '7MB'\n";
    std::fs::write(&conf, text).unwrap();
    assert_eq!(rejoin(&coordinator, "a", &b, &second, vec![branch]).await.method, RejoinMethod::Rewound);
    assert_eq!(a.sql("SHOW work_mem").await, ["7MB"]);
    assert_eq!(a.sql("SHOW cluster_name").await, ["a"]);
    tokio::time::timeout(Duration::from_secs(60), a.sql("SELECT 1")).await.unwrap();
}
