//! A guard outlives its agent, so every neighbouring pair of versions must understand each other: lines and state files as
//! the first release wrote them, and lines as a later one may write them.

use regent_guard::{
    state_file::{self, Found},
    wire::{Answer, PostgresState, Request, Status},
};

const STATE_FILE: &str = "regent-guard-state 1\n\
    instance=00000000000000000000000000000005\n\
    previous_instance=00000000000000000000000000000004\n\
    lineage=00000000000000000000000000000004,00000000000000000000000000000003\n\
    boot_id=boot\n\
    highest_epoch=9\n\
    fenced_through=8\n\
    promises_closed=7\n\
    crc32=691ce534\n\
";

/// What the first release's guard answers to `status`.
const STATUS: &str = "ok pid=7 instance=00000000000000000000000000000001 lineage=00000000000000000000000000000002 \
    boot_id=b highest_epoch=4 fenced_through=3 promises_closed=0 lease_epoch=4 lease_deadline_ns=99 postgres=primary \
    postmaster_pid=10 started_at_ns=5 last_exit=\"exit code 1\" restarts=1 rogue_promotions=0 job=none namespaces=ok \
    timer=ok automatic_failover=possible memory_locked=all state_file=ok system_id=1 state=\"in production\" \
    checkpoint_lsn=1/28 timeline=2 min_recovery_lsn=0/0 min_recovery_timeline=0\n";

/// What the first release's agent asks.
const REQUESTS: [&str; 10] = [
    "status\n",
    "grant epoch=3 instance=00000000000000000000000000000009 deadline_ns=77\n",
    "start-standby create=1\n",
    "start-primary epoch=3\n",
    "stop mode=fast timeout_ms=5\n",
    "fence epoch=3 grace_ms=0\n",
    "close-promises epoch=3\n",
    "job-start tool=pg_rewind arg=-D arg=\"a b\" env:PGPASSFILE=/x\n",
    "job-status\n",
    "job-kill\n",
];

#[test]
fn a_state_file_of_the_first_release_is_read() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("guard.state"), STATE_FILE).unwrap();
    let Found::Good(state) = state_file::load(dir.path()).unwrap() else { panic!("not read") };
    assert_eq!((state.highest_epoch, state.fenced_through, state.promises_closed), (9, 8, 7));
    assert_eq!((state.instance, state.lineage.as_slice()), (5, [4, 3].as_slice()));
}

#[test]
fn a_newer_agent_reads_the_first_guard_and_the_first_agent_a_newer_guard() {
    for line in [STATUS.to_owned(), STATUS.replace(" timer=ok", " added=\"by a newer guard\" timer=ok")] {
        let answer = Answer::parse(&line).unwrap();
        let status = Status::from_fields(answer.fields().unwrap()).unwrap();
        assert_eq!((status.postgres, status.lease_epoch), (PostgresState::Primary, Some(4)));
    }
}

#[test]
fn a_newer_guard_understands_the_first_agent() {
    for line in REQUESTS {
        assert!(Request::parse(line).is_ok(), "{line}");
    }
}

/// A request that is half understood must not be obeyed: the newer agent is told, and goes without.
#[test]
fn the_first_guard_refuses_what_only_a_newer_agent_knows() {
    assert!(Request::parse("from-the-future epoch=3").unwrap_err().0.contains("from-the-future"));
    let error = Request::parse("fence epoch=3 grace_ms=0 added=1").unwrap_err();
    assert!(error.0.contains("`added`"), "{error}");
}
