//! From two empty directories to a failover, over every layer but PostgreSQL.

use std::time::{Duration, Instant};

use regent_proto::v1::{FenceCertainty, OperationState, Trigger};

use crate::{
    agent::Handle,
    group::{Group, PARTITION_MS, eventually},
};

const LEASE_MS: u64 = 1_500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_primary_is_replaced_after_the_bound_and_dns_follows() {
    let group = Group::start().await;
    let m1 = Handle::start("m1", 1, group.urls());
    let m2 = Handle::start("m2", 2, group.urls());
    let leader = group.leader().await;
    group.until_in_sync(leader).await;
    assert!(!m1.lock().granted.is_empty(), "the primary holds a lease");
    assert!(m2.lock().granted.is_empty(), "a standby holds none");

    m1.lock().silent = true;
    let silent_since = Instant::now();
    let promoted = eventually("m2 is told to promote", || async {
        m2.lock().directives.iter().find(|(_, d, _)| d.name() == "promote").cloned()
    })
    .await;
    let took = silent_since.elapsed();
    // The last heartbeat may be one interval older than the silence.
    assert!(took >= Duration::from_millis(PARTITION_MS - 250), "failover after {took:?}");
    let last_lease = m1.lock().granted.last().unwrap().1 + Duration::from_millis(LEASE_MS);
    assert!(Instant::now() > last_lease, "no promotion before the last lease has ended");
    let grant = promoted.2.expect("the lease leaves together with the promotion");
    assert_eq!(grant.epoch.0, 2);
    assert_eq!(grant.instance.0, 2);

    let cluster = group
        .until(leader, "the failover's end", |c| c.primary.as_deref() == Some("m2") && c.operation.is_none())
        .await;
    assert_eq!((cluster.epoch, cluster.fenced_through), (2, 1));
    let dns = cluster.dns.unwrap();
    assert_eq!((dns.address.as_str(), dns.epoch), ("127.0.1.2", 2));
    let history = history(&group, leader).await;
    let failover = history.iter().find(|o| o.trigger == Trigger::Partition as i32).unwrap();
    assert_eq!(failover.state, OperationState::Done as i32, "{failover:?}");
    let report = group.operation(leader, failover.id).await;
    assert_eq!(report.fence.len(), 1);
    assert_eq!(report.fence[0].rung, "lease_expired");
    assert_eq!(report.fence[0].certainty, FenceCertainty::AssumedByLease as i32);
    let steps: Vec<&str> = report.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(steps, ["declare", "fence", "choose", "promote", "redirect", "validate"]);

    // The old primary is back: refused, fenced, and then turned into a standby.
    m1.lock().silent = false;
    group.until(leader, "m1 in sync", |c| c.members.iter().any(|m| m.name == "m1" && m.sync_confirmed)).await;
    assert!(!m1.lock().refused.is_empty());
    assert!(m1.lock().granted.iter().all(|(grant, _)| grant.epoch.0 == 1));
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_that_acknowledges_is_not_waited_for() {
    let group = Group::start().await;
    let m1 = Handle::start("m1", 1, group.urls());
    let m2 = Handle::start("m2", 2, group.urls());
    let leader = group.leader().await;
    group.until_in_sync(leader).await;
    m1.lock().not_accepting_for_ms = 61_000;
    let cluster = group
        .until(leader, "the failover's end", |c| c.primary.as_deref() == Some("m2") && c.operation.is_none())
        .await;
    assert_eq!(cluster.epoch, 2);
    assert!(m1.directives("fence") >= 1);
    assert_eq!(m2.directives("fence"), 0);
    let history = history(&group, leader).await;
    let failover = history.iter().find(|o| o.trigger == Trigger::PostgresDown as i32).unwrap();
    let report = group.operation(leader, failover.id).await;
    assert_eq!(report.fence[0].rung, "acknowledged");
    assert!(report.phases.iter().any(|p| p.name == "detection" && p.elapsed_ms == Some(61_000)));
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_counts_on_from_the_silence_that_it_was_told_of() {
    let mut group = Group::start().await;
    let m1 = Handle::start("m1", 1, group.urls());
    let m2 = Handle::start("m2", 2, group.urls());
    let leader = group.leader().await;
    group.until_in_sync(leader).await;
    m1.lock().silent = true;
    let silent_since = Instant::now();
    // Half of the silence is this leader's; what it has told by then must not be forgotten.
    eventually("half of the partition timeout", || async {
        (silent_since.elapsed() > Duration::from_millis(PARTITION_MS / 2)).then_some(())
    })
    .await;
    group.stop_node(leader).await;
    let successor = group.leader().await;
    let cluster = group.until(successor, "a failover", |c| c.epoch == 2).await;
    assert_eq!(cluster.primary.as_deref(), Some("m2"));
    let running = history(&group, successor).await;
    let failover = running.iter().find(|o| o.trigger == Trigger::Partition as i32).unwrap();
    let report = group.operation(successor, failover.id).await;
    let detection = report.phases.iter().find(|p| p.name == "detection").unwrap().elapsed_ms.unwrap();
    assert!(detection >= PARTITION_MS, "declared after {detection} ms of silence");
    // Counted anew it would come no sooner than a full time-out after the election.
    assert!(detection < PARTITION_MS + PARTITION_MS / 2, "declared after {detection} ms of silence");
    assert!(!m2.lock().granted.is_empty() || m2.directives("promote") > 0);
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_coordinator_serves_the_record_of_the_new_primary() {
    let group = Group::start().await;
    let m1 = Handle::start("m1", 1, group.urls());
    let m2 = Handle::start("m2", 2, group.urls());
    let leader = group.leader().await;
    group.until_in_sync(leader).await;
    let answer = ask_dns(group.ports[&leader].dns, "pg.db.test").await;
    assert_eq!(answer, "127.0.1.1");
    m1.lock().silent = true;
    group.until(leader, "the failover's end", |c| c.epoch == 2 && c.operation.is_none()).await;
    for ports in group.ports.values() {
        let seen = eventually("every coordinator serves the new record", || async {
            let seen = ask_dns(ports.dns, "pg.db.test").await;
            (seen == "127.0.1.2").then_some(seen)
        })
        .await;
        assert_eq!(seen, "127.0.1.2");
    }
    drop(m2);
    group.stop().await;
}

struct Shown;

impl regent_coordinator::dns::embedded::Source for Shown {
    fn records(&self) -> (std::collections::BTreeMap<String, regent_core::DnsRecord>, u32) {
        let record = regent_core::DnsRecord {
            epoch: regent_types::Epoch(1),
            member: regent_types::MemberName::new("m1").unwrap(),
            address: "127.0.1.1".parse().unwrap(),
            ttl_s: 5,
        };
        ([("pg.db.test".to_owned(), record)].into(), 1)
    }
    fn answered(&self) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_down_keeps_the_operation_in_redirect_and_undoes_nothing() {
    let port = crate::group::free_port();
    let group = Group::start_with_dns_at(port).await;
    let m1 = Handle::start("m1", 1, group.urls());
    let leader = group.leader().await;
    let waits = group
        .until(leader, "the operation waits in redirect", |c| {
            c.operation
                .as_ref()
                .is_some_and(|o| o.step == "redirect" && o.state == OperationState::Waiting as i32)
        })
        .await;
    let reason = waits.operation.unwrap().reason.unwrap();
    assert!(reason.contains("no server shows 127.0.1.1 of epoch 1 for pg.db.test"), "{reason}");
    let before = m1.lock().granted.len();
    eventually("the primary keeps its lease", || async { (m1.lock().granted.len() > before).then_some(()) })
        .await;

    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let settings = regent_coordinator::config::Dns {
        listen: address,
        zone: "db.test".into(),
        name_servers: vec!["ns.db.test".into()],
        verify: vec![address],
    };
    let zone = regent_coordinator::dns::embedded::Zone::new(&settings, Shown);
    let sockets = regent_coordinator::dns::bind(address).await.unwrap();
    let _server = regent_coordinator::dns::embedded::start(zone, sockets);
    group.until(leader, "the operation's end", |c| c.operation.is_none()).await;
    assert!(group.nodes[&leader].node.metrics.redirect_failures.get() > 0);
    group.stop().await;
}

async fn history(group: &Group, id: u64) -> Vec<regent_proto::v1::OperationSummary> {
    let request = regent_proto::v1::HistoryRequest { cluster: "c".into(), limit: 0 };
    group.operator(id).await.get_history(request).await.unwrap().into_inner().operations
}

/// As a client of the zone would ask, with a message made by hand.
async fn ask_dns(port: u16, name: &str) -> String {
    use hickory_proto::{
        op::{Message, MessageType, OpCode, Query},
        rr::{Name, RecordType},
    };
    let mut query = Message::new(7, MessageType::Query, OpCode::Query);
    let qname: Name = format!("{name}.").parse().unwrap();
    query.add_query(Query::query(qname, RecordType::A));
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&query.to_vec().unwrap(), ("127.0.0.1", port)).await.unwrap();
    let mut buffer = [0; 512];
    let received = tokio::time::timeout(Duration::from_secs(5), socket.recv(&mut buffer)).await;
    let length = received.expect("the coordinator answers DNS").unwrap();
    let answer = Message::from_vec(&buffer[..length]).unwrap();
    answer.answers.first().map_or_else(|| "nothing".to_owned(), |record| record.data.to_string())
}
