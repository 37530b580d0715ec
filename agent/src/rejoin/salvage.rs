//! Keeps what a divergent member had before anything starts on it: WAL from the switch to its end, timeline histories,
//! `pg_control`, on request the whole data directory, and a manifest with a summary. pg_rewind's own recovery and a standby start both recycle WAL, so this
//! comes first; what is missing is said, never passed over.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::SystemTime,
};

use regent_agent_core::{WalEnd, wal};
use regent_types::{Branch, JobProgress, Lsn, SalvageCompleteness, SalvageSummary, Upstream};

use super::{relations, waldump};
use crate::{app::App, config::SalvageKeep, data, disk, durable, executor::steps::StepError};

/// Folder of the copied data directory within a salvage.
const DATA: &str = "data";
/// Transactions named in a manifest.
const XIDS_MAX: usize = 1_000_000;

/// Makes the salvage of what lies behind `branch`.
///
/// `upstream` is asked for the names of what was touched; without an answer they are numbers.
pub async fn salvage(
    app: &App,
    branch: &Branch,
    end: Option<WalEnd>,
    upstream: &Upstream,
) -> Result<SalvageSummary, StepError> {
    let stamp = humantime::format_rfc3339_seconds(SystemTime::now()).to_string().replace([':', '-'], "");
    let folder = app.config.salvage_dir.join(format!("{}-{stamp}", branch.epoch));
    let work = folder.with_extension("partial");
    crate::bootstrap::clear(&work)?;
    let (to, mut missing) = match end {
        Some(WalEnd::At(end)) => (end.max(branch.switch_lsn), None),
        Some(WalEnd::Unreadable(why)) => {
            (Lsn(u64::MAX), Some(format!("the end of the WAL is not known: {why}")))
        }
        None => (Lsn(u64::MAX), Some("the end of the WAL was not measured".to_owned())),
    };
    let (source, target, switch) = (app.config.data_dir.clone(), work.clone(), branch.clone());
    let copied = tokio::task::spawn_blocking(move || copy(&source, &target, &switch, to))
        .await
        .expect("the copy does not panic")
        .map_err(StepError::io(format!("salvage into {}", work.display())))?;
    if missing.is_none() && !copied.missing.is_empty() {
        missing = Some(format!("not in pg_wal any more: {}", copied.missing.join(", ")));
    }
    let done_bytes = copied.bytes;
    app.show(Some(JobProgress { kind: "salvage".into(), done_bytes, total_bytes: Some(done_bytes) }));
    let stop = (to.0 != u64::MAX).then_some(to);
    let from = branch.switch_lsn;
    let counted = waldump::read(app, &work.join("pg_wal"), branch.timeline, from, stop).await;
    let records = counted.unwrap_or_else(|why| {
        if to > from {
            missing.get_or_insert(format!("its commits could not be counted: {why}"));
        }
        waldump::Records::default()
    });
    let relations = relations::named(app, upstream, &records.touched).await;
    let (data, data_note) = match app.config.salvage_keep {
        SalvageKeep::Wal => (false, "not asked for (salvage_keep = \"wal\")".to_owned()),
        SalvageKeep::Directory => keep_directory(app, &work).await,
    };
    let summary = SalvageSummary {
        folder: folder.display().to_string(),
        epoch: branch.epoch,
        timeline: branch.timeline,
        from_lsn: from,
        to_lsn: stop.or(records.end).unwrap_or(from),
        transactions: records.commits,
        span_ms: records.span_ms(),
        completeness: match missing {
            None => SalvageCompleteness::Complete,
            Some(reason) => SalvageCompleteness::Partial { reason },
        },
        relations: relations.iter().take(SalvageSummary::RELATIONS_MAX).cloned().collect(),
        relations_total: relations.len() as u64,
        data: data.then(|| folder.join(DATA).display().to_string()),
    };
    let manifest = serde_json::json!({
        "version": 1,
        "cluster": app.config.cluster,
        "member": app.config.member,
        "summary": summary,
        "segments": copied.segments,
        "relations": relations,
        "xids": &records.xids[..records.xids.len().min(XIDS_MAX)],
        "xids_total": records.xids.len(),
        "data_note": data_note,
        "pg_bin": app.config.pg_bin,
        "superuser": app.config.superuser(),
    });
    let text = serde_json::to_string_pretty(&manifest).expect("plain data") + "\n";
    let finish = || -> io::Result<()> {
        durable::replace(&work.join("manifest.json"), text.as_bytes(), 0o600)?;
        fs::rename(&work, &folder)?;
        durable::sync_parent(&folder)
    };
    finish().map_err(StepError::io(format!("finish the salvage {}", folder.display())))?;
    tracing::warn!(folder = %summary.folder, transactions = summary.transactions, bytes = summary.bytes(), "salvaged");
    Ok(summary)
}

