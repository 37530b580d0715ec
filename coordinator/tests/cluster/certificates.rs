//! Certificates are renewed, and the CA is changed, while the coordinators run.

use std::{fs, path::Path, time::Duration};

use regent_pki::{Authority, Identity, Overwrite, TlsFiles, write_issued};
use regent_proto::v1::{StatusRequest, operator_service_client::OperatorServiceClient};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::group::{Group, eventually};

const ALICE: &str = "regent://operator/alice";

/// A folder with a CA of its own.
fn authority(dir: &Path, name: &str) -> Authority {
    let folder = dir.join(name);
    Authority::load(&folder).unwrap_or_else(|_| {
        fs::create_dir_all(&folder).unwrap();
        Authority::init(&folder, name, 30, Overwrite::Refuse).unwrap()
    })
}

fn issue(authority: &Authority, folder: &Path, identity: &str) -> TlsFiles {
    let identity: Identity = identity.parse().unwrap();
    let issued = authority.issue(&identity, 20).unwrap();
    let (cert, key) = write_issued(folder, &issued, Overwrite::Replace).unwrap();
    TlsFiles { ca: folder.join("ca.crt"), cert, key }
}

/// The nodes' files are in `live`; the CAs are elsewhere.
fn security(id: u64, dir: &Path) -> String {
    let live = dir.join("live");
    fs::create_dir_all(&live).unwrap();
    let first = authority(dir, "first");
    fs::copy(dir.join("first/ca.crt"), live.join("ca.crt")).unwrap();
    let files = issue(&first, &live, &format!("regent://coordinator/{id}"));
    let path = |path: &Path| path.display().to_string();
    format!(
        "tls = {{ ca = {:?}, cert = {:?}, key = {:?} }}",
        path(&files.ca),
        path(&files.cert),
        path(&files.key)
    )
}

/// A client of `authority` that trusts `trusted` only.
async fn connect(
    group: &Group,
    id: u64,
    files: &TlsFiles,
    trusted: &Path,
) -> Result<OperatorServiceClient<Channel>, String> {
    let identity =
        tonic::transport::Identity::from_pem(fs::read(&files.cert).unwrap(), fs::read(&files.key).unwrap());
    let tls = ClientTlsConfig::new()
        .identity(identity)
        .ca_certificate(Certificate::from_pem(fs::read(trusted).unwrap()))
        .domain_name(regent_pki::COORDINATOR_DNS_NAME);
    let url = format!("https://127.0.0.1:{}", group.ports[&id].grpc);
    let endpoint = Endpoint::from_shared(url).unwrap().connect_timeout(Duration::from_secs(5));
    let channel = endpoint.tls_config(tls).unwrap().connect().await.map_err(|error| format!("{error:?}"))?;
    let mut client = OperatorServiceClient::new(channel);
    // A server that refuses the client's certificate says so after the handshake.
    client.get_status(StatusRequest::default()).await.map_err(|status| status.to_string())?;
    Ok(client)
}

/// Signed by the CA in `folder`, and over since yesterday.
fn expired(folder: &Path, identity: &str) -> TlsFiles {
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let ca_key = rcgen::KeyPair::from_pem(&read("ca.key")).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&read("ca.crt"), ca_key).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = vec![rcgen::SanType::URI(identity.try_into().unwrap())];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = rcgen::date_time_ymd(2024, 1, 1);
    params.not_after = rcgen::date_time_ymd(2024, 2, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = params.signed_by(&key, &issuer).unwrap();
    let files = TlsFiles {
        ca: folder.join("ca.crt"),
        cert: folder.join("expired.crt"),
        key: folder.join("expired.key"),
    };
    fs::write(&files.cert, cert.pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ca_is_changed_while_the_group_runs() {
    regent_pki::install_crypto();
    let group = Group::start_with(security, None).await;
    let dir = group.dir().to_owned();
    let (first_ca, second_ca) = (dir.join("first/ca.crt"), dir.join("second/ca.crt"));
    let live = dir.join("live");
    let (first, second) = (authority(&dir, "first"), authority(&dir, "second"));
    let alice = issue(&first, &dir.join("first"), ALICE);
    let new_alice = issue(&second, &dir.join("second"), ALICE);
    group.leader().await;
    let mut old = connect(&group, 1, &alice, &first_ca).await.unwrap();
    connect(&group, 1, &new_alice, &first_ca).await.unwrap_err();
    connect(&group, 1, &expired(&dir.join("first"), ALICE), &first_ca).await.unwrap_err();

    // 1. Both CAs count.
    let bundle = fs::read_to_string(&first_ca).unwrap() + &fs::read_to_string(&second_ca).unwrap();
    fs::write(live.join("ca.crt"), bundle).unwrap();
    for id in 1..=3 {
        eventually("the new CA's client is taken", || async {
            connect(&group, id, &new_alice, &first_ca).await.ok()
        })
        .await;
        connect(&group, id, &alice, &first_ca).await.unwrap();
    }

    // 2. A file that is no certificate is refused; what is in use stays.
    let (cert, good) = (live.join("coordinator-1.crt"), fs::read(live.join("coordinator-1.crt")).unwrap());
    fs::write(&cert, "half a certificate").unwrap();
    let tls = group.nodes[&1].node.tls.clone().unwrap();
    let complaint = eventually("a complaint", || async { tls.complaint() }).await;
    assert!(complaint.contains("coordinator-1.crt holds no certificate"), "{complaint}");
    connect(&group, 1, &alice, &first_ca).await.unwrap();
    fs::write(&cert, good).unwrap();
    eventually("no complaint", || async { tls.complaint().is_none().then_some(()) }).await;

    // 3. The coordinators get certificates of the new CA.
    for id in 1..=3 {
        issue(&second, &live, &format!("regent://coordinator/{id}"));
        eventually("the new certificate serves", || async {
            connect(&group, id, &new_alice, &second_ca).await.ok()
        })
        .await;
    }

    // 4. The old CA counts no more: not for new connections, and not between the coordinators.
    fs::copy(&second_ca, live.join("ca.crt")).unwrap();
    for id in 1..=3 {
        eventually("the old CA's client is refused", || async {
            connect(&group, id, &alice, &second_ca).await.err()
        })
        .await;
    }
    // A connection that was there before stays.
    old.get_status(StatusRequest::default()).await.unwrap();
    // The nodes find each other with the new ones only: break what they have.
    for id in 1..=3 {
        group.isolate(id, true);
        group.isolate(id, false);
    }
    let leader = group.leader().await;
    let client = connect(&group, leader, &new_alice, &second_ca).await.unwrap();
    eventually("every coordinator answers the leader", || async {
        let mut client = client.clone();
        let status = client.get_status(StatusRequest::default()).await.ok()?.into_inner();
        let days = status.coordinators.iter().filter_map(|c| c.certificate_days_left);
        (days.filter(|days| (18..=20).contains(days)).count() == 3).then_some(())
    })
    .await;
    group.stop().await;
}
