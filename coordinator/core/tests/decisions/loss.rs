//! Loss: never less than it may be, and final only when the old primary was read.

use regent_core::{Body, LossReport, LossUpperBound};
use regent_types::{Evidence, Lsn, OperationId, Outcome, RejoinMethod};

use super::{
    rules::failover,
    world::{World, outcome},
};

fn loss(world: &World, id: OperationId) -> LossReport {
    world.cluster("gravl").operation(id).unwrap().loss.clone()
}

fn upper(report: &LossReport) -> &LossUpperBound {
    match report {
        LossReport::UpperBound(upper) => upper,
        other => panic!("{other:?}"),
    }
}

fn finish(world: &mut World) {
    for name in ["promote", "embedded", "validate"] {
        world.applied(name);
    }
}

/// Rejoins the member whose turn it is, with an altered answer.
fn rejoin(world: &mut World, method: RejoinMethod) {
    let effect = world.effect("rejoin");
    let Some(Body::Outcome { outcome: Outcome::Done(Evidence::Rejoined(mut evidence)), key }) =
        world.answer(&effect)
    else {
        panic!("no rejoin")
    };
    evidence.method = method;
    evidence.salvage = None;
    world.propose(outcome(&key, Outcome::Done(Evidence::Rejoined(evidence)))).unwrap();
}

/// After a clone nothing is left to read: a later "nothing diverged" says nothing of it. Seen to fail (a loss is called
/// none) without the look at earlier rejoins.
#[test]
fn a_clone_leaves_the_upper_bound_for_ever() {
    let mut world = World::healthy(&["a", "b"]);
    let id = failover(&mut world, None).unwrap().operation.unwrap();
    world.member("gravl", "a").silent = true;
    world.run(25);
    world.applied("fence");
    finish(&mut world);
    world.member("gravl", "a").silent = false;
    world.second();
    rejoin(&mut world, RejoinMethod::Cloned);
    world.run(5);
    assert!(upper(&loss(&world, id)).exposed_ms >= 25_000);
    // The guard of the new primary restarts, and its standby has to show that it follows.
    world.member("gravl", "a").form = regent_types::DataForm::Rewinding;
    world.run(20);
    rejoin(&mut world, RejoinMethod::Unchanged);
    upper(&loss(&world, id));
}

/// A rejoin salvages and gives way to another epoch before it was heard; the next one finds a standby that streams already.
/// Its "unchanged" says nothing of what diverged.
#[test]
fn a_salvage_is_told_by_the_rejoin_after_the_one_that_made_it() {
    for (method, salvage, is_final) in [
        (RejoinMethod::Unchanged, true, true),
        (RejoinMethod::Rewound, true, true),
        (RejoinMethod::Unchanged, false, false),
        (RejoinMethod::Repointed, false, false),
        (RejoinMethod::Rewound, false, false),
        (RejoinMethod::Cloned, false, false),
    ] {
        let mut world = World::healthy(&["a", "b"]);
        let id = failover(&mut world, None).unwrap().operation.unwrap();
        world.member("gravl", "a").silent = true;
        world.run(25);
        world.applied("fence");
        finish(&mut world);
        world.member("gravl", "a").silent = false;
        world.member("gravl", "a").lsn = Lsn(0x900);
        world.second();
        let effect = world.effect("rejoin");
        let Some(Body::Outcome { outcome: Outcome::Done(Evidence::Rejoined(mut evidence)), .. }) =
            world.answer(&effect)
        else {
            panic!("no rejoin")
        };
        assert_eq!(evidence.salvage.as_ref().unwrap().epoch, regent_types::Epoch(1));
        // Not heard: the guard of the new primary restarts first.
        world.restart("gravl", "b", true);
        for name in ["fence", "promote", "embedded", "validate"] {
            world.second();
            world.applied(name);
        }
        world.run(10);
        let key = world.effect("rejoin").key;
        evidence.method = method;
        evidence.salvage = evidence.salvage.filter(|_| salvage);
        world.propose(outcome(&key, Outcome::Done(Evidence::Rejoined(evidence)))).unwrap();
        match loss(&world, id) {
            LossReport::Final(salvage) if is_final => assert_eq!(salvage.to_lsn, Lsn(0x900)),
            LossReport::UpperBound(_) if !is_final => {}
            other => panic!("{method:?}: {other:?}"),
        }
    }
}

