//! An operator's restart: no failover, bounded by its deadline, and whatever else happens to the primary comes first.

use regent_core::{
    Body, FEATURE_LEVEL, Kind, OperationResult, OperatorRequest, Rejection, RequestKind, Step,
};
use regent_types::{Directive, Epoch, Outcome, RequestId};

use super::{
    rules::{failover, step},
    world::{World, cluster_name, member_name, outcome},
};

fn world() -> World {
    let mut world = World::healthy(&["a", "b"]);
    world.propose(Body::RaiseLevel { level: FEATURE_LEVEL }).unwrap();
    world
}

fn restart(world: &mut World, member: &str) -> regent_core::Reply {
    world.propose(Body::Request(OperatorRequest {
        cluster: cluster_name("gravl"),
        actor: "alice".into(),
        reason: "minor upgrade".into(),
        expected_epoch: world.cluster("gravl").epoch,
        request_id: RequestId::new(format!("restart-{}", world.state.applied_index)).unwrap(),
        kind: RequestKind::Restart {
            member: member_name(member),
            reload_only: false,
            behind: Default::default(),
        },
    }))
}

fn last_result(world: &World) -> OperationResult {
    world.cluster("gravl").finished.back().unwrap().result.clone().unwrap()
}

#[test]
fn a_restart_keeps_the_epoch_and_ends_with_the_agents_answer() {
    for (member, primary) in [("a", true), ("b", false)] {
        let mut world = world();
        restart(&mut world, member).unwrap();
        assert_eq!(step(&world), Some(Step::Restart));
        let effect = world.effect("restart");
        let regent_core::EffectKind::Agent { member: asked, directive } = &effect.kind else {
            panic!("{effect:?}")
        };
        assert_eq!(asked, &member_name(member));
        assert_eq!(*directive, Directive::Restart { epoch: Epoch(1), primary, reload_only: false });
        world.applied("restart");
        assert_eq!(last_result(&world), OperationResult::Done { warning: None });
        let cluster = world.cluster("gravl");
        assert_eq!((cluster.epoch, cluster.operation.is_some()), (Epoch(1), false));
    }
}

#[test]
fn a_restart_is_refused_with_both_sides_values() {
    let mut world = World::healthy(&["a", "b"]);
    assert_eq!(restart(&mut world, "a"), Err(Rejection::Level { needs: 2, group: 1 }));
    world.propose(Body::RaiseLevel { level: FEATURE_LEVEL }).unwrap();
    assert!(matches!(restart(&mut world, "z"), Err(Rejection::UnknownMember { .. })));
    failover(&mut world, None).unwrap();
    assert!(matches!(restart(&mut world, "a"), Err(Rejection::OperationRunning { step: Step::Fence, .. })));
}

#[test]
fn an_agents_refusal_ends_it_without_a_failover() {
    let mut world = world();
    restart(&mut world, "a").unwrap();
    let key = world.effect("restart").key;
    world.propose(outcome(&key, Outcome::Refused { reason: "no lease".into() })).unwrap();
    assert_eq!(last_result(&world), OperationResult::Aborted { reason: "no lease".into() });
    world.run(30);
    assert_eq!(world.cluster("gravl").epoch, Epoch(1));
}

/// Seen to fail (a failover in the middle of the restart) without `is_restarting` in the detector.
#[test]
fn a_server_that_is_down_for_its_restart_is_left_alone_until_the_deadline() {
    let mut world = world();
    let policy = world.cluster("gravl").config.policy.clone();
    restart(&mut world, "a").unwrap();
    let began_ns = world.now_ns;
    // Longer than the trigger's threshold already.
    world.member("gravl", "a").down_since_ns =
        Some(began_ns - (policy.postgres_down_timeout_ms + 1_000) * 1_000_000);
    let deadline_s = policy.promote_timeout_ms / 1_000;
    world.run(deadline_s - 2);
    assert_eq!(step(&world), Some(Step::Restart), "no failover before the deadline");
    world.run(4);
    // Overdue: the restart is given up, and the dead server is failed over as usual.
    let restarted = world.cluster("gravl").finished.iter().find(|o| matches!(o.kind, Kind::Restart { .. }));
    assert!(matches!(restarted.unwrap().result, Some(OperationResult::Aborted { .. })));
    assert_eq!(world.cluster("gravl").operation.as_ref().map(|o| o.kind.clone()), Some(Kind::Failover));
}

#[test]
fn a_silent_primary_and_an_operators_failover_come_first() {
    let mut silent = world();
    restart(&mut silent, "a").unwrap();
    failover(&mut silent, Some("b")).unwrap();
    assert_eq!(step(&silent), Some(Step::Fence));
    assert!(matches!(last_result(&silent), OperationResult::Aborted { .. }));
}
