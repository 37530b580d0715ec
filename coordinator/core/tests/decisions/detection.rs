//! The detector: which evidence counts, and what a leader's memory may not be fooled by.

use regent_core::{Detector, Hearing, Leadership, OperationResult, Step, Trigger};
use regent_types::{ClusterName, CoordinatorId, DataForm, DiskProbe, MemberName, PostgresState};

use super::world::{SECOND_NS, World, cluster_name, member_name};

fn step(world: &World) -> Option<Step> {
    world.cluster("gravl").operation.as_ref().map(|operation| operation.step)
}

fn refusal(world: &World) -> &str {
    world.detector.refusal(&cluster_name("gravl")).unwrap_or_default()
}

fn hearing(age_ms: u64) -> Hearing {
    Hearing { cluster: cluster_name("gravl"), member: member_name("a"), age_ms, position: None }
}

fn ids() -> (ClusterName, MemberName) {
    (cluster_name("gravl"), member_name("a"))
}

/// A heartbeat delivered late by a relay says what was: neither trouble that has passed, nor an instance that is gone. Seen to
/// fail (a healthy primary is fenced) without the comparison of stamps.
#[test]
fn an_overtaken_heartbeat_is_no_trouble() {
    let mut world = World::healthy(&["a", "b"]);
    let now_ns = world.now_ns;
    let mut old = world.member("gravl", "a").heartbeat(now_ns);
    old.report.disk.probe = DiskProbe::Failed { error: "EIO".into() };
    world.second();
    world.detector.on_heartbeat(world.now_ns, &old);
    assert_eq!(world.detector.tick(world.now_ns, &world.state, 3), []);
    world.restart("gravl", "a", true);
    world.settle();
    world.detector.on_heartbeat(world.now_ns, &old);
    assert_eq!(world.detector.tick(world.now_ns, &world.state, 3), []);
}

/// A disk that is full for a moment costs no failover; one that fails does, at once.
#[test]
fn a_full_disk_is_not_a_broken_one() {
    for (error, declared) in [("ENOSPC", false), ("EDQUOT", false), ("EIO", true), ("EROFS", true)] {
        let mut world = World::healthy(&["a", "b"]);
        world.member("gravl", "a").probe = DiskProbe::Failed { error: error.into() };
        world.run(2);
        assert_eq!(step(&world).is_some(), declared, "{error}");
    }
}

/// A second machine with the same identity does not cost the first one its lease, as long as the first one is heard. Seen
/// to fail without `heard_as`.
#[test]
fn a_twin_does_not_cost_the_primary_its_lease() {
    let mut world = World::healthy(&["a", "b"]);
    let mut twin = world.member("gravl", "a").clone();
    twin.restart(99, false);
    for _ in 0..60 {
        world.second();
        world.detector.on_heartbeat(world.now_ns, &twin.heartbeat(world.now_ns));
        let bodies = world.detector.tick(world.now_ns, &world.state, 3);
        assert_eq!(bodies, []);
    }
    // The first one is gone: now it is a restart, which waits for the bound.
    world.member("gravl", "a").silent = true;
    for _ in 0..8 {
        world.second();
        world.detector.on_heartbeat(world.now_ns, &twin.heartbeat(world.now_ns));
    }
    let operation = world.cluster("gravl").operation.as_ref().expect("declared");
    assert!(matches!(operation.trigger, Trigger::InstanceChanged { .. }));
}

/// A standby that could not be promoted lets no primary be fenced. Seen to fail with everybody who is heard counted.
#[test]
fn only_who_could_take_over_lets_a_primary_be_fenced() {
    for spoil in [0, 1] {
        let mut world = World::healthy(&["a", "b"]);
        let standby = world.member("gravl", "b");
        match spoil {
            0 => standby.refused = Some("no PID namespace".into()),
            _ => standby.form = DataForm::Rewinding,
        }
        world.member("gravl", "a").probe = DiskProbe::Failed { error: "EIO".into() };
        world.run(1);
        assert_eq!(world.cluster("gravl").fenced_through.0, 0, "{spoil}");
        assert!(refusal(&world).contains("its agent is not heard"), "{}", refusal(&world));
    }
}