/// The salvage of an older failover says nothing of a later one.
#[test]
fn an_old_salvage_is_not_a_later_failovers_loss() {
    let mut world = World::healthy(&["a", "b"]);
    let id = failover(&mut world, None).unwrap().operation.unwrap();
    world.applied("fence");
    finish(&mut world);
    world.second();
    let effect = world.effect("rejoin");
    let Some(Body::Outcome { outcome: Outcome::Done(Evidence::Rejoined(mut evidence)), key }) =
        world.answer(&effect)
    else {
        panic!("no rejoin")
    };
    evidence.salvage = Some(regent_types::SalvageSummary {
        folder: "salvage/epoch-0".into(),
        epoch: regent_types::Epoch(0),
        timeline: regent_types::Timeline(1),
        from_lsn: Lsn(1),
        to_lsn: Lsn(2),
        transactions: 1,
        span_ms: 0,
        completeness: regent_types::SalvageCompleteness::Complete,
        relations: vec![],
        relations_total: 0,
        data: None,
    });
    world.propose(outcome(&key, Outcome::Done(Evidence::Rejoined(evidence)))).unwrap();
    assert_eq!(loss(&world, id), LossReport::None);
}

/// A second rung does not hide what the old primary accepted. Seen to fail with the target's acknowledgement taken for the
/// old primary's.
#[test]
fn the_exposure_is_the_old_primarys() {
    let mut world = World::healthy(&["a", "b", "c"]);
    world.member("gravl", "a").lsn = Lsn(0x900);
    world.second();
    world.member("gravl", "a").silent = true;
    world.run(30);
    world.applied("fence");
    let key = world.effect("promote").key;
    world.propose(outcome(&key, Outcome::Refused { reason: "no".into() })).unwrap();
    world.applied("fence");
    let operation = world.cluster("gravl").operation.as_ref().unwrap();
    let upper = upper(&operation.loss);
    assert_eq!(operation.target.as_ref().unwrap().as_str(), "c", "b had been first");
    assert_eq!((upper.primary_lsn, upper.bytes_at_last_contact), (Some(Lsn(0x900)), Some(0x900)));
    assert!(upper.exposed_ms >= 30_000, "{upper:?}");
}

/// A clean shutdown says where the WAL ends: nothing else was accepted. An unclean one does not.
#[test]
fn only_a_clean_shutdown_bounds_the_loss() {
    for clean in [true, false] {
        let mut world = World::healthy(&["a", "b"]);
        world.member("gravl", "a").lsn = Lsn(0x700);
        world.second();
        world.member("gravl", "a").lsn = Lsn(0x800);
        let id = failover(&mut world, None).unwrap().operation.unwrap();
        let effect = world.effect("fence");
        let Some(Body::FenceProven {
            key,
            proof: regent_core::FenceProof::Acknowledged(mut evidence),
            candidates,
        }) = world.answer(&effect)
        else {
            panic!("no acknowledgement")
        };
        evidence.clean = clean;
        world.now_ns += 4_000_000_000;
        let proof = regent_core::FenceProof::Acknowledged(evidence);
        world.propose(Body::FenceProven { key, proof, candidates }).unwrap();
        let loss = loss(&world, id);
        let upper = upper(&loss);
        let expected = if clean { (0x800, 0) } else { (0x700, 4_000) };
        assert_eq!((upper.bytes_at_last_contact.unwrap(), upper.exposed_ms), expected);
    }
}

/// A leader that never heard the primary counts the silence that it inherited, and knows where it stood. Seen to fail with an
/// unknown age taken for 0.
#[test]
fn an_inherited_silence_is_exposure() {
    let mut world = World::healthy(&["a", "b"]);
    world.member("gravl", "a").silent = true;
    world.run(10);
    world.lead(2, true);
    world.run(20);
    world.run(20);
    world.applied("fence");
    let operation = world.cluster("gravl").operation.as_ref().unwrap();
    let upper = upper(&operation.loss);
    assert_eq!((upper.primary_lsn, upper.bytes_at_last_contact), (Some(Lsn(0)), Some(0)));
    assert_eq!(upper.exposed_ms, 50_000);
}
