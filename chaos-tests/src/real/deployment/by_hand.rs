//! PostgreSQL servers made and run by an administrator, without Regent: what `regentctl adopt` takes over.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::config::{APP, OBSERVER};
use super::layout::{EAST, NORTH};
use super::life::Deployment;
use crate::real::sweep::ROOT_VARIABLE;

impl Deployment {
    fn tool(&self, name: &str, args: &[&str]) -> Result<String> {
        let mut command = Command::new(self.postgres.program(name));
        command.args(args).current_dir("/").env(ROOT_VARIABLE, self.files.root()).env("LC_ALL", "C");
        // A server that goes on running must not hold this test's pipes.
        let output = self.files.root().join("etc").join(format!("{name}.out"));
        let file = std::fs::File::create(&output).with_context(|| output.display().to_string())?;
        command.stdout(file.try_clone()?).stderr(file);
        self.world.user().apply(&mut command);
        let status = command.status().with_context(|| format!("running {name}"))?;
        let said = std::fs::read_to_string(&output)?;
        ensure!(status.success(), "{name} {args:?}: {said}");
        Ok(said)
    }

    fn data_text(&self, member: &str) -> String {
        self.files.data(member).display().to_string()
    }

    /// A primary and its streaming standby, at the members' data directories and addresses, with the application's
    /// database; nothing of it knows of Regent.
    pub fn make_servers_by_hand(&self) -> Result<()> {
        let (north, superuser) = (self.data_text(NORTH), self.superuser.clone());
        self.tool("initdb", &["-D", &north, "-U", &superuser, "-A", "trust", "-k", "--no-sync"])?;
        let hba = "host all all 127.0.0.0/8 trust\nhost replication all 127.0.0.0/8 trust\n";
        let path = self.files.data(NORTH).join("pg_hba.conf");
        let text = std::fs::read_to_string(&path)? + hba;
        self.put_in_data(NORTH, "pg_hba.conf", &text)?;
        let path = self.files.data(NORTH).join("postgresql.conf");
        let text = std::fs::read_to_string(&path)?
            + "\nshared_buffers = 32MB\nmax_connections = 60\nwork_mem = 5MB\n";
        self.put_in_data(NORTH, "postgresql.conf", &text)?;
        self.start_by_hand(NORTH)?;
        let primary = self.direct(NORTH)?;
        let (host, port) = (primary.ip().to_string(), primary.port().to_string());
        let east = self.data_text(EAST);
        let source =
            ["-h", &host, "-p", &port, "-U", &superuser, "-D", &east, "-X", "stream", "-R", "-c", "fast"];
        self.tool("pg_basebackup", &source)?;
        self.start_by_hand(EAST)?;
        for sql in [
            format!("CREATE ROLE {APP} LOGIN"),
            format!("CREATE DATABASE {APP} OWNER {APP}"),
            format!("CREATE ROLE {OBSERVER} LOGIN"),
            format!("GRANT pg_monitor TO {OBSERVER}"),
        ] {
            self.tool("psql", &["-h", &host, "-p", &port, "-U", &superuser, "-d", "postgres", "-c", &sql])?;
        }
        let rows = "CREATE TABLE before_regent AS SELECT generate_series(1, 1000) AS n";
        self.tool("psql", &["-h", &host, "-p", &port, "-U", &superuser, "-d", "postgres", "-c", rows])?;
        Ok(())
    }

    /// `pg_ctl start`, with address and port on the command line.
    pub fn start_by_hand(&self, member: &str) -> Result<()> {
        let address = self.direct(member)?;
        let options =
            format!("-c listen_addresses={} -p {} -c unix_socket_directories=", address.ip(), address.port());
        let log = self.files.member(member).join("by-hand.log").display().to_string();
        let data = self.data_text(member);
        self.tool("pg_ctl", &["start", "-w", "-D", &data, "-l", &log, "-o", &options]).map(drop)
    }

    /// `pg_ctl stop -m fast`.
    pub fn stop_by_hand(&self, member: &str) -> Result<()> {
        self.tool("pg_ctl", &["stop", "-w", "-m", "fast", "-D", &self.data_text(member)]).map(drop)
    }

    /// `pg_ctl promote`, as another tool would.
    pub fn promote_by_hand(&self, member: &str) -> Result<()> {
        self.tool("pg_ctl", &["promote", "-w", "-D", &self.data_text(member)]).map(drop)
    }

    /// `Database system identifier` of `pg_controldata`.
    pub fn system_id(&self, member: &str) -> Result<String> {
        let said = self.tool("pg_controldata", &["-D", &self.data_text(member)])?;
        let line = said.lines().find_map(|line| line.strip_prefix("Database system identifier:"));
        Ok(line.context("no system identifier")?.trim().to_owned())
    }
}
