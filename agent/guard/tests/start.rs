//! Starting guards, machines without the facilities, jobs, and bad input on the command line.

mod common;

use common::{LONG, Lab, command, postgres_bins, wait_until};
use regent_guard::wire::{Answer, JobTool, PostgresState, Request};
use std::process::Stdio;
use std::time::Duration;

fn newest() -> std::path::PathBuf {
    postgres_bins().pop().unwrap()
}

#[test]
fn a_second_guard_ends_with_the_pid_of_the_first() {
    let bin = newest();
    let lab = Lab::empty(&bin);
    let mut lab = lab;
    lab.start_guard();
    let output = lab.guard_command().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("another guard has it") && text.contains(&format!("pid {}", lab.status().pid)),
        "{text}"
    );
    assert!(lab.status().instance > 0, "the first one is not disturbed");
}

#[test]
fn a_starting_guard_empties_what_runs_in_the_data_directory() {
    for bin in postgres_bins() {
        let mut lab = Lab::empty(&bin);
        lab.initdb();
        // A guard has been here before: what runs now is a leftover.
        lab.start_guard();
        lab.signal_guard(libc::SIGTERM);
        assert!(lab.reap_guard().success());
        let mut leftover = command(bin.join("postgres"))
            .arg("-D")
            .arg(lab.data())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .spawn()
            .unwrap();
        lab.wait_for_sql();
        let mut session = lab.commit_loop();
        // A shell that stands in the data directory is none of PostgreSQL.
        let mut shell = command("sleep").arg("60").current_dir(lab.data()).spawn().unwrap();
        lab.start_guard();
        assert_eq!(lab.processes(), vec![libc::pid_t::try_from(shell.id()).unwrap()]);
        assert!(shell.try_wait().unwrap().is_none());
        shell.kill().unwrap();
        shell.wait().unwrap();
        leftover.wait().unwrap();
        session.wait().unwrap();
        assert!(lab.log().contains("killing what an earlier guard left"), "{}", lab.log());
    }
}

#[test]
fn a_postgres_that_runs_without_any_guard_is_left_alone() {
    let bin = newest();
    let mut lab = Lab::empty(&bin);
    lab.initdb();
    let mut stranger = command(bin.join("postgres"))
        .arg("-D")
        .arg(lab.data())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .spawn()
        .unwrap();
    lab.wait_for_sql();
    for _ in 0..2 {
        let output = lab.guard_command().output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        let pid = format!("pid {}", stranger.id());
        assert!(text.contains("runs without a guard") && text.contains(&pid), "{text}");
    }
    assert_eq!(lab.sql("SELECT 1").trim(), "1", "it serves on");
    // SAFETY: plain numbers.
    unsafe { libc::kill(stranger.id() as libc::pid_t, libc::SIGINT) };
    stranger.wait().unwrap();
    lab.start_guard();
    lab.start_primary(1, 50.0);
}

#[test]
fn a_whole_cluster_is_made_and_read_by_jobs() {
    for bin in postgres_bins() {
        let mut lab = Lab::empty(&bin);
        lab.start_guard();
        assert_eq!(lab.status().control, None);
        lab.refused(&Request::StartStandby { create: true }, "holds no PostgreSQL data directory");
        let data = lab.data().display().to_string();
        let Answer::Ok(fields) =
            lab.job(JobTool::Initdb, &["--no-sync", "-A", "trust", "-U", "postgres", "-D", &data])
        else {
            panic!("{}", lab.log())
        };
        assert_eq!(fields.get("state"), Some("running"));
        lab.refused(&Request::StartStandby { create: true }, "a job is running");
        wait_until("initdb is done", LONG, || lab.ok(&Request::JobStatus).get("state") != Some("running"));
        let fields = lab.ok(&Request::JobStatus);
        assert_eq!((fields.get("state"), fields.get("code")), (Some("exited"), Some("0")), "{}", lab.log());
        let log = std::fs::read_to_string(fields.get("log").unwrap()).unwrap();
        assert!(log.contains("Success"), "{log}");
        lab.configure();
        lab.start_primary(1, 50.0);
        lab.refused_job(JobTool::PostgresSingle, "a job needs PostgreSQL stopped: it is primary");
        lab.ok(&Request::Fence { epoch: 1, grace_ms: 0 });
        // Single-user recovery makes a killed primary's directory a cleanly shut down one.
        assert_eq!(lab.controldata("Database cluster state"), "in production");
        let Answer::Ok(_) = lab.job(JobTool::PostgresSingle, &["-D", &data, "postgres"]) else {
            panic!("{}", lab.log())
        };
        wait_until("recovered", LONG, || lab.ok(&Request::JobStatus).get("state") == Some("exited"));
        assert_eq!(lab.controldata("Database cluster state"), "shut down");
        assert_eq!(lab.status().rogue_promotions, 0);
    }
}

