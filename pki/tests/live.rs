//! Renewal while a process runs.

use std::{
    fs,
    sync::Arc,
    time::{Duration, SystemTime},
};

use regent_pki::{
    Authority, Identity, Live, Look, Overwrite, Patience, TlsFiles, agent_dns_name, incoming, install_crypto,
    write_issued,
};
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(86_400);

fn issue(ca: &Authority, folder: &TempDir, who: &str, days: u32) -> TlsFiles {
    let issued = ca.issue(&who.parse::<Identity>().unwrap(), days).unwrap();
    let (cert, key) = write_issued(folder.path(), &issued, Overwrite::Replace).unwrap();
    TlsFiles { ca: folder.path().join("ca.crt"), cert, key }
}

#[test]
fn renewed_files_are_taken_and_bad_ones_leave_the_old_in_use() {
    let folder = TempDir::new().unwrap();
    let ca = Authority::init(folder.path(), "Test CA", 3650, Overwrite::Refuse).unwrap();
    let files = issue(&ca, &folder, "regent://coordinator/1", 100);
    let live = Live::open(files.clone()).unwrap();
    let first = live.current().not_after();
    assert!(matches!(live.look(), Look::Unchanged));

    issue(&ca, &folder, "regent://coordinator/1", 200);
    assert!(matches!(live.look(), Look::Renewed(_)));
    let renewed = live.current().not_after();
    assert!(renewed > first);

    // The key comes first, the certificate a moment later: in between the pair does not match.
    let (cert, key) = (fs::read(&files.cert).unwrap(), fs::read(&files.key).unwrap());
    issue(&ca, &folder, "regent://coordinator/1", 300);
    let (new_cert, new_key) = (fs::read(&files.cert).unwrap(), fs::read(&files.key).unwrap());
    fs::write(&files.cert, &cert).unwrap();
    let Look::Refused(error) = live.look() else { panic!("taken") };
    assert!(error.to_string().contains("does not belong to the certificate"), "{error}");
    assert!(matches!(live.look(), Look::Unchanged), "said once");
    assert!(live.complaint().is_some());
    assert_eq!(live.current().not_after(), renewed);
    fs::write(&files.cert, &new_cert).unwrap();
    assert!(matches!(live.look(), Look::Renewed(_)));
    assert_eq!(live.complaint(), None);
    let in_use = live.current().not_after();

    // Expired, somebody else's, gone: the one in use stays.
    fs::write(&files.cert, &cert).unwrap();
    fs::write(&files.key, &key).unwrap();
    let Look::Refused(error) = live.look_at(SystemTime::now() + DAY * 250) else { panic!("taken") };
    assert!(error.to_string().contains("expired on"), "{error}");
    let other = issue(&ca, &folder, "regent://coordinator/2", 300);
    fs::copy(&other.cert, &files.cert).unwrap();
    fs::copy(&other.key, &files.key).unwrap();
    let Look::Refused(error) = live.look() else { panic!("taken") };
    let expected = "belongs to regent://coordinator/2, this process is regent://coordinator/1";
    assert!(error.to_string().contains(expected), "{error}");
    fs::remove_file(&files.key).unwrap();
    let Look::Refused(error) = live.look() else { panic!("taken") };
    assert!(error.to_string().contains("cannot read"), "{error}");
    assert_eq!(live.current().not_after(), in_use);
    fs::write(&files.cert, &new_cert).unwrap();
    fs::write(&files.key, &new_key).unwrap();
    live.look();
    assert_eq!(live.complaint(), None);
}

#[test]
fn a_bundle_of_two_cas_takes_both_and_leaves_an_expired_one_out() {
    let (old, new) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let old_ca = Authority::init(old.path(), "Old CA", 10, Overwrite::Refuse).unwrap();
    let new_ca = Authority::init(new.path(), "New CA", 3650, Overwrite::Refuse).unwrap();
    let old_files = issue(&old_ca, &old, "regent://operator/alice", 5);
    let new_files = issue(&new_ca, &new, "regent://operator/alice", 300);
    let bundle = fs::read_to_string(&old_files.ca).unwrap() + &fs::read_to_string(&new_files.ca).unwrap();
    let path = new.path().join("bundle.crt");
    fs::write(&path, bundle).unwrap();
    for files in [&old_files, &new_files] {
        TlsFiles { ca: path.clone(), ..files.clone() }.load().unwrap().connector().unwrap();
    }
    let later = SystemTime::now() + DAY * 20;
    let material = TlsFiles { ca: path.clone(), ..new_files.clone() }.load_at(later).unwrap();
    assert!(material.warnings[0].contains("one of several CAs does not count"), "{:?}", material.warnings);
    // Alone it must be valid.
    let error = TlsFiles { ca: old_files.ca, ..new_files }.load_at(later).err().unwrap();
    assert!(error.to_string().contains("expired on"), "{error}");
}

#[derive(Clone)]
struct Tokio;

impl Patience for Tokio {
    async fn wait(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// An agent's listener for the other agents.
#[tokio::test]
async fn each_handshake_of_a_listener_uses_what_is_in_use_then() {
    install_crypto();
    let (folder, mine) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let ca = Authority::init(folder.path(), "Test CA", 3650, Overwrite::Refuse).unwrap();
    let live = Arc::new(Live::open(issue(&ca, &folder, "regent://agent/c/m", 100)).unwrap());
    fs::copy(folder.path().join("ca.crt"), mine.path().join("ca.crt")).unwrap();
    let client = issue(&ca, &mine, "regent://agent/c/n", 100).load().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = live.clone();
    let mut served = incoming(listener, move || serving.current().peer_acceptor(), Tokio);
    tokio::spawn(async move { while tokio_stream::StreamExt::next(&mut served).await.is_some() {} });
    let name = agent_dns_name(&"c".parse().unwrap(), &"m".parse().unwrap());
    let shown = async || {
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(client.connector().unwrap());
        let stream = connector.connect(name.clone().try_into().unwrap(), socket).await?;
        Ok::<_, std::io::Error>(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec())
    };
    let first = shown().await.unwrap();
    assert_eq!(first, shown().await.unwrap());
    issue(&ca, &folder, "regent://agent/c/m", 200);
    assert!(matches!(live.look(), Look::Renewed(_)));
    let renewed = shown().await.unwrap();
    assert_ne!(first, renewed, "the renewed certificate serves without a restart");
}
