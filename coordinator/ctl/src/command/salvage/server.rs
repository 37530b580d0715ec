//! A copy of a data directory, running read-only on a socket of its own.
//!
//! It runs as a standby without an upstream: PostgreSQL itself refuses writes, whoever connects. It listens on no network
//! address, only in a folder that nobody else may enter, and it asks no archive. The copy is removed at the end.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use rand::Rng;
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    sync::Mutex,
    time::sleep,
};

use crate::Failure;

const PORT: u16 = 5432;
const POLL: Duration = Duration::from_millis(200);

pub(super) struct Server {
    work: PathBuf,
    socket_dir: PathBuf,
    pg_bin: PathBuf,
    user: String,
    child: Mutex<Child>,
}

impl Server {
    /// Copies `data` into `work` and starts it; returns when it answers, in recovery.
    pub async fn start(
        data: &Path,
        work: &Path,
        pg_bin: &Path,
        user: &str,
        limit: Duration,
    ) -> Result<Self, Failure> {
        private_dir(work).map_err(|error| {
            Failure::Usage(format!("--work {}: {error} (it must not exist yet)", work.display()))
        })?;
        let copy = work.join("data");
        let (from, to) = (data.to_owned(), copy.clone());
        let copied = tokio::task::spawn_blocking(move || copy_tree(&from, &to)).await;
        let copied = copied.map_err(io::Error::other).and_then(|done| done);
        let prepared = copied.and_then(|()| prepare(&copy, work));
        let number: u64 = rand::rng().random();
        let socket_dir = std::env::temp_dir().join(format!("regent-extract-{number:016x}"));
        let made = prepared.and_then(|()| private_dir(&socket_dir));
        if let Err(error) = made {
            let _ = fs::remove_dir_all(work);
            return Err(Failure::Refused(format!("copying into {}: {error}", work.display())));
        }
        let child = spawn(&copy, work, &socket_dir, pg_bin).map_err(|error| {
            Failure::Usage(format!("starting {}: {error}", pg_bin.join("postgres").display()))
        })?;
        let server = Self {
            work: work.to_owned(),
            socket_dir,
            pg_bin: pg_bin.to_owned(),
            user: user.to_owned(),
            child: Mutex::new(child),
        };
        match server.wait_ready(limit).await {
            Ok(()) => Ok(server),
            Err(failure) => {
                server.stop(false).await?;
                Err(failure)
            }
        }
    }

    async fn wait_ready(&self, limit: Duration) -> Result<(), Failure> {
        let give_up = Instant::now() + limit;
        loop {
            let exited = self.child.lock().await.try_wait()?;
            if let Some(status) = exited {
                return Err(Failure::Refused(format!(
                    "the copy does not start ({status}):\n{}",
                    self.log_tail()
                )));
            }
            if let Ok(answer) = self.ask("postgres", "SELECT pg_is_in_recovery();\n").await {
                return match answer.trim() {
                    "t" => Ok(()),
                    other => Err(Failure::Refused(format!("the copy is not read-only ({other:?})"))),
                };
            }
            if Instant::now() >= give_up {
                let time = humantime::format_duration(limit);
                return Err(Failure::Waiting(format!(
                    "the copy does not answer within {time}:\n{}",
                    self.log_tail()
                )));
            }
            sleep(POLL).await;
        }
    }

