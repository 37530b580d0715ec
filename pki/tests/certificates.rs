//! Certificates as an administrator meets them: issued, loaded, refused.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use regent_pki::{Authority, COORDINATOR_DNS_NAME, Identity, Overwrite, PkiError, TlsFiles};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::ring,
    pki_types::{ServerName, UnixTime},
};
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(86_400);

fn identity(text: &str) -> Identity {
    text.parse().unwrap()
}

fn authority(folder: &TempDir) -> Authority {
    Authority::init(folder.path(), "Test CA", 3650, Overwrite::Refuse).unwrap()
}

fn issue(authority: &Authority, folder: &TempDir, who: &str) -> TlsFiles {
    let issued = authority.issue(&identity(who), 365).unwrap();
    let (cert, key) = regent_pki::write_issued(folder.path(), &issued, Overwrite::Refuse).unwrap();
    TlsFiles { ca: folder.path().join("ca.crt"), cert, key }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn refusal(files: &TlsFiles) -> String {
    files.load().err().expect("must be refused").to_string()
}

#[test]
fn every_role_loads_with_its_identity() {
    let folder = TempDir::new().unwrap();
    let ca = authority(&folder);
    for who in [
        "regent://coordinator/1",
        "regent://agent/gravl/eu-north-1",
        "regent://operator/alice",
        "regent://viewer/grafana",
    ] {
        let files = issue(&ca, &folder, who);
        let material = files.load().unwrap();
        assert_eq!(material.identity, identity(who));
        assert_eq!(material.warnings, Vec::<String>::new());
        assert_eq!(mode(&files.key), 0o600);
        // Agents answer each other, when they ask for promises.
        let coordinator = who.contains("coordinator");
        let serves = coordinator || who.contains("agent");
        assert_eq!(material.info.server_auth, serves);
        assert!(material.info.client_auth);
        let _ = material.client();
        match material.server() {
            Ok(_) => assert!(coordinator),
            Err(error) => {
                assert!(!coordinator);
                let expected = format!("belongs to {who} and cannot serve as a coordinator");
                assert!(error.to_string().ends_with(&expected), "{error}");
            }
        }
    }
    assert_eq!(mode(&folder.path().join("ca.key")), 0o600);
}

/// The check that a client makes of its server, with the real verifier.
#[test]
fn only_a_coordinators_certificate_serves() {
    let folder = TempDir::new().unwrap();
    let ca = authority(&folder);
    let mut roots = RootCertStore::empty();
    roots.add(regent_pki::read_certificate(&folder.path().join("ca.crt")).unwrap()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let name = ServerName::try_from(COORDINATOR_DNS_NAME).unwrap();
    let verify = |who: &str| {
        let cert = regent_pki::read_certificate(&issue(&ca, &folder, who).cert).unwrap();
        verifier.verify_server_cert(&cert, &[], &name, &[], UnixTime::now())
    };
    verify("regent://coordinator/1").unwrap();
    verify("regent://agent/gravl/eu-north-1").unwrap_err();
    verify("regent://operator/alice").unwrap_err();
}

#[test]
fn files_that_do_not_fit_are_named() {
    let folder = TempDir::new().unwrap();
    let ca = authority(&folder);
    let alice = issue(&ca, &folder, "regent://operator/alice");
    let bob = issue(&ca, &folder, "regent://operator/bob");
    let path = |name: &str| folder.path().join(name);

    let missing = TlsFiles { key: path("nobody.key"), ..alice.clone() };
    assert_eq!(refusal(&missing), format!("cannot read {}", path("nobody.key").display()));

    fs::write(path("text"), "no certificate").unwrap();
    let text = TlsFiles { ca: path("text"), ..alice.clone() };
    assert_eq!(refusal(&text), format!("{} holds no certificate in PEM form", path("text").display()));
    let text = TlsFiles { key: path("text"), ..alice.clone() };
    assert_eq!(refusal(&text), format!("{} holds no private key in PEM form", path("text").display()));

    let mixed = TlsFiles { key: bob.key.clone(), ..alice.clone() };
    assert!(matches!(mixed.load(), Err(PkiError::KeyMismatch { .. })));
    assert!(refusal(&mixed).contains("operator-bob.key does not belong to the certificate"));

    let as_identity = TlsFiles { ca: path("ca.crt"), cert: path("ca.crt"), key: path("ca.key") };
    let error = as_identity.load().err().unwrap();
    assert!(matches!(error, PkiError::Identity { .. }), "{error}");
}

#[test]
fn another_ca_is_refused_also_under_the_same_name() {
    let ours = TempDir::new().unwrap();
    let alice = issue(&authority(&ours), &ours, "regent://operator/alice");
    for name in ["Test CA", "Other CA"] {
        let theirs = TempDir::new().unwrap();
        Authority::init(theirs.path(), name, 3650, Overwrite::Refuse).unwrap();
        let files = TlsFiles { ca: theirs.path().join("ca.crt"), ..alice.clone() };
        let error = refusal(&files);
        assert!(error.contains("operator-alice.crt was not issued by the CA in"), "{error}");
    }
}

#[test]
fn validity_is_checked_and_its_end_announced() {
    let folder = TempDir::new().unwrap();
    let files = issue(&authority(&folder), &folder, "regent://agent/gravl/eu-north-1");
    let now = SystemTime::now();
    let soon = files.load_at(now + DAY * 340).unwrap();
    assert!(soon.warnings[0].contains("days left)"), "{:?}", soon.warnings);
    let error = files.load_at(now + DAY * 370).err().unwrap();
    assert!(error.to_string().contains("expired on"), "{error}");
    let error = files.load_at(now - DAY).err().unwrap();
    assert!(error.to_string().contains("is not valid before"), "{error}");
}

#[test]
fn a_key_that_others_can_read_is_a_warning() {
    let folder = TempDir::new().unwrap();
    let files = issue(&authority(&folder), &folder, "regent://operator/alice");
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).unwrap();
    let warnings = files.load().unwrap().warnings;
    assert!(warnings[0].ends_with("can be read by others (mode 644): use 600"), "{warnings:?}");
}

#[test]
fn nothing_is_overwritten_unless_told_to() {
    let folder = TempDir::new().unwrap();
    let ca = authority(&folder);
    let files = issue(&ca, &folder, "regent://operator/alice");
    let before = fs::read(&files.key).unwrap();
    let again = ca.issue(&identity("regent://operator/alice"), 30).unwrap();
    for gone in [None, Some(&files.cert)] {
        if let Some(path) = gone {
            fs::remove_file(path).unwrap();
        }
        let error = regent_pki::write_issued(folder.path(), &again, Overwrite::Refuse).unwrap_err();
        assert!(error.to_string().contains("exists already and is not overwritten"), "{error}");
        assert_eq!(fs::read(&files.key).unwrap(), before);
    }
    let error = Authority::init(folder.path(), "x", 1, Overwrite::Refuse).err().unwrap();
    assert!(matches!(error, PkiError::Exists { .. }), "{error}");

    regent_pki::write_issued(folder.path(), &again, Overwrite::Replace).unwrap();
    assert_ne!(fs::read(&files.key).unwrap(), before);
    assert_eq!(mode(&files.key), 0o600);
    files.load().unwrap();
    let left: Vec<PathBuf> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.iter().all(|path| path.extension().unwrap() != "tmp"), "{left:?}");
}

