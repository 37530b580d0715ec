//! Who may do what, over real mTLS.

use std::path::Path;

use regent_pki::{Authority, Identity, Overwrite, TlsFiles, write_issued};
use regent_proto::v1::{
    AgesRequest, AutomationRequest, ChangeCoordinatorsRequest, CoordinatorsReply, CoordinatorsRequest,
    StatusRequest,
    change_coordinators_request::{Add, Change},
    operator_service_client::OperatorServiceClient,
    peer_service_client::PeerServiceClient,
};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use crate::{
    agent::Handle,
    group::{Group, eventually},
};

fn files(dir: &Path, identity: &str) -> TlsFiles {
    let identity: Identity = identity.parse().unwrap();
    let tls = dir.join("tls");
    let authority = Authority::load(&tls).unwrap_or_else(|_| {
        std::fs::create_dir_all(&tls).unwrap();
        Authority::init(&tls, "test", 30, Overwrite::Refuse).unwrap()
    });
    let (cert, key) =
        write_issued(&tls, &authority.issue(&identity, 5).unwrap(), Overwrite::Replace).unwrap();
    TlsFiles { ca: authority_file(&tls), cert, key }
}

fn authority_file(tls: &Path) -> std::path::PathBuf {
    let mut all = std::fs::read_dir(tls).unwrap().map(|entry| entry.unwrap().path());
    all.find(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("ca") && !name.contains("key")
    })
    .unwrap()
}

fn security(id: u64, dir: &Path) -> String {
    let files = files(dir, &format!("regent://coordinator/{id}"));
    format!(
        "tls = {{ ca = {:?}, cert = {:?}, key = {:?} }}",
        files.ca.display().to_string(),
        files.cert.display().to_string(),
        files.key.display().to_string()
    )
}

