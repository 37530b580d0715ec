//! The lease table: each invariant with the schedule that would break promise 1 without it.

use regent_core::{BoundPending, Confirmed, FenceProof, Leadership, LeaseTable, NotLeading, State};
use regent_types::{
    Acknowledgement, BootId, CoordinatorId, Epoch, Heartbeat, InstanceId, LeaseDecision, LeaseRefusal,
};

use super::world::{SECOND_NS, World, cluster_name, member_name, policy};

fn confirmed(world: &World) -> Confirmed {
    Confirmed { leadership: world.leadership, read_index: world.state.applied_index }
}

fn beat(world: &mut World, name: &str) -> Heartbeat {
    let now_ns = world.now_ns;
    world.member("gravl", name).heartbeat(now_ns)
}

fn ask(world: &mut World, heartbeat: &Heartbeat) -> Result<Acknowledgement, NotLeading> {
    let confirmed = confirmed(world);
    world.leases.grant(world.now_ns, &confirmed, &world.state, heartbeat)
}

fn refusal(world: &mut World, heartbeat: &Heartbeat) -> LeaseRefusal {
    match ask(world, heartbeat).unwrap().lease {
        LeaseDecision::Refused(refusal) => refusal,
        LeaseDecision::Granted(grant) => panic!("granted: {grant:?}"),
    }
}

/// A healthy cluster whose epoch 1 an operator's failover has just fenced.
fn fenced() -> World {
    let mut world = World::healthy(&["a", "b"]);
    super::rules::failover(&mut world, None).unwrap();
    world
}

fn passed(world: &World, now_ns: u64) -> Result<FenceProof, BoundPending> {
    world.leases.bound_passed(now_ns, world.leadership, &world.state, &cluster_name("gravl"))
}

/// Seen to fail without the comparison of leaderships in `LeaseTable::led`.
#[test]
fn a_round_of_another_leadership_grants_nothing() {
    let mut world = World::healthy(&["a", "b"]);
    let old = confirmed(&world);
    world.lead(1, true);
    let heartbeat = beat(&mut world, "a");
    let answer = world.leases.grant(world.now_ns, &old, &world.state, &heartbeat);
    let expected = NotLeading::OtherLeadership { asked: old.leadership, current: Some(world.leadership) };
    assert_eq!(answer, Err(expected));
    world.leases.end();
    let expected = NotLeading::OtherLeadership { asked: world.leadership, current: None };
    assert_eq!(ask(&mut world, &heartbeat), Err(expected));
}

/// Seen to fail without the comparison of indexes in `grant`: the new leader grants an epoch whose `FenceDecided` it has in
/// its log only.
#[test]
fn a_state_behind_the_read_index_grants_nothing() {
    let mut world = World::healthy(&["a", "b"]);
    let heartbeat = beat(&mut world, "a");
    let applied = world.state.applied_index;
    let ahead = Confirmed { leadership: world.leadership, read_index: applied + 1 };
    let answer = world.leases.grant(world.now_ns, &ahead, &world.state, &heartbeat);
    assert_eq!(answer, Err(NotLeading::Behind { applied, read_index: applied + 1 }));
}

#[test]
fn a_grant_counts_from_the_heartbeats_stamp() {
    let mut world = World::healthy(&["a", "b"]);
    let heartbeat = beat(&mut world, "a");
    world.now_ns += 5 * SECOND_NS;
    let acknowledgement = ask(&mut world, &heartbeat).unwrap();
    let LeaseDecision::Granted(grant) = acknowledgement.lease else { panic!("refused") };
    assert_eq!((grant.epoch, grant.stamp_ns, grant.ttl_ms), (Epoch(1), heartbeat.stamp_ns, 20_000));
    assert_eq!(acknowledgement.nonce, heartbeat.nonce);
}

/// Seen to fail with `leasable` not asked in `decide`.
#[test]
fn nothing_is_granted_once_the_fence_is_decided() {
    let mut world = fenced();
    let heartbeat = beat(&mut world, "a");
    let refusal = refusal(&mut world, &heartbeat);
    assert_eq!(refusal, LeaseRefusal::Fenced { epoch: Epoch(1), fenced_through: Epoch(1) });
}

