//! `pg_basebackup` into a folder beside the data directory, which then takes its place by renames. The old directory is
//! kept until the new one is in place, as far as the disk allows, and for good when it is not known to be this cluster's.

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use regent_agent_core::Mark;
use regent_guard::wire::JobTool;
use regent_types::{Epoch, JobProgress, RejoinMethod, Upstream};

use super::rewind::OWN_FILES;
use crate::{
    app::App,
    bootstrap::clear,
    data, disk, durable,
    executor::steps::{StepError, rejoining},
    jobs,
    postgres::{conf, connect::remote, hba},
};

/// A clone has no budget of its own: the operation's step has. This only bounds a tool that hangs.
const BUDGET: Duration = Duration::from_secs(24 * 3600);

/// Under the member's name it would count as a standby whose word releases commits, before there is one.
const CLONES: &str = " application_name=regent-clone";

/// Clones.
pub async fn clone(app: &App, upstream: &Upstream, keep_old: bool) -> Result<(), StepError> {
    let config = &app.config;
    let fresh = data::beside(&config.data_dir, "new");
    conf::write_passfile(config).map_err(StepError::io("write the password file"))?;
    let connection = remote(config, &upstream.host, upstream.port, Duration::from_secs(5)).await?;
    let sql =
        "SELECT sum(pg_database_size(oid))::bigint, system_identifier FROM pg_database, pg_control_system()
               GROUP BY 2";
    let row = connection.row("size of the upstream", sql, Duration::from_secs(60)).await?;
    drop(connection);
    let total: Option<u64> = row.as_ref().and_then(|r| r.parse(0));
    clear(&fresh)?;
    if app.state.get().mark.is_none() && !keep_old && config.data_dir.exists() {
        app.state.change(|s| s.mark = Some(Mark::Cloning))?;
    }
    make_room(app, total, keep_old)?;
    let progress = |done_bytes| {
        app.show(Some(JobProgress { kind: "clone".into(), done_bytes, total_bytes: total }));
    };
    progress(0);
    let conninfo = conf::conninfo(config, &upstream.host, upstream.port, CLONES);
    let args = vec![
        format!("--pgdata={}", fresh.display()),
        format!("--dbname={conninfo}"),
        "--wal-method=stream".into(),
        "--checkpoint=fast".into(),
        "--no-password".into(),
    ];
    let mut ticks = 0u32;
    let shown = fresh.clone();
    let result = jobs::run(app, JobTool::PgBasebackup, args, BUDGET, || {
        ticks += 1;
        if ticks.is_multiple_of(10) {
            progress(data::tree_bytes(&shown));
        }
    });
    result.await?;
    let copied = data::tree_bytes(&fresh);
    progress(copied);
    prepare(app, &fresh, upstream).map_err(StepError::io("prepare the cloned directory"))?;
    let aside = aside(&config.data_dir, keep_old);
    if keep_old {
        // Before the mark: a marked directory is ours to remove, and this one must be kept whatever fails or dies next.
        data::set_aside(&config.data_dir, &aside).map_err(StepError::io(
            "keep the old data directory (the parent of data_dir must be writable)",
        ))?;
        // Nothing runs on it, and rows can be read from it only when that can be seen.
        let _ = fs::remove_file(aside.join("postmaster.pid"));
    } else {
        clear(&aside)?;
    }
    // The record comes first and says what the directory will be; with the mark still set a crash in between only clones
    // once more.
    app.state.change(|s| {
        s.mark = Some(Mark::Cloning);
        s.lineage = Epoch::NONE;
        s.promoting = None;
    })?;
    data::put_in_place(&fresh, &config.data_dir, &aside)
        .map_err(StepError::io("put the clone in place (the parent of data_dir must be writable)"))?;
    app.state.change(|s| {
        let record = rejoining(s, upstream.epoch);
        (record.method, record.copied_bytes, record.cloned) = (Some(RejoinMethod::Cloned), copied, true);
        s.mark = None;
    })?;
    if !keep_old {
        // Only space: a failure here must not undo the clone.
        if let Err(error) = clear(&aside) {
            tracing::warn!(%error, "the old data directory could not be removed");
        }
    }
    Ok(())
}

/// Where the old directory goes.
fn aside(data_dir: &Path, keep_old: bool) -> std::path::PathBuf {
    if !keep_old {
        return data::beside(data_dir, "old");
    }
    let stamp = humantime::format_rfc3339_seconds(SystemTime::now()).to_string().replace([':', '-'], "");
    data::beside(data_dir, &format!("kept-{stamp}"))
}

/// Removes the old directory first when both do not fit; refuses when it must be kept.
fn make_room(app: &App, total: Option<u64>, keep_old: bool) -> Result<(), StepError> {
    let dir = &app.config.data_dir;
    let (Some(total), Some((free, _))) = (total, disk::space(dir)) else { return Ok(()) };
    let wanted = total + total / 10;
    if free >= wanted {
        return Ok(());
    }
    let old = data::tree_bytes(dir);
    if keep_old || free + old < wanted {
        return Err(StepError::Other(format!(
            "a clone needs {wanted} bytes, {free} are free{}",
            if keep_old { " and the old data directory is not Regent's to remove" } else { "" }
        )));
    }
    tracing::warn!(wanted, free, old, "no room for both: the old data directory is removed before the clone");
    clear(dir)
}

/// The member's own configuration instead of the upstream's, `standby.signal`, the upstream.
fn prepare(app: &App, fresh: &Path, upstream: &Upstream) -> io::Result<()> {
    let own = data::last_kept(&app.config.data_dir, data::major(fresh))?;
    for name in OWN_FILES {
        match fs::read(own.join(name)) {
            Ok(bytes) => durable::replace(&fresh.join(name), &bytes, 0o600)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    conf::attach(&app.config, fresh, upstream)?;
    hba::write(&app.config, fresh)?;
    durable::replace(&data::standby_signal(fresh), b"", 0o600)
}
