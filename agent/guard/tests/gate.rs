//! Nobody leaves recovery without a lease: manual promotion, stale signals, a PostgreSQL started by hand.

mod common;

use common::{LONG, Lab, command, postgres_bins, wait_until};
use regent_guard::wire::{PostgresState, Request};
use std::process::{Child, Stdio};

/// A client that tries to write all the time, with a new session after each failure.
fn writer(lab: &Lab) -> Child {
    let script = format!(
        "while :; do {} -X -q -h {} -U postgres -d postgres -c \"insert into t values (1)\"; done",
        if lab.bin.join("psql").exists() {
            lab.bin.join("psql").display().to_string()
        } else {
            "psql".into()
        },
        lab.dir.path().display()
    );
    command("sh")
        .args(["-c", &script])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .spawn()
        .unwrap()
}

fn with_table(bin: &std::path::Path) -> Lab {
    let lab = Lab::start(bin);
    lab.start_primary(1, 50.0);
    lab.sql("create table t (i int)");
    lab.stop_postgres();
    lab
}

/// As an administrator would, who works inside the namespace: `pg_ctl` signals the pid that postmaster.pid names.
fn pg_ctl_promote(lab: &Lab) {
    let postmaster = lab.status().postmaster_pid.unwrap();
    let output = command("nsenter")
        .args(["--preserve-credentials", "-U", "-p", "-t", &postmaster.to_string()])
        .arg(lab.bin.join("pg_ctl"))
        .args(["promote", "-W", "-D"])
        .arg(lab.data())
        .current_dir("/")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}\n{}", lab.log());
}

#[test]
fn a_manual_promotion_without_a_lease_never_yields_a_committed_write() {
    for bin in postgres_bins() {
        for by_sql in [false, true] {
            let lab = with_table(&bin);
            lab.ok(&Request::Fence { epoch: 1, grace_ms: 0 });
            lab.start_standby();
            // Even a setting made through SQL does not open the gate.
            let mut clients = writer(&lab);
            if by_sql {
                assert!(!lab.psql("select pg_promote()").status.success(), "{}", lab.log());
            } else {
                pg_ctl_promote(&lab);
            }
            wait_until("killed", LONG, || {
                let status = lab.status();
                status.rogue_promotions == 1 && status.postgres == PostgresState::Stopped
            });
            clients.kill().unwrap();
            clients.wait().unwrap();
            let status = lab.status();
            assert_eq!(status.last_rogue.as_deref(), Some("promotion without a lease"));
            assert_eq!(status.control.unwrap().state, "in archive recovery", "it never came to production");
            lab.start_standby();
            assert_eq!(lab.sql("select count(*) from t"), "0", "a write was committed without a lease");
        }
    }
}

#[test]
fn a_promotion_under_a_lease_passes_the_gate_and_survives_a_crash() {
    for bin in postgres_bins() {
        let lab = with_table(&bin);
        lab.start_standby();
        lab.grant(2, 50.0);
        assert_eq!(lab.sql("select pg_promote()"), "t");
        lab.wait_for(PostgresState::Primary);
        lab.sql("insert into t values (2)");
        assert_eq!(lab.status().rogue_promotions, 0);
        assert!(lab.log().contains("gate opened"), "{}", lab.log());
        // It is a primary now, in every respect: restarted after a crash, and killed by the fence.
        let postmaster = libc::pid_t::try_from(lab.status().postmaster_pid.unwrap()).unwrap();
        regent_guard::sys::kill(postmaster, libc::SIGKILL).unwrap();
        wait_until("restarted", LONG, || lab.status().restarts == 1);
        lab.wait_for(PostgresState::Primary);
        lab.wait_for_sql();
        lab.sql("insert into t values (3)");
        assert_eq!(lab.sql("select timeline_id from pg_control_checkpoint()"), "2");
        lab.ok(&Request::Fence { epoch: 2, grace_ms: 10_000 });
        assert!(lab.processes().is_empty());
    }
}

