//! Policies, members, clusters and coordinators change while everything runs.

use std::time::Duration;

use regent_proto::v1::{
    ChangeCoordinatorsRequest, ChangeMemberRequest, ChangeReply, CoordinatorsReply, CoordinatorsRequest,
    CreateClusterRequest, ForgetClusterRequest, MemberDefinition, PolicyRequest, PolicyValue,
    SetPolicyRequest,
    change_coordinators_request::{Add, Change as GroupChange},
    change_member_request::Change,
};
use regent_types::LeaseRefusal;
use tonic::Code;

use crate::{
    agent::Handle,
    group::{Group, eventually},
};

fn policy(values: &[(&str, &str)], request_id: &str, dry_run: bool) -> SetPolicyRequest {
    let value = |(key, value): &(&str, &str)| PolicyValue { key: (*key).into(), value: (*value).into() };
    SetPolicyRequest {
        cluster: "c".into(),
        values: values.iter().map(value).collect(),
        reason: "a test".into(),
        expected_epoch: 1,
        request_id: request_id.into(),
        dry_run,
    }
}

fn member(change: Change, request_id: &str) -> ChangeMemberRequest {
    ChangeMemberRequest {
        cluster: "c".into(),
        change: Some(change),
        reason: "a test".into(),
        expected_epoch: 1,
        request_id: request_id.into(),
        dry_run: false,
    }
}

