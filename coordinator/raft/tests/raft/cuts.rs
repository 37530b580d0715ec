//! Links that fall silent, in both directions or in one.

use std::time::Duration;

use regent_raft::{ConfirmError, ProposeError, TransferError};

use crate::group::{ELECTION, Group, eventually, in_ms, others, soon};

/// Without Pre-Vote the returning member comes with a higher term and deposes the leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_cut_off_does_not_depose_the_leader() {
    let mut group = Group::start(|_| {}).await;
    let (leader, before) = group.leader().await;
    group.propose(leader, 0..3).await;
    group.agree_on("line 2").await;
    let [lost, _] = others(leader);
    let term = group.node(lost).status().term;
    let mut watch = group.node(leader).leadership();
    watch.mark_unchanged();
    group.links.set_all(lost, false);
    group.propose(leader, 3..6).await;
    // The length of the cut is what is tested: several elections would fit in.
    tokio::time::sleep(ELECTION * 5).await;
    assert_eq!(group.node(lost).status().term, term);
    group.links.set_all(lost, true);
    group.agree_on("line 5").await;
    tokio::time::sleep(ELECTION * 2).await;
    assert_eq!(group.node(leader).confirm_leadership(soon()).await.unwrap().leadership, before.leadership);
    assert_eq!(watch.borrow_and_update().current, Some(before.leadership));
    assert_eq!(group.node(lost).status().term, term);
    group.kill_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_in_the_minority_confirms_nothing() {
    let mut group = Group::start(|_| {}).await;
    let (old, before) = group.leader().await;
    group.propose(old, 0..3).await;
    group.agree_on("line 2").await;
    group.links.set_all(old, false);
    // At once, while it still takes itself for the leader and holds a lease.
    assert_eq!(group.current(old), Some(before.leadership));
    let refused = group.node(old).confirm_leadership(in_ms(300)).await.unwrap_err();
    assert!(matches!(refused, ConfirmError::NoQuorum { .. }), "{refused}");
    let unknown = group.node(old).propose(b"lost".to_vec(), in_ms(100)).await.unwrap_err();
    assert!(matches!(unknown, ProposeError::Unknown { .. }), "{unknown}");
    let (new, after) = group.leader_of(&others(old)).await;
    assert!(after.leadership > before.leadership);
    group.propose(new, 3..6).await;
    // Both see themselves as leaders now; only one is confirmed, and only one accepts.
    let refused = group.node(old).confirm_leadership(in_ms(300)).await.unwrap_err();
    assert!(matches!(refused, ConfirmError::NoQuorum { .. }), "{refused}");
    let refused = group.node(old).propose(b"refused".to_vec(), in_ms(300)).await.unwrap_err();
    assert_eq!(refused, ProposeError::NotLeader { leader: None });
    group.links.set_all(old, true);
    group.agree_on("line 5").await;
    eventually("the old leader follows", || group.current(old).is_none()).await;
    assert!(!group.journal(new).holds("lost") && !group.journal(new).holds("refused"));
    let refused = group.node(old).confirm_leadership(soon()).await.unwrap_err();
    assert!(matches!(refused, ConfirmError::NotLeader { .. }), "{refused}");
    assert_eq!(group.leader().await.1.leadership, after.leadership);
    group.kill_all().await;
}

/// A confirmation under way when the link falls silent does not resolve later out of the heal if a new leadership came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirmation_never_outlives_its_leadership() {
    let mut group = Group::start(|_| {}).await;
    let (old, before) = group.leader().await;
    group.links.set_all(old, false);
    let node = group.node(old).clone();
    let waiting = tokio::spawn(async move { node.confirm_leadership(soon()).await });
    let (_, after) = group.leader_of(&others(old)).await;
    assert!(after.leadership > before.leadership);
    group.links.set_all(old, true);
    let result = waiting.await.unwrap();
    assert!(result.is_err(), "{result:?} though {:?} was elected", after.leadership);
    group.kill_all().await;
}

/// openraft #2080: heard by all, hearing nobody, with an entry that it repeats for ever. Without the probe interval the
/// heartbeats, without our gate the repeated entry keeps the others from electing anyone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_heard_but_hears_nobody_is_replaced() {
    let mut group = Group::start(|_| {}).await;
    let (old, before) = group.leader().await;
    let rest = others(old);
    group.propose(old, 0..2).await;
    for other in rest {
        group.links.set(other, old, false);
    }
    let unknown = group.node(old).propose(b"pending".to_vec(), in_ms(50)).await.unwrap_err();
    assert!(matches!(unknown, ProposeError::Unknown { .. }), "{unknown}");
    let cut = std::time::Instant::now();
    let (new, after) = group.leader_of(&rest).await;
    let took = cut.elapsed();
    assert!(after.leadership > before.leadership);
    // Its lease, theirs, an election, and what a busy machine adds.
    assert!(took < ELECTION * 3 + Duration::from_secs(3), "took {took:?}");
    group.propose(new, 2..4).await;
    for other in rest {
        group.links.set(other, old, true);
    }
    group.agree_on("line 3").await;
    group.kill_all().await;
}

/// openraft has no way back from a hand-over whose request was lost: it would refuse proposals for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_that_is_lost_ends_in_an_election() {
    let mut group = Group::start(|_| {}).await;
    let (old, before) = group.leader().await;
    let [target, _] = others(old);
    group.propose(old, 0..3).await;
    eventually("the target is caught up", || {
        let status = group.node(old).status();
        status
            .followers
            .get(&target)
            .is_some_and(|f| f.matched_index == status.last_index && f.heard_age_ms.is_some())
    })
    .await;
    group.links.set(old, target, false);
    let lost = group.node(old).transfer_leader(target, in_ms(600)).await.unwrap_err();
    assert_eq!(lost, TransferError::Overdue { to: target });
    let (new, after) = group.leader().await;
    assert!(after.leadership > before.leadership);
    group.links.set(old, target, true);
    group.propose(new, 3..5).await;
    group.agree_on("line 4").await;
    group.kill_all().await;
}
