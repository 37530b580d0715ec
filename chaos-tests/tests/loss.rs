//! What a long cut costs, and what is done about it: WAL that is gone, slots, salvage, consent to a loss.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_chaos::real::checker::LossAllowed;
use regent_chaos::real::clock::{monotonic_ns, wait_until};
use regent_chaos::real::deployment::{
    CLUSTER, Deployment, DeploymentOptions, EAST, NORTH, REJOIN_AT_MOST, WITNESS, Workload,
};
use regent_chaos::real::link::CutDirection;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

/// Small enough that some seconds of writing invalidate a slot.
fn small_slots(name: &str) -> DeploymentOptions {
    // A busy machine must not make a failover of its own.
    DeploymentOptions::new(name)
        .partition_timeout(Duration::from_secs(30))
        .agent_line("max_slot_wal_keep_size = \"32MB\"")
        .agent_line("wal_keep_size = \"0\"")
}

/// Writes WAL until the standby's slot is invalidated, and the segments that it needs are gone. With `archive` each segment
/// is put there first.
async fn outrun_the_slot(deployment: &Deployment, archive: Option<&Path>) -> Result<()> {
    let session = deployment.pg(NORTH).await?;
    let slot = format!("regent_{}", EAST.replace('-', "_"));
    let before: String =
        session.client().query_one("SELECT pg_walfile_name(pg_current_wal_lsn())", &[]).await?.get(0);
    for _ in 0..6 {
        let filler = "SELECT count(pg_logical_emit_message(false, 'filler', repeat('x', 1000000))) \
                      FROM generate_series(1, 16)";
        session.client().batch_execute(filler).await?;
        session.client().batch_execute("SELECT pg_switch_wal()").await?;
        if let Some(archive) = archive {
            keep_segments(&deployment.files().data(NORTH), archive)?;
        }
        session.client().batch_execute("CHECKPOINT").await?;
    }
    let gone = || !deployment.files().data(NORTH).join("pg_wal").join(&before).exists();
    wait_until("the WAL that the standby needs is gone", SOON, async || gone()).await?;
    // Invalidated, or made anew since by the agent.
    let text = format!(
        "SELECT wal_status = 'lost' OR restart_lsn IS NULL OR pg_walfile_name(restart_lsn) > '{before}' \
         FROM pg_replication_slots WHERE slot_name = '{slot}'"
    );
    let row = session.client().query_opt(&text, &[]).await?;
    ensure!(
        row.is_none_or(|row| row.get::<_, Option<bool>>(0) != Some(false)),
        "the slot still holds its WAL"
    );
    Ok(())
}

/// A folder that goes with the test.
struct Archive(PathBuf);

impl Archive {
    fn make() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("regent-archive-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Self(path))
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// As an archiver would, once a segment is complete.
fn keep_segments(data: &Path, archive: &Path) -> Result<()> {
    let mut segments: Vec<_> = fs::read_dir(data.join("pg_wal"))?
        .flatten()
        .filter(|entry| entry.file_name().len() == 24)
        .map(|entry| entry.path())
        .collect();
    segments.sort();
    for segment in segments {
        let target = archive.join(segment.file_name().context("a segment has a name")?);
        fs::copy(&segment, &target)?;
        set_readable(&target)?;
    }
    Ok(())
}

fn set_readable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o644))?)
}

/// A row written after `since_ns` arrives at the standby.
async fn streams(deployment: &Deployment, workload: &Workload, since_ns: u64) -> Result<()> {
    let row = workload.wait_write_after(since_ns, SOON).await?;
    let (writer_id, number) = (row.writer_id, row.number);
    wait_until("a new row arrives at the standby", REJOIN_AT_MOST, async || {
        let Ok(session) = deployment.app(EAST).await else { return false };
        let text = "SELECT count(*) > 0 FROM chaos_rows WHERE writer_id = $1 AND number = $2";
        let found = session.client().query_one(text, &[&writer_id, &number]).await;
        found.is_ok_and(|row| row.get(0))
    })
    .await
}

