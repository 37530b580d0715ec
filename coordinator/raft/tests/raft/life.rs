//! Replication, restart, change of leader, snapshots, and the options that cannot work.

use std::{sync::Arc, time::Duration};

use regent_proto::raft::{RaftPayload, raft_service_client::RaftServiceClient};
use regent_raft::{Connector, Options, ProposeError, StartError, TransferError};
use tokio::time::Instant;
use tonic::Code;

use crate::{
    group::{Group, Journal, eventually, others, soon},
    links::Via,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_are_replicated_and_survive_a_restart_of_all() {
    let mut group = Group::start(|_| {}).await;
    let (leader, confirmed) = group.leader().await;
    let (at, reply) = group.node(leader).propose(b"first".to_vec(), soon()).await.unwrap();
    assert_eq!(reply, b"1");
    assert_eq!((at.term, at.leader), (confirmed.leadership.term, leader));
    assert!(at.index > confirmed.read_index);
    group.propose(leader, 0..20).await;
    let later = group.node(leader).confirm_leadership(soon()).await.unwrap();
    assert!(later.read_index >= at.index + 20 && later.leadership == confirmed.leadership);
    group.agree_on("line 19").await;
    let before = group.journal(leader).lines();
    let [follower, _] = others(leader);
    let refused = group.node(follower).propose(b"no".to_vec(), soon()).await.unwrap_err();
    assert_eq!(refused, ProposeError::NotLeader { leader: Some(leader) });

    group.kill_all().await;
    for node in [1, 2, 3] {
        let mut options = group.options(node);
        options.expect_existing = true;
        group.run_with(options, Arc::new(Journal::default())).await.unwrap();
    }
    let (leader, again) = group.leader().await;
    assert!(again.leadership > confirmed.leadership);
    for member in group.members.values() {
        assert!(member.node.recovered(soon()).await);
        assert_eq!(member.journal.lines(), before);
    }
    group.propose(leader, 20..21).await;
    group.agree_on("line 20").await;
    let status = group.node(leader).status();
    assert_eq!((status.role, status.leader, status.voters.len()), ("leader", Some(leader), 3));
    assert_eq!(status.followers.len(), 2);
    assert!(status.quorum_ack_age_ms.is_some() && status.stopped.is_none());
    group.kill_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_replaced_and_follows_when_it_returns() {
    let mut group = Group::start(|_| {}).await;
    let (first, before) = group.leader().await;
    group.propose(first, 0..5).await;
    group.kill(first).await;
    let (second, after) = group.leader().await;
    assert!(second != first && after.leadership.term > before.leadership.term);
    group.propose(second, 5..10).await;
    group.run(first).await.unwrap();
    group.agree_on("line 9").await;
    assert_eq!(group.leader().await.1.leadership, after.leadership);
    group.kill_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leadership_handed_over_and_back_is_another_one() {
    let mut group = Group::start(|_| {}).await;
    let (first, before) = group.leader().await;
    group.propose(first, 0..3).await;
    group.agree_on("line 2").await;
    let [second, third] = others(first);
    let caught_up = |leader: u64| {
        let status = group.node(leader).status();
        status.followers.len() == 2
            && status
                .followers
                .values()
                .all(|f| f.matched_index == status.last_index && f.heard_age_ms.is_some())
    };
    eventually("followers are caught up", || caught_up(first)).await;
    let mut watch = group.node(first).leadership();
    watch.mark_unchanged();
    group.node(first).transfer_leader(second, soon()).await.unwrap();
    let changed = *watch.wait_for(|change| change.current.is_none()).await.unwrap();
    assert_eq!(changed.current, None);
    let (leader, _) = group.leader().await;
    assert_eq!(leader, second);
    // A fresh leader takes proposals at once, though no quorum has answered it yet.
    group.propose(second, 3..4).await;
    eventually("followers are caught up", || caught_up(second)).await;
    group.node(second).transfer_leader(first, soon()).await.unwrap();
    let (leader, after) = group.leader().await;
    assert_eq!(leader, first);
    assert_eq!(after.leadership.node, before.leadership.node);
    assert!(after.leadership.term > before.leadership.term);

    let refused = group.node(second).transfer_leader(third, soon()).await.unwrap_err();
    assert!(matches!(refused, TransferError::NotLeader { .. }), "{refused}");
    let refused = group.node(first).transfer_leader(9, soon()).await.unwrap_err();
    assert_eq!(refused, TransferError::NoVoter { to: 9, voters: vec![1, 2, 3] });
    group.kill(third).await;
    group.propose(first, 4..6).await;
    let refused = group.node(first).transfer_leader(third, soon()).await.unwrap_err();
    assert!(matches!(refused, TransferError::Behind { .. }), "{refused}");
    group.kill_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lagging_member_gets_a_snapshot() {
    let mut group = Group::start(|options| {
        options.snapshot_every_entries = 50;
        options.keep_entries = 5;
    })
    .await;
    let (leader, _) = group.leader().await;
    let [lagging, _] = others(leader);
    group.propose(leader, 0..3).await;
    group.agree_on("line 2").await;
    group.kill(lagging).await;
    group.propose(leader, 3..220).await;
    eventually("the log is purged", || group.node(leader).status().purged_index > Some(100)).await;
    group.run(lagging).await.unwrap();
    group.agree_on("line 219").await;
    assert!(group.node(lagging).status().snapshot.is_some_and(|at| at.index > 100));
    // It lives on from that snapshot and the log behind it.
    let before = group.journal(lagging).lines();
    group.kill(lagging).await;
    group.run(lagging).await.unwrap();
    assert!(group.node(lagging).recovered(soon()).await);
    assert_eq!(group.journal(lagging).lines(), before);
    group.propose(leader, 220..221).await;
    group.agree_on("line 220").await;
    group.kill_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_of_another_version_group_or_receiver_is_refused_by_name() {
    let mut group = Group::start(|_| {}).await;
    let via = Via { links: group.links.clone(), from: 1 };
    let mut client = RaftServiceClient::new(via.channel(2, ""));
    let call = RaftPayload { version: 7, body: vec![] };
    let refused = client.vote(call).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("RaftPayload.version = 7"), "{refused}");
    let refused = client.append_entries(RaftPayload { version: 1, body: vec![1] }).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("RaftPayload.body of 1 bytes"), "{refused}");

    // A member that was told another group name is heard by nobody, and says so.
    group.kill(3).await;
    let (leader, _) = group.leader().await;
    let mut options = group.options(3);
    options.group = "elsewhere".to_string();
    let refused = group.run_with(options.clone(), Arc::new(Journal::default())).await.err().unwrap();
    assert!(refused.to_string().contains("of group \"test group\""), "{refused}");
    options.data_dir = group.dir.path().join("elsewhere");
    group.run_with(options, Arc::new(Journal::default())).await.unwrap();
    group.propose(leader, 0..5).await;
    assert!(!group.journal(3).holds("line 4"));
    assert!(group.node(3).leadership().borrow().leader.is_none());
    group.kill_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_too_long_is_refused() {
    let mut group = Group::start(|options| options.command_bytes_max = 1000).await;
    let (leader, _) = group.leader().await;
    group.node(leader).propose(vec![0; 1000], soon()).await.unwrap();
    let refused = group.node(leader).propose(vec![0; 1001], soon()).await.unwrap_err();
    assert_eq!(refused, ProposeError::TooLarge { bytes: 1001, max: 1000 });
    group.kill_all().await;
}

#[tokio::test]
async fn options_that_cannot_work_are_named() {
    let group = Group::stopped(|_| {}).await;
    let refused = |change: &dyn Fn(&mut Options)| {
        let mut options = group.options(1);
        change(&mut options);
        options
    };
    let cases: [(&str, Options); 7] = [
        ("option group = \"\"", refused(&|o| o.group.clear())),
        ("option members = [2, 3]", refused(&|o| drop(o.members.remove(&1)))),
        ("option members = 2 nodes", refused(&|o| drop(o.members.remove(&3)))),
        (
            "is the address of two nodes",
            refused(&|o| o.members.get_mut(&2).unwrap().raft_addr = "member-1".into()),
        ),
        ("option heartbeat_interval = 1 ms", refused(&|o| o.heartbeat_interval = Duration::from_millis(1))),
        (
            "option election_timeout_min = 200 ms",
            refused(&|o| o.election_timeout_min = Duration::from_millis(200)),
        ),
        (
            "option election_timeout_max = 400 ms",
            refused(&|o| o.election_timeout_max = o.election_timeout_min),
        ),
    ];
    for (expected, options) in cases {
        let error = regent_raft::RaftNode::start(options, Arc::new(Journal::default())).await.err().unwrap();
        assert!(matches!(error, StartError::Option { .. }));
        assert!(error.to_string().contains(expected), "{error} lacks {expected:?}");
    }
}

/// The default time-outs on links of 110 ms round trip: one leader throughout, and nothing waits for more than the line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_of_110_ms_carry_the_default_time_outs() {
    let mut group = Group::start_far(Duration::from_millis(55), |options| {
        let given = Options::new(1, "x", Default::default(), "", options.connector.clone());
        options.heartbeat_interval = given.heartbeat_interval;
        options.election_timeout_min = given.election_timeout_min;
        options.election_timeout_max = given.election_timeout_max;
    })
    .await;
    let (leader, before) = group.leader().await;
    for line in 0..20 {
        let begun = Instant::now();
        group.propose(leader, line..line + 1).await;
        let proposed = begun.elapsed();
        let confirmed = group.node(leader).confirm_leadership(soon()).await.unwrap();
        assert_eq!(confirmed.leadership, before.leadership);
        // Round trip and fsync are 0.12 s; a heartbeat under way may stand before ours; the rest is a busy machine.
        let took = (proposed, begun.elapsed() - proposed);
        assert!(took.0 < Duration::from_secs(1) && took.1 < Duration::from_secs(1), "{took:?}");
    }
    group.agree_on("line 19").await;
    let [target, _] = others(leader);
    eventually("the target is caught up", || {
        let status = group.node(leader).status();
        status.followers.get(&target).is_some_and(|f| f.matched_index == status.last_index)
    })
    .await;
    group.node(leader).transfer_leader(target, soon()).await.unwrap();
    assert_eq!(group.leader().await.0, target);
    group.kill(target).await;
    let begun = Instant::now();
    group.leader().await;
    assert!(begun.elapsed() < Duration::from_secs(6), "no leader for {:?}", begun.elapsed());
    group.kill_all().await;
}
