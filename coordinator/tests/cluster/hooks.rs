//! The leader dies at a committed step, as a real process: the next one resumes the operation from the state.

use std::{
    collections::BTreeMap,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
};

use regent_proto::v1::{
    ClusterStatus, OperationState, StatusRequest, operator_service_client::OperatorServiceClient,
};
use tempfile::TempDir;

use crate::{
    agent::Handle,
    group::{config_text, eventually, ports},
};

/// Killed when the test ends, however it does.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

async fn cluster(urls: &[String]) -> Option<ClusterStatus> {
    for url in urls {
        let Ok(mut client) = OperatorServiceClient::connect(url.clone()).await else { continue };
        let Ok(status) = client.get_status(StatusRequest::default()).await else { continue };
        let status = status.into_inner();
        if status.leader.is_some() {
            return status.clusters.into_iter().next();
        }
    }
    None
}

async fn dies_at(step: &str) {
    let (ports, dir) = (ports(), TempDir::new().unwrap());
    let log = |id: u64| dir.path().join(format!("{id}.log"));
    let mut processes: BTreeMap<u64, Process> = BTreeMap::new();
    for id in 1..=3 {
        let address = |to: u64| format!("127.0.0.1:{}", ports[&to].grpc);
        let mut text = config_text(id, &ports, dir.path(), "plaintext = true", address);
        text.push_str(&format!("\n[test_hooks]\nexit_after_step = \"failover:{step}\"\n"));
        let path = dir.path().join(format!("{id}.toml"));
        std::fs::write(&path, text).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_regent-coordinator"))
            .args(["run", "--config", path.to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(log(id)).unwrap())
            .spawn();
        processes.insert(id, Process(child.unwrap()));
    }
    let urls: Vec<String> = ports.values().map(|p| format!("http://127.0.0.1:{}", p.grpc)).collect();
    let m1 = Handle::start("m1", 1, urls.clone());
    let m2 = Handle::start("m2", 2, urls.clone());
    eventually("both members in sync", || async {
        let cluster = cluster(&urls).await?;
        let synced = cluster.members.iter().any(|member| member.name == "m2" && member.sync_confirmed);
        (synced && cluster.operation.is_none()).then_some(())
    })
    .await;

    m1.lock().silent = true;
    let (id, status) = eventually("the leader's death", || {
        let all = processes.iter_mut();
        let found = all.filter_map(|(id, process)| Some((*id, process.0.try_wait().unwrap()?))).next();
        std::future::ready(found)
    })
    .await;
    assert_eq!(status.signal(), Some(9), "{status}");
    let text = std::fs::read_to_string(log(id)).unwrap();
    assert!(text.ends_with(&format!("test hook: killing this process after failover:{step}\n")), "{text}");

    let ended = eventually("the failover's end under another leader", || async {
        cluster(&urls).await.filter(|c| c.primary.as_deref() == Some("m2") && c.operation.is_none())
    })
    .await;
    assert_eq!((ended.epoch, ended.fenced_through), (2, 1), "one failover and no more");
    assert_eq!(ended.dns.unwrap().address, "127.0.1.2");
    let alive = processes.values_mut().map(|process| process.0.try_wait().unwrap().is_none());
    assert_eq!(alive.filter(|alive| *alive).count(), 2, "the step is entered once");
    let request = regent_proto::v1::HistoryRequest { cluster: "c".into(), limit: 0 };
    let survivor = urls[(id % 3) as usize].clone();
    let mut client = OperatorServiceClient::connect(survivor).await.unwrap();
    let history = client.get_history(request).await.unwrap().into_inner().operations;
    assert!(history.iter().all(|operation| operation.state == OperationState::Done as i32), "{history:?}");
    assert!(m2.lock().granted.iter().all(|(grant, _)| grant.epoch.0 == 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_dies_when_the_fence_is_decided() {
    dies_at("fence").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_dies_when_the_target_is_appointed() {
    dies_at("promote").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_dies_when_the_promotion_is_verified() {
    dies_at("redirect").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_dies_when_dns_is_changed() {
    dies_at("validate").await;
}