    /// The end of the server's log.
    fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.work.join("server.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    pub fn port(&self) -> u16 {
        PORT
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    /// Runs `sql`; its output goes to `out`.
    pub async fn psql(&self, database: &str, sql: &str, out: File) -> Result<(), Failure> {
        self.run(database, sql, Stdio::from(out)).await.map(drop)
    }

    /// Runs `sql` and gives what it prints.
    pub async fn ask(&self, database: &str, sql: &str) -> Result<String, Failure> {
        self.run(database, sql, Stdio::piped()).await
    }

    async fn run(&self, database: &str, sql: &str, out: Stdio) -> Result<String, Failure> {
        let program = self.pg_bin.join("psql");
        let mut command = Command::new(&program);
        command
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-", "-h"])
            .arg(&self.socket_dir);
        command.args(["-p", &PORT.to_string(), "-U", &self.user, "-d", database]);
        command.stdin(Stdio::piped()).stdout(out).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child =
            command.spawn().map_err(|error| Failure::Usage(format!("{}: {error}", program.display())))?;
        let mut stdin = child.stdin.take().expect("piped");
        let text = sql.as_bytes().to_vec();
        // Beside the reading: neither side may wait for the other. What cannot be written, psql complains of.
        let write = tokio::spawn(async move {
            let _ = stdin.write_all(&text).await;
        });
        let done = child.wait_with_output().await?;
        let _ = write.await;
        if !done.status.success() {
            let complaint = String::from_utf8_lossy(&done.stderr).trim().to_owned();
            return Err(Failure::Refused(format!("psql: {complaint}")));
        }
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    /// Resolves when the server ends by itself, which it should not.
    pub async fn ended(&self) -> Result<(), Failure> {
        let status = self.child.lock().await.wait().await?;
        Err(Failure::Refused(format!("the copy has ended ({status}):\n{}", self.log_tail())))
    }

    /// Stops it and removes the copy.
    pub async fn stop(self, keep_copy: bool) -> Result<(), Failure> {
        let mut stop = Command::new(self.pg_bin.join("pg_ctl"));
        stop.arg("-D").arg(self.work.join("data")).args(["stop", "-m", "immediate", "-w", "-t", "30"]);
        stop.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _ = stop.status().await;
        let mut child = self.child.into_inner();
        child.kill().await.ok();
        let _ = fs::remove_dir_all(&self.socket_dir);
        if keep_copy {
            return Ok(());
        }
        fs::remove_dir_all(&self.work)
            .map_err(|error| Failure::Refused(format!("removing the copy {}: {error}", self.work.display())))
    }
}

fn spawn(copy: &Path, work: &Path, socket_dir: &Path, pg_bin: &Path) -> io::Result<Child> {
    let log = File::create(work.join("server.log"))?;
    let mut command = Command::new(pg_bin.join("postgres"));
    command.arg("-D").arg(copy);
    let hba = work.join("pg_hba.conf").display().to_string();
    let sockets = socket_dir.display().to_string();
    // The command line wins over every file of the copy.
    for (name, value) in [
        ("listen_addresses", ""),
        ("unix_socket_directories", sockets.as_str()),
        ("unix_socket_permissions", "0700"),
        ("port", &PORT.to_string()),
        ("hba_file", hba.as_str()),
        ("ssl", "off"),
        ("hot_standby", "on"),
        ("primary_conninfo", ""),
        ("primary_slot_name", ""),
        ("restore_command", ""),
        ("archive_cleanup_command", ""),
        ("recovery_end_command", ""),
        ("recovery_target_timeline", "latest"),
        ("archive_mode", "off"),
        ("max_standby_streaming_delay", "-1"),
        ("logging_collector", "off"),
        ("log_destination", "stderr"),
        ("cluster_name", "salvage"),
    ] {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    let errors = log.try_clone()?;
    command.stdin(Stdio::null()).stdout(log).stderr(errors).kill_on_drop(true).spawn()
}

/// A standby that only this user may enter.
fn prepare(copy: &Path, work: &Path) -> io::Result<()> {
    for name in ["recovery.signal", "backup_label.old"] {
        match fs::remove_file(copy.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::write(copy.join("standby.signal"), "")?;
    fs::write(work.join("pg_hba.conf"), "local all all trust\n")
}

fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

/// Follows links: the copy must not lead back to the original's files.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    private_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let meta = fs::metadata(&source)?;
        if meta.is_dir() {
            copy_tree(&source, &target)?;
        } else if meta.is_file() {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}
