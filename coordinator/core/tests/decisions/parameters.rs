//! PostgreSQL's parameters: what is refused, what members are told, and which restart has to come first.

use std::collections::BTreeMap;

use regent_core::{Body, EventKind, FEATURE_LEVEL, OperatorRequest, Rejection, Reply, RequestKind};
use regent_types::{Epoch, RequestId};

use super::world::{World, cluster_name, member_name};

fn world() -> World {
    let mut world = World::healthy(&["a", "b", "c"]);
    world.propose(Body::RaiseLevel { level: FEATURE_LEVEL }).unwrap();
    world
}

fn ask(world: &mut World, epoch: Epoch, id: &str, kind: RequestKind) -> Reply {
    world.propose(Body::Request(OperatorRequest {
        cluster: cluster_name("gravl"),
        actor: "alice".into(),
        reason: "more clients".into(),
        expected_epoch: epoch,
        request_id: RequestId::new(id).unwrap(),
        kind,
    }))
}

fn change(set: &[(&str, &str)], unset: &[&str]) -> RequestKind {
    let set = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    RequestKind::SetParameters { set, unset: unset.iter().map(|name| (*name).to_owned()).collect() }
}

#[test]
fn a_change_is_told_to_every_member_and_written_down_with_both_values() {
    let mut world = world();
    assert_eq!(world.cluster("gravl").view().parameters, None);
    let first = change(&[("work_mem", "8MB"), ("max_connections", "200")], &[]);
    let applied = ask(&mut world, Epoch(1), "r1", first.clone()).unwrap();
    assert_eq!(applied.events[0].kind, EventKind::ParametersChanged);
    assert!(applied.events[0].text.contains("work_mem not set -> \"8MB\""), "{}", applied.events[0].text);
    assert!(applied.effects.is_empty() && world.cluster("gravl").operation.is_none());
    // The same request again changes nothing.
    assert!(ask(&mut world, Epoch(1), "r1", first).unwrap().events.is_empty());
    let applied =
        ask(&mut world, Epoch(1), "r2", change(&[("work_mem", "9MB")], &["max_connections"])).unwrap();
    let text = &applied.events[0].text;
    assert!(text.contains("work_mem \"8MB\" -> \"9MB\"") && text.contains("\"200\" -> not set"), "{text}");
    let view = world.cluster("gravl").view().parameters.unwrap();
    assert_eq!(view.version, 2);
    assert_eq!(view.values, BTreeMap::from([("work_mem".to_owned(), "9MB".to_owned())]));
}

#[test]
fn a_change_is_refused_whole_and_by_name() {
    let mut world = World::healthy(&["a", "b", "c"]);
    let wanted = change(&[("work_mem", "8MB")], &[]);
    let refused = ask(&mut world, Epoch(1), "r0", wanted.clone());
    assert_eq!(refused, Err(Rejection::Level { needs: 2, group: 1 }));
    world.propose(Body::RaiseLevel { level: FEATURE_LEVEL }).unwrap();
    let stale = ask(&mut world, Epoch(7), "r1", wanted.clone()).unwrap_err();
    assert_eq!(stale, Rejection::StaleEpoch { expected: Epoch(7), current: Epoch(1) });
    ask(&mut world, Epoch(1), "r2", wanted.clone()).unwrap();
    let same = ask(&mut world, Epoch(1), "r3", wanted).unwrap_err();
    assert!(matches!(same, Rejection::Unchanged { .. }), "{same}");
    for (kind, field) in [
        (change(&[("work_mem", "9MB"), ("fsync", "off")], &[]), "fsync"),
        (change(&[("work_mem", "9MB")], &["port"]), "port"),
        (change(&[("work_mem", "9MB")], &["work_mem"]), "work_mem"),
        (change(&[("work_mem", "9MB\nport = 1")], &[]), "work_mem"),
        (change(&[("max_connections", "many")], &[]), "max_connections"),
    ] {
        let Rejection::Config(error) = ask(&mut world, Epoch(1), "r4", kind).unwrap_err() else { panic!() };
        assert_eq!(error.field, field, "{error}");
    }
    let view = world.cluster("gravl").view().parameters.unwrap();
    assert_eq!((view.version, view.values["work_mem"].as_str()), (1, "8MB"));
}

#[test]
fn a_primary_waits_for_the_standbys_that_have_less() {
    let mut world = world();
    let restart = |member: &str, reload_only: bool| RequestKind::Restart {
        member: member_name(member),
        reload_only,
        behind: BTreeMap::from([
            (member_name("a"), vec!["max_connections".to_owned()]),
            (member_name("b"), vec!["max_connections".to_owned()]),
            (member_name("c"), Vec::new()),
            (member_name("gone"), vec!["max_wal_senders".to_owned()]),
        ]),
    };
    let refused = ask(&mut world, Epoch(1), "r1", restart("a", false)).unwrap_err();
    let behind = "b (max_connections)".to_owned();
    assert_eq!(refused, Rejection::StandbysBehind { primary: member_name("a"), behind });
    assert!(world.cluster("gravl").operation.is_none());
    // The standby itself may be restarted, and a reload takes no such value.
    ask(&mut world, Epoch(1), "r2", restart("b", false)).unwrap();
    world.applied("restart");
    ask(&mut world, Epoch(1), "r3", restart("a", true)).unwrap();
}
