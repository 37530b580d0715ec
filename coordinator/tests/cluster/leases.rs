//! Who gets a lease, through whom, and who does not.

use std::time::{Duration, Instant};

use regent_types::{InstanceId, LeaseRefusal};

use crate::{
    agent::Handle,
    group::{Group, eventually},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_knows_one_follower_is_relayed() {
    let group = Group::start().await;
    let follower = group.follower().await;
    let m1 = Handle::start("m1", 1, vec![group.url(follower)]);
    let m2 = Handle::start("m2", 2, group.urls());
    group.until_in_sync(follower).await;
    assert!(!m1.lock().granted.is_empty());
    assert!(m1.directives("promote") >= 1, "directives are relayed too");
    assert!(group.nodes[&follower].node.metrics.relays.get() >= 1);
    drop(m2);
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_instance_of_the_member_is_refused() {
    let group = Group::start().await;
    let m1 = Handle::start("m1", 1, group.urls());
    let m2 = Handle::start("m2", 2, group.urls());
    let leader = group.leader().await;
    group.until_in_sync(leader).await;
    let twin = Handle::start("m1", 99, group.urls());
    let refusal =
        eventually("a refusal for the twin", || async { twin.lock().refused.first().cloned() }).await;
    let expected = |refusal: &LeaseRefusal| {
        matches!(refusal, LeaseRefusal::OtherInstance { bound, presented, .. }
            if *bound == InstanceId(1) && *presented == InstanceId(99))
    };
    // The twin's guard counts as a restarted one, so the epoch may be fenced by the time it asks.
    assert!(expected(&refusal) || matches!(refusal, LeaseRefusal::Fenced { .. }), "{refusal}");
    assert!(twin.lock().granted.iter().all(|(grant, _)| grant.epoch.0 > 1));
    drop((m1, m2, twin));
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_in_the_minority_grants_nothing() {
    let group = Group::start().await;
    let leader = group.leader().await;
    // It can reach the leader only, as in a region that is cut off together with its primary.
    let m1 = Handle::start("m1", 1, vec![group.url(leader)]);
    let m2 = Handle::start("m2", 2, group.urls());
    group.until_in_sync(leader).await;
    group.until_told(leader).await;
    group.isolate(leader, true);
    let cut = Instant::now();
    let successor = group.leader_except(leader).await;
    group.until(successor, "m2 takes over", |c| c.primary.as_deref() == Some("m2")).await;
    // A round that had its quorum before the cut may still be answered right after it.
    let late = m1.lock().granted.iter().filter(|(_, at)| *at > cut + Duration::from_millis(300)).count();
    assert_eq!(late, 0, "the deposed leader extended a lease");
    assert!(m1.lock().granted.iter().all(|(grant, _)| grant.epoch.0 == 1));
    group.isolate(leader, false);
    group
        .until(successor, "m1 in sync after the heal", |c| {
            c.members.iter().any(|m| m.name == "m1" && m.sync_confirmed)
        })
        .await;
    assert_eq!(group.cluster(successor).await.unwrap().epoch, 2, "the heal costs no second failover");
    drop(m2);
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_grants_before_anything_new_is_committed() {
    let mut group = Group::start().await;
    let m1 = Handle::start("m1", 1, group.urls());
    let m2 = Handle::start("m2", 2, group.urls());
    let leader = group.leader().await;
    group.until_in_sync(leader).await;
    group.stop_node(leader).await;
    let stopped = Instant::now();
    let successor = group.leader().await;
    eventually("a lease of the new leader", || async {
        let last = m1.lock().granted.last().unwrap().1;
        (last > stopped + Duration::from_millis(100)).then_some(())
    })
    .await;
    let cluster = group.cluster(successor).await.unwrap();
    assert_eq!(cluster.epoch, 1, "a change of leader is no outage");
    // It comes back from its own disk.
    group.start_node(leader).await;
    let again =
        eventually("the restarted node shows the cluster", || async { group.cluster(leader).await }).await;
    assert_eq!(again.primary.as_deref(), Some("m1"));
    drop(m2);
    group.stop().await;
}
