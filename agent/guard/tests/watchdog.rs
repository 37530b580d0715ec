//! The watchdog, with a strict double: a reader of a FIFO that resets the "machine" (SIGKILL for everything of the
//! laboratory) when a ping is late. Only the magic character before the end of the stream stops it, as in the kernel.

mod common;

use common::{LONG, Lab, SECOND_NS, command, postgres_bins, wait_until};
use regent_guard::clock::boottime_ns;
use regent_guard::wire::Request;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const TIMEOUT_NS: u64 = 2 * SECOND_NS;

/// What the machine's watchdog has seen.
#[derive(Default)]
struct Seen {
    pings: AtomicU64,
    stops: AtomicU64,
    last_ping_ns: AtomicU64,
    reset_ns: AtomicU64,
    end: AtomicBool,
    /// Who dies in a reset.
    guard: Mutex<Option<libc::pid_t>>,
}

struct Double {
    seen: Arc<Seen>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Double {
    /// Makes the FIFO and reads it. One thread, as the device has one counter.
    fn start(lab: &Lab) -> Self {
        let path = lab.path("watchdog");
        assert!(command("mkfifo").arg(&path).status().unwrap().success());
        let seen = Arc::new(Seen::default());
        let mut pipe =
            std::fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        let of_thread = seen.clone();
        let thread = std::thread::spawn(move || {
            let seen = of_thread;
            let (mut armed, mut magic, mut pinged) = (false, false, false);
            while !seen.end.load(SeqCst) {
                let mut fd = libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 };
                // SAFETY: one valid pollfd.
                unsafe { libc::poll(&raw mut fd, 1, 10) };
                let mut bytes = [0; 64];
                match pipe.read(&mut bytes) {
                    Ok(0) => {
                        // Closed: only the magic character stops it.
                        if magic && armed {
                            // Without a ping it was only tried out.
                            seen.stops.fetch_add(u64::from(pinged), SeqCst);
                            (armed, magic, pinged) = (false, false, false);
                        }
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    Ok(got) => {
                        armed = true;
                        magic = bytes[got - 1] == b'V';
                        pinged |= bytes[..got].contains(&b'P');
                        seen.pings
                            .fetch_add(bytes[..got].iter().filter(|b| **b == b'P').count() as u64, SeqCst);
                        seen.last_ping_ns.store(boottime_ns(), SeqCst);
                    }
                    Err(_) => {}
                }
                let last_ns = seen.last_ping_ns.load(SeqCst);
                if armed && !magic && boottime_ns() > last_ns + TIMEOUT_NS && seen.reset_ns.load(SeqCst) == 0
                {
                    seen.reset_ns.store(boottime_ns(), SeqCst);
                    if let Some(pid) = *seen.guard.lock().unwrap() {
                        // The namespace dies with the guard, as everything does in a reset.
                        let _ = regent_guard::sys::kill(pid, libc::SIGKILL);
                    }
                }
            }
        });
        Self { seen, thread: Some(thread) }
    }

    fn was_reset(&self) -> bool {
        self.seen.reset_ns.load(SeqCst) != 0
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.seen.end.store(true, SeqCst);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn lab() -> (Lab, Double) {
    let mut lab = Lab::empty(&postgres_bins().pop().unwrap());
    lab.initdb();
    let double = Double::start(&lab);
    lab.more = format!(
        "watchdog = '{}'\nwatchdog_timeout = '2s'\nwatchdog_test_double = true",
        lab.path("watchdog").display()
    );
    lab.start_guard();
    let pid = libc::pid_t::try_from(lab.guard.as_ref().unwrap().id()).unwrap();
    *double.seen.guard.lock().unwrap() = Some(pid);
    (lab, double)
}

/// A guard that hangs long before its deadline is ended by the watchdog, not only at the deadline.
#[test]
fn a_hung_guard_is_reset_within_the_timeout() {
    let (mut lab, double) = lab();
    assert!(lab.status().watchdog.starts_with("ready: "), "{:?}", lab.status());
    assert_eq!(double.seen.pings.load(SeqCst), 0, "nothing is pinged before there is a lease");
    let deadline_ns = lab.start_primary(1, 50.0);
    assert!(lab.status().watchdog.starts_with("armed: "));
    let before = double.seen.pings.load(SeqCst);
    let began_ns = boottime_ns();
    wait_until("it is pinged for longer than its timeout", LONG, || {
        boottime_ns() > began_ns + 2 * TIMEOUT_NS && double.seen.pings.load(SeqCst) > before + 4
    });
    assert!(!double.was_reset(), "reset although the guard is well");
    lab.signal_guard(libc::SIGSTOP);
    wait_until("the reset", LONG, || double.was_reset());
    wait_until("all dead", LONG, || lab.processes().is_empty());
    assert!(boottime_ns() < deadline_ns, "only the deadline has ended it");
    let late_ns = double.seen.reset_ns.load(SeqCst) - double.seen.last_ping_ns.load(SeqCst);
    assert!(late_ns < TIMEOUT_NS + SECOND_NS, "{late_ns}");
    lab.reap_guard();
}

/// A fence, a lease that runs out and the guard's end all stop PostgreSQL in order, and the device with it.
#[test]
fn an_orderly_end_stops_the_device() {
    let (mut lab, double) = lab();
    lab.start_primary(1, 50.0);
    lab.ok(&Request::Fence { epoch: 1, grace_ms: 1000 });
    wait_until("stopped after a fence", LONG, || double.seen.stops.load(SeqCst) >= 1);
    assert!(lab.status().watchdog.starts_with("ready: "));
    // The last ping is at least the timeout before the deadline.
    let deadline_ns = lab.start_primary(2, 7.0);
    wait_until("the lease has run out", LONG, || lab.processes().is_empty());
    wait_until("stopped after the lease", LONG, || double.seen.stops.load(SeqCst) >= 2);
    assert!(!double.was_reset(), "a reset in an orderly shutdown");
    assert!(boottime_ns() < deadline_ns + SECOND_NS);
    lab.start_primary(3, 50.0);
    lab.signal_guard(libc::SIGTERM);
    assert!(lab.reap_guard().success());
    wait_until("stopped at the guard's end", LONG, || double.seen.stops.load(SeqCst) >= 3);
    // A standby needs none: its guard's death harms nobody.
    let pings = double.seen.pings.load(SeqCst);
    lab.start_guard();
    lab.start_standby();
    assert!(lab.status().watchdog.starts_with("ready: "));
    lab.stop_postgres();
    assert_eq!(double.seen.pings.load(SeqCst), pings, "a standby is pinged for");
    assert!(!double.was_reset());
}

/// Without its watchdog, or with one that has failed, nothing writable begins or goes on.
#[test]
fn without_a_working_device_no_lease_is_taken() {
    let mut lab = Lab::empty(&postgres_bins().pop().unwrap());
    lab.initdb();
    lab.more = "watchdog = '/dev/null'\nwatchdog_timeout = '2s'".into();
    lab.start_guard();
    let status = lab.status();
    assert!(status.automatic_failover.contains("watchdog /dev/null: is no watchdog"), "{status:?}");
    lab.refused(&lab.grant_request(1, 20.0), "watchdog /dev/null");
    drop(lab);

    let (lab, double) = self::lab();
    lab.start_primary(1, 8.0);
    // Nobody reads any more: the next ping fails.
    *double.seen.guard.lock().unwrap() = None;
    drop(double);
    wait_until("the failure is seen", LONG, || lab.status().watchdog.starts_with("broken: "));
    lab.refused(&lab.grant_request(1, 50.0), "watchdog");
    wait_until("it ends with the lease", LONG, || lab.processes().is_empty());
}
