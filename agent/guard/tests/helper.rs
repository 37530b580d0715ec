//! What the helper itself guarantees, without a guard around it: its deadline, its guard's end, and that its end is everybody's.

use regent_guard::clock::{MS, boottime_ns};
use regent_guard::helper::{self, Event, Helper, Program};
use regent_guard::{procscan, sys};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// A shell whose orphan, in a session of its own, spins for ever.
fn spawn(deadline_ns: Option<u64>) -> Helper {
    let null = helper::dev_null().unwrap();
    let script = "trap '' TERM INT QUIT; setsid sh -c 'while :; do :; done' & sleep 300; :";
    let program = Program {
        path: c"/bin/sh".into(),
        argv: vec![c"sh".into(), c"-c".into(), helper::c_string(script).unwrap()],
        envp: helper::environment(&[]).unwrap(),
        cwd: c"/".into(),
        stdin: null.as_raw_fd(),
        output: null.as_raw_fd(),
    };
    let isolation = helper::probe().expect("PID namespaces are needed here");
    helper::spawn(isolation, &program, null.as_raw_fd(), deadline_ns).unwrap()
}

fn members(helper: &Helper) -> Vec<libc::pid_t> {
    let namespace = procscan::pid_namespace(helper.pid).unwrap();
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<libc::pid_t>().ok());
    pids.filter(|pid| procscan::pid_namespace(*pid) == Some(namespace)).collect()
}

/// Waits for the whole tree: the helper, the shell, the spinning orphan, `sleep`.
fn all_members(helper: &Helper) -> Vec<libc::pid_t> {
    let begun = Instant::now();
    loop {
        let found = members(helper);
        if found.len() >= 4 {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "only {found:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn assert_gone(pids: &[libc::pid_t]) {
    for pid in pids {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{pid} is still there");
    }
}

#[test]
fn when_the_helper_is_reaped_its_namespace_is_empty() {
    for stopped in [false, true] {
        let helper = spawn(None);
        let pids = all_members(&helper);
        if stopped {
            sys::kill(helper.pid, libc::SIGSTOP).unwrap();
        }
        helper.kill();
        sys::wait_for(helper.pid).unwrap();
        assert_gone(&pids);
    }
}

#[test]
fn the_main_process_ending_ends_all_and_is_told_with_its_status() {
    let helper = spawn(None);
    let pids = all_members(&helper);
    let mut events = Vec::new();
    events.extend(helper.receive());
    let Some(Event::Started(main)) = events.first().copied() else { panic!("{events:?}") };
    assert!(pids.contains(&main), "the pid is the one seen from outside");
    sys::kill(main, libc::SIGKILL).unwrap();
    sys::wait_for(helper.pid).unwrap();
    assert_gone(&pids);
    assert_eq!(helper.receive(), Some(Event::MainExited(libc::SIGKILL)));
}

#[test]
fn the_helper_keeps_the_deadline_when_the_guard_does_nothing() {
    let deadline_ns = boottime_ns() + 3000 * MS;
    let helper = spawn(Some(deadline_ns));
    let pids = all_members(&helper);
    assert!(boottime_ns() < deadline_ns, "the machine is too slow for this test");
    sys::wait_for(helper.pid).unwrap();
    let late_ns = boottime_ns().checked_sub(deadline_ns).expect("not before the deadline");
    assert!(late_ns < 1000 * MS, "{late_ns} ns late");
    assert_gone(&pids);
}

#[test]
fn an_extended_deadline_holds_and_a_removed_one_does_not_kill() {
    let first_ns = boottime_ns() + 1500 * MS;
    let helper = spawn(Some(first_ns));
    let pids = all_members(&helper);
    helper.set_deadline(Some(first_ns + 1500 * MS)).unwrap();
    while boottime_ns() < first_ns + 300 * MS {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(members(&helper).len(), pids.len());
    helper.set_deadline(None).unwrap();
    while boottime_ns() < first_ns + 1800 * MS {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(members(&helper).len(), pids.len());
    helper.kill();
    sys::wait_for(helper.pid).unwrap();
}

#[test]
fn a_guard_that_lets_go_of_its_socket_ends_the_namespace() {
    let helper = spawn(None);
    let pids = all_members(&helper);
    let pid = helper.pid;
    drop(helper);
    sys::wait_for(pid).unwrap();
    assert_gone(&pids);
}