#[test]
fn a_stored_ca_issues_again_and_bad_validities_are_refused() {
    let folder = TempDir::new().unwrap();
    drop(Authority::init(folder.path(), "Short CA", 10, Overwrite::Refuse).unwrap());
    let ca = Authority::load(folder.path()).unwrap();
    let issued = ca.issue(&identity("regent://coordinator/3"), 5).unwrap();
    let (cert, key) = regent_pki::write_issued(folder.path(), &issued, Overwrite::Refuse).unwrap();
    TlsFiles { ca: folder.path().join("ca.crt"), cert, key }.load().unwrap().server().unwrap();

    let error = ca.issue(&identity("regent://coordinator/3"), 11).err().unwrap().to_string();
    assert!(error.starts_with("11 days of validity would outlive the CA"), "{error}");
    for days in [0, 3651] {
        let error = ca.issue(&identity("regent://coordinator/3"), days).err().unwrap().to_string();
        assert_eq!(error, format!("{days} days of validity: use 1 to 3650"));
    }
    let other = TempDir::new().unwrap();
    authority(&other);
    fs::copy(other.path().join("ca.key"), folder.path().join("ca.key")).unwrap();
    assert!(matches!(Authority::load(folder.path()), Err(PkiError::KeyMismatch { .. })));
}

#[test]
fn a_certificate_has_exactly_one_identity() {
    let certificate = |uris: &[&str]| {
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names =
            uris.iter().map(|uri| rcgen::SanType::URI((*uri).try_into().unwrap())).collect();
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    };
    let other = certificate(&["https://example.org", "regent://viewer/grafana"]);
    assert_eq!(regent_pki::identity_of(&other), Ok(identity("regent://viewer/grafana")));
    let error = |uris: &[&str]| regent_pki::identity_of(&certificate(uris)).unwrap_err().to_string();
    assert_eq!(error(&[]), "it has no URI SAN of the form regent://...");
    assert_eq!(error(&["https://example.org"]), "it has no URI SAN of the form regent://...");
    assert_eq!(
        error(&["regent://viewer/a", "regent://operator/a"]),
        "it has several identities: regent://viewer/a, regent://operator/a"
    );
    assert!(error(&["regent://viewer/"]).starts_with(r#"identity "regent://viewer/" is not valid"#));
    assert!(
        regent_pki::identity_of(b"junk").unwrap_err().to_string().starts_with("not an X.509 certificate")
    );
}