fn definition(name: &str, port: u32) -> MemberDefinition {
    MemberDefinition {
        name: name.into(),
        region: "ap".into(),
        host: "127.0.0.1".into(),
        port,
        client_address: "127.0.1.3".into(),
        client_port: port,
        priority: 200,
        promotable: true,
        agent_address: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_changes_while_the_cluster_runs_and_differs_from_the_files() {
    let group = Group::start().await;
    let (m1, m2) = (Handle::start("m1", 1, group.urls()), Handle::start("m2", 2, group.urls()));
    let follower = group.follower().await;
    group.until_in_sync(follower).await;
    let mut operator = group.operator(follower).await;

    for (values, code, word) in [
        (&[("lease_tll", "1s")][..], Code::InvalidArgument, "lease_ttl"),
        (&[("lease_ttl", "soon")], Code::InvalidArgument, "soon"),
        (&[("lease_ttl", "1h")], Code::InvalidArgument, "partition_timeout"),
        (&[("lease_ttl", "1500ms")], Code::FailedPrecondition, "already"),
    ] {
        let status = operator.set_policy(policy(values, "x", false)).await.unwrap_err();
        assert_eq!(status.code(), code, "{values:?}: {status}");
        assert!(status.message().contains(word), "{values:?}: {status}");
    }
    let wanted = [("partition_timeout", "60s"), ("lease_ttl", "9s")];
    let dry = operator.set_policy(policy(&wanted, "d", true)).await.unwrap().into_inner();
    assert_eq!(dry.changes, ["lease.ttl_ms 1500 -> 9000", "partition_timeout_ms 4000 -> 60000"]);
    assert_eq!(
        group.cluster(follower).await.unwrap().policy.unwrap().lease_ttl_ms,
        1_500,
        "a dry run is dry"
    );
    operator.set_policy(policy(&wanted, "p", false)).await.unwrap();
    let again = operator.set_policy(policy(&wanted, "p", false)).await.unwrap().into_inner();
    assert!(again.changes.is_empty(), "{again:?}");
    eventually("leases of the new length", || async {
        m1.lock().granted.last().filter(|(grant, _)| grant.ttl_ms == 9_000).map(drop)
    })
    .await;
    let shown = operator.get_policy(PolicyRequest { cluster: "c".into() }).await.unwrap().into_inner();
    assert!(shown.values.iter().any(|one| one.key == "lease_ttl" && one.value == "9s"), "{shown:?}");
    assert!(shown.file_differs.iter().any(|one| one.contains("lease.ttl_ms 1500 -> 9000")), "{shown:?}");
    assert!(!group.cluster(follower).await.unwrap().file_differs.is_empty());

    // Back: the longer leases are remembered until they have ended.
    let back = [("partition_timeout", "4s"), ("lease_ttl", "1500ms")];
    operator.set_policy(policy(&back, "b", false)).await.unwrap();
    let shown = operator.get_policy(PolicyRequest { cluster: "c".into() }).await.unwrap().into_inner();
    assert!(shown.leases_in_flight_ms.is_some_and(|ms| ms > 9_000), "{shown:?}");
    assert!(shown.file_differs.is_empty(), "{shown:?}");
    eventually("the longer leases have ended", || async {
        let shown = group.operator(follower).await.get_policy(PolicyRequest { cluster: "c".into() }).await;
        shown.unwrap().into_inner().leases_in_flight_ms.is_none().then_some(())
    })
    .await;
    drop((m1, m2));
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_added_and_another_one_removed() {
    let group = Group::start().await;
    let (m1, m2) = (Handle::start("m1", 1, group.urls()), Handle::start("m2", 2, group.urls()));
    let follower = group.follower().await;
    group.until_in_sync(follower).await;
    let mut operator = group.operator(follower).await;
    let last = operator.change_member(member(Change::Remove("m2".into()), "r0")).await.unwrap_err();
    assert!(last.message().contains("last promotable"), "{last}");
    let m3 = Handle::start("m3", 3, group.urls());
    operator.change_member(member(Change::Add(definition("m3", 5003)), "a")).await.unwrap();
    group
        .until(follower, "m3 in sync", |c| c.members.iter().any(|m| m.name == "m3" && m.sync_confirmed))
        .await;
    operator.change_member(member(Change::Remove("m2".into()), "r1")).await.unwrap();
    eventually("m2 is told", || async {
        let told = |refusal: &LeaseRefusal| matches!(refusal, LeaseRefusal::Removed { .. });
        m2.lock().refused.iter().any(told).then_some(())
    })
    .await;
    assert_eq!((m2.directives("prepare"), m2.directives("promote")), (0, 0), "a removed member is not asked");
    drop((m1, m2, m3));
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_comes_and_goes_beside_another() {
    let group = Group::start().await;
    let (m1, m2) = (Handle::start("m1", 1, group.urls()), Handle::start("m2", 2, group.urls()));
    let follower = group.follower().await;
    let before = group.until_in_sync(follower).await;
    let mut operator = group.operator(follower).await;
    let toml = |dns_name: &str| {
        format!(
            "[[cluster]]\nname = \"d\"\ndns_name = \"{dns_name}\"\ninitial_primary = \"n1\"\n[[cluster.member]]\n\
             name = \"n1\"\nregion = \"eu\"\nhost = \"127.0.0.1\"\nport = 6001\nclient_address = \"127.0.2.1\"\n"
        )
    };
    let create = |toml: String, request_id: &str, adopt: bool| CreateClusterRequest {
        toml,
        reason: "a test".into(),
        request_id: request_id.into(),
        dry_run: false,
        adopt,
        system_id: None,
    };
    for (toml, word) in [
        ("x = 1".to_owned(), "toml"),
        (toml("d.elsewhere"), "zone"),
        (toml("pg.db.test"), "cluster c"),
        (toml("d.db.test") + &toml("e.db.test"), "2 [[cluster]]"),
    ] {
        let status = operator.create_cluster(create(toml.clone(), "x", false)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{toml}: {status}");
        assert!(status.message().contains(word), "{toml}: {status}");
    }
    let unheard = operator.create_cluster(create(toml("d.db.test"), "x", true)).await.unwrap_err();
    assert!(unheard.message().contains("system_id"), "{unheard}");
    operator.create_cluster(create(toml("d.db.test"), "c", false)).await.unwrap();
    let names = || async {
        let status = group.status(follower).await;
        status.clusters.into_iter().map(|cluster| cluster.name).collect::<Vec<_>>()
    };
    eventually("two clusters", || async { (names().await == ["c", "d"]).then_some(()) }).await;
    let forget = |cluster: &str, epoch: u64, id: &str| ForgetClusterRequest {
        cluster: cluster.into(),
        consent: false,
        reason: "a test".into(),
        expected_epoch: epoch,
        request_id: id.into(),
        dry_run: false,
    };
    let alive = operator.forget_cluster(forget("c", before.epoch, "f")).await.unwrap_err();
    assert!(alive.message().contains("m1"), "{alive}");
    operator.forget_cluster(forget("d", 0, "g")).await.unwrap();
    eventually("one cluster", || async { (names().await == ["c"]).then_some(()) }).await;
    assert_eq!(group.cluster(follower).await.unwrap().epoch, before.epoch, "the other one has not moved");
    drop((m1, m2));
    group.stop().await;
}

async fn coordinators(group: &Group, id: u64) -> CoordinatorsReply {
    group.operator(id).await.list_coordinators(CoordinatorsRequest {}).await.unwrap().into_inner()
}

async fn change(group: &Group, at: u64, change: GroupChange) -> Result<ChangeReply, tonic::Status> {
    let request = ChangeCoordinatorsRequest {
        request_id: format!("{change:?}").replace(|c: char| !c.is_ascii_alphanumeric(), ""),
        change: Some(change),
        consent: false,
        reason: "a test".into(),
        expected_version: coordinators(group, at).await.version,
        dry_run: false,
    };
    group.operator(at).await.change_coordinators(request).await.map(tonic::Response::into_inner)
}

async fn until_standing(group: &Group, at: u64, id: u64, standing: &str, votes: bool) {
    eventually(&format!("coordinator {id} is {standing}"), || async {
        let all = coordinators(group, at).await.coordinators;
        all.iter().any(|one| one.id == id && one.standing == standing && one.votes == votes).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coordinators_join_and_leave_the_leader_too_with_a_failover_in_between() {
    let mut group = Group::start().await;
    let (m1, m2) = (Handle::start("m1", 1, group.urls()), Handle::start("m2", 2, group.urls()));
    let leader = group.leader().await;
    group.until_in_sync(leader).await;
    eventually("the founders are recorded", || async {
        (coordinators(&group, leader).await.coordinators.len() == 3).then_some(())
    })
    .await;
    let add = |group: &Group, id: u64, region: &str| {
        GroupChange::Add(Add {
            id,
            address: format!("127.0.0.1:{}", group.ports[&id].grpc),
            region: region.into(),
        })
    };
    for (id, region) in [(4, "ap"), (5, "sa")] {
        group.join(id).await.unwrap();
        change(&group, leader, add(&group, id, region)).await.unwrap();
        let at = group.leader().await;
        until_standing(&group, at, id, "voter", true).await;
    }
    let used = change(&group, leader, add(&group, 2, "ap")).await.unwrap_err();
    assert!(used.message().contains("never used twice"), "{used}");

    // A failover by the five.
    m1.lock().silent = true;
    let at = group.leader().await;
    group.until(at, "m2 is primary", |c| c.primary.as_deref() == Some("m2") && c.operation.is_none()).await;

    // The leader itself is removed: another one leads, it stops, and does not come back under its id.
    let gone = group.leader().await;
    change(&group, gone, GroupChange::Remove(gone)).await.unwrap();
    let next = group.leader_except(gone).await;
    until_standing(&group, next, gone, "removed", false).await;
    let running = group.nodes.remove(&gone).unwrap();
    let told = tokio::time::timeout(Duration::from_secs(30), running.until(std::future::pending())).await;
    let error = told.expect("it stops by itself").unwrap_err().to_string();
    assert!(error.contains("was removed"), "{error}");
    if gone <= 3 {
        // As its own file has it: it must not even campaign.
        let again = group.try_start_node(gone).await.unwrap_err().to_string();
        assert!(again.contains("never used again"), "{again}");
    }
    // A dead one is removed too, and the three that are left still decide.
    let dead = *group.nodes.keys().find(|id| **id != next).unwrap();
    group.stop_node(dead).await;
    let at = group.leader().await;
    change(&group, at, GroupChange::Remove(dead)).await.unwrap();
    until_standing(&group, at, dead, "removed", false).await;
    let few = *group.nodes.keys().next().unwrap();
    let refused = change(&group, at, GroupChange::Remove(few)).await.unwrap_err();
    assert!(refused.message().contains("2 coordinators would vote"), "{refused}");
    m2.lock().silent = true;
    m1.lock().silent = false;
    drop((m1, m2));
    group.stop().await;
}
