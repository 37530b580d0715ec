//! Grants, fences and the state file: what was fenced stays fenced, whatever arrives later and whatever becomes of the file.

mod common;

use common::{LONG, Lab, SECOND_NS, postgres_bins, wait_until, wall_seconds};
use regent_guard::clock::boottime_ns;
use regent_guard::wire::{Answer, PostgresState, Request};
use std::time::Duration;

fn newest() -> std::path::PathBuf {
    postgres_bins().pop().unwrap()
}

#[test]
fn a_fence_answers_only_when_all_is_dead_and_says_where_it_ended() {
    for bin in postgres_bins() {
        let lab = Lab::start(&bin);
        lab.start_primary(3, 50.0);
        let mut session = lab.commit_loop();
        let late = lab.grant_request(3, 50.0);
        let fields = lab.ok(&Request::Fence { epoch: 3, grace_ms: 20_000 });
        let answered = wall_seconds();
        assert_eq!(lab.processes(), Vec::<i32>::new());
        session.wait().unwrap();
        // Clean within the grace, and the numbers are pg_controldata's.
        assert_eq!(fields.get("state"), Some("shut down"));
        assert_eq!(
            fields.get("checkpoint_lsn"),
            Some(lab.controldata("Latest checkpoint location").as_str())
        );
        assert_eq!(fields.get("timeline"), Some(lab.controldata("Latest checkpoint's TimeLineID").as_str()));
        assert_eq!(fields.get("system_id"), Some(lab.controldata("Database system identifier").as_str()));
        // A grant that was in flight, a start, and a repeated fence.
        let numbers = lab.refused(&late, "epoch 3 is fenced");
        assert_eq!((numbers.get("epoch"), numbers.get("fenced_through")), (Some("3"), Some("3")));
        lab.refused(&Request::StartPrimary { epoch: 3 }, "no lease is held");
        let again = lab.ok(&Request::Fence { epoch: 3, grace_ms: 0 });
        assert_eq!(again.get("checkpoint_lsn"), fields.get("checkpoint_lsn"));
        lab.ok(&Request::Fence { epoch: 2, grace_ms: 0 });
        assert_eq!(lab.status().fenced_through, 3);
        // The next epoch is another matter; nothing was committed after the answer.
        lab.start_primary(4, 50.0);
        assert!(lab.last_beat() < answered);
    }
}

#[test]
fn a_fence_without_grace_kills_and_other_clients_are_answered_during_one_with() {
    let bin = newest();
    let lab = Lab::start(&bin);
    lab.start_primary(1, 50.0);
    let mut session = lab.commit_loop();
    // A stopped postmaster takes no shutdown signal: the ladder has to climb to the kill.
    let postmaster = libc::pid_t::try_from(lab.status().postmaster_pid.unwrap()).unwrap();
    regent_guard::sys::kill(postmaster, libc::SIGSTOP).unwrap();
    let client = lab.client();
    let fence =
        std::thread::spawn(move || client.call(&Request::Fence { epoch: 1, grace_ms: 1500 }, LONG).unwrap());
    wait_until("stopping", LONG, || lab.status().postgres == PostgresState::Stopping);
    lab.refused(&lab.grant_request(2, 10.0), "being fenced");
    lab.refused(&Request::StartStandby { create: true }, "PostgreSQL is stopping");
    let Answer::Ok(fields) = fence.join().unwrap() else { panic!("{}", lab.log()) };
    assert_eq!(fields.get("state"), Some("in production"), "killed, not shut down");
    assert_eq!(lab.processes(), Vec::<i32>::new());
    session.wait().unwrap();
}

#[test]
fn a_running_standby_survives_the_fence_of_an_older_epoch() {
    let bin = newest();
    let lab = Lab::start(&bin);
    lab.start_standby();
    let run = lab.status().started_at_ns;
    let fields = lab.ok(&Request::Fence { epoch: 7, grace_ms: 0 });
    assert_eq!(fields.get("standby"), Some("1"));
    let status = lab.status();
    assert_eq!(
        (status.postgres, status.started_at_ns, status.fenced_through),
        (PostgresState::Standby, run, 7)
    );
    lab.refused(&lab.grant_request(7, 10.0), "epoch 7 is fenced");
}

