//! The Route 53 provider against a strict double of the service (`regent-route53-fake`, whose rules cite AWS's pages), and
//! its wire shape against moto's server.
#![cfg(feature = "route53")]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use regent_coordinator::{
    clock::Clock,
    config::{ChangeMode, Weighted},
    dns::{
        DnsError, DnsProvider, Ensured,
        health_check::HealthCheck,
        route53::{Pace, Route53},
    },
};
use regent_core::DnsRecord;
use regent_route53_fake::{Fake, Fault, HealthChecked, Options, Record};
use regent_types::{Epoch, MemberName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

mod moto;

const ZONE: &str = "db.example.org";
const NAME: &str = "pg.db.example.org";

struct Scene {
    fake: Fake,
    dir: TempDir,
}

fn write_credentials(path: &Path, key_id: &str, secret: &str, token: Option<&str>) {
    let token = token.map_or(String::new(), |token| format!("aws_session_token = {token}\n"));
    let text = format!("[default]\naws_access_key_id = {key_id}\naws_secret_access_key = {secret}\n{token}");
    std::fs::write(path, text).unwrap();
}

impl Scene {
    async fn new() -> Self {
        Self::with(Options::new(ZONE)).await
    }

    async fn with(options: Options) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("credentials");
        write_credentials(&path, &options.key_id, &options.secret, options.session_token.as_deref());
        Self { fake: Fake::start(options).await.unwrap(), dir }
    }

    fn credentials(&self) -> PathBuf {
        self.dir.path().join("credentials")
    }

    fn mode(&self) -> ChangeMode {
        ChangeMode {
            hosted_zone_id: "Z0FAKE".into(),
            weighted: None,
            ttl_s: None,
            endpoint_url: Some(self.fake.url()),
            region: Some("us-east-1".into()),
            profile: None,
            credentials_file: Some(self.credentials()),
            timeout: Duration::from_millis(1500),
        }
    }

    fn provider(&self) -> Route53 {
        provider(self.mode())
    }

    /// `A 192.0.2.1`, ... of the name, sorted; PENDING included.
    fn records(&self) -> Vec<String> {
        lines(self.fake.records(NAME))
    }
}

fn provider(mode: ChangeMode) -> Route53 {
    let clock = Clock::system();
    Route53::new("route53".into(), mode, clock.clone(), Arc::new(Pace::new(clock)))
}

fn lines(records: Vec<Record>) -> Vec<String> {
    let mut lines: Vec<String> =
        records.iter().map(|record| format!("{} {}", record.kind, record.values.join(" "))).collect();
    lines.sort();
    lines
}

fn record(epoch: u64) -> DnsRecord {
    let member = MemberName::new("us-east-1").unwrap();
    let address = format!("192.0.2.{epoch}").parse().unwrap();
    DnsRecord { epoch: Epoch(epoch), member, address, ttl_s: 5 }
}

fn published(epoch: u64) -> Vec<String> {
    vec![format!("A 192.0.2.{epoch}"), format!("TXT \"regent-epoch={epoch} member=us-east-1\"")]
}

/// Calls again, as the executor does, until it is done; collects the reasons.
async fn until_done(provider: &Route53, record: &DnsRecord) -> (Ensured, Vec<String>) {
    let give_up = Instant::now() + Duration::from_secs(60);
    let mut reasons = Vec::new();
    loop {
        match provider.ensure(NAME, record).await {
            Ok(ensured) => return (ensured, reasons),
            Err(error) => reasons.push(error.to_string()),
        }
        assert!(Instant::now() < give_up, "never done: {reasons:?}");
    }
}

#[track_caller]
fn one_says(reasons: &[String], words: &[&str]) {
    let all = |reason: &&String| words.iter().all(|word| reason.contains(word));
    assert!(reasons.iter().any(|reason| all(&reason)), "none of {reasons:#?} says {words:?}");
}