#[test]
fn thresholds_are_met_to_the_millisecond() {
    let mut world = World::healthy(&["a", "b"]);
    world.member("gravl", "a").probe = DiskProbe::Stalled { for_ms: 4_999 };
    world.run(1);
    assert_eq!(step(&world), None);
    world.member("gravl", "a").probe = DiskProbe::Stalled { for_ms: 5_000 };
    world.run(1);
    assert_eq!(step(&world), Some(Step::Fence));
}

/// PostgreSQL that is down is not declared from a report that has grown old.
#[test]
fn a_stale_report_triggers_nothing_but_silence() {
    let mut world = World::healthy(&["a", "b"]);
    let now_ns = world.now_ns;
    let member = world.member("gravl", "a");
    member.down_since_ns = Some(now_ns - 9 * SECOND_NS);
    world.second();
    world.member("gravl", "a").silent = true;
    // The report says 10 s by now, or less: it was the last one.
    let fenced = world.cluster("gravl").fenced_through;
    world.run(28);
    assert_eq!(
        (fenced.0, world.cluster("gravl").fenced_through.0),
        (1, 1),
        "declared from the fresh report only"
    );
    let mut world = World::healthy(&["a", "b"]);
    let now_ns = world.now_ns;
    world.member("gravl", "a").down_since_ns = Some(now_ns - 5 * SECOND_NS);
    world.second();
    world.member("gravl", "a").silent = true;
    world.run(29);
    assert_eq!(step(&world), None);
    world.run(1);
    assert_eq!(step(&world), Some(Step::Fence), "partition");
}

/// With five coordinators the leader needs two fresh relays beside itself.
#[test]
fn a_partition_needs_a_quorum_of_relays() {
    let mut world = World::healthy(&["a", "b"]);
    world.relays = false;
    world.member("gravl", "a").silent = true;
    world.run(40);
    assert_eq!(step(&world), None, "no relay reports");
    let now_ns = world.now_ns;
    world.detector.on_relay_report(now_ns, CoordinatorId(2), Vec::new());
    assert_eq!(world.detector.tick(now_ns, &world.state, 5), []);
    world.detector.on_learner_report(now_ns, CoordinatorId(6), Vec::new());
    assert_eq!(world.detector.tick(now_ns, &world.state, 5), [], "a learner has no vote");
    world.detector.on_relay_report(now_ns, CoordinatorId(3), Vec::new());
    assert_eq!(world.detector.tick(now_ns, &world.state, 5).len(), 1);
    // A report that has grown old does not count.
    let later_ns = now_ns + 5 * SECOND_NS;
    assert_eq!(world.detector.tick(later_ns, &world.state, 5), []);
}

/// A follower that hears the primary keeps the partition away, though no heartbeat reaches the leader.
#[test]
fn a_follower_that_hears_the_primary_counts() {
    let mut world = World::healthy(&["a", "b"]);
    world.member("gravl", "a").silent = true;
    for _ in 0..60 {
        world.second();
        let now_ns = world.now_ns;
        world.detector.on_relay_report(now_ns, CoordinatorId(2), vec![hearing(400)]);
    }
    assert_eq!(step(&world), None);
    let (cluster, member) = ids();
    assert_eq!(world.detector.silence_ms(world.now_ns, &cluster, &member), 400);
}

/// Numbers that no honest agent or coordinator would send. Seen to fail with plain additions.
#[test]
fn hostile_numbers_do_no_harm() {
    let mut world = World::healthy(&["a", "b"]);
    let member = world.member("gravl", "b");
    member.sample_age_ms = u64::MAX;
    let member = world.member("gravl", "a");
    member.sample_age_ms = u64::MAX;
    member.probe = DiskProbe::Stalled { for_ms: u64::MAX };
    world.run(1);
    assert_eq!(step(&world), Some(Step::Fence));
    let mut detector = Detector::new();
    detector.begin_leadership(Leadership { term: 1, node: CoordinatorId(1) }, 5, vec![hearing(u64::MAX)]);
    let (cluster, member) = ids();
    assert_eq!(detector.silence_ms(u64::MAX, &cluster, &member), u64::MAX);
    assert_eq!(detector.ages(u64::MAX)[0].age_ms, u64::MAX);
}

