//! *Choose*: who is named after the proof, who is the way back, and what a rejoining member is told of the history.

use regent_core::{Body, Effect, EffectKind, FenceProof, Step, Trigger, VerdictReason};
use regent_types::{Directive, Epoch, Lsn, Outcome};

use super::{
    rules::{declare, failover, step, verdict},
    world::{World, config, member_name, outcome},
};

/// Under expiry alone a candidate must have closed its promises; a guard's own answer needs none. Seen to fail without the
/// comparison in `check_standby`.
#[test]
fn an_outstanding_promise_forbids_promotion_after_expiry() {
    let mut world = World::healthy(&["a", "b"]);
    failover(&mut world, None).unwrap();
    world.member("gravl", "a").silent = true;
    world.run(25);
    let effect = world.effect("fence");
    let Some(Body::FenceProven { key, proof, mut candidates }) = world.answer(&effect) else {
        panic!("no proof")
    };
    candidates[0].promises_closed = Epoch(0);
    world.propose(Body::FenceProven { key, proof, candidates }).unwrap();
    let expected = VerdictReason::PromiseOutstanding { closed: Epoch(0), fenced: Epoch(1), left_ms: None };
    assert_eq!(verdict(&world, "b"), expected);
    assert_eq!(step(&world), Some(Step::Choose));
    world.applied("collect");
    assert_eq!(step(&world), Some(Step::Promote));
}

/// A target whose answer is lost may run on by the old primary's promise. Seen to fail (the old primary is appointed beside
/// it) without the comparison in `check_old_primary`.
#[test]
fn a_promise_to_the_failed_target_forbids_the_way_back() {
    let mut world = World::healthy(&["a", "b"]);
    failover(&mut world, None).unwrap();
    world.applied("fence");
    assert_eq!(world.cluster("gravl").appointment.as_ref().unwrap().member, member_name("b"));
    world.member("gravl", "b").silent = true;
    for _ in 0..600 {
        world.second();
        if world.pending("gravl", "fence").is_some() {
            break;
        }
    }
    world.run(60);
    let effect = world.effect("fence");
    let Some(Body::FenceProven { key, proof, .. }) = world.answer(&effect) else { panic!("no proof") };
    assert!(matches!(proof, FenceProof::LeaseExpired { .. }), "{proof:?}");
    let now_ns = world.now_ns;
    let mut report = world.member("gravl", "a").prepare(Epoch(2), now_ns);
    report.promises_closed = Epoch(1);
    world.propose(Body::FenceProven { key, proof, candidates: vec![report.clone()] }).unwrap();
    let expected = VerdictReason::PromiseOutstanding { closed: Epoch(1), fenced: Epoch(2), left_ms: None };
    assert_eq!(verdict(&world, "a"), expected);
    report.promises_closed = Epoch(2);
    let key = world.effect("collect").key;
    let candidates = vec![report];
    world.propose(Body::CandidatesReported { key, acknowledged: None, candidates }).unwrap();
    assert_eq!(world.cluster("gravl").appointment.as_ref().unwrap().member, member_name("a"));
}

/// An operator's choice that dies must not leave the cluster without a primary: the old one is the way back. Seen to fail
/// with the wish applied to the old primary as well.
#[test]
fn the_old_primary_is_the_way_back_from_a_wanted_target() {
    let mut world = World::healthy(&["a", "b", "c"]);
    failover(&mut world, Some("b")).unwrap();
    world.member("gravl", "b").silent = true;
    let applied = world.applied("fence");
    let [Effect { kind: EffectKind::Agent { member, directive: Directive::Promote { .. } }, .. }] =
        &applied.effects[..]
    else {
        panic!("{:?}", applied.effects)
    };
    assert_eq!(member, &member_name("a"));
    assert_eq!(verdict(&world, "b"), VerdictReason::Silent);
    assert_eq!(verdict(&world, "c"), VerdictReason::NotWanted { wanted: member_name("b") });
}