#[tokio::test]
async fn a_record_is_made_found_and_moved() {
    let scene = Scene::new().await;
    let provider = scene.provider();
    assert_eq!(provider.observe(NAME).await, Ok(None));
    assert_eq!(provider.ensure(NAME, &record(1)).await, Ok(Ensured::Changed));
    assert_eq!(scene.records(), published(1));
    // INSYNC was waited for: the name servers show it too.
    assert_eq!(lines(scene.fake.served(NAME)), published(1));
    assert_eq!(provider.ensure(NAME, &record(1)).await, Ok(Ensured::AlreadyThere));
    assert_eq!(provider.ensure(NAME, &record(2)).await, Ok(Ensured::Changed));
    assert_eq!(scene.records(), published(2));
    let seen = provider.observe(NAME).await.unwrap().unwrap();
    assert_eq!((seen.address, seen.epoch), (record(2).address, Some(Epoch(2))));
    assert_eq!(scene.fake.records(NAME)[0].ttl_s, Some(5));
}

#[tokio::test]
async fn a_late_change_of_an_older_epoch_loses_in_both_orders() {
    // Late as a whole: it reads the newer record.
    let scene = Scene::new().await;
    let (old, new) = (scene.provider(), scene.provider());
    new.ensure(NAME, &record(6)).await.unwrap();
    let superseded = Err(DnsError::Superseded { found: Epoch(6), wanted: Epoch(5) });
    assert_eq!(old.ensure(NAME, &record(5)).await, superseded);
    assert_eq!(scene.records(), published(6));

    // Both read epoch 4; then one batch overtakes the other, in either order, as often as it takes to see both.
    let (mut old_first, mut new_first) = (0, 0);
    for round in 0..40 {
        let mut options = Options::new(ZONE);
        options.requests_per_second = 1000;
        let scene = Scene::with(options).await;
        for seed in [
            Record::new(NAME, "A", 5, &["192.0.2.4"]),
            Record::new(NAME, "TXT", 5, &["\"regent-epoch=4 member=us-east-1\""]),
        ] {
            scene.fake.put(seed);
        }
        let (old, new) = (scene.provider(), scene.provider());
        let (five, six) = (record(5), record(6));
        let (first, second) = if round % 2 == 0 {
            let (a, b) = tokio::join!(old.ensure(NAME, &five), new.ensure(NAME, &six));
            (a, b)
        } else {
            let (b, a) = tokio::join!(new.ensure(NAME, &six), old.ensure(NAME, &five));
            (a, b)
        };
        assert_eq!(second, Ok(Ensured::Changed), "the newer epoch always wins in the end");
        assert_eq!(scene.records(), published(6), "and stays");
        match first {
            Ok(Ensured::Changed) => old_first += 1,
            Err(DnsError::Superseded { .. }) => new_first += 1,
            other => panic!("{other:?}"),
        }
        let refused = scene
            .fake
            .log()
            .iter()
            .filter(|(what, code)| what == "ChangeResourceRecordSets" && *code == 400)
            .count();
        assert!(refused <= 1, "{:?}", scene.fake.log());
        if old_first > 0 && new_first > 0 && round >= 5 {
            return;
        }
    }
    panic!("only one order was seen: old first {old_first}, new first {new_first}");
}

#[tokio::test]
async fn a_change_by_hand_between_reading_and_changing_is_read_again() {
    // A zone that is read, then changed by hand before the batch arrives: the double is told to be busy once, and the
    // record is replaced meanwhile.
    let scene = Scene::new().await;
    let provider = scene.provider();
    provider.ensure(NAME, &record(1)).await.unwrap();
    scene.fake.order(Fault::PriorRequestNotComplete);
    let error = provider.ensure(NAME, &record(2)).await.unwrap_err().to_string();
    assert!(error.contains("PriorRequestNotComplete") && error.contains("busy"), "{error}");
    scene.fake.put(Record::new(NAME, "A", 60, &["203.0.113.7", "203.0.113.8"]));
    assert_eq!(provider.ensure(NAME, &record(2)).await, Ok(Ensured::Changed));
    assert_eq!(scene.records(), published(2));
}