/// Copies the data directory as it is: stopped, and nothing has started on it since it diverged. Whether it did, and what
/// there is to say. It never fails a salvage: WAL is kept in any case.
async fn keep_directory(app: &App, work: &Path) -> (bool, String) {
    let (source, target) = (app.config.data_dir.clone(), work.join(DATA));
    let total = data::tree_bytes(&source);
    let wanted = total + total / 10;
    if let Some((free, _)) = disk::space(&app.config.salvage_dir)
        && free < wanted
    {
        let note = format!("not kept: a copy needs {wanted} bytes, {free} are free in salvage_dir");
        tracing::warn!(note, "salvage");
        return (false, note);
    }
    let shown = target.clone();
    let copy = tokio::task::spawn_blocking(move || copy_tree(&source, &target));
    tokio::pin!(copy);
    let done = loop {
        tokio::select! {
            done = &mut copy => break done.expect("the copy does not panic"),
            () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {
                let done_bytes = data::tree_bytes(&shown);
                app.show(Some(JobProgress { kind: "salvage".into(), done_bytes, total_bytes: Some(total) }));
            }
        }
    };
    match done {
        Ok(()) => (true, format!("{total} bytes")),
        Err(error) => {
            tracing::warn!(%error, "the data directory is not kept");
            let _ = fs::remove_dir_all(work.join(DATA));
            (false, format!("not kept: {error}"))
        }
    }
}

/// Everything but what belongs to a running server. A link (a tablespace, a `pg_wal` elsewhere) is followed: the copy must
/// not lead back to live files.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_name() == "postmaster.pid" || entry.file_name() == "pg_replslot" {
            if entry.file_name() == "pg_replslot" {
                fs::create_dir_all(&target)?;
            }
            continue;
        }
        let meta = fs::metadata(&source)?;
        if meta.is_dir() {
            copy_tree(&source, &target)?;
        } else if meta.is_file() {
            // Shares blocks where the file system can.
            copy_file(&source, &target)?;
        }
    }
    File::open(to)?.sync_all()
}

struct Copied {
    segments: Vec<String>,
    missing: Vec<String>,
    bytes: u64,
}

fn copy(data_dir: &Path, work: &Path, branch: &Branch, to: Lsn) -> io::Result<Copied> {
    let pg_wal = data_dir.join("pg_wal");
    let target = work.join("pg_wal");
    fs::create_dir_all(&target)?;
    let mut copied = Copied { segments: vec![], missing: vec![], bytes: 0 };
    let segment_bytes = data::segment_bytes(data_dir);
    let names = if to.0 == u64::MAX {
        // The end is not known: everything of the timeline from the switch on.
        let first = wal::segment_name(branch.timeline, branch.switch_lsn, segment_bytes);
        segments_from(&pg_wal, &first)?
    } else {
        wal::segment_names(branch.timeline, branch.switch_lsn, to, segment_bytes)
    };
    for name in names {
        match copy_file(&pg_wal.join(&name), &target.join(&name)) {
            Ok(bytes) => {
                copied.bytes += bytes;
                copied.segments.push(name);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => copied.missing.push(name),
            Err(error) => return Err(error),
        }
    }
    for entry in fs::read_dir(&pg_wal)?.flatten() {
        let name = entry.file_name();
        if name.to_str().and_then(wal::history_timeline).is_some() {
            copied.bytes += copy_file(&entry.path(), &target.join(&name))?;
        }
    }
    copied.bytes += copy_file(&data_dir.join("global/pg_control"), &work.join("pg_control"))?;
    File::open(&target)?.sync_all()?;
    File::open(work)?.sync_all()?;
    Ok(copied)
}

fn segments_from(pg_wal: &Path, first: &str) -> io::Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(pg_wal)?
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(|n| n.len() == 24 && n[..8] == first[..8] && n.as_str() >= first)
        .collect();
    names.sort();
    Ok(names)
}

/// On disk when it returns: pg_rewind overwrites the source next.
fn copy_file(from: &Path, to: &Path) -> io::Result<u64> {
    let bytes = fs::copy(from, to)?;
    File::open(to)?.sync_all()?;
    Ok(bytes)
}
