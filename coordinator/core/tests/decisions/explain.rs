//! *Explain* tells what the detector and `apply` would do, with both sides' values.

use regent_core::{Explanation, Hearing, Shell};
use regent_types::{Automation, CoordinatorId};

use super::world::{World, cluster_name, config, member_name};

fn explained(world: &World) -> Explanation {
    let own = vec![Hearing {
        cluster: cluster_name("gravl"),
        member: member_name("a"),
        age_ms: 40,
        position: None,
    }];
    let shell = Shell { coordinators: (1..=3).map(CoordinatorId).collect(), own, ..Shell::default() };
    world.detector.explain(world.now_ns, world.cluster("gravl"), &shell).expect("it leads")
}

fn agrees(explained: &Explanation, name: &str) -> bool {
    explained.guards.iter().find(|guard| guard.name == name).expect("a guard").holds
}

#[test]
fn a_healthy_cluster_would_fail_over_only_if_the_primary_were_silent() {
    let mut world = World::healthy(&["a", "b"]);
    world.run(5);
    let explained = explained(&world);
    assert!(!explained.would && explained.would_if_silent, "{explained:#?}");
    assert!(explained.guards.iter().all(|guard| guard.holds), "{:#?}", explained.guards);
    assert!(explained.triggers.iter().all(|trigger| !trigger.holds), "{:#?}", explained.triggers);
    assert!(explained.candidates[0].able && explained.candidates[0].lag_bytes == Some(0));
    assert_eq!(explained.loss.as_ref().unwrap().bytes_at_last_contact, Some(0));
    let heard = |node| explained.heard.iter().find(|one| one.coordinator.0 == node).unwrap();
    assert_eq!((heard(1).age_ms, heard(2).age_ms, heard(2).told_ms), (Some(40), None, Some(0)));
    let (member, gaps) = &explained.gaps[0];
    assert_eq!(
        (member.as_str(), gaps.longest_ms, gaps.reached[1], gaps.reached[2]),
        ("a", 1_000, gaps.heard, 0)
    );
}

#[test]
fn what_says_no_is_named_and_the_story_is_the_deciders() {
    let mut world = World::healthy(&["a", "b"]);
    world.member("gravl", "b").silent = true;
    world.run(10);
    let lonely = explained(&world);
    assert!(!lonely.would_if_silent && !agrees(&lonely, "candidate"), "{lonely:#?}");
    assert!(lonely.if_silent.contains("b: its agent is not heard"), "{}", lonely.if_silent);
    assert!(lonely.loss.is_none());

    let mut approving = config("gravl", &["a", "b"]);
    approving.automation = Automation::Approve;
    let mut world = World::healthy_with(vec![approving]);
    world.run(2);
    let asked = explained(&world);
    assert!(!asked.would_if_silent && !agrees(&asked, "automation"), "{asked:#?}");
    assert!(asked.if_silent.contains("wait for an operator"), "{}", asked.if_silent);
    let before = world.state.clone();
    world.member("gravl", "a").silent = true;
    world.run(31);
    let pending = explained(&world);
    assert!(!pending.would && pending.verdict.contains("waits for an operator"), "{}", pending.verdict);
    assert!(pending.triggers[0].holds, "{:#?}", pending.triggers);
    assert_eq!(world.cluster("gravl").epoch, before.clusters[&cluster_name("gravl")].epoch);
}

#[test]
fn phases_come_from_thresholds_and_from_history() {
    let mut world = World::healthy(&["a", "b"]);
    world.member("gravl", "a").silent = true;
    for _ in 0..40 {
        world.second();
        world.answer_all();
    }
    world.run(2);
    let explained = explained(&world);
    let promote = explained.phases.iter().find(|phase| phase.phase == "promote").unwrap();
    assert_eq!((promote.samples, promote.at_most_ms), (1, Some(10_000)), "{promote:?}");
    assert!(promote.median_ms.is_some_and(|ms| ms >= 1_000), "{promote:?}");
    assert!(explained.verdict.starts_with("no"), "{}", explained.verdict);
}
