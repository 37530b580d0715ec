//! One member: directories, guard, agent, PostgreSQL.

use std::{
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use regent_types::{MemberName, Timeline, Upstream};
use tokio_postgres::{Client, NoTls};

use super::{NOBODY, coordinator::cluster, free_port, guard_binary, is_root};

pub struct Member {
    pub name: String,
    pub dir: tempfile::TempDir,
    pub bin: PathBuf,
    pub port: u16,
    pub http: u16,
    pub url: String,
    /// Another PostgreSQL folder for the guard's jobs (a tool that the test made).
    pub guard: Option<Child>,
    pub agent: Option<Child>,
}

fn own(path: &Path) {
    if is_root() {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    // SAFETY: prctl only, after the change of user, which would clear it.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command.stdin(Stdio::null());
    command
}

impl Member {
    /// Guard and agent run, the data directory does not exist.
    pub fn start(name: &str, bin: &Path, url: &str) -> Self {
        let mut member = Self::new(name, bin, url);
        member.start_guard();
        member.start_agent();
        member
    }

    pub fn new(name: &str, bin: &Path, url: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("regent-agent-").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        own(dir.path());
        for folder in ["guard", "agent", "salvage", "pg"] {
            let folder = dir.path().join(folder);
            std::fs::create_dir(&folder).unwrap();
            std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).unwrap();
            own(&folder);
        }
        for (from, to) in
            [(guard_binary(), "regent-guard"), (env!("CARGO_BIN_EXE_regent-agent").into(), "regent-agent")]
        {
            let to = dir.path().join(to);
            std::fs::copy(from, &to).unwrap();
            std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        std::fs::write(dir.path().join("password"), "p:a\\ss'word\n").unwrap();
        own(&dir.path().join("password"));
        let (name, url) = (name.to_owned(), url.to_owned());
        let (port, http) = (free_port(), free_port());
        let member = Self { name, dir, bin: bin.to_owned(), port, http, url, guard: None, agent: None };
        member.configure(&member.bin.clone());
        member
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("pg/data")
    }

    /// Writes both configurations, with `guard_bin` as the guard's folder of tools.
    pub fn configure(&self, guard_bin: &Path) {
        let at = self.dir.path().display();
        let (data, bin) = (self.data(), self.bin.display());
        let guard = format!(
            "state_dir = \"{at}/guard\"\ndata_dir = {data:?}\npg_bin = {guard_bin:?}\nlease_ttl_max = \"60s\"\n\
             shutdown_margin = \"2s\"\n"
        );
        std::fs::write(self.path("guard.toml"), guard).unwrap();
        let agent = format!(
            "cluster = \"{cluster}\"\nmember = \"{name}\"\nregion = \"{name}\"\ncoordinators = [\"{url}\"]\n\
             plaintext = true\nguard_socket = \"{at}/guard/guard.sock\"\ndata_dir = {data:?}\n\
             state_dir = \"{at}/agent\"\nsalvage_dir = \"{at}/salvage\"\npg_bin = \"{bin}\"\n\
             listen_host = \"127.0.0.1\"\nport = {port}\nreplication_password_file = \"{at}/password\"\n\
             http_listen = \"127.0.0.1:{http}\"\nheartbeat_interval = \"200ms\"\nprobe_interval = \"200ms\"\n\
             hba_extra = [\"host all all 127.0.0.1/32 trust\"]\nlog_level = \"debug,tokio_postgres=info,h2=info,hyper=info,tower=info\"\n\
             [postgres]\nshared_buffers = \"16MB\"\nfsync = \"off\"\nmax_connections = 20\n\
             autovacuum = \"off\"\n",
            cluster = cluster(),
            name = self.name,
            url = self.url,
            port = self.port,
            http = self.http,
        );
        std::fs::write(self.path("agent.toml"), agent).unwrap();
    }

    fn spawn(&self, program: &str, config: &str) -> Child {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path(&format!("{program}.log")))
            .unwrap();
        command(&self.path(program))
            .args(["run", "--config"])
            .arg(self.path(config))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    pub fn start_guard(&mut self) {
        self.guard = Some(self.spawn("regent-guard", "guard.toml"));
    }

    pub fn start_agent(&mut self) {
        self.agent = Some(self.spawn("regent-agent", "agent.toml"));
    }

    pub fn kill_agent(&mut self) {
        end(&mut self.agent);
    }

    pub fn kill_guard(&mut self) {
        end(&mut self.guard);
    }

    /// As a directive names it.
    pub fn upstream(&self, epoch: u64, timeline: Timeline) -> Upstream {
        Upstream {
            member: MemberName::new(self.name.as_str()).unwrap(),
            epoch: regent_types::Epoch(epoch),
            host: "127.0.0.1".into(),
            port: self.port,
            timeline,
        }
    }

    /// A client's connection.
    pub async fn connect(&self) -> Option<Client> {
        let user = if is_root() { "nobody".into() } else { std::env::var("USER").unwrap_or_default() };
        let options =
            format!("host=127.0.0.1 port={} user={user} dbname=postgres connect_timeout=3", self.port);
        let (client, connection) = tokio_postgres::connect(&options, NoTls).await.ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    /// Runs SQL; panics with PostgreSQL's words.
    pub async fn sql(&self, sql: &str) -> Vec<String> {
        let client = super::eventually("a connection", super::LONG, || self.connect()).await;
        let messages = client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        messages
            .iter()
            .filter_map(|m| match m {
                tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("").to_owned()),
                _ => None,
            })
            .collect()
    }

    /// Status line and body of a GET.
    pub async fn get(&self, path: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.http)).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let status = text.split_whitespace().nth(1).unwrap().parse().unwrap();
        (status, text)
    }

    pub fn log(&self, program: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{program}.log"))).unwrap_or_default()
    }
}

fn end(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        end(&mut self.agent);
        end(&mut self.guard);
        if std::thread::panicking() {
            eprintln!("---- {} agent ----\n{}", self.name, self.log("regent-agent"));
            eprintln!("---- {} guard ----\n{}", self.name, self.log("regent-guard"));
        }
    }
}
