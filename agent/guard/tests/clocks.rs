//! The machine was paused, or somebody set the clock: wall clock and boot clock come apart. The wall clock is shifted under
//! the guard by a preloaded library that adds what a file says.

mod common;

use common::{LONG, Lab, postgres_bins, wait_until};
use regent_guard::wire::{PostgresState, Request};
use std::process::Command;

const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int rc = real(clock, time);
    const char *path = getenv("SHIFT_FILE");
    if (rc == 0 && clock == CLOCK_REALTIME && path) {
        FILE *file = fopen(path, "re");
        long seconds = 0;
        if (file) {
            if (fscanf(file, "%ld", &seconds) != 1) seconds = 0;
            fclose(file);
        }
        time->tv_sec += seconds;
    }
    return rc;
}
"#;

fn lab() -> Lab {
    let mut lab = Lab::empty(&postgres_bins().pop().unwrap());
    lab.initdb();
    let (source, library) = (lab.path("shift.c"), lab.path("shift.so"));
    std::fs::write(&source, SHIM).unwrap();
    // The compiler that links Rust programs is there.
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
    assert!(cc.status().unwrap().success());
    lab.env = vec![("LD_PRELOAD", library), ("SHIFT_FILE", lab.path("shift"))];
    lab.more = "clock_divergence_max = '3s'".into();
    lab.start_guard();
    lab
}

fn shift(lab: &Lab, seconds: i64) {
    // Renamed into place: the guard never reads half a number.
    std::fs::write(lab.path("shift.new"), seconds.to_string()).unwrap();
    std::fs::rename(lab.path("shift.new"), lab.path("shift")).unwrap();
}

#[test]
fn a_step_of_the_wall_clock_fences_and_old_heartbeats_bring_no_lease() {
    for seconds in [10, -10] {
        let lab = lab();
        lab.start_primary(1, 40.0);
        shift(&lab, seconds);
        wait_until("fenced", LONG, || lab.processes().is_empty());
        lab.wait_for(PostgresState::Stopped);
        let status = lab.status();
        assert_eq!(status.lease_epoch, None, "{status:?}");
        let error = status.last_error.unwrap_or_default();
        assert!(error.contains("came apart by"), "{error}");
        // A heartbeat from before the step would give a deadline before `lease_ttl_max` from it.
        lab.refused(&lab.grant_request(1, 40.0), "the clocks came apart");
        lab.refused(&Request::StartPrimary { epoch: 1 }, "no lease is held");
    }
}

/// What NTP does, and less than the configured step, is no pause.
#[test]
fn a_small_step_costs_nothing() {
    let lab = lab();
    lab.start_primary(1, 40.0);
    shift(&lab, 2);
    // Every grant looks at the clocks before it is taken.
    lab.grant(1, 50.0);
    assert_eq!(lab.status().postgres, PostgresState::Primary);
    assert_eq!(lab.status().last_error, None);
}

/// Without a lease too: a heartbeat that was stamped before the pause may be answered after it.
#[test]
fn a_step_without_a_lease_raises_the_floor() {
    let lab = lab();
    shift(&lab, 10);
    wait_until("it is seen", LONG, || lab.status().last_error.is_some_and(|e| e.contains("came apart by")));
    lab.refused(&lab.grant_request(1, 40.0), "the clocks came apart");
}
