//! Keeps what a divergent member had before anything starts on it: WAL from the switch to its end, timeline histories,
//! `pg_control`, and a manifest with a summary. pg_rewind's own recovery and a standby start both recycle WAL, so this
//! comes first; what is missing is said, never passed over.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use regent_agent_core::{WalEnd, wal};
use regent_types::{Branch, JobProgress, Lsn, SalvageCompleteness, SalvageSummary};

use super::waldump;
use crate::{app::App, data, durable, executor::steps::StepError};

/// Makes the salvage of what lies behind `branch`.
pub async fn salvage(app: &App, branch: &Branch, end: Option<WalEnd>) -> Result<SalvageSummary, StepError> {
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
    let counted = waldump::read(app, &work.join("pg_wal"), branch.timeline, from, stop, true).await;
    let records = counted.unwrap_or_else(|why| {
        if to > from {
            missing.get_or_insert(format!("its commits could not be counted: {why}"));
        }
        waldump::Records::default()
    });
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
        relations: vec![],
        relations_total: 0,
        data: None,
    };
    let manifest = serde_json::json!({
        "version": 1,
        "cluster": app.config.cluster,
        "member": app.config.member,
        "summary": summary,
        "segments": copied.segments,
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

fn copy_file(from: &Path, to: &PathBuf) -> io::Result<u64> {
    let bytes = fs::copy(from, to)?;
    File::open(to)?.sync_all()?;
    Ok(bytes)
}