/// Seen to fail without the comparison of instances, and of boots, in `decide`.
#[test]
fn only_the_bound_instance_of_its_boot_is_granted() {
    let mut world = World::healthy(&["a", "b"]);
    let (epoch, bound) = (Epoch(1), world.member("gravl", "a").instance);
    let mut other = beat(&mut world, "a");
    other.instance = InstanceId(99);
    let expected = LeaseRefusal::OtherInstance { epoch, bound, presented: InstanceId(99) };
    assert_eq!(refusal(&mut world, &other), expected);
    let mut other_boot = beat(&mut world, "a");
    other_boot.boot = BootId("boot-2".into());
    assert_eq!(
        refusal(&mut world, &other_boot),
        LeaseRefusal::OtherInstance { epoch, bound, presented: bound }
    );
    let standby = beat(&mut world, "b");
    let expected = LeaseRefusal::NotAppointed { epoch, holder: Some(member_name("a")) };
    assert_eq!(refusal(&mut world, &standby), expected);
    // The right instance under another member's name.
    let mut disguised = beat(&mut world, "a");
    disguised.member = member_name("b");
    assert!(matches!(refusal(&mut world, &disguised), LeaseRefusal::NotAppointed { .. }));
    let mut unknown = beat(&mut world, "a");
    unknown.cluster = cluster_name("rides");
    assert!(matches!(refusal(&mut world, &unknown), LeaseRefusal::Unknown { .. }));
}

/// Seen to fail with `now_ns < until_ns` for `<=`, and with `kill_ms` left out of `LeaseTerms::bound_ns`.
#[test]
fn the_bound_passes_one_nanosecond_after_the_last_lease_can_end() {
    let mut world = fenced();
    // The last grant was made in the last second of `healthy`, the election is older.
    let until_ns = world.now_ns + policy().lease.bound_ns();
    let pending = passed(&world, until_ns);
    assert_eq!(pending, Err(BoundPending::Remaining { remaining_ns: 1 }));
    let proof = passed(&world, until_ns + 1).unwrap();
    assert!(matches!(proof, FenceProof::LeaseExpired { leadership, .. } if leadership == world.leadership));
    // A node of another leadership has nothing to say.
    world.leadership.term += 1;
    assert!(matches!(passed(&world, u64::MAX), Err(BoundPending::NotLeading(_))));
}

/// Seen to fail with `elected_ns` taken for the bound without a lease's length.
#[test]
fn a_new_leadership_assumes_a_lease_granted_at_its_election() {
    let mut world = fenced();
    world.now_ns += 5 * SECOND_NS;
    world.lead(1, true);
    let until_ns = world.now_ns + policy().lease.bound_ns();
    assert_eq!(passed(&world, until_ns), Err(BoundPending::Remaining { remaining_ns: 1 }));
    assert!(passed(&world, until_ns + 1).is_ok());
    // Told of the same leadership again, it does not start anew; after an end it does.
    world.leases.begin(world.leadership, world.now_ns + 9 * SECOND_NS);
    assert!(passed(&world, until_ns + 1).is_ok());
    world.leases.end();
    world.leases.begin(world.leadership, world.now_ns + 9 * SECOND_NS);
    assert_eq!(passed(&world, until_ns), Err(BoundPending::Remaining { remaining_ns: 9 * SECOND_NS + 1 }));
}

/// A promoted target's lease counts for the next fence. Seen to fail with the bound remembered per epoch's first grant.
#[test]
fn the_targets_lease_is_waited_for_too() {
    let mut world = fenced();
    world.applied("fence");
    world.second();
    world.run(10);
    let granted_ns = world.now_ns;
    let overdue = world.cluster("gravl").operation.as_ref().unwrap();
    assert_eq!(overdue.step, regent_core::Step::Fence, "promote is overdue after 10 s");
    let until_ns = granted_ns + policy().lease.bound_ns();
    assert_eq!(passed(&world, until_ns), Err(BoundPending::Remaining { remaining_ns: 1 }));
}

/// Seen to fail without the `NotDecided` answer: a proof for an epoch that is being granted.
#[test]
fn there_is_no_proof_before_the_fence_is_decided() {
    let world = World::healthy(&["a", "b"]);
    let expected = BoundPending::NotDecided { epoch: Epoch(1), fenced_through: Epoch(0) };
    assert_eq!(passed(&world, u64::MAX), Err(expected));
    let table = LeaseTable::new();
    let leadership = Leadership { term: 1, node: CoordinatorId(1) };
    let asked = table.bound_passed(0, leadership, &State::default(), &cluster_name("gravl"));
    assert!(matches!(asked, Err(BoundPending::NotLeading(_))));
}

#[test]
fn what_is_left_of_a_lease_is_shown_until_it_ends() {
    let world = World::healthy(&["a", "b"]);
    let cluster = world.cluster("gravl");
    assert_eq!(world.leases.held(world.now_ns, cluster), Some(20 * SECOND_NS));
    assert_eq!(world.leases.held(world.now_ns + 20 * SECOND_NS, cluster), None);
}