/// The members cannot reach each other, but everybody reaches the coordinators: no failover, only a standby left behind.
async fn left_behind(deployment: &Deployment, archive: Option<&Path>) -> Result<Workload> {
    let workload = Workload::start(deployment).await?;
    let epoch = deployment.status().await?.epoch();
    deployment.net().cut(NORTH, EAST, CutDirection::Both)?;
    deployment
        .wait_status("the standby does not stream", SOON, |status| status.member(EAST)["lag_bytes"] != 0)
        .await?;
    outrun_the_slot(deployment, archive).await?;
    // Found out while the link is cut still: by what both report. It is not promotable any more.
    let status = deployment
        .wait_status("the standby is not confirmed any more", SOON, |status| !status.sync_confirmed(EAST))
        .await?;
    ensure!(status.epoch() == epoch && status.primary() == Some(NORTH), "{status}");
    deployment.net().heal();
    Ok(workload)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_whose_wal_is_gone_is_cloned_again_by_itself() -> Result<()> {
    let deployment = Deployment::start(small_slots("wal-gone")).await?;
    let workload = left_behind(&deployment, None).await?;
    let healed_ns = monotonic_ns();
    deployment.wait_ready(REJOIN_AT_MOST).await?;
    let rejoin = deployment.last_operation("rejoin").await?;
    let told = rejoin.to_string();
    ensure!(told.contains("the primary's WAL begins at"), "{rejoin:#}");
    ensure!(told.contains("Cloned"), "{rejoin:#}");
    streams(&deployment, &workload, healed_ns).await?;
    ensure!(deployment.count("failover").await? == 0, "there was a failover");
    workload.finish(&deployment, LossAllowed::Nothing).await?;
    deployment.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_whose_wal_is_gone_catches_up_from_the_archive() -> Result<()> {
    let archive = Archive::make()?;
    let command = format!("restore_command = \"cp {}/%f %p\"", archive.0.display());
    let deployment = Deployment::start(small_slots("wal-archive").agent_line(command)).await?;
    let workload = left_behind(&deployment, Some(&archive.0)).await?;
    let healed_ns = monotonic_ns();
    deployment.wait_ready(REJOIN_AT_MOST).await?;
    let rejoin = deployment.last_operation("rejoin").await?;
    ensure!(rejoin.to_string().contains("the primary's WAL begins at"), "{rejoin:#}");
    let log = deployment.process(&format!("agent-{EAST}"))?.log_text();
    ensure!(log.contains("the archive is used"), "the archive was not needed");
    // The clone that it began with, and no other. Its report names that one: it says how the data was made fit for the epoch.
    ensure!(log.matches("a clone is needed").count() == 1, "it was cloned again");
    let server = deployment.process(&format!("guard-{EAST}"))?.log_text();
    ensure!(server.contains("restored log file"), "nothing came from the archive");
    streams(&deployment, &workload, healed_ns).await?;
    workload.finish(&deployment, LossAllowed::Nothing).await?;
    deployment.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lag_above_the_bound_waits_for_consent_by_name() -> Result<()> {
    let options = DeploymentOptions::new("lag-consent").policy("max_lag_bytes", "1000000");
    let deployment = Deployment::start(options).await?;
    let epoch = deployment.status().await?.epoch();
    deployment.net().cut(NORTH, EAST, CutDirection::Both)?;
    let session = deployment.pg(NORTH).await?;
    let filler = "SELECT count(pg_logical_emit_message(false, 'filler', repeat('x', 1000000))) \
                  FROM generate_series(1, 4)";
    session.client().batch_execute(filler).await?;
    // Its commit has everything before it written: messages alone wait for the WAL writer.
    session.client().batch_execute("SELECT pg_current_xact_id()").await?;
    let end: String = session.client().query_one("SELECT pg_current_wal_lsn()::text", &[]).await?.get(0);
    drop(session);
    let lsn = |text: &str| text.parse::<regent_types::Lsn>().ok();
    // The standby's own figures may still be those from before the cut: the primary's must be those from after it.
    let behind = |status: &regent_chaos::real::deployment::Status| {
        status.member(NORTH)["write_lsn"].as_str().and_then(lsn) >= lsn(&end)
            && status.member(EAST)["lag_bytes"].as_u64().is_some_and(|bytes| bytes > 1_000_000)
    };
    deployment.wait_status("the leader knows of the lag", SOON, behind).await?;
    deployment.lose_host(NORTH)?;
    let waits = |status: &regent_chaos::real::deployment::Status| {
        let operation = &status.json()["clusters"][0]["operation"];
        let why = operation["reason"].as_str().unwrap_or_default();
        operation["kind"] == "failover" && why.contains("1000000 are allowed")
    };
    let within = deployment.timing().failover_at_most();
    let waiting = deployment.wait_status("it waits for consent", within, waits).await?;
    ensure!(waiting.epoch() == epoch, "somebody was appointed: {waiting}");
    // Consent to another member's loss is none.
    let wrong = ["failover", CLUSTER, "--reason", "go on", "--consent-to-loss", NORTH, "--yes"];
    let _ = deployment.ctl_from(WITNESS, &wrong).await?;
    ensure!(deployment.status().await?.epoch() == epoch, "consent to another member's loss was taken");
    let consent = ["failover", CLUSTER, "--reason", "we lose it", "--consent-to-loss", EAST, "--yes"];
    deployment.ctl(&consent).await?;
    let done = deployment.wait_failover(EAST).await?;
    ensure!(done.epoch() == epoch + 1, "{done}");
    deployment.finish().await
}

async fn extract(deployment: &Deployment, args: &[&str]) -> Result<Value> {
    let all = [&["salvage", "extract"][..], args, &["--output", "json"][..]].concat();
    let mut command = deployment.ctl_command(&all);
    let done = tokio::time::timeout(Duration::from_secs(120), command.output()).await.context("no end")??;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(serde_json::from_slice(&done.stdout)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_only_the_isolated_side_accepted_are_read_from_the_salvage() -> Result<()> {
    let options = DeploymentOptions::new("salvage").agent_line("salvage_keep = \"directory\"");
    let deployment = Deployment::start(options).await?;
    let workload = Workload::start(&deployment).await?;
    deployment.net().isolate(NORTH)?;
    let timing = *deployment.timing();
    wait_until("the isolated sessions end", timing.fenced_at_most(), async || workload.sessions_lost(NORTH))
        .await?;
    deployment.wait_failover(EAST).await?;
    deployment.net().heal();
    deployment.wait_ready(REJOIN_AT_MOST).await?;
    let verdict = workload.finish(&deployment, LossAllowed::Salvaged).await?;
    ensure!(!verdict.salvaged.is_empty(), "nothing was written on the isolated side: {verdict}");

    let mut kept = Value::Null;
    wait_until("the agent reports the salvage", SOON, async || {
        let Ok(list) = deployment.ctl(&["salvage", "list", CLUSTER]).await else { return false };
        kept = list["salvages"][0].clone();
        kept["member"] == NORTH
    })
    .await?;
    let shown = deployment.ctl(&["salvage", "show", CLUSTER, NORTH]).await?;
    ensure!(shown["folder"] == kept["folder"] && shown["data"].is_string(), "{shown:#}");
    let relations = shown["relations"].as_array().cloned().unwrap_or_default();
    let rows = relations.iter().find(|relation| relation["name"] == "app.public.chaos_rows");
    ensure!(rows.is_some_and(|relation| relation["inserts"].as_u64() > Some(0)), "{shown:#}");
    let folder = kept["folder"].as_str().context("a folder")?.to_owned();
    let out = deployment.files().member(NORTH).join("agent");
    let args = ["--dir", &folder, "--database", "app", "--table", "public.chaos_rows", "--user"];
    let superuser = deployment.superuser_login().user;
    let out_text = out.display().to_string();
    let args = [&args[..], &[superuser.as_str(), "--out", out_text.as_str()][..]].concat();
    let extracted = extract(&deployment, &args).await?;
    let found = extracted["files"][0]["rows"].as_u64().unwrap_or_default();
    ensure!(found as usize >= verdict.salvaged.len(), "{found} rows, {} salvaged", verdict.salvaged.len());
    // One of them, by its values: acknowledged there, and not at the new primary.
    let csv = fs::read_to_string(out.join("app.public.chaos_rows.csv"))?;
    let session = deployment.app(EAST).await?;
    let mut lost = 0;
    for line in csv.lines().skip(1) {
        let mut values = line.split(',');
        let (writer_id, number): (i32, i64) =
            (values.next().context("writer_id")?.parse()?, values.next().context("number")?.parse()?);
        let text = "SELECT count(*) FROM chaos_rows WHERE writer_id = $1 AND number = $2";
        let there: i64 = session.client().query_one(text, &[&writer_id, &number]).await?.get(0);
        lost += u64::from(there == 0);
    }
    ensure!(lost > 0, "each of the {found} rows is at the new primary too");
    ensure!(!Path::new(&format!("{folder}.extract")).exists(), "the copy was left");
    deployment.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logical_slot_survives_a_failover_on_postgres_18() -> Result<()> {
    let options = DeploymentOptions::new("logical").agent_line("logical_slots = true");
    let deployment = Deployment::start(options).await?;
    let session = deployment.pg(NORTH).await?;
    session
        .client()
        .batch_execute(
            "SELECT pg_create_logical_replication_slot('sub', 'test_decoding', false, false, true)",
        )
        .await?;
    drop(session);
    wait_until("the slot is kept in step", Duration::from_secs(60), async || {
        let Ok(session) = deployment.pg(EAST).await else { return false };
        let text = "SELECT synced AND NOT temporary FROM pg_replication_slots WHERE slot_name = 'sub'";
        let found = session.client().query_opt(text, &[]).await;
        // A slot becomes fit when the primary goes on.
        if let Ok(primary) = deployment.pg(NORTH).await {
            let _ = primary.client().batch_execute("SELECT pg_log_standby_snapshot()").await;
            let _ = primary
                .client()
                .batch_execute("SELECT pg_replication_slot_advance('sub', pg_current_wal_lsn())")
                .await;
        }
        found.is_ok_and(|row| row.is_some_and(|row| row.get(0)))
    })
    .await?;
    deployment.ctl(&["failover", CLUSTER, "--reason", "test", "--to", EAST, "--yes"]).await?;
    deployment.wait_failover(EAST).await?;
    let session = deployment.pg(EAST).await?;
    session
        .client()
        .batch_execute("CREATE TABLE after_failover (id int); INSERT INTO after_failover VALUES (7)")
        .await?;
    let text = "SELECT count(*) FROM pg_logical_slot_get_changes('sub', NULL, NULL) WHERE data LIKE '%after_failover%'";
    let changes: i64 = session.client().query_one(text, &[]).await?.get(0);
    ensure!(changes > 0, "the slot tells nothing of what was written after the failover");
    drop(session);
    // The old primary's own slot of that name must not stand in the way.
    deployment.wait_ready(REJOIN_AT_MOST).await?;
    deployment.finish().await
}
