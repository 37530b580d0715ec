//! How long Regent's promotion takes beside a bare `pg_promote()`, in pairs that alternate.
//!
//! A: a failover on an operator's word; from the fence proof's entry (stamped when it is proposed, so the commit itself
//! is in) to the first row that the new primary accepts from a session that was open to it all along. B: a standby
//! cloned from the same primary, hence of the same configuration, started without Regent; from `SELECT pg_promote()` to
//! the first row, both ways: in sequence, as the goal says, and by the same tight writer as in A.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_chaos::real::clock::{WallOffset, monotonic_ns, wait_until};
use regent_chaos::real::deployment::{
    CLUSTER, Deployment, DeploymentOptions, EAST, MEMBERS, NORTH, REJOIN_AT_MOST,
};
use regent_chaos::real::process::{Process, ProcessSpec};
use regent_chaos::real::user::RunAs;
use regent_chaos::real::workload::Session;
use serde::Serialize;

use crate::output;
use crate::stats::Spread;
use crate::writing::{self, Trying};

/// Goal of A divided by B in sequence.
const GOAL: f64 = 1.3;
const SOON: Duration = Duration::from_secs(30);
/// Host in the deployment's loopback block that nothing else of it uses.
const BARE_HOST: u8 = 200;

/// One pair, ms.
#[derive(Clone, Copy, Serialize)]
struct Pair {
    /// From the fence proof to the first row.
    regent_ms: f64,
    /// From the fence proof to the commit of the verified promotion, which is after the first row.
    regent_promote_step_ms: f64,
    /// From `pg_promote()` to the first row after it has returned.
    bare_sequence_ms: f64,
    /// From `pg_promote()` to the first row of the writer that tries all along.
    bare_tight_ms: f64,
}

#[derive(Serialize)]
struct Promotion {
    postgres: u32,
    goal_ratio: f64,
    pairs: Vec<Pair>,
    ratio_of_medians: f64,
    ratio_of_medians_tight: f64,
}

/// Measures `runs` pairs.
pub async fn run(runs: usize, postgres: u32) -> Result<()> {
    output::head(&format!("Promotion on loopback, PostgreSQL {postgres}: Regent beside a bare pg_promote()"));
    let options = DeploymentOptions::new("bench-promotion").postgres(postgres);
    let deployment = Deployment::start(options).await?;
    writing::make_table(&deployment.pg(NORTH).await?).await?;
    let (mut primary, mut target) = (NORTH, EAST);
    let mut pairs = Vec::new();
    for number in 1..=runs {
        let bare = |number| bare(&deployment, primary, number);
        // Which goes first alternates too.
        let before = if number % 2 == 0 { Some(bare(number).await?) } else { None };
        let (regent_ms, regent_promote_step_ms) = regent(&deployment, target).await?;
        (primary, target) = (target, primary);
        deployment.wait_ready(REJOIN_AT_MOST).await?;
        let (bare_sequence_ms, bare_tight_ms) = match before {
            Some(measured) => measured,
            None => self::bare(&deployment, primary, number).await?,
        };
        let pair = Pair { regent_ms, regent_promote_step_ms, bare_sequence_ms, bare_tight_ms };
        eprintln!(
            "pair {number}: Regent {regent_ms:.0} ms, bare {bare_sequence_ms:.0} ms ({bare_tight_ms:.0} ms by the tight writer)"
        );
        pairs.push(pair);
    }
    deployment.finish().await?;
    let spread = |of: fn(&Pair) -> f64| Spread::of(pairs.iter().map(of));
    let (a, b, tight) =
        (spread(|p| p.regent_ms), spread(|p| p.bare_sequence_ms), spread(|p| p.bare_tight_ms));
    let ratios = spread(|p| p.regent_ms / p.bare_sequence_ms);
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    output::table(
        &["ms, median [min .. max]", &format!("{runs} pairs")],
        &[
            row("Regent, fence proof to first row", a.show(0)),
            row(
                "Regent, fence proof to the verified promotion",
                spread(|p| p.regent_promote_step_ms).show(0),
            ),
            row("bare pg_promote(), then a row", b.show(0)),
            row("bare pg_promote(), tight writer", tight.show(0)),
            row("ratio within a pair", ratios.show(2)),
            row("ratio of medians (goal 1.3)", format!("{:.2}", a.median / b.median)),
            row("ratio of medians, tight writer", format!("{:.2}", a.median / tight.median)),
        ],
    );
    let result = Promotion {
        postgres,
        goal_ratio: GOAL,
        ratio_of_medians: a.median / b.median,
        ratio_of_medians_tight: a.median / tight.median,
        pairs,
    };
    output::write(&format!("promotion-{postgres}"), result)
}

