//! The table of precedence, cell by cell: what `precedence::verdict` says is what the core does, and what docs/operations.md
//! shows.

use std::{fs, path::Path};

use regent_core::{
    Body, Declare, FEATURE_LEVEL, OperatorRequest, Rejection, Reply, RequestKind, Trigger,
    precedence::{PROPOSED, Proposed, RUNNING, Running, Verdict, running, verdict},
};
use regent_types::{OperationId, Outcome, RequestId};

use super::world::{World, cluster_name, config, member_name, outcome};

fn request(world: &World, id: &str, kind: RequestKind) -> Body {
    Body::Request(OperatorRequest {
        cluster: cluster_name("gravl"),
        actor: "alice".into(),
        reason: "because".into(),
        expected_epoch: world.cluster("gravl").epoch,
        request_id: RequestId::new(id).unwrap(),
        kind,
    })
}

fn switchover(world: &World) -> RequestKind {
    let readiness = world.detector.readiness(world.now_ns, world.cluster("gravl"));
    RequestKind::Switchover { to: None, readiness: Box::new(readiness) }
}

fn drill(world: &World, full: bool) -> RequestKind {
    let readiness = world.detector.readiness(world.now_ns, world.cluster("gravl"));
    RequestKind::Drill { full, readiness: Box::new(readiness) }
}

fn failover(world: &World) -> RequestKind {
    let evidence = world.detector.evidence(world.now_ns, world.cluster("gravl"));
    RequestKind::Failover { to: None, consent_to_loss: None, evidence }
}

fn declare(world: &World, member: &str, trigger: Trigger) -> Body {
    let cluster = world.cluster("gravl");
    Body::Declare(Declare {
        cluster: cluster_name("gravl"),
        expected_epoch: cluster.epoch,
        member: member_name(member),
        trigger,
        evidence: world.detector.evidence(world.now_ns, cluster),
    })
}

/// A world in which that runs; a is or was primary, b and c are standbys.
fn world_in(state: Running) -> World {
    if state == Running::Bootstrap {
        let mut world = World::new(vec![config("gravl", &["a", "b", "c"])]);
        world.second();
        return world;
    }
    let mut world = World::healthy(&["a", "b", "c"]);
    world.propose(Body::RaiseLevel { level: FEATURE_LEVEL }).unwrap();
    let mut ask = |kind: fn(&World) -> RequestKind| {
        let body = request(&world, "begin", kind(&world));
        world.propose(body).unwrap();
    };
    match state {
        Running::Nothing | Running::Bootstrap => {}
        Running::FailoverFencing => ask(failover),
        Running::MovePreparing | Running::MoveFencing | Running::Promoting | Running::Verified => {
            ask(switchover);
        }
        Running::Drilling => ask(|world| drill(world, false)),
        Running::Touring => {
            ask(|world| drill(world, true));
            world.run(31);
        }
        Running::Rejoining => {
            let body = declare(&world, "c", Trigger::NotInSync { why: "a test".into() });
            world.propose(body).unwrap();
        }
    }
    let answers: &[&str] = match state {
        Running::MoveFencing => &["checkpoint"],
        Running::Promoting => &["checkpoint", "handover"],
        Running::Verified => &["checkpoint", "handover", "promote"],
        _ => &[],
    };
    for answer in answers {
        world.applied(answer);
    }
    world
}

fn propose(world: &mut World, proposed: Proposed) -> Reply {
    let holder = world.cluster("gravl").appointment.as_ref().map_or("a".to_owned(), |a| a.member.to_string());
    // After a switchover is verified nobody else was seen in sync yet: the table is asked, not the candidates.
    let body = match proposed {
        Proposed::AutomaticFailover => declare(world, &holder, Trigger::PostgresDown { down_ms: 60_000 }),
        Proposed::OperatorFailover => request(world, "cell", failover(world)),
        Proposed::PlannedMove => request(world, "cell", switchover(world)),
        Proposed::Rejoin => {
            declare(world, if holder == "b" { "c" } else { "b" }, Trigger::NotInSync { why: "a test".into() })
        }
        Proposed::Abort => request(world, "cell", RequestKind::Abort),
        Proposed::AssumeFenced => request(world, "cell", RequestKind::AssumeFenced),
        Proposed::Drill => request(world, "cell", drill(world, false)),
    };
    world.excepted = true;
    world.propose(body)
}

