//! What an acknowledgement may do: extend the lease from the heartbeat that it answers, fence, or nothing.

use regent_agent_core::{AckAction, Ending, Identity, Session, SessionTimes};
use regent_types::{
    Acknowledgement, ClusterView, Epoch, Grant, InstanceId, LeaseDecision, LeaseRefusal, MemberName,
};

const ME: InstanceId = InstanceId(7);
const SECOND: u64 = 1_000_000_000;

fn session() -> Session {
    let times = SessionTimes { session_timeout_ms: 3000, backoff_min_ms: 100, backoff_max_ms: 300 };
    let mut session = Session::new(times, 3, 0, 100);
    session.begin(0);
    session
}

fn me(lease: Option<u64>, fenced: u64) -> Identity {
    Identity { instance: ME, lease_epoch: lease.map(Epoch), fenced_through: Epoch(fenced) }
}

fn grant(stamp_ns: u64) -> Grant {
    Grant { epoch: Epoch(5), instance: ME, stamp_ns, ttl_ms: 8000 }
}

fn granted(nonce: u64, grant: Grant) -> Acknowledgement {
    Acknowledgement { nonce, lease: LeaseDecision::Granted(grant), view: None, group: None }
}

fn refused(nonce: u64, refusal: LeaseRefusal) -> Acknowledgement {
    Acknowledgement { nonce, lease: LeaseDecision::Refused(refusal), view: None, group: None }
}

#[test]
fn only_the_acknowledgement_of_a_sent_heartbeat_extends_and_from_its_stamp() {
    let mut s = session();
    let nonce = s.send(10 * SECOND, ME);
    let later = s.send(11 * SECOND, ME);
    assert_eq!(
        s.acknowledged(&granted(nonce, grant(10 * SECOND)), me(None, 4), 12 * SECOND),
        (AckAction::Extend(grant(10 * SECOND)), Some(10 * SECOND))
    );
    let ignored = |s: &mut Session, ack: Acknowledgement, who: Identity, now: u64| {
        let (action, _) = s.acknowledged(&ack, who, now);
        assert!(matches!(action, AckAction::Ignored(_)), "{action:?}");
    };
    // The same nonce twice; one that was never sent; the stamp of another heartbeat.
    ignored(&mut s, granted(nonce, grant(10 * SECOND)), me(None, 4), 12 * SECOND);
    ignored(&mut s, granted(999, grant(11 * SECOND)), me(None, 4), 12 * SECOND);
    ignored(&mut s, granted(later, grant(12 * SECOND)), me(None, 4), 12 * SECOND);
    // Another instance, on either side.
    let nonce = s.send(20 * SECOND, ME);
    let other = Grant { instance: InstanceId(8), ..grant(20 * SECOND) };
    ignored(&mut s, granted(nonce, other), me(None, 4), 21 * SECOND);
    let nonce = s.send(20 * SECOND, InstanceId(6));
    ignored(&mut s, granted(nonce, grant(20 * SECOND)), me(None, 4), 21 * SECOND);
    // Fenced here; over already.
    let nonce = s.send(30 * SECOND, ME);
    ignored(&mut s, granted(nonce, grant(30 * SECOND)), me(None, 5), 31 * SECOND);
    let nonce = s.send(40 * SECOND, ME);
    ignored(&mut s, granted(nonce, grant(40 * SECOND)), me(None, 4), 48 * SECOND);
    // A heartbeat of the session before.
    let nonce = s.send(50 * SECOND, ME);
    s.lost(Ending::Failed);
    s.begin(51 * SECOND);
    ignored(&mut s, granted(nonce, grant(50 * SECOND)), me(None, 4), 51 * SECOND);
}

