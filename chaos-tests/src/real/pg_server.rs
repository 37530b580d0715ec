//! A PostgreSQL started by the harness itself: for tests of these tools, and as the bare server that
//! Regent's promotion time is measured against. Scenarios of Regent let its guard do the starting.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::clock::wait_until;
use super::pg::PgInstall;
use super::process::{Process, ProcessSpec};
use super::workload::connect;
use super::world::World;

/// A data directory and where its server listens.
#[derive(Clone, Debug)]
pub struct PgServer {
    install: PgInstall,
    name: String,
    data_dir: PathBuf,
    address: SocketAddr,
}

impl PgServer {
    /// Makes a data directory `<root>/<name>/data` for a server on `address`; user `postgres`, no password.
    pub fn init(world: &World, install: &PgInstall, name: &str, address: SocketAddr) -> Result<Self> {
        let home = world.make_dir(name)?;
        let data_dir = home.join("data");
        let mut initdb = Command::new(install.program("initdb"));
        initdb.args([
            "--auth=trust",
            "--username=postgres",
            "--no-sync",
            "--encoding=UTF8",
            "--no-locale",
            "-D",
        ]);
        initdb.arg(&data_dir).current_dir(&home);
        run(world, initdb)?;
        Ok(Self { install: install.clone(), name: name.to_owned(), data_dir, address })
    }

    /// Clones this server, which must be running, as a streaming standby on `address`.
    pub fn clone_standby(&self, world: &World, name: &str, address: SocketAddr) -> Result<Self> {
        let home = world.make_dir(name)?;
        let data_dir = home.join("data");
        let mut backup = Command::new(self.install.program("pg_basebackup"));
        backup.args(["--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "--no-sync", "-d"]);
        backup.arg(self.conninfo()).arg("-D").arg(&data_dir).current_dir(&home);
        run(world, backup)?;
        Ok(Self { name: name.to_owned(), data_dir, address, install: self.install.clone() })
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// How libpq reaches it.
    pub fn conninfo(&self) -> String {
        format!("host={} port={} user=postgres dbname=postgres", self.address.ip(), self.address.port())
    }

    /// The process to start, not yet started: a caller may put it under a failing disk.
    pub fn spec(&self) -> ProcessSpec {
        ProcessSpec::new(&self.name, self.install.program("postgres")).cwd(&self.data_dir).args([
            "-D".into(),
            self.data_dir.clone().into_os_string(),
            "-p".into(),
            self.address.port().to_string().into(),
            "-c".into(),
            format!("listen_addresses={}", self.address.ip()).into(),
            "-c".into(),
            "unix_socket_directories=".into(),
            "-c".into(),
            "wal_log_hints=on".into(),
            "-c".into(),
            "shared_buffers=16MB".into(),
        ])
    }

    /// Starts it and waits until it answers queries.
    pub async fn start(&self, world: &World) -> Result<Process> {
        self.start_spec(world, self.spec()).await
    }

    /// As [`PgServer::start`], with a specification made from [`PgServer::spec`].
    pub async fn start_spec(&self, world: &World, spec: ProcessSpec) -> Result<Process> {
        let process = world.spawn(spec)?;
        wait_until(&format!("{} accepts connections", self.name), Duration::from_secs(30), async || {
            connect(self.address, Duration::from_secs(2)).await.is_ok() || !process.is_running()
        })
        .await
        .with_context(|| process.log_tail())?;
        ensure!(process.is_running(), "{} ended at start: {}", self.name, process.log_tail());
        Ok(process)
    }
}

fn run(world: &World, mut command: Command) -> Result<()> {
    world.user().apply(&mut command);
    let out = command.output().with_context(|| format!("starting {command:?}"))?;
    ensure!(
        out.status.success(),
        "{command:?}: {}: {}",
        out.status,
        String::from_utf8_lossy(&out.stderr).trim()
    );
    Ok(())
}
