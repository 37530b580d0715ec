//! The binary: its command line, its end, and the hook that kills it.

use std::{
    io::Read,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_regent-coordinator");

/// Killed when the test ends, however it does.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn run(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).output().unwrap()
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/config/coordinator.toml")
}

#[test]
fn check_reads_the_example_and_refuses_a_bad_file_by_key_and_value() {
    let ok = run(&["run", "--check", "--config", example().to_str().unwrap()]);
    assert!(ok.status.success(), "{ok:?}");
    assert!(String::from_utf8_lossy(&ok.stdout).contains("ok (node 1, 1 clusters)"));

    let dir = TempDir::new().unwrap();
    let path = dir.path().join("bad.toml");
    let text = std::fs::read_to_string(example()).unwrap();
    std::fs::write(&path, text.replace("lease_ttl = \"4m 30s\"", "lease_ttl = \"6m\"")).unwrap();
    let bad = run(&["run", "--check", "--config", path.to_str().unwrap()]);
    assert_eq!(bad.status.code(), Some(2));
    let error = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(error.contains("cluster.gravl.partition_timeout: 300000 ms is too short"), "{error}");

    assert_eq!(run(&["run", "--check", "--config", "/nowhere"]).status.code(), Some(2));
    assert_eq!(run(&["run"]).status.code(), Some(2));
    let help = run(&["--help"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("Examples:"));
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Three nodes of a cluster that nobody bootstraps by itself; with a hook, if any.
fn configs(dir: &Path, hook: &str) -> Vec<(PathBuf, u16)> {
    let ports: Vec<(u16, u16)> = (0..3).map(|_| (free_port(), free_port())).collect();
    (1..=3)
        .map(|id| {
            let (grpc, http) = ports[id - 1];
            let peers: String = (1..=3)
                .map(|p| {
                    format!(
                        "[[peers]]\nid = {p}\nregion = \"r{p}\"\naddress = \"127.0.0.1:{}\"\n",
                        ports[p - 1].0
                    )
                })
                .collect();
            let text = format!(
                "node_id = {id}\nregion = \"r{id}\"\ndata_dir = {:?}\nlisten = \"127.0.0.1:{grpc}\"\n\
                 http_listen = \"127.0.0.1:{http}\"\nplaintext = true\n{peers}{hook}",
                dir.join(format!("node-{id}"))
            );
            let path = dir.join(format!("{id}.toml"));
            std::fs::write(&path, text).unwrap();
            (path, http)
        })
        .collect()
}

fn start(config: &Path, log: &Path) -> Process {
    let log = std::fs::File::create(log).unwrap();
    let child = Command::new(BINARY)
        .args(["run", "--config", config.to_str().unwrap()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    Process(child.unwrap())
}

fn get(port: u16, path: &str) -> Option<String> {
    use std::io::Write;
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out waiting for: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn three_processes_elect_serve_metrics_and_end_cleanly_on_sigterm() {
    let dir = TempDir::new().unwrap();
    let configs = configs(dir.path(), "");
    let log = |id: usize| dir.path().join(format!("{id}.log"));
    let mut processes: Vec<Process> =
        configs.iter().enumerate().map(|(id, (path, _))| start(path, &log(id))).collect();
    for (_, http) in &configs {
        eventually("health with a leader", || {
            get(*http, "/health").filter(|text| text.starts_with("HTTP/1.1 200"))
        });
    }
    let leaders = eventually("one leader in the metrics", || {
        let texts: Vec<String> = configs.iter().filter_map(|(_, http)| get(*http, "/metrics")).collect();
        let leaders = texts.iter().filter(|text| text.contains("\nregent_leader 1\n")).count();
        (leaders == 1).then_some(texts)
    });
    for text in &leaders {
        for metric in ["regent_raft_term", "regent_heartbeats_total", "regent_acknowledgement_seconds_bucket"]
        {
            assert!(text.contains(metric), "{metric} in {text}");
        }
    }
    let pid = processes[0].0.id() as i32;
    // SAFETY: a signal to a child of this test.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    let status = eventually("the end of the first process", || processes[0].0.try_wait().unwrap());
    assert!(status.success(), "{status}: {}", std::fs::read_to_string(log(0)).unwrap());
    let text = std::fs::read_to_string(log(0)).unwrap();
    assert!(text.contains("SIGTERM: stopping") && !text.contains("TEST HOOK"), "{text}");
}

#[test]
fn a_test_hook_is_announced_loudly() {
    let dir = TempDir::new().unwrap();
    let configs = configs(dir.path(), "[test_hooks]\nexit_after_step = \"failover:fence\"\n");
    let log = dir.path().join("log");
    let _process = start(&configs[0].0, &log);
    eventually("the announcement", || {
        let text = std::fs::read_to_string(&log).unwrap();
        (text.contains("TEST HOOK IS ON") && text.contains("failover:fence")).then_some(())
    });
}