/// A newer hearing never makes an age older, and time before this clock's zero is no trouble.
#[test]
fn ages_only_get_younger() {
    let leadership = Leadership { term: 3, node: CoordinatorId(2) };
    let mut detector = Detector::new();
    detector.begin_leadership(leadership, SECOND_NS, vec![hearing(60_000)]);
    let (cluster, member) = ids();
    assert_eq!(detector.silence_ms(SECOND_NS, &cluster, &member), 60_000);
    detector.on_relay_report(SECOND_NS, CoordinatorId(3), vec![hearing(90_000)]);
    assert_eq!(detector.silence_ms(SECOND_NS, &cluster, &member), 60_000);
    detector.on_relay_report(SECOND_NS, CoordinatorId(3), vec![hearing(10)]);
    assert_eq!(detector.silence_ms(2 * SECOND_NS, &cluster, &member), 1_010);
    detector.end_leadership();
    assert_eq!(detector.silence_ms(9 * SECOND_NS, &cluster, &member), 0);
}

/// Sync is confirmed after a whole window with fresh samples of both sides. Seen to fail with the window's restart left out.
#[test]
fn a_gap_restarts_the_window_of_sync() {
    let mut world = World::healthy(&["a", "b"]);
    super::rules::failover(&mut world, None).unwrap();
    for name in ["fence", "promote", "embedded", "validate"] {
        world.applied(name);
    }
    world.second();
    world.applied("rejoin");
    world.run(2);
    world.member("gravl", "a").streaming = false;
    world.run(1);
    world.member("gravl", "a").streaming = true;
    world.run(3);
    assert_eq!(step(&world), Some(Step::Confirm), "two seconds, a gap, two seconds");
    // A frozen sample is not a small lag.
    world.member("gravl", "b").sample_age_ms = 60_000;
    world.run(5);
    assert_eq!(step(&world), Some(Step::Confirm));
    world.member("gravl", "b").sample_age_ms = 0;
    world.run(4);
    assert_eq!(step(&world), None);
}

/// A rejoin has all the time that its member needs while it gets on, and gives up when it does not, whatever it reports. Seen
/// to fail (the second half) with news counted as progress.
#[test]
fn a_rejoin_without_progress_gives_up() {
    let mut world = World::healthy(&["a", "b"]);
    super::rules::failover(&mut world, None).unwrap();
    for name in ["fence", "promote", "embedded", "validate"] {
        world.applied(name);
    }
    world.second();
    assert_eq!(step(&world), Some(Step::Rebuild));
    for copied in 1..20 {
        let job = regent_types::JobProgress { kind: "clone".into(), done_bytes: copied, total_bytes: None };
        world.member("gravl", "a").job = Some(job);
        world.run(50);
        assert_eq!(step(&world), Some(Step::Rebuild), "copied {copied}");
    }
    world.run(8);
    let aborted = |world: &World| {
        let mut finished = world.cluster("gravl").finished.iter();
        finished.any(|operation| matches!(operation.result, Some(OperationResult::Aborted { .. })))
    };
    assert!(!aborted(&world));
    world.run(3);
    assert!(aborted(&world));
}

/// The initial primary starts only where its data directory allows it.
#[test]
fn a_bootstrap_waits_for_a_usable_member() {
    let mut world = World::new(vec![super::world::config("gravl", &["a", "b"])]);
    world.member("gravl", "a").form = DataForm::Standby;
    world.run(3);
    world.member("gravl", "a").form = DataForm::Empty;
    world.member("gravl", "a").refused = Some("no kernel timer".into());
    world.run(3);
    world.member("gravl", "a").refused = None;
    world.member("gravl", "a").state = PostgresState::Starting;
    world.run(3);
    assert_eq!(step(&world), None);
    world.member("gravl", "a").state = PostgresState::Stopped;
    world.run(1);
    assert_eq!(step(&world), Some(Step::Promote));
}
