//! What may be changed of a member while the cluster runs.

use regent_core::{
    Body, EventKind, FEATURE_LEVEL, MemberChanges, OperatorRequest, Rejection, Reply, RequestKind,
};
use regent_types::{Epoch, RequestId};

use super::world::{World, cluster_name, member_name};

fn world() -> World {
    let mut world = World::healthy(&["a", "b", "c"]);
    world.propose(Body::RaiseLevel { level: FEATURE_LEVEL }).unwrap();
    world
}

fn set(world: &mut World, member: &str, changes: MemberChanges) -> Reply {
    let request_id = RequestId::new(format!("set-{}", world.state.applied_index)).unwrap();
    world.propose(Body::Request(OperatorRequest {
        cluster: cluster_name("gravl"),
        actor: "alice".into(),
        reason: "because".into(),
        expected_epoch: Epoch(1),
        request_id,
        kind: RequestKind::SetMember { member: member_name(member), changes },
    }))
}

fn promotable(promotable: bool) -> MemberChanges {
    MemberChanges { promotable: Some(promotable), ..MemberChanges::default() }
}

#[test]
fn priority_and_address_change_with_both_values_on_record() {
    let mut world = world();
    let address = "203.0.113.77".parse().unwrap();
    let changes =
        MemberChanges { priority: Some(7), client_address: Some(address), ..MemberChanges::default() };
    let applied = set(&mut world, "b", changes.clone()).unwrap();
    assert_eq!(applied.events[0].kind, EventKind::MemberChanged);
    assert!(applied.events[0].text.contains("-> 7, client_address"), "{}", applied.events[0].text);
    let config = &world.cluster("gravl").config.members[&member_name("b")];
    assert_eq!((config.priority, config.client_address), (7, address));
    assert!(matches!(set(&mut world, "b", changes), Err(Rejection::Unchanged { .. })));
}

#[test]
fn what_would_contradict_the_record_or_leave_nobody_is_refused() {
    let mut world = world();
    let unknown = set(&mut world, "z", promotable(false)).unwrap_err();
    assert!(matches!(unknown, Rejection::UnknownMember { .. }));
    for changes in [
        promotable(false),
        MemberChanges { client_port: Some(1), ..MemberChanges::default() },
        MemberChanges { client_address: Some("203.0.113.77".parse().unwrap()), ..MemberChanges::default() },
    ] {
        let refused = set(&mut world, "a", changes).unwrap_err();
        assert_eq!(refused, Rejection::IsPrimary { member: member_name("a"), epoch: Epoch(1) });
    }
    set(&mut world, "a", MemberChanges { priority: Some(1), ..MemberChanges::default() }).unwrap();
    let bad = MemberChanges { agent_address: Some("nowhere".into()), ..MemberChanges::default() };
    assert!(matches!(set(&mut world, "b", bad), Err(Rejection::Config(_))));
    let taken = world.cluster("gravl").config.members[&member_name("c")].clone();
    let same = MemberChanges {
        client_address: Some(taken.client_address),
        client_port: Some(taken.client_port),
        ..MemberChanges::default()
    };
    let before = world.cluster("gravl").config.clone();
    if before.members[&member_name("b")].client_address != taken.client_address {
        assert!(matches!(set(&mut world, "b", same), Err(Rejection::AddressTaken { .. })));
    }
    set(&mut world, "b", promotable(false)).unwrap();
    let last = set(&mut world, "c", promotable(false)).unwrap_err();
    let (member, primary) = (member_name("c"), member_name("a"));
    assert_eq!(last, Rejection::LastPromotable { member, primary });
}

/// Otherwise the member would count as on the list that the primary acts by.
#[test]
fn who_becomes_promotable_is_new_to_the_primary() {
    let mut world = world();
    set(&mut world, "b", promotable(false)).unwrap();
    let without = world.cluster("gravl").promotable.clone();
    assert!(!without.since.contains_key(&member_name("b")));
    set(&mut world, "b", promotable(true)).unwrap();
    let with = &world.cluster("gravl").promotable;
    assert!(with.version > without.version);
    assert_eq!(with.since[&member_name("b")], with.version);
    assert!(with.since[&member_name("c")] < with.version, "the others stay as they were");
}
