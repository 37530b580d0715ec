//! The failing disk under `dd` and under PostgreSQL.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use regent_chaos::real::clock::{monotonic_ns, wait_until};
use regent_chaos::real::pg::PgInstall;
use regent_chaos::real::pg_server::PgServer;
use regent_chaos::real::process::{Process, ProcessSpec};
use regent_chaos::real::shim::{Disk, Shim};
use regent_chaos::real::workload::{Endpoint, WriterSpec, connect, install_schema};
use regent_chaos::real::world::World;

const SOON: Duration = Duration::from_secs(15);

struct Bench {
    watched: PathBuf,
    shim: Shim,
    world: World,
}

impl Bench {
    fn new(name: &str) -> Self {
        let world = World::new(name, &["north"]).unwrap();
        let watched = world.make_dir("watched").unwrap();
        let shim = Shim::new(&watched, &world.root().join("disk"), world.user()).unwrap();
        Self { watched, shim, world }
    }

    /// `dd` writing one block below `dir`, with an fsync at the end.
    fn dd(&self, name: &str, dir: &std::path::Path) -> Process {
        let out = format!("of={}", dir.join(name).display());
        let spec =
            ProcessSpec::new(name, "/bin/dd").args(["if=/dev/zero", &out, "bs=512", "count=1", "conv=fsync"]);
        self.world.spawn(self.shim.apply(spec)).unwrap()
    }

    async fn fails_with(&self, disk: Disk, text: &str) {
        self.shim.set(disk).unwrap();
        let name = format!("{disk:?}");
        let dd = self.dd(&name, &self.watched);
        assert!(!dd.wait_exit(SOON).await.unwrap().success(), "{name}");
        assert!(dd.log_text().contains(text), "{name}: {}", dd.log_text());
        let elsewhere = self.world.make_dir("watched-not").unwrap();
        let dd = self.dd(&name, &elsewhere);
        assert!(dd.wait_exit(SOON).await.unwrap().success(), "other directories work: {}", dd.log_text());
    }
}

#[tokio::test]
async fn errors_are_what_the_disk_was_told() {
    let bench = Bench::new("errors");
    let dd = bench.dd("good", &bench.watched);
    assert!(dd.wait_exit(SOON).await.unwrap().success(), "{}", dd.log_text());
    bench.fails_with(Disk::Eio, "Input/output error").await;
    bench.fails_with(Disk::ReadOnly, "Read-only file system").await;
    bench.fails_with(Disk::Full, "No space left on device").await;
    bench.shim.set(Disk::Ok).unwrap();
    let dd = bench.dd("again", &bench.watched);
    assert!(dd.wait_exit(SOON).await.unwrap().success(), "{}", dd.log_text());
}

#[tokio::test]
async fn a_stall_blocks_all_signals_but_kill_and_ends_when_told() {
    let bench = Bench::new("stall");
    bench.shim.set(Disk::Stall).unwrap();
    let (patient, doomed) = (bench.dd("patient", &bench.watched), bench.dd("doomed", &bench.watched));
    let stalled = Duration::from_millis(300);
    doomed.term().unwrap();
    assert!(patient.wait_exit(stalled).await.is_err());
    doomed.kill();
    assert!(!bench.watched.join("patient").exists(), "the open itself must wait");
    bench.shim.set(Disk::Ok).unwrap();
    assert!(patient.wait_exit(SOON).await.unwrap().success());

    bench.shim.set(Disk::StallFsync).unwrap();
    let written = bench.dd("written", &bench.watched);
    wait_until("the write passes", SOON, async || {
        std::fs::metadata(bench.watched.join("written")).is_ok_and(|found| found.len() == 512)
    })
    .await
    .unwrap();
    assert!(written.wait_exit(stalled).await.is_err(), "the fsync must wait");
    bench.shim.set(Disk::Eio).unwrap();
    assert!(!written.wait_exit(SOON).await.unwrap().success(), "a stall can end in an error");
}

#[tokio::test]
async fn postgresql_stalls_recovers_and_panics() {
    for major in [15, 18] {
        let bench = Bench::new("pg-disk");
        let install = PgInstall::locate(major, bench.world.user()).unwrap();
        let address = SocketAddr::from((bench.world.addresses().ip(1), 5432));
        let server = PgServer::init(&bench.world, &install, "watched", address).unwrap();
        let spec = bench.shim.apply(server.spec());
        let postmaster = server.start_spec(&bench.world, spec).await.unwrap();
        install_schema(&connect(address, SOON).await.unwrap()).await.unwrap();
        let spec = WriterSpec { statement_within: SOON * 4, ..WriterSpec::new(1, Endpoint::Direct(address)) };
        let writer = spec.start_held().await.unwrap();
        let goes_on = async || {
            let now_ns = monotonic_ns();
            wait_until("a row is acknowledged", SOON, async || {
                writer.journal().first_acknowledged_after(now_ns).is_some()
            })
            .await
        };
        goes_on().await.unwrap();

        bench.shim.set(Disk::StallFsync).unwrap();
        // One row may have been in flight; then nothing more comes.
        let stalled_ns = monotonic_ns();
        let more = wait_until("a row is acknowledged", Duration::from_millis(500), async || {
            writer.journal().first_acknowledged_after(stalled_ns + 20_000_000).is_some()
        });
        assert!(more.await.is_err(), "{major}: a commit needs its fsync");
        let reader = connect(address, SOON).await.unwrap();
        reader.client().query_one("SELECT count(*) FROM chaos_rows", &[]).await.unwrap();
        bench.shim.set(Disk::Ok).unwrap();
        goes_on().await.unwrap();

        bench.shim.set(Disk::Eio).unwrap();
        postmaster.wait_log("PANIC", SOON).await.unwrap();
        assert!(postmaster.log_text().contains("Input/output error"), "{}", postmaster.log_tail());
        writer.stop().await.unwrap();
    }
}
