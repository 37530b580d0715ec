//! A member of a group of one, in a process of its own, killed with SIGKILL while it writes.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use regent_raft::{Connector, NodeAddress, Options, RaftNode};
use tonic::transport::{Channel, Endpoint};

use crate::group::{Journal, eventually, soon};

const CHILD: &str = "REGENT_RAFT_KILLED_CHILD";

struct Nowhere;

impl Connector for Nowhere {
    fn channel(&self, _: u64, _: &str) -> Channel {
        Endpoint::from_static("http://127.0.0.1:1").connect_lazy()
    }
}

async fn alone(dir: &Path) -> (RaftNode, Arc<Journal>) {
    let members = BTreeMap::from([(1, NodeAddress { raft_addr: "alone".to_string() })]);
    let mut options = Options::new(1, "alone", members, dir, Arc::new(Nowhere));
    options.snapshot_every_entries = 100;
    options.keep_entries = 10;
    let journal = Arc::new(Journal::default());
    let node = RaftNode::start(options, journal.clone()).await.unwrap();
    eventually("it leads", || node.leadership().borrow().current.is_some()).await;
    (node, journal)
}

/// The child's part: says each line that was acknowledged, until it is killed.
async fn write_for_ever(dir: &Path) {
    let (node, journal) = alone(dir).await;
    let first = journal.lines().len();
    for line in first.. {
        node.propose(format!("line {line}").into_bytes(), soon()).await.unwrap();
        println!("acknowledged {line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_to_kill_nine() {
    if let Some(dir) = env::var_os(CHILD) {
        return write_for_ever(Path::new(&dir)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..6 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "kill::nothing_acknowledged_is_lost_to_kill_nine", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        // Killed after another number of lines each time, once just after a snapshot; then what was still said counts.
        let enough = acknowledged + 37 + 41 * round;
        let number = |line: &str| line.split_once("acknowledged ").and_then(|(_, n)| n.parse::<usize>().ok());
        for line in lines.by_ref() {
            let Some(n) = number(&line) else { continue };
            acknowledged = n + 1;
            if acknowledged >= enough {
                break;
            }
        }
        child.kill().unwrap();
        acknowledged = lines.filter_map(|line| number(&line)).last().map_or(acknowledged, |n| n + 1);
        child.wait().unwrap();
        assert!(acknowledged >= enough, "the child ended by itself after {acknowledged} lines");

        let (node, journal) = alone(dir.path()).await;
        assert!(node.recovered(soon()).await);
        let held = journal.lines();
        assert!(held.len() >= acknowledged, "{} of {acknowledged} lines", held.len());
        for (i, (_, line)) in held.iter().enumerate() {
            assert_eq!(line, format!("line {i}").as_bytes());
        }
        acknowledged = held.len();
        node.shutdown().await;
    }
}