#[test]
fn a_standby_whose_lease_ends_before_it_was_promoted_stays_and_its_gate_closes() {
    let bin = newest();
    let mut lab = Lab::empty(&bin);
    lab.shutdown_margin = "1s";
    lab.initdb();
    lab.start_guard();
    lab.start_standby();
    let deadline_ns = lab.grant(1, 3.0);
    wait_until("the deadline has passed", LONG, || boottime_ns() > deadline_ns + SECOND_NS / 2);
    let status = lab.status();
    assert_eq!((status.postgres, status.lease_epoch), (PostgresState::Standby, None));
    assert!(!lab.psql("select pg_promote()").status.success());
    wait_until("killed", LONG, || lab.status().rogue_promotions == 1);
}

#[test]
fn bad_grants_are_refused_with_both_sides_numbers() {
    let bin = newest();
    let lab = Lab::start(&bin);
    let instance = lab.status().instance;
    lab.grant(5, 30.0);
    lab.refused(&lab.grant_request(4, 30.0), "epoch 4 is stale: the highest is 5");
    let fields = lab.refused(&lab.grant_request(6, 61.0), "lease_ttl_max is 60000000000 ns");
    assert_eq!(fields.get("highest_epoch"), Some("5"), "a refused grant raises nothing");
    let deadline_ns = boottime_ns() + SECOND_NS;
    lab.refused(
        &Request::Grant { epoch: 6, instance: instance ^ 1, deadline_ns },
        "the grant is for instance",
    );
    lab.refused(&Request::Grant { epoch: 6, instance, deadline_ns: 1 }, "has passed");
    assert_eq!(lab.status().highest_epoch, 5);
    lab.refused(&Request::StartPrimary { epoch: 4 }, "the lease is for epoch 5");
    lab.refused(&Request::StartPrimary { epoch: 6 }, "the lease is for epoch 5");
}

#[test]
fn a_fence_is_remembered_by_the_next_guard() {
    let bin = newest();
    let mut lab = Lab::start(&bin);
    lab.ok(&Request::Fence { epoch: 9, grace_ms: 0 });
    lab.ok(&Request::ClosePromises { epoch: 8, void: true });
    lab.signal_guard(libc::SIGKILL);
    lab.reap_guard();
    lab.start_guard();
    let status = lab.status();
    assert_eq!((status.fenced_through, status.promises_closed), (9, 8));
    lab.refused(&lab.grant_request(9, 10.0), "epoch 9 is fenced");
}