impl Lab {
    fn refused_job(&self, tool: JobTool, part: &str) {
        match self.job(tool, &[]) {
            Answer::Refused { reason, .. } => assert!(reason.contains(part), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_job_fails_is_killed_and_dies_with_the_guard() {
    let bin = newest();
    let mut lab = Lab::start(&bin);
    let Answer::Ok(_) = lab.job(JobTool::PgRewind, &["--no-such-option"]) else { panic!("{}", lab.log()) };
    wait_until("failed", LONG, || lab.ok(&Request::JobStatus).get("code") == Some("1"));
    let env = vec![("LD_PRELOAD".to_owned(), "/x".to_owned())];
    let Answer::Error { reason } =
        lab.call(&Request::JobStart { tool: JobTool::PgRewind, args: vec![], env })
    else {
        panic!("{}", lab.log())
    };
    assert!(reason.contains("`env:LD_PRELOAD`"), "{reason}");
    // pg_waldump --follow waits for more WAL for ever.
    let wal = lab.data().join("pg_wal").display().to_string();
    let follow = ["--follow", "-p", &wal, "-s", "0/1000028"];
    let Answer::Ok(_) = lab.job(JobTool::PgWaldump, &follow) else { panic!("{}", lab.log()) };
    assert_eq!(lab.ok(&Request::JobStatus).get("state"), Some("running"), "{}", lab.log());
    // A fence does not touch a job.
    lab.ok(&Request::Fence { epoch: 1, grace_ms: 0 });
    assert_eq!(lab.ok(&Request::JobStatus).get("state"), Some("running"));
    lab.ok(&Request::JobKill);
    wait_until("killed", LONG, || lab.ok(&Request::JobStatus).get("state") == Some("signaled"));
    let Answer::Ok(fields) = lab.job(JobTool::PgWaldump, &follow) else { panic!("{}", lab.log()) };
    assert_ne!(fields.get("job"), Some("1"));
    let count = || {
        let output = command("ps").args(["-eo", "args"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.contains(&wal)).count()
    };
    wait_until("it runs", LONG, || count() > 0);
    lab.signal_guard(libc::SIGKILL);
    lab.reap_guard();
    wait_until("dead with the guard", Duration::from_secs(5), || count() == 0);
    lab.start_guard();
    assert_eq!(lab.ok(&Request::JobStatus).get("state"), Some("none"));
}

/// Installs a seccomp filter that answers EPERM to `clone` with any of `flags` (0: to every `number`), as containers do.
fn forbid(number: libc::c_long, flags: u32) -> std::io::Result<()> {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let jump = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let (load, equal, set, end) = (
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    );
    let mut filter = [
        statement(load, 0),
        jump(equal, number as u32, 0, if flags == 0 { 1 } else { 3 }),
        if flags == 0 {
            statement(end, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32)
        } else {
            statement(load, 16)
        },
        if flags == 0 { statement(end, libc::SECCOMP_RET_ALLOW) } else { jump(set, flags, 0, 1) },
        statement(end, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        statement(end, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program is valid for the call.
    unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == -1
        {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

fn refuses_everything_writable(lab: &Lab, why: &str) {
    let status = lab.status();
    assert!(status.automatic_failover.starts_with("refused: ") && status.automatic_failover.contains(why));
    lab.refused(&lab.grant_request(1, 10.0), why);
    lab.refused(&Request::StartPrimary { epoch: 1 }, why);
    // A standby is no danger.
    lab.start_standby();
    assert_eq!(lab.sql("select pg_is_in_recovery()"), "t");
    let fields = lab.ok(&Request::Fence { epoch: 1, grace_ms: 0 });
    assert_eq!(fields.get("standby"), Some("1"));
}

#[test]
fn without_namespaces_nothing_writable_is_allowed() {
    let bin = newest();
    let mut lab = Lab::empty(&bin);
    lab.initdb();
    lab.before_exec = Some(|| forbid(libc::SYS_clone, (libc::CLONE_NEWPID | libc::CLONE_NEWUSER) as u32));
    lab.start_guard();
    assert_eq!(lab.status().timer, "ok");
    refuses_everything_writable(&lab, "a PID namespace cannot be made");
    // Without them too, its end is the end of all.
    lab.stop_postgres();
    wait_until("empty", LONG, || lab.processes().is_empty());
    lab.start_standby();
    lab.signal_guard(libc::SIGKILL);
    lab.reap_guard();
    lab.before_exec = None;
    lab.start_guard();
    assert!(lab.processes().is_empty());
}

#[test]
fn without_the_kernel_timer_nothing_writable_is_allowed() {
    let bin = newest();
    let mut lab = Lab::empty(&bin);
    lab.initdb();
    lab.before_exec = Some(|| forbid(libc::SYS_timer_create, 0));
    lab.start_guard();
    assert_eq!(lab.status().namespaces, "ok");
    refuses_everything_writable(&lab, "no CLOCK_BOOTTIME kill timer");
}

#[test]
fn the_stop_verb_is_clean_or_hurried_and_cancels_restarts() {
    let bin = newest();
    let lab = Lab::start(&bin);
    lab.start_primary(1, 50.0);
    let fields = lab.stop_postgres();
    assert_eq!((fields.get("state"), fields.get("postgres")), (Some("shut down"), Some("stopped")));
    assert_eq!(lab.stop_postgres().get("already"), Some("1"));
    assert_eq!(lab.status().lease_epoch, Some(1), "a stop leaves the lease alone");
    lab.ok(&Request::StartPrimary { epoch: 1 });
    lab.wait_for(PostgresState::Primary);
    assert_eq!(lab.ok(&Request::StartPrimary { epoch: 1 }).get("already"), Some("1"));
    lab.refused(&Request::StartStandby { create: true }, "PostgreSQL is primary");
    let mode = regent_guard::wire::StopMode::Immediate;
    let fields = lab.ok(&Request::Stop { mode, timeout_ms: 5000 });
    assert_eq!(fields.get("state"), Some("in production"));
    assert_eq!(lab.status().restarts, 0);
}

#[test]
fn status_is_for_people_and_programs() {
    let bin = newest();
    let lab = Lab::start(&bin);
    let config = lab.path("guard.toml");
    let run = |output: &str| {
        let output = command(lab.path("regent-guard"))
            .args(["status", "--output", output, "--config"])
            .arg(&config)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(run("text").lines().any(|line| line.starts_with("postgres ") && line.ends_with("stopped")));
    assert!(run("json").contains("\"postgres\": \"stopped\""));
    let rss = std::fs::read_to_string(format!("/proc/{}/status", lab.status().pid)).unwrap();
    let rss = rss.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: u64 = rss.split_whitespace().nth(1).unwrap().parse().unwrap();
    println!("resident: {kib} KiB");
    assert!(kib < 8 * 1024, "{rss}");
}

#[test]
fn bad_usage_and_bad_configuration_exit_with_2_and_name_what_is_wrong() {
    let bin = newest();
    let mut lab = Lab::empty(&bin);
    lab.more = "shutdown_margn = '1s'".into();
    let config = lab.write_config();
    let config = config.to_str().unwrap();
    for (args, part) in [
        (vec!["run", "--config", config, "--check"], "shutdown_margn"),
        (vec!["run", "--config", "/no/such/file"], "/no/such/file"),
        (vec!["run"], "`--config` is missing"),
        (vec!["run", "--confg=x"], "`--confg=x`"),
        (vec!["promote"], "`promote`"),
        (vec!["call", "--config", "/dev/null", "status"], "state_dir"),
        (vec![], "a command is missing"),
    ] {
        let output = command(lab.path("regent-guard")).args(&args).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && text.contains(part), "{args:?}: {text}");
    }
    lab.more = String::new();
    let config = lab.write_config();
    let good =
        command(lab.path("regent-guard")).args(["run", "--check", "--config"]).arg(&config).output().unwrap();
    assert!(good.status.success(), "{good:?}");
    let help = command(lab.path("regent-guard")).arg("--help").output().unwrap();
    assert!(help.status.success() && String::from_utf8(help.stdout).unwrap().contains("Examples:"));
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } == 0 {
        let output = std::process::Command::new(lab.path("regent-guard"))
            .args(["run", "--config"])
            .arg(&config)
            .output()
            .unwrap();
        assert!(output.status.code() == Some(1), "{output:?}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("not as root"));
    }
}

/// A namespace's init ignores the SIGKILL that its own timer sends: such a guard could not be killed at its deadline.
#[test]
fn as_the_init_of_a_namespace_nothing_writable_is_allowed() {
    let mut lab = Lab::empty(&newest());
    lab.initdb();
    // As in a container without an init: user and PID namespace of its own, the guard is PID 1.
    let config = lab.write_config();
    let log = std::fs::File::create(lab.path("guard.log")).unwrap();
    let mut guard = command("unshare");
    guard
        .args(["--user", "--map-current-user", "--pid", "--fork", "--kill-child", "--"])
        .arg(lab.path("regent-guard"));
    guard.args(["run", "--config"]).arg(config).current_dir("/").stderr(log);
    lab.guard = Some(guard.spawn().unwrap());
    wait_until("the guard answers", LONG, || lab.client().status(LONG).is_ok());
    let status = lab.status();
    assert_eq!(status.pid, 1, "{status:?}");
    refuses_everything_writable(&lab, "PID 1 of its namespace");
}
