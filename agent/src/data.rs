//! What the data directory is. Reads only; never trusts a timeline number alone, and never repairs anything.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use regent_agent_core::{AgentView, DataView, Mark, wal};
use regent_types::{DataForm, Lsn, SystemId, Timeline};

use crate::postgres::conf;

/// `standby.signal` in `data_dir`.
pub fn standby_signal(data_dir: &Path) -> PathBuf {
    data_dir.join("standby.signal")
}

/// Looks.
pub fn look(data_dir: &Path, agent: &AgentView) -> DataView {
    let control = regent_guard::control_file::read(data_dir).ok().flatten();
    let form = form(data_dir, agent, control.is_some());
    let mut timeline = control.as_ref().map(|c| c.timeline);
    if let (Some(control), DataForm::Standby) = (&control, form) {
        timeline = timeline.max(Some(control.min_recovery_timeline));
    } else if form == DataForm::Primary {
        // After a fast promotion the checkpoint still names the old timeline until the next one.
        timeline = timeline.max(newest_history(data_dir).map(|t| t.0));
    }
    DataView {
        form,
        system_id: control.as_ref().map(|c| SystemId(c.system_id)),
        timeline: timeline.map(Timeline),
        checkpoint_lsn: control.as_ref().map(|c| Lsn(c.checkpoint_lsn)),
        clean: control.is_some_and(|c| c.state.name().starts_with("shut down")),
        upstream: conf::read_upstream(data_dir),
        switch_lsn: timeline.and_then(|t| switch_lsn(data_dir, Timeline(t))),
        archive: conf::read_archive(data_dir),
    }
}

fn form(data_dir: &Path, agent: &AgentView, has_control: bool) -> DataForm {
    match agent.mark {
        Some(Mark::Rewinding) => return DataForm::Rewinding,
        Some(Mark::Cloning) => return DataForm::Cloning,
        None => {}
    }
    let empty = match fs::read_dir(data_dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(_) => return DataForm::Unusable,
    };
    if empty {
        DataForm::Empty
    } else if !has_control || !data_dir.join("PG_VERSION").exists() {
        DataForm::Unusable
    } else if standby_signal(data_dir).exists() {
        DataForm::Standby
    } else {
        DataForm::Primary
    }
}

fn newest_history(data_dir: &Path) -> Option<Timeline> {
    let entries = fs::read_dir(data_dir.join("pg_wal")).ok()?;
    entries.flatten().filter_map(|e| wal::history_timeline(e.file_name().to_str()?)).max()
}

/// Where `timeline` left its parent; `None` for the first timeline or without its history file.
pub fn switch_lsn(data_dir: &Path, timeline: Timeline) -> Option<Lsn> {
    let path = data_dir.join("pg_wal").join(format!("{:08X}.history", timeline.0));
    let entries = wal::parse_history(&fs::read_to_string(path).ok()?).ok()?;
    entries.last().map(|e| e.switch_lsn)
}

/// Bytes per WAL segment, from the size of the segments that are there.
pub fn segment_bytes(data_dir: &Path) -> u64 {
    let is_segment = |name: &str| name.len() == 24 && name.bytes().all(|b| b.is_ascii_hexdigit());
    let entries = fs::read_dir(data_dir.join("pg_wal")).into_iter().flatten().flatten();
    entries
        .filter(|e| e.file_name().to_str().is_some_and(is_segment))
        .find_map(|e| {
            e.metadata().ok().map(|m| m.len()).filter(|len| len.is_power_of_two() && *len >= 1 << 20)
        })
        .unwrap_or(16 << 20)
}

/// The guard last said that no PostgreSQL runs.
pub fn is_stopped(app: &crate::app::App) -> bool {
    let seen = app.observed();
    seen.guard
        .as_ref()
        .is_some_and(|(status, _)| status.postgres == regent_guard::wire::PostgresState::Stopped)
}

/// Major version, from `PG_VERSION`.
pub fn major(data_dir: &Path) -> Option<u32> {
    fs::read_to_string(data_dir.join("PG_VERSION")).ok()?.trim().split('.').next()?.parse().ok()
}

/// Size of everything below `folder`, bytes; what vanishes meanwhile counts nothing.
pub fn tree_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => tree_bytes(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

/// A folder beside the data directory, on the same file system, for what is made or kept there.
pub fn beside(data_dir: &Path, suffix: &str) -> PathBuf {
    let name = data_dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    data_dir.with_file_name(format!("{name}.regent-{suffix}"))
}

/// Puts `fresh` in the place of `data_dir`. The old one goes to `aside` first; an empty one is replaced directly.
pub fn put_in_place(fresh: &Path, data_dir: &Path, aside: &Path) -> io::Result<()> {
    set_aside(data_dir, aside)?;
    fs::rename(fresh, data_dir)?;
    crate::durable::sync_parent(data_dir)
}

/// Where the member's own configuration is: `data_dir`, or the folder that it was moved to last by a clone that died before
/// the new directory had taken its place. Without this the next clone would run with the upstream's configuration. What was
/// kept of another major version is not taken: its settings may not even let this one start.
pub fn last_kept(data_dir: &Path, version: Option<u32>) -> io::Result<PathBuf> {
    if fs::read_dir(data_dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Ok(data_dir.to_owned());
    }
    let (kept, old) = (beside(data_dir, "kept-"), beside(data_dir, "old"));
    let kept = kept.file_name().unwrap_or_default().as_encoded_bytes().to_vec();
    let mut found = Vec::new();
    for entry in
        data_dir.parent().into_iter().map(fs::read_dir).collect::<Result<Vec<_>, _>>()?.into_iter().flatten()
    {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if (name.starts_with(&kept) || path == old) && major(&path) == version {
            // Renaming a directory changes its ctime: the newest is the one that was moved last.
            found.push((fs::metadata(&path)?.ctime(), path));
        }
    }
    Ok(found.into_iter().max().map_or_else(|| data_dir.to_owned(), |(_, path)| path))
}

/// Moves `data_dir` to `aside`, durably, unless there is nothing in it.
pub fn set_aside(data_dir: &Path, aside: &Path) -> io::Result<()> {
    let occupied = fs::read_dir(data_dir).is_ok_and(|mut entries| entries.next().is_some());
    if !occupied {
        return Ok(());
    }
    fs::rename(data_dir, aside)?;
    crate::durable::sync_parent(data_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_of_a_clone_that_died_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        assert_eq!(last_kept(&data, Some(18)).unwrap(), data, "nothing is there at all");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("postgresql.conf"), "port = 1").unwrap();
        fs::write(data.join("PG_VERSION"), "18\n").unwrap();
        assert_eq!(last_kept(&data, Some(18)).unwrap(), data);
        // Died between the two renames.
        let aside = beside(&data, "kept-20260101T000000Z");
        set_aside(&data, &aside).unwrap();
        assert_eq!(last_kept(&data, Some(18)).unwrap(), aside);
        fs::create_dir(&data).unwrap();
        assert_eq!(last_kept(&data, Some(18)).unwrap(), aside, "an empty directory has no configuration");
        assert_eq!(last_kept(&data, Some(19)).unwrap(), data, "settings of another major version");
        fs::write(data.join("postgresql.conf"), "port = 2").unwrap();
        assert_eq!(last_kept(&data, Some(18)).unwrap(), data);
    }
}