#[tokio::test]
async fn a_pending_change_is_waited_for_and_told() {
    let mut options = Options::new(ZONE);
    options.insync_after = Duration::from_secs(14);
    let scene = Scene::with(options).await;
    let provider = scene.provider();
    let (ensured, reasons) = until_done(&provider, &record(1)).await;
    assert_eq!(ensured, Ensured::Changed);
    one_says(&reasons, &["C00001", "epoch 1", "PENDING"]);
    assert_eq!(lines(scene.fake.served(NAME)), published(1));
    let changes = scene.fake.log().iter().filter(|(what, _)| what == "ChangeResourceRecordSets").count();
    assert_eq!(changes, 1, "a pending change is not made again");
}

#[tokio::test]
async fn throttling_and_server_errors_pass() {
    let scene = Scene::new().await;
    let provider = scene.provider();
    for fault in [Fault::Throttling, Fault::InternalFailure, Fault::Throttling] {
        scene.fake.order(fault);
    }
    let (ensured, reasons) = until_done(&provider, &record(1)).await;
    assert_eq!((ensured, scene.fake.ordered()), (Ensured::Changed, 0));
    one_says(&reasons, &["throttles", "Rate exceeded", "5 requests a second"]);
    one_says(&reasons, &["InternalFailure"]);
    // Its own pace keeps it below the limit: nothing was throttled but what was ordered.
    let throttled = scene.fake.log().iter().filter(|(_, code)| *code == 400).count();
    assert_eq!(throttled, 2, "{:?}", scene.fake.log());
}

#[tokio::test]
async fn answers_that_are_lost_after_the_change_are_found_out_by_reading() {
    for fault in [Fault::AnswerLost, Fault::CutAfterChange] {
        let scene = Scene::new().await;
        let provider = scene.provider();
        scene.fake.order(fault);
        let (ensured, reasons) = until_done(&provider, &record(1)).await;
        assert_eq!((ensured, scene.records()), (Ensured::AlreadyThere, published(1)), "{fault:?}");
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        let changes = scene.fake.log().iter().filter(|(what, _)| what == "ChangeResourceRecordSets").count();
        assert_eq!(changes, 1, "{fault:?}: made once");
    }
    // Neither made nor answered.
    let scene = Scene::new().await;
    scene.fake.order(Fault::Unanswered);
    let (ensured, reasons) = until_done(&scene.provider(), &record(1)).await;
    assert_eq!((ensured, scene.records()), (Ensured::Changed, published(1)));
    one_says(
        &reasons,
        &["has not answered ChangeResourceRecordSets within 1s 500ms", "route53.route53.timeout"],
    );
}

#[tokio::test]
async fn a_service_that_is_down_is_waited_for() {
    let scene = Scene::new().await;
    scene.fake.set_down(true);
    let provider = scene.provider();
    let error = provider.ensure(NAME, &record(1)).await.unwrap_err().to_string();
    assert!(error.contains("cannot be reached for ListResourceRecordSets"), "{error}");
    scene.fake.set_down(false);
    assert_eq!(until_done(&provider, &record(1)).await.0, Ensured::Changed);
}

#[tokio::test]
async fn wrong_permissions_and_zones_name_their_field() {
    let scene = Scene::new().await;
    // Three providers with a pace each.
    scene.fake.set(|options| options.requests_per_second = 100);
    scene.fake.order(Fault::AccessDenied);
    let error = scene.provider().ensure(NAME, &record(1)).await.unwrap_err().to_string();
    for word in [
        "may not call route53:ChangeResourceRecordSets",
        "route53.route53.hosted_zone_id",
        "Z0FAKE",
        "AccessDenied",
    ] {
        assert!(error.contains(word), "{word}: {error}");
    }
    let elsewhere = provider(ChangeMode { hosted_zone_id: "Z0OTHER".into(), ..scene.mode() });
    let error = elsewhere.ensure(NAME, &record(1)).await.unwrap_err().to_string();
    for word in ["route53.route53.hosted_zone_id", "Z0OTHER", "does not exist", "NoSuchHostedZone"] {
        assert!(error.contains(word), "{word}: {error}");
    }
    // Outside the zone: refused as a whole, with what Route 53 says.
    let error = scene.provider().ensure("pg.example.net", &record(1)).await.unwrap_err().to_string();
    assert!(error.contains("pg.example.net. is not permitted in zone db.example.org."), "{error}");
}