/// A refusal because of what runs, not because of the proposal itself.
fn by_precedence(rejection: &Rejection) -> bool {
    matches!(
        rejection,
        Rejection::OperationRunning { .. } | Rejection::Precedence { .. } | Rejection::NotWaiting
    )
}

/// What runs, or a full drill between its moves.
fn under_way(world: &World) -> Option<OperationId> {
    let cluster = world.cluster("gravl");
    let drill = cluster.rehearsal.as_ref().map(|rehearsal| rehearsal.drill.id);
    cluster.operation.as_ref().map(|operation| operation.id).or(drill)
}

#[test]
fn every_cell_is_what_the_core_does() {
    for state in RUNNING {
        for proposed in PROPOSED {
            let mut world = world_in(state);
            assert_eq!(running(world.cluster("gravl")), state);
            let before = under_way(&world);
            let reply = propose(&mut world, proposed);
            let cell = format!("{proposed:?} while {state:?}: {reply:?}");
            let after = under_way(&world);
            match (verdict(proposed, state), &reply) {
                // Nothing runs and nothing is scheduled: there is nothing to join.
                (Verdict::Joins(_), Err(Rejection::NotWaiting)) if state == Running::Nothing => {}
                (Verdict::Begins, Ok(_)) => {
                    assert!(before.is_none() || state == Running::Touring, "{cell}");
                    assert!(after.is_some(), "{cell}");
                }
                // Nobody else is in sync right after a promotion: said by the candidates, not by the table.
                (Verdict::Ends(_), Err(Rejection::NoCandidate { .. })) if state == Running::Verified => {}
                (Verdict::Ends(_), Ok(_)) => assert!(after.is_some() && after != before, "{cell}"),
                (Verdict::Joins(_), Ok(_)) => assert!(before.is_some(), "{cell}"),
                (Verdict::Waits(_) | Verdict::Refused(_), Err(rejection)) => {
                    // Without an established primary there is nobody to rejoin, whatever runs.
                    let nobody = *rejection == Rejection::NoPrimary && state == Running::Promoting;
                    assert!(by_precedence(rejection) || nobody || state == Running::Bootstrap, "{cell}");
                    assert_eq!(before, after, "{cell}");
                }
                (verdict, _) => panic!("the table says {verdict:?}: {cell}"),
            }
        }
    }
}

#[test]
fn a_failover_that_takes_over_a_fence_keeps_its_proofs() {
    let mut world = world_in(Running::Promoting);
    let effect = world.effect("promote");
    let refused = Outcome::Refused { reason: "no".into() };
    world.propose(outcome(&effect.key, refused)).unwrap();
    assert_eq!(running(world.cluster("gravl")), Running::MoveFencing);
    let from = world.cluster("gravl").operation.as_ref().unwrap().from.clone();
    propose(&mut world, Proposed::OperatorFailover).unwrap();
    let taken = world.cluster("gravl").operation.as_ref().unwrap();
    assert_eq!(taken.from, from, "the old primary is the way back");
    assert!(!taken.fences.is_empty(), "its acknowledgement was forgotten");
}

fn table() -> String {
    let heads =
        ["nothing", "bootstrap", "failover, fencing", "move, preparing", "move, fencing", "promoting"];
    let heads = heads.iter().chain(&["verified", "rejoin", "drill, detecting", "drill, between moves"]);
    let mut text = String::from("| proposed \\ running |");
    heads.for_each(|head| text.push_str(&format!(" {head} |")));
    text.push_str(&format!("\n|{}\n", " --- |".repeat(RUNNING.len() + 1)));
    for (proposed, name) in PROPOSED.into_iter().zip([
        "failover (detector)",
        "failover (operator)",
        "switchover, failback",
        "rejoin",
        "abort",
        "assume-fenced",
        "drill",
    ]) {
        text.push_str(&format!("| {name} |"));
        for state in RUNNING {
            let word = match verdict(proposed, state) {
                Verdict::Begins => "begins",
                Verdict::Ends(_) => "ends it",
                Verdict::Joins(_) => "joins",
                Verdict::Waits(_) => "waits",
                Verdict::Refused(_) => "refused",
            };
            text.push_str(&format!(" {word} |"));
        }
        text.push('\n');
    }
    text
}

#[test]
fn the_documentation_shows_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations.md");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(&table()), "docs/operations.md must contain:\n{}", table());
}
