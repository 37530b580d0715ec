//! Promises at a real guard: given, kept over its death, lost; and received, for a lease that runs.

mod common;

use common::{Lab, postgres_bins, wait_until};
use regent_guard::clock::boottime_ns;
use regent_guard::wire::Request;
use std::path::PathBuf;
use std::time::Duration;

fn newest() -> PathBuf {
    postgres_bins().pop().expect("a PostgreSQL is installed")
}

fn restart(lab: &mut Lab) {
    lab.signal_guard(libc::SIGKILL);
    lab.reap_guard();
    lab.start_guard();
}

/// A guard whose state file says that no promise was ever given: the first start of one waits for the longest.
fn without_promises(more: &str) -> Lab {
    let mut lab = Lab::empty(&newest());
    lab.more = more.to_owned();
    lab.start_guard();
    lab.ok(&Request::ClosePromises { epoch: 1, void: true });
    assert_eq!(lab.status().promised_until_ns, None);
    lab
}

const CLOSE: Request = Request::ClosePromises { epoch: 4, void: false };

#[test]
fn a_promise_outlives_the_guard_and_ends_by_itself() {
    let mut lab = without_promises("");
    let until: u64 =
        lab.ok(&Request::Promise { epoch: 4, hold_ms: 4000 }).number("promised_until_ns").unwrap();
    restart(&mut lab);
    let status = lab.status();
    assert_eq!((status.promised_epoch, status.promised_until_ns), (Some(4), Some(until)));
    let left = lab.refused(&CLOSE, "a promise to epoch 4 is outstanding for another");
    assert!((1..=4000).contains(&left.number::<u64>("left_ms").unwrap()));
    // Neither a coordinator that did not ask, nor a shorter promise, takes it back.
    lab.refused(&lab.grant_request(5, 10.0), "promised for another");
    lab.ok(&Request::Promise { epoch: 4, hold_ms: 1 });
    assert_eq!(lab.status().promised_until_ns, Some(until));
    wait_until("the promise's end", Duration::from_secs(10), || boottime_ns() > until);
    lab.ok(&CLOSE);
    lab.refused(
        &Request::Promise { epoch: 4, hold_ms: 1000 },
        "promises are closed through epoch 4, 4 is asked",
    );
    lab.grant(5, 10.0);
}

#[test]
fn a_promise_is_refused_to_whoever_is_fenced_stale_or_asks_for_too_long() {
    let lab = without_promises("promise_hold_max = '61s'");
    lab.refused(&Request::Promise { epoch: 4, hold_ms: 61_001 }, "longer than promise_hold_max, 61000 ms");
    lab.ok(&Request::Fence { epoch: 3, grace_ms: 0 });
    lab.refused(&Request::Promise { epoch: 3, hold_ms: 100 }, "epoch 3 is fenced here: fenced through 3");
    lab.grant(5, 20.0);
    lab.refused(&Request::Promise { epoch: 4, hold_ms: 100 }, "epoch 4 is stale: the highest heard of is 5");
    lab.refused(&Request::Promise { epoch: 5, hold_ms: 100 }, "holds the lease of epoch 5 itself");
    assert_eq!(lab.status().promised_until_ns, None);
}

#[test]
fn a_lost_promise_counts_as_the_longest_unless_it_is_void() {
    let mut lab = without_promises("");
    lab.ok(&Request::Promise { epoch: 4, hold_ms: 1 });
    lab.signal_guard(libc::SIGKILL);
    lab.reap_guard();
    std::fs::remove_file(lab.path("state/guard.state")).unwrap();
    lab.start_guard();
    let status = lab.status();
    let left_ns = status.promised_until_ns.unwrap() - boottime_ns();
    // Five quarters of lease_ttl_max (60 s) and 2 s, from the guard's start.
    assert!((60_000_000_000..=77_000_000_000).contains(&left_ns), "{left_ns}");
    assert_eq!((status.state_file.as_str(), status.promised_epoch), ("missing", None));
    lab.refused(&CLOSE, "outstanding");
    // Its end does not begin anew with each start.
    restart(&mut lab);
    assert_eq!(lab.status().promised_until_ns, status.promised_until_ns);
    lab.ok(&Request::ClosePromises { epoch: 4, void: true });
    assert_eq!(lab.status().promised_until_ns, None);
}

#[test]
fn a_void_promise_of_an_older_epoch_says_nothing_of_a_newer_one() {
    let lab = without_promises("");
    lab.ok(&Request::Promise { epoch: 6, hold_ms: 20_000 });
    lab.refused(&Request::ClosePromises { epoch: 5, void: true }, "a promise to epoch 6 is outstanding");
    lab.ok(&Request::ClosePromises { epoch: 6, void: true });
}

#[test]
fn promises_extend_a_running_lease_and_never_make_one() {
    let mut lab = Lab::start(&newest());
    let extend = |lab: &Lab, epoch, seconds: f64| match lab.grant_request(epoch, seconds) {
        Request::Grant { epoch, instance, deadline_ns } => Request::Extend { epoch, instance, deadline_ns },
        other => panic!("{other:?}"),
    };
    lab.refused(&extend(&lab, 1, 10.0), "promises extend a running lease of epoch 1, they make none");
    let first = lab.start_primary(1, 6.0);
    lab.refused(&extend(&lab, 2, 10.0), "they make none");
    let Request::Extend { epoch, instance, deadline_ns } = extend(&lab, 1, 10.0) else { panic!() };
    lab.refused(&Request::Extend { epoch, instance: instance ^ 1, deadline_ns }, "the grant is for instance");
    lab.refused(&extend(&lab, 1, 100.0), "lease_ttl_max");
    lab.ok(&Request::Extend { epoch, instance, deadline_ns });
    assert_eq!(lab.status().lease_deadline_ns, Some(deadline_ns));
    // An earlier deadline takes nothing away.
    lab.ok(&extend(&lab, 1, 3.0));
    assert_eq!(lab.status().lease_deadline_ns, Some(deadline_ns));
    wait_until("the first deadline", Duration::from_secs(20), || boottime_ns() > first + 200_000_000);
    assert_eq!(lab.sql("SELECT pg_is_in_recovery()"), "f", "PostgreSQL has outlived its first lease");
    lab.ok(&Request::Fence { epoch: 1, grace_ms: 0 });
    lab.refused(&extend(&lab, 1, 10.0), "they make none");
    restart(&mut lab);
    lab.refused(&extend(&lab, 1, 10.0), "they make none");
}
