//! `regentctl pki`, and the certificates that it makes in use: mutual TLS against a fake coordinator.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use crate::{
    samples::world,
    support::{Fake, ctl},
};
use regent_pki::TlsFiles;
use tempfile::TempDir;

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A CA with a coordinator and an operator, all made by the binary.
async fn pki() -> TempDir {
    let folder = TempDir::new().unwrap();
    let dir = text(folder.path());
    ctl(&["pki", "init", "--dir", &dir]).await.expect(0);
    ctl(&["pki", "issue", "--dir", &dir, "coordinator/1", "operator/alice", "agent/gravl/eu-north-1"])
        .await
        .expect(0);
    folder
}

fn files(folder: &TempDir, stem: &str) -> TlsFiles {
    let path = |name: String| folder.path().join(name);
    TlsFiles {
        ca: path("ca.crt".into()),
        cert: path(format!("{stem}.crt")),
        key: path(format!("{stem}.key")),
    }
}

#[tokio::test]
async fn certificates_are_issued_shown_and_not_overwritten() {
    let folder = pki().await;
    let dir = text(folder.path());
    let key = folder.path().join("operator-alice.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);

    let cert = text(&folder.path().join("coordinator-1.crt"));
    let ran = ctl(&["pki", "show", &text(&folder.path().join("ca.crt")), &cert]).await.expect(0);
    ran.says("CA (CN=Regent CA)").says("regent://coordinator/1").says("server, client").says("364");
    let json = ctl(&["pki", "show", &cert, "-o", "json"]).await.expect(0).json();
    assert_eq!(json[0]["identity"], "regent://coordinator/1");
    assert_eq!(json[0]["dns_names"][0], regent_pki::COORDINATOR_DNS_NAME);

    let before = fs::read(&key).unwrap();
    let ran = ctl(&["pki", "issue", "--dir", &dir, "operator/alice"]).await.expect(2);
    ran.says("operator-alice.crt exists already and is not overwritten (use --force");
    assert_eq!(fs::read(&key).unwrap(), before);
    ctl(&["pki", "init", "--dir", &dir]).await.expect(2).says("ca.crt exists already");
    ctl(&["pki", "issue", "--dir", &dir, "operator/alice", "--force"]).await.expect(0);
    assert_ne!(fs::read(&key).unwrap(), before);

    let empty = TempDir::new().unwrap();
    let ran = ctl(&["pki", "issue", "--dir", &text(empty.path()), "operator/bob"]).await.expect(2);
    ran.says("there is no CA in").says("regentctl pki init --dir");
    ctl(&["pki", "show", &text(&key)]).await.expect(2).says("holds no certificate in PEM form");
    ctl(&["pki", "issue", "--dir", &dir, "operator/bob", "--days", "0"])
        .await
        .expect(2)
        .says("use 1 to 3650");
}

#[tokio::test]
async fn an_operator_is_known_by_the_certificate() {
    regent_pki::install_crypto();
    let folder = pki().await;
    let fake = Fake::start_tls(world(), &files(&folder, "coordinator-1").load().unwrap()).await;
    // By configuration file: relative paths, and an endpoint without a scheme.
    let config = folder.path().join("regentctl.toml");
    fs::write(
        &config,
        format!(
            "endpoints = [\"{}\"]\nca = \"ca.crt\"\ncert = \"operator-alice.crt\"\nkey = \"operator-alice.key\"\n",
            fake.address
        ),
    )
    .unwrap();
    ctl(&["--config", &text(&config), "status"]).await.expect(0).says("CLUSTER gravl");
    let callers = fake.world.lock().unwrap().callers.clone();
    assert_eq!(callers, ["regent://operator/alice".parse().unwrap()]);

    fs::write(&config, "endpoint = [\"a:1\"]\n").unwrap();
    ctl(&["--config", &text(&config), "status"]).await.expect(2).says("unknown field `endpoint`");
}

#[tokio::test]
async fn wrong_certificates_are_refused_on_both_sides() {
    regent_pki::install_crypto();
    let (ours, theirs) = (pki().await, pki().await);
    let call = async |address: String, tls: TlsFiles| {
        let (ca, cert, key) = (text(&tls.ca), text(&tls.cert), text(&tls.key));
        let arguments = ["--endpoint", &address, "--ca", &ca, "--cert", &cert, "--key", &key];
        ctl(&[&arguments[..], &["--timeout", "2s", "status"]].concat()).await
    };
    let fake = Fake::start_tls(world(), &files(&ours, "coordinator-1").load().unwrap()).await;
    let address = fake.address.to_string();
    call(address.clone(), files(&ours, "operator-alice")).await.expect(0);

    // Another CA's operator does not believe this coordinator.
    call(address.clone(), files(&theirs, "operator-alice"))
        .await
        .expect(3)
        .says("no coordinator could be reached");
    // Nor does this coordinator believe another CA's operator, who would believe it. The local check, which would
    // find that out first, is satisfied with a CA file that holds both.
    let both = ours.path().join("both.crt");
    let concatenated =
        [&ours, &theirs].map(|folder| fs::read(folder.path().join("ca.crt")).unwrap()).concat();
    fs::write(&both, concatenated).unwrap();
    let stranger = TlsFiles { ca: both, ..files(&theirs, "operator-alice") };
    call(address.clone(), stranger).await.expect(3);
    // Found before anything is sent.
    let mixed = TlsFiles { key: files(&ours, "coordinator-1").key, ..files(&ours, "operator-alice") };
    call(address, mixed).await.expect(2).says("does not belong to the certificate");
    assert_eq!(fake.world.lock().unwrap().callers, ["regent://operator/alice".parse().unwrap()]);
    // An agent's certificate cannot serve.
    let agent = files(&ours, "agent-gravl-eu-north-1").load().unwrap();
    let error = agent.server().err().unwrap().to_string();
    assert!(error.contains("cannot serve as a coordinator"), "{error}");
}