/// A checkpoint on the primary and a restart point on the target: both kinds of promotion begin with nothing to flush,
/// and a standby whose control file still names the timeline before is not taken for one of another history.
async fn settle(deployment: &Deployment, target: &str) -> Result<()> {
    for member in MEMBERS.iter().filter(|member| **member != target).chain([&target]) {
        let session = deployment.pg(member).await?;
        session
            .client()
            .batch_execute("CHECKPOINT")
            .await
            .with_context(|| format!("CHECKPOINT on {member}"))?;
    }
    let control = "SELECT timeline_id, (SELECT max(received_tli) FROM pg_stat_wal_receiver) FROM pg_control_checkpoint()";
    let session = deployment.pg(target).await?;
    wait_until("the target's control file names the received timeline", SOON, async || {
        // A restart point needs the primary's checkpoint record, which may still be on its way.
        let asked = session.client().batch_execute("CHECKPOINT").await;
        let Ok(row) = session.client().query_one(control, &[]).await else { return false };
        asked.is_ok() && row.get::<_, Option<i32>>(0) == row.get::<_, Option<i32>>(1)
    })
    .await
}

async fn regent(deployment: &Deployment, target: &str) -> Result<(f64, f64)> {
    settle(deployment, target).await?;
    let offset = WallOffset::sample();
    let trying = Trying::start(&deployment.superuser_login(), deployment.direct(target)?).await?;
    deployment.ctl(&["failover", CLUSTER, "--to", target, "--reason", "benchmark", "--yes"]).await?;
    let first_ns = match trying.first_ns(SOON).await {
        Ok(first_ns) => first_ns,
        Err(error) => {
            let report = deployment.last_operation("failover").await?;
            return Err(error.context(format!("the candidates were: {:#}", report["candidates"])));
        }
    };
    deployment
        .wait_status("the failover is done", SOON, |status| {
            status.primary() == Some(target) && status.operation().is_none_or(|(kind, _)| kind != "failover")
        })
        .await?;
    let report = deployment.last_operation("failover").await?;
    let steps = report["steps"].as_array().cloned().unwrap_or_default();
    let promotes: Vec<_> = steps.iter().filter(|step| step["name"] == "promote").collect();
    ensure!(promotes.len() == 1, "{} promotions: {report:#}", promotes.len());
    let started_ms = promotes[0]["started_wall_ms"].as_u64().context("a step without a start")?;
    let elapsed_ms = promotes[0]["elapsed_ms"].as_u64().context("a step without an end")?;
    offset.ensure_steady(Duration::from_millis(5))?;
    let proof_ns = offset.to_monotonic_ns(started_ms as i64 * 1000);
    Ok((first_ns.saturating_sub(proof_ns) as f64 / 1e6, elapsed_ms as f64))
}

/// In sequence, and by the tight writer.
async fn bare(deployment: &Deployment, primary: &str, number: usize) -> Result<(f64, f64)> {
    let login = deployment.superuser_login();
    let standby = Bare::start(deployment, primary, number).await?;
    let session = Session::open(&login, standby.address, Duration::from_secs(5)).await?;
    let trying = Trying::start(&login, standby.address).await?;
    let begun_ns = monotonic_ns();
    session.client().batch_execute("SELECT pg_promote()").await.context("pg_promote")?;
    writing::write(&session).await.context("the first row")?;
    let sequence_ns = monotonic_ns() - begun_ns;
    let tight_ns = trying.first_ns(SOON).await?.saturating_sub(begun_ns);
    standby.end()?;
    Ok((sequence_ns as f64 / 1e6, tight_ns as f64 / 1e6))
}