#[tokio::test]
async fn credentials_are_read_anew_after_a_refusal_and_never_shown() {
    let scene = Scene::new().await;
    let provider = scene.provider();
    write_credentials(&scene.credentials(), "AKIDFAKE", "an-old-secret", None);
    let error = provider.ensure(NAME, &record(1)).await.unwrap_err().to_string();
    assert!(error.contains("SignatureDoesNotMatch") && error.contains("credentials"), "{error}");
    assert!(!error.contains("an-old-secret"), "{error}");
    write_credentials(&scene.credentials(), "AKIDFAKE", "fake-secret-key", None);
    assert_eq!(provider.ensure(NAME, &record(1)).await, Ok(Ensured::Changed));
    std::fs::remove_file(scene.credentials()).unwrap();
    let error = scene.provider().ensure(NAME, &record(2)).await.unwrap_err().to_string();
    assert!(error.contains("credentials") && error.contains("route53.route53.credentials_file"), "{error}");

    let mut options = Options::new(ZONE);
    options.session_token = Some("a-session-token".into());
    let scene = Scene::with(options).await;
    assert_eq!(scene.provider().ensure(NAME, &record(1)).await, Ok(Ensured::Changed));
}

#[tokio::test]
async fn whatever_stood_there_is_swapped_in_one_batch() {
    let scene = Scene::new().await;
    let provider = scene.provider();
    // A CNAME, then an alias, as an operator may have had it before.
    scene.fake.put(Record::new(NAME, "CNAME", 300, &["old.example.org"]));
    provider.ensure(NAME, &record(1)).await.unwrap();
    assert_eq!(scene.records(), published(1));
    let alias = Record {
        ttl_s: None,
        values: vec![],
        alias: Some(("Z2LB".into(), "lb.example.org.".into(), false)),
        ..Record::new(NAME, "A", 1, &[])
    };
    scene.fake.put(alias);
    provider.ensure(NAME, &record(2)).await.unwrap();
    assert_eq!(scene.records(), published(2));
    // From IPv4 to IPv6 and back; foreign texts stay.
    scene.fake.put(Record::new(NAME, "TXT", 5, &["\"v=spf1 -all\"", "\"regent-epoch=2 member=us-east-1\""]));
    let six = DnsRecord { address: "2001:db8::3".parse().unwrap(), ..record(3) };
    provider.ensure(NAME, &six).await.unwrap();
    assert_eq!(
        scene.records(),
        ["AAAA 2001:db8::3", "TXT \"v=spf1 -all\" \"regent-epoch=3 member=us-east-1\""]
    );
    assert_eq!(provider.ensure(NAME, &six).await, Ok(Ensured::AlreadyThere));
    provider.ensure(NAME, &record(4)).await.unwrap();
    assert_eq!(scene.records()[0], "A 192.0.2.4");
    // Neighbours are not touched, and a name below is not the name.
    scene.fake.put(Record::new("a.pg.db.example.org", "A", 5, &["192.0.2.200"]));
    provider.ensure(NAME, &record(5)).await.unwrap();
    assert_eq!(lines(scene.fake.records("a.pg.db.example.org")), ["A 192.0.2.200"]);
}

