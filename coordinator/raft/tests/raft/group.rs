//! A group of members, each with a directory, a server and a journal of what it applied.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use regent_raft::{
    Confirmed, LeadershipId, LogPosition, Machine, NodeAddress, Options, RaftNode, StartError,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle, time::Instant};
use tonic::transport::{Server, server::TcpIncoming};

use crate::links::{Links, Via};

/// A machine that remembers all that it was told, and answers with how much that is.
#[derive(Default)]
pub struct Journal {
    pub lines: Mutex<Vec<(LogPosition, Vec<u8>)>>,
    pub refuse: AtomicBool,
}

impl Journal {
    pub fn lines(&self) -> Vec<(LogPosition, Vec<u8>)> {
        self.lines.lock().unwrap().clone()
    }

    pub fn holds(&self, line: &str) -> bool {
        self.lines.lock().unwrap().iter().any(|(_, held)| held == line.as_bytes())
    }
}

impl Machine for Journal {
    fn apply(&self, at: LogPosition, command: &[u8]) -> Result<Vec<u8>, String> {
        let mut lines = self.lines.lock().unwrap();
        assert!(lines.last().is_none_or(|(last, _)| last.index < at.index), "{at} comes twice");
        lines.push((at, command.to_vec()));
        Ok(lines.len().to_string().into_bytes())
    }

    fn passed(&self, _at: LogPosition) {}

    fn snapshot(&self) -> Vec<u8> {
        postcard::to_allocvec(&self.lines()).unwrap()
    }

    fn restore(&self, _: Option<LogPosition>, snapshot: &[u8]) -> Result<(), String> {
        if self.refuse.load(Ordering::SeqCst) {
            return Err("journal of an unknown make".to_string());
        }
        *self.lines.lock().unwrap() = postcard::from_bytes(snapshot).map_err(|e| e.to_string())?;
        Ok(())
    }
}

pub struct Member {
    pub node: RaftNode,
    pub journal: Arc<Journal>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

pub struct Group {
    pub links: Arc<Links>,
    pub members: BTreeMap<u64, Member>,
    pub dir: TempDir,
    tune: fn(&mut Options),
}

pub const ELECTION: Duration = Duration::from_millis(700);

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

pub fn in_ms(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

/// Polls until it holds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = soon();
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Group {
    pub async fn start(tune: fn(&mut Options)) -> Self {
        Self::start_far(Duration::ZERO, tune).await
    }

    /// With links that take so long in each direction.
    pub async fn start_far(delay: Duration, tune: fn(&mut Options)) -> Self {
        let mut group = Self::stopped(tune).await;
        group.links = Links::new(&[1, 2, 3], delay).await;
        for node in [1, 2, 3] {
            group.run(node).await.unwrap();
        }
        group
    }

    pub async fn stopped(tune: fn(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { links: Links::new(&[1, 2, 3], Duration::ZERO).await, members: BTreeMap::new(), dir, tune }
    }

    pub fn data_dir(&self, node: u64) -> PathBuf {
        self.dir.path().join(node.to_string())
    }

    pub fn options(&self, node: u64) -> Options {
        let members = [1, 2, 3]
            .map(|node| (node, NodeAddress { raft_addr: format!("member-{node}") }))
            .into_iter()
            .collect();
        let via = Arc::new(Via { links: self.links.clone(), from: node });
        let mut options = Options::new(node, "test group", members, self.data_dir(node), via);
        options.heartbeat_interval = Duration::from_millis(100);
        options.election_timeout_min = Duration::from_millis(400);
        options.election_timeout_max = ELECTION;
        (self.tune)(&mut options);
        options
    }

    pub async fn run(&mut self, node: u64) -> Result<(), StartError> {
        self.run_with(self.options(node), Arc::new(Journal::default())).await
    }

    pub async fn run_with(&mut self, options: Options, journal: Arc<Journal>) -> Result<(), StartError> {
        let id = options.node_id;
        let node = RaftNode::start(options, journal.clone()).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.links.set_server(id, listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let service = node.service();
        let server = tokio::spawn(async move {
            let stopped = async { stopped.await.unwrap_or(()) };
            Server::builder()
                .add_service(service)
                .serve_with_incoming_shutdown(TcpIncoming::from(listener), stopped)
                .await
                .unwrap();
        });
        self.members.insert(id, Member { node, journal, stop, server });
        Ok(())
    }

    /// Ends a member at once: its server does not finish what it is at.
    pub async fn kill(&mut self, id: u64) {
        let member = self.members.remove(&id).unwrap();
        member.server.abort();
        member.node.shutdown().await;
        drop(member.stop);
    }

    pub async fn kill_all(&mut self) {
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            self.kill(id).await;
        }
    }

    pub fn node(&self, id: u64) -> &RaftNode {
        &self.members[&id].node
    }

    pub fn journal(&self, id: u64) -> &Journal {
        &self.members[&id].journal
    }

    /// The member among `of` that a quorum confirms as leader.
    pub async fn leader_of(&self, of: &[u64]) -> (u64, Confirmed) {
        let deadline = soon();
        loop {
            for id in of {
                let node = self.node(*id);
                if node.leadership().borrow().current.is_some()
                    && let Ok(confirmed) = node.confirm_leadership(in_ms(1000)).await
                {
                    assert_eq!(confirmed.leadership.node, *id);
                    return (*id, confirmed);
                }
            }
            assert!(Instant::now() < deadline, "no leader among {of:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn leader(&self) -> (u64, Confirmed) {
        self.leader_of(&self.members.keys().copied().collect::<Vec<_>>()).await
    }

    pub async fn propose(&self, id: u64, lines: std::ops::Range<u32>) {
        for line in lines {
            self.node(id).propose(format!("line {line}").into_bytes(), soon()).await.unwrap();
        }
    }

    /// Waits until all running members have the same journal, with this line in it.
    pub async fn agree_on(&self, line: &str) {
        eventually(&format!("all have {line:?}"), || {
            let journals: Vec<_> = self.members.values().map(|member| member.journal.lines()).collect();
            self.members.values().all(|member| member.journal.holds(line))
                && journals.windows(2).all(|w| w[0] == w[1])
        })
        .await;
    }

    pub fn current(&self, id: u64) -> Option<LeadershipId> {
        self.node(id).leadership().borrow().current
    }
}

pub fn others(id: u64) -> [u64; 2] {
    match id {
        1 => [2, 3],
        2 => [1, 3],
        _ => [1, 2],
    }
}