async fn channel(group: &Group, id: u64, identity: &str) -> Channel {
    let tls = files(group.dir(), identity).load().unwrap().client();
    let url = format!("https://127.0.0.1:{}", group.ports[&id].grpc);
    Endpoint::from_shared(url).unwrap().tls_config(tls).unwrap().connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_role_may_do_its_own_and_nothing_else() {
    regent_pki::install_crypto();
    let group = Group::start_with(security, None).await;
    let urls: Vec<String> = group.ports.values().map(|p| format!("https://127.0.0.1:{}", p.grpc)).collect();
    let follower = group.follower().await;
    let agent =
        |member: &str| files(group.dir(), &format!("regent://agent/c/{member}")).load().unwrap().client();
    // Only the follower is known to m1, so its session is relayed under the follower's certificate.
    let relayed = vec![format!("https://127.0.0.1:{}", group.ports[&follower].grpc)];
    let m1 = Handle::start_with("m1", 1, relayed, Some(agent("m1")));
    eventually("a lease for the relayed agent", || async { m1.lock().granted.first().cloned() }).await;

    let impostor = Handle::start_with("m2", 2, urls.clone(), Some(agent("m1")));
    let status =
        eventually("the impostor is refused", || async { impostor.lock().statuses.first().cloned() }).await;
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(status.message().contains("regent://agent/c/m1 may not speak for member m2"), "{status}");
    assert!(impostor.lock().acknowledged.is_none());

    let operator_as_agent = files(group.dir(), "regent://operator/alice").load().unwrap().client();
    let wrong = Handle::start_with("m2", 2, urls, Some(operator_as_agent));
    let status =
        eventually("an operator is no agent", || async { wrong.lock().statuses.first().cloned() }).await;
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");

    let pause = AutomationRequest {
        cluster: "c".into(),
        reason: "a test".into(),
        expected_epoch: 1,
        request_id: "p".into(),
        dry_run: false,
    };
    let mut viewer = OperatorServiceClient::new(channel(&group, follower, "regent://viewer/grafana").await);
    viewer.get_status(StatusRequest::default()).await.unwrap();
    let refused = viewer.pause(pause.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("regent://viewer/grafana may not change anything"), "{refused}");
    let mut as_agent = OperatorServiceClient::new(channel(&group, follower, "regent://agent/c/m1").await);
    let refused = as_agent.get_status(StatusRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);

    let mut alice = OperatorServiceClient::new(channel(&group, follower, "regent://operator/alice").await);
    let mut borrowed = tonic::Request::new(pause.clone());
    borrowed.metadata_mut().insert("regent-on-behalf-of", "regent://operator/bob".parse().unwrap());
    let refused = alice.pause(borrowed).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "only a coordinator speaks on behalf of others");
    alice.pause(pause).await.unwrap();
    let cluster = alice.get_status(StatusRequest::default()).await.unwrap().into_inner().clusters.remove(0);
    let by = cluster.automation_reason.unwrap();
    assert!(by.contains("regent://operator/alice"), "the relayed caller is recorded: {by}");

    let mut peer = PeerServiceClient::new(channel(&group, follower, "regent://operator/alice").await);
    let refused = peer.exchange_ages(AgesRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let mut peer = PeerServiceClient::new(channel(&group, follower, "regent://coordinator/9").await);
    let refused = peer.exchange_ages(AgesRequest { leader_id: 1, ..Default::default() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "a coordinator speaks for itself only");
    drop(m1);
    group.stop().await;
}

async fn coordinators(operator: &mut OperatorServiceClient<Channel>) -> Option<CoordinatorsReply> {
    operator.list_coordinators(CoordinatorsRequest {}).await.ok().map(tonic::Response::into_inner)
}

/// A certificate outlives its owner's removal by years; its power must not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificate_of_a_removed_coordinator_counts_for_nothing() {
    regent_pki::install_crypto();
    let group = Group::start_with(security, None).await;
    let at = group.leader().await;
    let mut alice = OperatorServiceClient::new(channel(&group, at, "regent://operator/alice").await);
    eventually("the founders are recorded", || {
        let mut alice = alice.clone();
        async move { coordinators(&mut alice).await.filter(|reply| reply.coordinators.len() == 3) }
    })
    .await;
    let ages = || AgesRequest { leader_id: 4, ..Default::default() };
    let mut fourth = PeerServiceClient::new(channel(&group, at, "regent://coordinator/4").await);
    let before = fourth.exchange_ages(ages()).await;
    assert!(before.is_ok() || !before.unwrap_err().message().contains("was removed"));
    // Nobody listens there: it never votes, and is given up again.
    let address = format!("127.0.0.1:{}", crate::group::free_port());
    for (id, change) in
        [("add", Change::Add(Add { id: 4, address, region: "ap".into() })), ("remove", Change::Remove(4))]
    {
        let request = ChangeCoordinatorsRequest {
            change: Some(change),
            consent: true,
            reason: "a test".into(),
            expected_version: coordinators(&mut alice).await.unwrap().version,
            request_id: id.into(),
            dry_run: false,
        };
        alice.change_coordinators(request).await.unwrap();
    }
    eventually("4 is removed", || {
        let mut alice = alice.clone();
        async move {
            let reply = coordinators(&mut alice).await?;
            reply.coordinators.iter().any(|one| one.id == 4 && one.standing == "removed").then_some(())
        }
    })
    .await;
    let refused = fourth.exchange_ages(ages()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("coordinator 4 was removed from the group"), "{refused}");
    // Nor does it speak for others any more.
    let mut relay = OperatorServiceClient::new(channel(&group, at, "regent://coordinator/4").await);
    let mut request = tonic::Request::new(StatusRequest::default());
    request.metadata_mut().insert("regent-on-behalf-of", "regent://operator/alice".parse().unwrap());
    let refused = relay.get_status(request).await.unwrap_err();
    assert!(refused.message().contains("was removed"), "{refused}");
    group.stop().await;
}
