//! Nothing of PostgreSQL outlives its guard, its postmaster or its lease, with a backend that commits in a loop.

mod common;

use common::{LONG, Lab, SECOND_NS, postgres_bins, wait_until, wall_seconds};
use regent_guard::clock::boottime_ns;
use regent_guard::wire::{PostgresState, Request};
use std::time::{Duration, Instant};

/// Reads what was committed, under a new guard and a new epoch.
fn last_beat_after_restart(lab: &mut Lab, epoch: u64) -> f64 {
    lab.start_guard();
    lab.start_primary(epoch, 50.0);
    lab.last_beat()
}

#[test]
fn a_killed_guard_takes_every_backend_with_it() {
    for bin in postgres_bins() {
        let mut lab = Lab::start(&bin);
        let before = lab.status();
        lab.start_primary(1, 50.0);
        let mut session = lab.commit_loop();
        let pids = lab.processes();
        assert!(pids.len() > 3, "{pids:?}");
        lab.signal_guard(libc::SIGKILL);
        let killed = wall_seconds();
        let begun = Instant::now();
        wait_until("all dead", Duration::from_secs(5), || lab.processes().is_empty());
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        session.wait().unwrap();
        lab.reap_guard();
        let last = last_beat_after_restart(&mut lab, 2);
        assert!(last < killed + 1.0, "committed {} s after the guard was killed", last - killed);
        let after = lab.status();
        assert_eq!(after.succeeds, Some(before.instance));
        assert_eq!((after.highest_epoch, after.state_file.as_str()), (2, "ok"));
        assert_ne!(after.instance, before.instance);
    }
}

#[test]
fn the_kernel_kills_a_stopped_guard_and_its_namespace_at_the_deadline() {
    for stop_helper_too in [false, true] {
        let bin = postgres_bins().pop().unwrap();
        let mut lab = Lab::start(&bin);
        let deadline_ns = lab.start_primary(1, 6.0);
        let mut session = lab.commit_loop();
        lab.signal_guard(libc::SIGSTOP);
        if stop_helper_too {
            // Then its own deadline cannot act: only the kernel's timer on the guard can.
            regent_guard::sys::kill(lab.helper_pid(), libc::SIGSTOP).unwrap();
        }
        assert!(boottime_ns() < deadline_ns, "the machine is too slow for this test");
        wait_until("all dead", LONG, || lab.processes().is_empty());
        let dead_ns = boottime_ns();
        assert!(dead_ns >= deadline_ns, "before the deadline nothing was to be killed");
        assert!(dead_ns < deadline_ns + SECOND_NS, "{} ns late", dead_ns - deadline_ns);
        session.wait().unwrap();
        let deadline_wall = wall_seconds() - (boottime_ns() - deadline_ns) as f64 / 1e9;
        let status = lab.reap_guard();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
        let last = last_beat_after_restart(&mut lab, 2);
        assert!(last < deadline_wall + 1.0, "committed {} s after the deadline", last - deadline_wall);
    }
}

#[test]
fn a_killed_postmaster_takes_its_backends_with_it_and_is_restarted_under_the_lease() {
    for bin in postgres_bins() {
        let lab = Lab::start(&bin);
        lab.start_primary(1, 50.0);
        let mut session = lab.commit_loop();
        let status = lab.status();
        let postmaster = libc::pid_t::try_from(status.postmaster_pid.unwrap()).unwrap();
        assert!(lab.processes().contains(&postmaster));
        regent_guard::sys::kill(postmaster, libc::SIGKILL).unwrap();
        let killed = wall_seconds();
        session.wait().unwrap();
        wait_until("restarted", LONG, || {
            let status = lab.status();
            status.restarts == 1 && status.postgres == PostgresState::Primary
        });
        lab.wait_for_sql();
        let last = lab.last_beat();
        assert!(last < killed + 0.5, "committed {} s after the postmaster was killed", last - killed);
        assert_eq!(lab.status().last_exit.as_deref(), Some("signal 9"));
    }
}

#[test]
fn a_lease_that_is_not_extended_ends_in_a_clean_shutdown_before_the_deadline() {
    for bin in postgres_bins() {
        let mut lab = Lab::empty(&bin);
        lab.shutdown_margin = "4s";
        lab.initdb();
        lab.start_guard();
        let deadline_ns = lab.start_primary(1, 9.0);
        let mut session = lab.commit_loop();
        wait_until("stopped", LONG, || lab.status().postgres == PostgresState::Stopped);
        assert!(boottime_ns() < deadline_ns, "the shutdown was not before the deadline");
        session.wait().unwrap();
        let status = lab.status();
        assert_eq!(status.control.unwrap().state, "shut down");
        assert_eq!(lab.controldata("Database cluster state"), "shut down");
        assert_eq!((status.lease_epoch, status.lease_deadline_ns), (None, None));
        // It lives on past the deadline (the timer is disarmed), stays down, and may be granted the same epoch again.
        wait_until("the deadline has passed", LONG, || boottime_ns() > deadline_ns + SECOND_NS / 2);
        assert_eq!(lab.status().postgres, PostgresState::Stopped);
        lab.refused(&Request::StartPrimary { epoch: 1 }, "no lease is held");
        lab.start_primary(1, 20.0);
    }
}

#[test]
fn an_extended_lease_outlives_its_first_deadline() {
    let bin = postgres_bins().pop().unwrap();
    let lab = Lab::start(&bin);
    let first_ns = lab.start_primary(1, 6.0);
    let run = lab.status().started_at_ns;
    wait_until("the first deadline has passed", LONG, || {
        lab.grant(1, 6.0);
        boottime_ns() > first_ns + SECOND_NS
    });
    let status = lab.status();
    assert_eq!((status.postgres, status.started_at_ns), (PostgresState::Primary, run));
    // Never backward.
    let held = status.lease_deadline_ns.unwrap();
    assert_eq!(lab.grant(1, 3.0), held);
}

#[test]
fn told_to_end_the_guard_shuts_postgres_down_cleanly_first() {
    let bin = postgres_bins().pop().unwrap();
    let mut lab = Lab::start(&bin);
    lab.start_primary(1, 50.0);
    lab.signal_guard(libc::SIGTERM);
    assert!(lab.reap_guard().success());
    assert_eq!(lab.controldata("Database cluster state"), "shut down");
    assert!(lab.processes().is_empty());
}

#[test]
fn the_helper_is_reaped_only_after_its_whole_namespace() {
    let bin = postgres_bins().pop().unwrap();
    let lab = Lab::start(&bin);
    lab.start_primary(1, 50.0);
    let mut session = lab.commit_loop();
    let pids = lab.processes();
    // The guard's answer to a fence without grace follows its waitpid on the helper: nothing may be there at that instant.
    let fields = lab.ok(&Request::Fence { epoch: 1, grace_ms: 0 });
    for pid in pids {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{pid} is still there");
    }
    assert_eq!(fields.get("fenced_through"), Some("1"));
    session.wait().unwrap();
}