#[tokio::test]
async fn weighted_records_live_beside_those_of_others() {
    let mut options = Options::new(ZONE);
    options.page_max = 2;
    let scene = Scene::with(options).await;
    for (id, address) in [("aaa", "192.0.2.101"), ("zzz", "192.0.2.102")] {
        scene.fake.put(Record::new(NAME, "A", 60, &[address]).weighted(id, 1));
    }
    let weighted = Some(Weighted { set_identifier: "regent".into(), weight: 200 });
    let mode = ChangeMode { weighted, ttl_s: Some(9), ..scene.mode() };
    let weighted = provider(mode);
    weighted.ensure(NAME, &record(1)).await.unwrap();
    weighted.ensure(NAME, &record(2)).await.unwrap();
    assert_eq!(weighted.ensure(NAME, &record(2)).await, Ok(Ensured::AlreadyThere), "over several pages");
    let mut all = lines(scene.fake.records(NAME));
    all.retain(|line| line.starts_with("A "));
    assert_eq!(all, ["A 192.0.2.101", "A 192.0.2.102", "A 192.0.2.2"]);
    let own =
        scene.fake.records(NAME).into_iter().find(|r| r.set_identifier.as_deref() == Some("regent")).unwrap();
    assert_eq!((own.weight, own.ttl_s), (Some(200), Some(9)));
    let error = scene.provider().ensure(NAME, &record(3)).await.unwrap_err().to_string();
    assert!(
        error.contains("set_identifier is not set") && error.contains("regent") && error.contains("zzz"),
        "{error}"
    );
}

/// An agent's `GET /primary`, reduced to its answer.
async fn agent(primary: Arc<AtomicBool>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 512];
            let length = stream.read(&mut request).await.unwrap_or(0);
            assert!(request[..length].starts_with(b"GET /primary HTTP/1.1\r\n"));
            let code = if primary.load(Ordering::Relaxed) { 200 } else { 503 };
            let answer = format!("HTTP/1.1 {code} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.ok();
        }
    });
    address
}

#[tokio::test]
async fn with_health_checks_the_name_is_only_watched() {
    let (old, new) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let targets = vec![
        ("192.0.2.1".parse().unwrap(), agent(old.clone()).await),
        ("192.0.2.2".parse().unwrap(), agent(new.clone()).await),
    ];
    let checked = HealthChecked::start(NAME, targets, Duration::from_millis(50)).await.unwrap();
    let provider = HealthCheck::new("checks".into(), vec![checked.server.address], Clock::system());
    assert_eq!(until_shown(&provider, &record(1)).await, Ensured::AlreadyThere);
    let error = provider.ensure(NAME, &record(2)).await.unwrap_err().to_string();
    for word in ["192.0.2.2 alone", "192.0.2.1", "checks", "us-east-1"] {
        assert!(error.contains(word), "{word}: {error}");
    }
    // Nobody holds the lease: Route 53 shows all addresses, and that is not moved.
    old.store(false, Ordering::Relaxed);
    let give_up = Instant::now() + Duration::from_secs(30);
    loop {
        let error = provider.ensure(NAME, &record(2)).await.unwrap_err().to_string();
        if error.contains("192.0.2.1, 192.0.2.2") {
            break;
        }
        assert!(Instant::now() < give_up, "{error}");
    }
    new.store(true, Ordering::Relaxed);
    assert_eq!(until_shown(&provider, &record(2)).await, Ensured::AlreadyThere);
    assert_eq!(provider.observe(NAME).await.unwrap().unwrap().address, record(2).address);
    // A resolver that does not answer does not count; one that shows the old address does.
    let dead = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let both = vec![checked.server.address, dead.local_addr().unwrap()];
    assert!(HealthCheck::new("checks".into(), both, Clock::system()).ensure(NAME, &record(2)).await.is_ok());
}

async fn until_shown(provider: &HealthCheck, record: &DnsRecord) -> Ensured {
    let give_up = Instant::now() + Duration::from_secs(30);
    loop {
        match provider.ensure(NAME, record).await {
            Ok(ensured) => return ensured,
            Err(error) => assert!(Instant::now() < give_up, "{error}"),
        }
    }
}