#[test]
fn bad_state_files_start_fenced_and_never_speak_for_a_predecessor() {
    let bin = newest();
    let mut lab = Lab::start(&bin);
    lab.grant(4, 10.0);
    lab.ok(&Request::Fence { epoch: 3, grace_ms: 0 });
    lab.signal_guard(libc::SIGKILL);
    lab.reap_guard();
    let path = lab.path("state/guard.state");
    let good = std::fs::read_to_string(&path).unwrap();
    assert!(good.contains("highest_epoch=4") && good.contains("fenced_through=3"), "{good}");
    let flipped = good.replace("highest_epoch=4", "highest_epoch=5");
    for (content, word) in
        [(Some(&good[..good.len() / 2]), "damaged"), (Some(&flipped), "damaged"), (None, "missing")]
    {
        match content {
            Some(content) => std::fs::write(&path, content).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        lab.start_guard();
        let status = lab.status();
        assert_eq!((status.state_file.as_str(), status.succeeds, status.lease_epoch), (word, None, None));
        lab.refused(&Request::StartPrimary { epoch: 4 }, "no lease is held");
        // Only a grant for this very instance opens it again.
        lab.signal_guard(libc::SIGKILL);
        lab.reap_guard();
    }
    let kept = std::fs::read_to_string(lab.path("state/guard.state.damaged-2")).unwrap();
    assert_eq!(kept, flipped, "the evidence is kept");
    // Another boot: the marks hold, the predecessor's death is not claimed.
    let other = regent_guard::state_file::State {
        instance: 77,
        previous_instance: None,
        lineage: vec![],
        boot_id: "another-boot".into(),
        highest_epoch: 6,
        fenced_through: 5,
        promises_closed: 0,
        promised_epoch: 0,
        promised_until_ns: 0,
    };
    regent_guard::state_file::store(&lab.path("state"), &other).unwrap();
    regent_guard_own(&path);
    lab.start_guard();
    let status = lab.status();
    assert_eq!((status.state_file.as_str(), status.succeeds, status.fenced_through), ("other-boot", None, 5));
    lab.refused(&lab.grant_request(5, 10.0), "epoch 5 is fenced");
    lab.start_primary(6, 20.0);
}

/// The test may run as root; the guard does not.
fn regent_guard_own(path: &std::path::Path) {
    let owner = std::fs::metadata(path.parent().unwrap()).unwrap();
    use std::os::unix::fs::MetadataExt;
    std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
}

#[test]
fn an_unwritable_state_file_answers_no_grant_and_no_fence_but_stops_postgres_all_the_same() {
    let bin = newest();
    let lab = Lab::start(&bin);
    lab.start_primary(1, 50.0);
    let state = lab.path("state");
    let mode =
        |mode| std::fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    mode(0o500);
    let Answer::Error { reason } = lab.call(&lab.grant_request(2, 20.0)) else { panic!("{}", lab.log()) };
    assert!(reason.contains("state file could not be written"), "{reason}");
    assert_eq!(lab.status().lease_epoch, Some(1), "the new lease is not taken");
    let Answer::Error { reason } = lab.call(&Request::Fence { epoch: 2, grace_ms: 0 }) else {
        panic!("{}", lab.log())
    };
    assert!(reason.contains("state file could not be written"), "{reason}");
    wait_until("stopped", LONG, || lab.status().postgres == PostgresState::Stopped);
    assert_eq!(lab.status().fenced_through, 0, "what is not durable is not claimed");
    lab.refused(&lab.grant_request(2, 20.0), "epoch 2 is fenced");
    // The disk is well again: the fence can be answered.
    mode(0o700);
    let fields = lab.ok(&Request::Fence { epoch: 2, grace_ms: 0 });
    assert_eq!(fields.get("fenced_through"), Some("2"));
}

#[test]
fn a_client_that_talks_nonsense_or_goes_away_disturbs_nobody() {
    use std::io::{BufRead, BufReader, Write};
    let bin = newest();
    let lab = Lab::start(&bin);
    let connect = || std::os::unix::net::UnixStream::connect(lab.path("state/guard.sock")).unwrap();
    let mut talker = connect();
    let mut answers = BufReader::new(talker.try_clone().unwrap());
    for (line, part) in [
        ("promote now=1\n", "unknown verb `promote`"),
        ("fence epoch=x grace_ms=0\n", "field `epoch`: `x`"),
        ("grant epoch=1\n", "field `instance` is missing"),
        ("\u{0}\n", "error"),
    ] {
        talker.write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        answers.read_line(&mut answer).unwrap();
        assert!(answer.starts_with("error ") && answer.contains(part), "{line}: {answer}");
    }
    // Endless lines, half requests, and clients that leave before their answer.
    let mut endless = connect();
    let _ = endless.write_all(&vec![b'a'; 200_000]);
    let mut half = connect();
    half.write_all(b"stat").unwrap();
    drop(half);
    connect().write_all(b"fence epoch=1 grace_ms=0\n").unwrap();
    wait_until("the fence was obeyed", LONG, || lab.status().fenced_through == 1);
    assert!(lab.client().status(Duration::from_secs(5)).is_ok());
}
