//! The harness's own promises: children obey signals, and nothing survives a world.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use regent_chaos::real::process::ProcessSpec;
use regent_chaos::real::sweep::survivors;
use regent_chaos::real::world::World;

const SOON: Duration = Duration::from_secs(5);

fn shell(name: &str, script: &str) -> ProcessSpec {
    ProcessSpec::new(name, "/bin/sh").args(["-c", script])
}

fn exists(pid: i32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn signals_logs_and_exits() {
    let world = World::new("signals", &["north"]).unwrap();
    let loud =
        world.spawn(shell("loud", "trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 0.02; done"));
    let loud = loud.unwrap();
    loud.wait_log("ready", SOON).await.unwrap();
    loud.stop().unwrap();
    loud.term().unwrap();
    assert!(loud.wait_exit(Duration::from_millis(100)).await.is_err(), "a stopped process handles nothing");
    loud.cont().unwrap();
    assert_eq!(loud.wait_exit(SOON).await.unwrap().code(), Some(3));
    assert!(loud.log_text().contains("told"));
    let error = loud.term().unwrap_err().to_string();
    assert!(error.contains("loud") && error.contains("ended"), "{error}");

    let quiet = world.spawn(shell("quiet", "exit 0")).unwrap();
    let error = quiet.wait_log("never", SOON).await.unwrap_err().to_string();
    assert!(error.contains("ended") && error.contains("never"), "{error}");
    assert!(world.spawn(ProcessSpec::new("absent", "/nonexistent/program")).is_err());
}

#[tokio::test]
async fn a_sweep_finds_sessions_of_their_own_and_spares_others() {
    let world = World::new("sweep", &["north"]).unwrap();
    let root = world.root().to_path_buf();
    // A person looking on: same directory, no mark.
    let mut person = Command::new("sleep").arg("60").current_dir(&root).stdin(Stdio::null()).spawn().unwrap();
    let parent = world.spawn(shell("parent", "setsid sleep 61 & echo away; exit 0")).unwrap();
    parent.wait_log("away", SOON).await.unwrap();
    parent.wait_exit(SOON).await.unwrap();
    assert_eq!(survivors(&root).len(), 1, "the escaped sleep, and not the person's");
    drop(world);
    assert!(survivors(&root).is_empty());
    assert!(!root.exists());
    assert!(person.try_wait().unwrap().is_none(), "the person's process must live");
    person.kill().unwrap();
    person.wait().unwrap();
}

#[test]
fn nothing_survives_a_panic() {
    let told = std::sync::Mutex::new(None);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let world = World::new("panic", &["north"]).unwrap();
        let child = world.spawn(shell("child", "setsid sleep 62 & sleep 63")).unwrap();
        *told.lock().unwrap() = Some((world.root().to_path_buf(), child.pid()));
        let deadline = Instant::now() + SOON;
        while survivors(world.root()).len() < 3 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(survivors(world.root()).len(), 3);
        panic!("on purpose");
    }));
    assert!(result.is_err());
    let (root, pid) = told.lock().unwrap().take().unwrap();
    assert!(!exists(pid));
    assert!(survivors(&root).is_empty());
    // A panicking test keeps its directory for inspection.
    assert!(root.exists());
    std::fs::remove_dir_all(&root).unwrap();
}

const INNER: &str = "REGENT_CHAOS_INNER";

/// Not a test by itself: the harness that the next test kills.
#[tokio::test]
async fn inner_harness() {
    let Some(report) = std::env::var_os(INNER) else { return };
    let world = World::new("inner", &["north"]).unwrap();
    // One direct child, and one that the kernel's death signal does not reach.
    let child = world.spawn(shell("child", "setsid sleep 64 & echo up; exec sleep 65")).unwrap();
    child.wait_log("up", SOON).await.unwrap();
    std::fs::write(&report, world.root().as_os_str().as_encoded_bytes()).unwrap();
    std::future::pending::<()>().await;
}

#[test]
fn nothing_survives_the_harness_being_killed() {
    let report = std::env::temp_dir().join(format!("regent-report-{}", std::process::id()));
    let mut harness = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "inner_harness", "--nocapture"])
        .env(INNER, &report)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(15);
    let root = loop {
        match std::fs::read_to_string(&report) {
            Ok(root) if !root.is_empty() => break std::path::PathBuf::from(root),
            _ => assert!(Instant::now() < deadline, "the inner harness did not report"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(survivors(&root).len(), 2);
    harness.kill().unwrap();
    harness.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !survivors(&root).is_empty() {
        assert!(Instant::now() < deadline, "alive: {:?}", survivors(&root));
        std::thread::sleep(Duration::from_millis(20));
    }
    std::fs::remove_dir_all(&root).unwrap();
    std::fs::remove_file(&report).unwrap();
}
