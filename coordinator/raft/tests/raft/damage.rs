//! Directories that a member must not start on.

use std::{fs, sync::Arc, sync::atomic::Ordering};

use regent_raft::{StartError, StoreError};

use crate::group::{Group, Journal, eventually};

async fn with_snapshot() -> (Group, u64) {
    let mut group = Group::start(|options| {
        options.snapshot_every_entries = 20;
        options.keep_entries = 5;
    })
    .await;
    let (leader, _) = group.leader().await;
    group.propose(leader, 0..60).await;
    eventually("a snapshot and a purge", || group.node(leader).status().purged_index.is_some()).await;
    group.kill_all().await;
    (group, leader)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_in_the_snapshot_is_named() {
    let (mut group, node) = with_snapshot().await;
    let file = group.data_dir(node).join("snapshot");
    let whole = fs::read(&file).unwrap();
    for at in [0, 3, 9, whole.len() / 2, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[at] ^= 4;
        fs::write(&file, flipped).unwrap();
        let error = group.run(node).await.unwrap_err();
        assert!(matches!(error, StartError::Store(StoreError::Damaged { .. })), "{error}");
        assert!(error.to_string().contains("snapshot is damaged"), "{error}");
    }
    fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    assert!(group.run(node).await.is_err());
    fs::write(&file, whole).unwrap();
    group.run(node).await.unwrap();
    group.kill_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_snapshot_is_noticed() {
    let (mut group, node) = with_snapshot().await;
    fs::remove_file(group.data_dir(node).join("snapshot")).unwrap();
    let error = group.run(node).await.unwrap_err();
    assert!(matches!(error, StartError::Recover { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_refuses_its_snapshot_stops_the_start() {
    let (mut group, node) = with_snapshot().await;
    let journal = Arc::new(Journal::default());
    journal.refuse.store(true, Ordering::SeqCst);
    let error = group.run_with(group.options(node), journal.clone()).await.unwrap_err();
    assert!(error.to_string().contains("journal of an unknown make"), "{error}");
    // Nothing was spoilt, and nothing is held: with a machine that understands, it starts.
    group.run(node).await.unwrap();
    group.kill_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_refuses_a_received_snapshot_stops_the_node() {
    let (mut group, _) = with_snapshot().await;
    // A member that was never there: its first state comes as a snapshot.
    for node in [1, 2] {
        group.run(node).await.unwrap();
    }
    group.leader().await;
    let mut options = group.options(3);
    options.data_dir = group.dir.path().join("new");
    let journal = Arc::new(Journal::default());
    journal.refuse.store(true, Ordering::SeqCst);
    group.run_with(options, journal).await.unwrap();
    let node = group.node(3).clone();
    let reason = tokio::time::timeout_at(crate::group::soon(), node.stopped()).await.unwrap();
    assert!(reason.contains("journal of an unknown make"), "{reason}");
    assert_eq!(node.status().role, "stopped");
    assert_eq!(node.leadership().borrow().current, None);
    group.kill_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_members_than_the_founders_are_refused() {
    let (mut group, node) = with_snapshot().await;
    let mut options = group.options(node);
    let other = options.members.keys().copied().find(|id| *id != node).unwrap();
    let moved = options.members.remove(&other).unwrap();
    options.members.insert(7, moved);
    let error = group.run_with(options, Arc::new(Journal::default())).await.unwrap_err();
    assert!(matches!(error, StartError::Members { .. }), "{error}");
    group.run(node).await.unwrap();
    group.kill_all().await;
}
