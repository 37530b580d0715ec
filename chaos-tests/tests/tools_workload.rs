//! Writers and the checker against two real servers: a move in the right order passes, and a promotion
//! beside a primary that lives is found out. No Regent here: the tools must be believed first.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use regent_chaos::real::checker::{Evidence, LossAllowed, Reign, Verdict, check};
use regent_chaos::real::clock::{WallOffset, monotonic_ns, wait_until};
use regent_chaos::real::pg::PgInstall;
use regent_chaos::real::pg_server::PgServer;
use regent_chaos::real::process::Process;
use regent_chaos::real::resolver::StubResolver;
use regent_chaos::real::sweep::survivors;
use regent_chaos::real::workload::{
    Endpoint, Login, LoopProcedure, Outcome, RunningWriter, WriterSpec, connect, install_schema, read_rows,
};
use regent_chaos::real::world::World;
use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Packet, QTYPE, ResourceRecord, TYPE};
use tokio::net::UdpSocket;

const SOON: Duration = Duration::from_secs(15);
const NAME: &str = "db.regent.test";

/// A name server with one address, which a test moves.
async fn name_server(address: Arc<Mutex<IpAddr>>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let local = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
            let query = Packet::parse(&buffer[..len]).unwrap();
            let mut reply = Packet::new_reply(query.id());
            if query.questions[0].qtype == QTYPE::TYPE(TYPE::A) {
                let IpAddr::V4(ip) = *address.lock().unwrap() else { panic!("IPv4 only") };
                let data = RData::A(A { address: Ipv4Addr::into(ip) });
                reply.answers.push(ResourceRecord::new(query.questions[0].qname.clone(), CLASS::IN, 1, data));
            }
            socket.send_to(&reply.build_bytes_vec().unwrap(), from).await.unwrap();
        }
    });
    local
}

/// A primary in the north, its standby in the east, a client in the west, and writers of every kind.
struct Pair {
    north: PgServer,
    east: PgServer,
    primary: Process,
    _standby: Process,
    address: Arc<Mutex<IpAddr>>,
    named: RunningWriter,
    held: [RunningWriter; 2],
    looping: [LoopProcedure; 2],
    world: World,
}

impl Pair {
    async fn start(name: &str, major: u32) -> Self {
        let world = World::new(name, &["north", "east", "west"]).unwrap();
        world.net().set_delay("west", "east", Duration::from_millis(5)).unwrap();
        let install = PgInstall::locate(major, world.user()).unwrap();
        let at = |host| SocketAddr::from((world.addresses().ip(host), 5432));
        let north = PgServer::init(&world, &install, "north", at(1)).unwrap();
        let primary = north.start(&world).await.unwrap();
        let session = connect(north.address(), SOON).await.unwrap();
        install_schema(&session).await.unwrap();
        let east = north.clone_standby(&world, "east", at(2)).unwrap();
        let standby = east.start(&world).await.unwrap();
        // It answers queries before it streams, and a shutdown waits for streaming standbys only.
        wait_until("the standby streams", SOON, async || {
            let text = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
            session.client().query_one(text, &[]).await.unwrap().get::<_, i64>(0) == 1
        })
        .await
        .unwrap();
        let route = |to, server: &PgServer| {
            (server.address().ip(), world.net().listen("west", to, server.address()).unwrap())
        };
        let routes = BTreeMap::from([route("north", &north), route("east", &east)]);
        let address = Arc::new(Mutex::new(north.address().ip()));
        let resolver = StubResolver::new(vec![name_server(address.clone()).await], Duration::from_secs(1));
        let endpoint = Endpoint::Name { resolver, name: NAME.into(), port: 5432, routes };
        let named = WriterSpec { statement_within: Duration::from_secs(1), ..WriterSpec::new(1, endpoint) };
        let hold = async |id, server: &PgServer| {
            WriterSpec::new(id, Endpoint::Direct(server.address())).start_held().await.unwrap()
        };
        let repeat = async |id, server: &PgServer| {
            let pause = Duration::from_millis(2);
            LoopProcedure::start(&Login::default(), server.address(), id, pause).await.unwrap()
        };
        let pair = Self {
            named: named.start(),
            held: [hold(2, &north).await, hold(3, &east).await],
            looping: [repeat(4, &north).await, repeat(5, &east).await],
            north,
            east,
            primary,
            _standby: standby,
            address,
            world,
        };
        wait_until("rows are acknowledged in the north", SOON, async || {
            pair.named.journal().acknowledged() > 5
                && pair.held[0].journal().acknowledged() > 5
                && pair.looping[0].journal().acknowledged() > 20
        })
        .await
        .unwrap();
        pair
    }