#[test]
fn a_refusal_fences_what_it_closes_and_never_extends() {
    let fenced =
        |epoch, through| LeaseRefusal::Fenced { epoch: Epoch(epoch), fenced_through: Epoch(through) };
    let other = MemberName::new("b").unwrap();
    let lost = |epoch| LeaseRefusal::NotAppointed { epoch: Epoch(epoch), holder: Some(other.clone()) };
    let bound =
        |epoch| LeaseRefusal::OtherInstance { epoch: Epoch(epoch), bound: InstanceId(8), presented: ME };
    let nobody = LeaseRefusal::NotAppointed { epoch: Epoch(0), holder: None };
    for (refusal, lease, already, through) in [
        (fenced(5, 5), Some(5), 4, Some(5)),
        (fenced(5, 5), None, 5, None),
        (lost(6), Some(5), 4, Some(5)),
        (lost(5), Some(5), 4, Some(5)),
        (lost(6), None, 5, None),
        (bound(5), Some(5), 4, Some(5)),
        (bound(5), None, 2, Some(4)),
        (nobody, None, 0, None),
    ] {
        let mut s = session();
        let nonce = s.send(SECOND, ME);
        let (action, _) = s.acknowledged(&refused(nonce, refusal.clone()), me(lease, already), 2 * SECOND);
        match (action, through) {
            (AckAction::Fence { through: got, .. }, Some(want)) => assert_eq!(got, Epoch(want), "{refusal}"),
            (AckAction::NotHeld(_), None) => {}
            (action, _) => panic!("{refusal}: {action:?}"),
        }
    }
}

#[test]
fn the_view_closes_epochs_too() {
    let mut s = session();
    let nonce = s.send(SECOND, ME);
    let holder = Some(MemberName::new("b").unwrap());
    let mut ack = refused(nonce, LeaseRefusal::NotAppointed { epoch: Epoch(3), holder });
    ack.view = Some(ClusterView {
        epoch: Epoch(3),
        fenced_through: Epoch(3),
        primary: None,
        members: vec![],
        members_version: 0,
        heartbeat_interval_ms: None,
        promises: None,
        parameters: None,
        supersedes: vec![],
        synchronous: None,
    });
    let (action, _) = s.acknowledged(&ack, me(None, 0), 2 * SECOND);
    assert!(matches!(action, AckAction::Fence { through: Epoch(3), .. }), "{action:?}");
}

#[test]
fn a_silent_coordinator_is_left_for_the_next_and_a_full_round_pauses_longer() {
    let mut s = session();
    assert_eq!(s.leave_at_ns(), 3 * SECOND);
    let pauses: Vec<(usize, u64)> = (0..7).map(|_| (s.coordinator(), s.lost(Ending::Failed))).collect();
    assert_eq!(pauses, [(0, 100), (1, 100), (2, 100), (0, 200), (1, 200), (2, 200), (0, 300)]);
    s.begin(5 * SECOND);
    let nonce = s.send(6 * SECOND, ME);
    s.acknowledged(&granted(nonce, grant(6 * SECOND)), me(None, 0), 7 * SECOND);
    assert_eq!((s.leave_at_ns(), s.lost(Ending::Failed)), (10 * SECOND, 100));
}

#[test]
fn the_first_coordinator_is_the_nearest_and_is_gone_back_to() {
    let mut s = session();
    let works = |s: &mut Session| {
        s.begin(5 * SECOND);
        let nonce = s.send(6 * SECOND, ME);
        s.acknowledged(&granted(nonce, grant(6 * SECOND)), me(None, 0), 7 * SECOND);
    };
    works(&mut s);
    // Its leader has changed: it relays to the next one.
    s.lost(Ending::Goodbye);
    assert_eq!(s.coordinator(), 0);
    // It knows none: the others may.
    s.lost(Ending::Goodbye);
    assert_eq!(s.coordinator(), 1);
    works(&mut s);
    s.lost(Ending::Goodbye);
    assert_eq!(s.coordinator(), 0);
    s.lost(Ending::Failed);
    assert_eq!(s.coordinator(), 1);
    works(&mut s);
    s.lost(Ending::Failed);
    assert_eq!(s.coordinator(), 0, "the second fell silent");
    works(&mut s);
    s.lost(Ending::Failed);
    assert_eq!(s.coordinator(), 1, "the first fell silent");
}