/// A bare standby's promotion in sequence, then its own fast shutdown, ms.
pub(crate) async fn bare_shutdown_and_promote(
    deployment: &Deployment,
    primary: &str,
    number: usize,
) -> Result<(f64, f64)> {
    let standby = Bare::start(deployment, primary, number).await?;
    let session =
        Session::open(&deployment.superuser_login(), standby.address, Duration::from_secs(5)).await?;
    let begun_ns = monotonic_ns();
    session.client().batch_execute("SELECT pg_promote()").await.context("pg_promote")?;
    writing::write(&session).await.context("the first row")?;
    let promote_ms = (monotonic_ns() - begun_ns) as f64 / 1e6;
    session.client().batch_execute("CHECKPOINT").await.context("CHECKPOINT")?;
    let begun_ns = monotonic_ns();
    standby.process.signal(libc::SIGINT)?;
    wait_until("the bare server's fast shutdown", SOON, async || !standby.process.is_running()).await?;
    let shutdown_ms = (monotonic_ns() - begun_ns) as f64 / 1e6;
    standby.end()?;
    Ok((shutdown_ms, promote_ms))
}

/// A standby without Regent.
struct Bare {
    process: Process,
    address: SocketAddr,
    dir: std::path::PathBuf,
}

impl Bare {
    async fn start(deployment: &Deployment, primary: &str, number: usize) -> Result<Self> {
        let (user, source) = (RunAs::unprivileged()?, deployment.direct(primary)?);
        let IpAddr::V4(ip) = source.ip() else { unreachable!("the harness uses 127/8") };
        let [a, b, c, _] = ip.octets();
        let address = SocketAddr::from(([a, b, c, BARE_HOST], source.port()));
        let dir = deployment.files().root().join(format!("bare-{number}"));
        user.make_dir(&dir)?;
        let data = dir.join("data");
        let password = fs::read_to_string(deployment.files().password())?;
        let mut backup = Command::new(deployment.postgres().program("pg_basebackup"));
        backup
            .args(["--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "-U", "regent"])
            .args(["-h", &source.ip().to_string(), "-p", &source.port().to_string(), "-D"])
            .arg(&data)
            .env("PGPASSWORD", password.trim())
            .current_dir(&dir);
        user.apply(&mut backup);
        let done = tokio::task::spawn_blocking(move || backup.output()).await?.context("pg_basebackup")?;
        ensure!(done.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&done.stderr));
        // The same files as under Regent; only what tells the two servers apart is given here.
        let settings = [
            format!("listen_addresses={}", address.ip()),
            "unix_socket_directories=".to_owned(),
            "cluster_name=bare".to_owned(),
            "primary_slot_name=".to_owned(),
        ];
        let spec = ProcessSpec::new("bare", deployment.postgres().program("postgres"))
            .args(["-D".into(), data.into_os_string()])
            .args(settings.iter().flat_map(|setting| ["-c", setting.as_str()]))
            .cwd(&dir)
            .user(user);
        let process = Process::spawn(&spec, deployment.files().root())?;
        let bare = Self { process, address, dir };
        bare.wait_streaming(deployment, primary).await?;
        Ok(bare)
    }

    async fn wait_streaming(&self, deployment: &Deployment, primary: &str) -> Result<()> {
        let login = deployment.superuser_login();
        let current = deployment.pg(primary).await?;
        let row = current.client().query_one("SELECT pg_current_wal_lsn()::text", &[]).await?;
        let lsn: String = row.try_get(0)?;
        let caught_up = format!(
            "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') \
             AND pg_last_wal_replay_lsn() >= '{lsn}'::pg_lsn"
        );
        wait_until("the bare standby streams and has caught up", SOON, async || {
            let Ok(session) = Session::open(&login, self.address, Duration::from_secs(2)).await else {
                return false;
            };
            let row = session.client().query_one(&caught_up, &[]).await;
            row.and_then(|row| row.try_get::<_, bool>(0)).unwrap_or(false)
        })
        .await
        .with_context(|| self.process.log_tail())
    }

    fn end(self) -> Result<()> {
        // Immediate shutdown: nothing of it is needed any more.
        if self.process.is_running() {
            self.process.signal(libc::SIGQUIT)?;
        }
        let mut left = 500;
        while self.process.is_running() && left > 0 {
            std::thread::sleep(Duration::from_millis(10));
            left -= 1;
        }
        fs::remove_dir_all(&self.dir).with_context(|| format!("removing {}", self.dir.display()))
    }
}