    async fn promote(&self) {
        let session = connect(self.east.address(), SOON).await.unwrap();
        session.client().execute("SELECT pg_promote()", &[]).await.unwrap();
        *self.address.lock().unwrap() = self.east.address().ip();
    }

    /// Stops all writers and judges the east's rows, with the north's as salvage when it lives.
    async fn judge(self) -> (Verdict, Evidence) {
        let mut attempts = self.named.stop().await.unwrap();
        for writer in self.held {
            attempts.extend(writer.stop().await.unwrap());
        }
        for looping in self.looping {
            attempts.extend(looping.stop().await.unwrap());
        }
        let reign = |epoch, server: &PgServer| Reign {
            epoch,
            server: server.address().to_string(),
            not_before_ns: 0,
        };
        let mut evidence = Evidence {
            attempts,
            reigns: vec![reign(1, &self.north), reign(2, &self.east)],
            surviving: read_rows(&connect(self.east.address(), SOON).await.unwrap()).await.unwrap(),
            salvaged: vec![],
        };
        if let Ok(session) = connect(self.north.address(), Duration::from_secs(2)).await {
            evidence.salvaged = read_rows(&session).await.unwrap();
        }
        let verdict = check(&evidence, WallOffset::sample());
        println!("{verdict}");
        let root = self.world.root().to_path_buf();
        drop(self.world);
        assert!(survivors(&root).is_empty());
        (verdict, evidence)
    }
}

#[tokio::test]
async fn a_move_in_the_right_order_passes_on_both_majors() {
    for major in [15, 18] {
        let pair = Pair::start("ordered", major).await;
        // A fast shutdown sends the standby everything before the primary ends.
        pair.primary.signal(libc::SIGINT).unwrap();
        pair.primary.wait_exit(SOON).await.unwrap();
        let cut_ns = monotonic_ns();
        pair.promote().await;
        wait_until("every writer goes on in the east", SOON, async || {
            pair.named.journal().first_acknowledged_after(cut_ns).is_some()
                && pair.held[1].journal().acknowledged() > 0
                && pair.looping[1].journal().acknowledged() > 0
                && pair.held[0].is_done()
                && pair.looping[0].is_done()
        })
        .await
        .unwrap();
        let (gap_ns, _) = pair.named.journal().longest_gap_ns().unwrap();
        assert!(gap_ns > 0);
        let refused = pair.held[1].journal().attempts();
        assert!(
            refused.iter().any(|a| matches!(&a.outcome, Outcome::Failed(why) if why.starts_with("25006")))
        );
        let (verdict, _) = pair.judge().await;
        verdict.require(LossAllowed::Nothing).unwrap();
    }
}

#[tokio::test]
async fn a_promotion_beside_a_living_primary_is_found_out() {
    let pair = Pair::start("split", 18).await;
    let before_ns = monotonic_ns();
    pair.promote().await;
    wait_until("both sides accept writes", SOON, async || {
        pair.looping.iter().all(|l| l.journal().first_acknowledged_after(before_ns).is_some())
            && pair.held.iter().all(|h| h.journal().first_acknowledged_after(before_ns).is_some())
            && pair.looping[0].journal().last_acknowledged().unwrap().sent_ns
                > pair.looping[1].journal().attempts()[0].done_ns
    })
    .await
    .unwrap();
    let (verdict, _) = pair.judge().await;
    let error = verdict.require(LossAllowed::Salvaged).unwrap_err().to_string();
    assert!(
        error.contains("two writers") && error.contains("epoch 1") && error.contains("epoch 2"),
        "{error}"
    );
    assert!(!verdict.salvaged.is_empty(), "the north's rows after the split are in its directory only");
}

#[tokio::test]
async fn a_procedure_outlives_its_postmaster_and_the_sweep_ends_it() {
    let world = World::new("orphan", &["north"]).unwrap();
    let install = PgInstall::locate(15, world.user()).unwrap();
    let address = SocketAddr::from((world.addresses().ip(1), 5432));
    let server = PgServer::init(&world, &install, "north", address).unwrap();
    let postmaster = server.start(&world).await.unwrap();
    install_schema(&connect(address, SOON).await.unwrap()).await.unwrap();
    let looping = LoopProcedure::start(&Login::default(), address, 1, Duration::ZERO).await.unwrap();
    wait_until("the procedure commits", SOON, async || looping.journal().acknowledged() > 5).await.unwrap();
    postmaster.kill();
    let killed_ns = monotonic_ns();
    wait_until("it commits without a postmaster", SOON, async || {
        looping.journal().first_acknowledged_after(killed_ns).is_some()
    })
    .await
    .unwrap();
    world.sweep().unwrap();
    wait_until("the session ends with the sweep", SOON, async || looping.is_done()).await.unwrap();
    assert!(survivors(world.root()).is_empty());
    looping.stop().await.unwrap();
}