/// A target whose promotion had succeeded is tried once more before anybody else, and not for ever. Seen to fail (the log
/// fills) without `failed_again`.
#[test]
fn a_target_that_left_recovery_is_tried_once_more() {
    let mut world = World::healthy(&["a", "b"]);
    failover(&mut world, None).unwrap();
    let target = |world: &World| world.cluster("gravl").appointment.clone().unwrap();
    world.applied("fence");
    let promote = world.effect("promote");
    world.answer(&promote).unwrap();
    let refused = |world: &mut World| {
        let key = world.effect("promote").key;
        world.propose(outcome(&key, Outcome::Refused { reason: "no".into() })).unwrap();
        world.applied("fence");
        target(world)
    };
    let again = refused(&mut world);
    assert_eq!((again.member, again.epoch), (member_name("b"), Epoch(3)));
    let back = refused(&mut world);
    assert_eq!((back.member, back.epoch), (member_name("a"), Epoch(4)));
}

/// Seen to fail with unknown lag taken for none.
#[test]
fn an_unknown_lag_is_not_a_small_one() {
    let mut limited = config("gravl", &["a", "b"]);
    limited.policy.max_lag_bytes = Some(256);
    let mut world = World::healthy_with(vec![limited]);
    world.member("gravl", "a").silent = true;
    // A leader that never heard the primary, and was told nothing.
    world.lead(2, false);
    world.run(40);
    world.applied("fence");
    assert_eq!(verdict(&world, "b"), VerdictReason::LagUnknown { max_bytes: 256 });
}

/// After an in-place re-appointment a standby's lineage is still an epoch of the list. Seen to fail with such epochs left out.
#[test]
fn branches_name_every_epoch_since_the_lineage() {
    let mut world = World::healthy(&["a", "b", "c"]);
    world.restart("gravl", "a", true);
    world.settle();
    world.member("gravl", "b").lsn = Lsn(0x300);
    failover(&mut world, Some("b")).unwrap();
    for name in ["fence", "promote", "embedded", "validate"] {
        world.applied(name);
    }
    let mut body = declare(&world, "c", Trigger::NotInSync { why: "by hand".into() });
    // As if it had missed the re-appointment.
    body.evidence.lineage = Epoch(1);
    world.propose(Body::Declare(body)).unwrap();
    let rejoin = world.effect("rejoin");
    let EffectKind::Agent { member, directive: Directive::Rejoin { branches, .. } } = rejoin.kind else {
        panic!()
    };
    let found: Vec<_> = branches.iter().map(|b| (b.epoch.0, b.timeline.0, b.switch_lsn.0)).collect();
    assert_eq!((member.as_str(), found), ("c", vec![(1, 1, 0), (2, 1, 0x300)]));
}

/// The old primary is named again only after its own guard's answer, whatever reports in its name. Seen to fail without the
/// look at `acknowledged`.
#[test]
fn the_old_primary_needs_its_own_acknowledgement() {
    let mut world = World::healthy(&["a", "b"]);
    failover(&mut world, None).unwrap();
    for name in ["a", "b"] {
        world.member("gravl", name).silent = true;
    }
    world.run(25);
    let effect = world.effect("fence");
    let Some(Body::FenceProven { key, proof, .. }) = world.answer(&effect) else { panic!("no proof") };
    let now_ns = world.now_ns;
    let report = world.member("gravl", "a").prepare(Epoch(1), now_ns);
    world.propose(Body::FenceProven { key, proof, candidates: vec![report.clone()] }).unwrap();
    assert_eq!(verdict(&world, "a"), VerdictReason::NotAcknowledged);
    let key = world.effect("collect").key;
    let candidates = vec![report];
    world.propose(Body::CandidatesReported { key, acknowledged: None, candidates }).unwrap();
    assert_eq!(step(&world), Some(Step::Choose));
    world.member("gravl", "a").silent = false;
    world.applied("collect");
    assert_eq!(world.cluster("gravl").appointment.as_ref().unwrap().member, member_name("a"));
}