#[test]
fn the_gate_closes_when_the_guard_cannot_be_asked() {
    for bin in postgres_bins() {
        let lab = with_table(&bin);
        lab.start_standby();
        lab.grant(2, 50.0);
        std::fs::remove_file(lab.path("state/guard.sock")).unwrap();
        assert!(!lab.psql("select pg_promote()").status.success(), "{}", lab.log());
        assert!(lab.log().contains("must not leave recovery"), "{}", lab.log());
        assert!(!lab.psql("insert into t values (1)").status.success());
    }
}

#[test]
fn the_gate_is_not_for_people() {
    let bin = postgres_bins().pop().unwrap();
    let lab = Lab::start(&bin);
    lab.refused(&Request::Gate, "no PostgreSQL of this guard");
    lab.start_standby();
    lab.refused(&Request::Gate, "from outside its namespace");
    assert_eq!(lab.status().postgres, PostgresState::Standby);
}

#[test]
fn recovery_signal_and_recovery_targets_do_not_end_recovery() {
    for bin in postgres_bins() {
        let lab = with_table(&bin);
        std::fs::write(lab.data().join("recovery.signal"), "").unwrap();
        std::fs::write(
            lab.data().join("postgresql.auto.conf"),
            "recovery_target = 'immediate'\nrecovery_target_action = 'promote'\nrecovery_end_command = 'true'\n\
             restore_command = 'false'\n",
        )
        .unwrap();
        lab.grant(1, 50.0);
        lab.refused(&Request::StartPrimary { epoch: 1 }, "recovery.signal is present");
        lab.refused(&Request::StartStandby { create: false }, "standby.signal is missing");
        let fields = lab.ok(&Request::StartStandby { create: true });
        assert_eq!(fields.get("removed"), Some("1"));
        assert!(!lab.data().join("recovery.signal").exists());
        lab.wait_for(PostgresState::Standby);
        lab.wait_for_sql();
        assert_eq!(lab.sql("select pg_is_in_recovery()"), "t");
        assert_eq!(lab.sql("show recovery_target"), "");
        assert!(lab.sql("show recovery_end_command").contains(" gate --socket "));
        lab.refused(&Request::StartPrimary { epoch: 1 }, "PostgreSQL is standby");
        lab.stop_postgres();
        lab.refused(&Request::StartPrimary { epoch: 1 }, "standby.signal is present");
        std::fs::remove_file(lab.data().join("standby.signal")).unwrap();
        lab.refused(&Request::StartPrimary { epoch: 1 }, "`shut down in recovery`");
    }
}

#[test]
fn a_standby_signal_that_vanishes_does_not_make_a_writer() {
    let bin = postgres_bins().pop().unwrap();
    let lab = with_table(&bin);
    lab.start_standby();
    std::fs::remove_file(lab.data().join("standby.signal")).unwrap();
    // A crash of one process would make the postmaster start recovery anew by itself, and without the file come up writable.
    let startup = lab
        .processes()
        .into_iter()
        .find(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("startup"))
        })
        .unwrap();
    regent_guard::sys::kill(startup, libc::SIGKILL).unwrap();
    wait_until("ended", LONG, || lab.status().postgres == PostgresState::Stopped);
    wait_until("not restarted", LONG, || lab.status().last_error.is_some());
    assert!(lab.status().last_error.unwrap().contains("standby.signal is missing"));
    assert_eq!(lab.status().postgres, PostgresState::Stopped);
}

#[test]
fn a_postgres_started_by_hand_beside_the_guard_is_killed() {
    for bin in postgres_bins() {
        let lab = with_table(&bin);
        let mut by_hand = command(bin.join("postgres"))
            .arg("-D")
            .arg(lab.data())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .spawn()
            .unwrap();
        let status = by_hand.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL), "{status:?}");
        wait_until("emptied", LONG, || lab.processes().is_empty());
        assert!(lab.status().last_rogue.unwrap().contains("did not start"));
    }
}
