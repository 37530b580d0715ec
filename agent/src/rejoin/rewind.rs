//! `pg_rewind` under a time budget. Once it has begun the directory is marked: after an interruption, a failure or a
//! time-out only a clone may follow, because a half rewound directory looks like a whole one.

use std::{fs, io, path::PathBuf, time::Duration};

use regent_agent_core::Mark;
use regent_guard::wire::JobTool;
use regent_types::{JobProgress, RejoinMethod, Upstream};

use crate::{
    app::App,
    data, durable,
    executor::steps::{StepError, rejoining},
    jobs,
    postgres::{conf, connect::remote, hba},
};

/// Configuration that pg_rewind would take over from the source, and that is the member's own.
pub const OWN_FILES: [&str; 6] = [
    "postgresql.conf",
    "pg_hba.conf",
    "pg_ident.conf",
    "postgresql.auto.conf",
    crate::synchronous::FILE,
    crate::postgres::block::FILE,
];

/// Rewinds; records success or why a clone must follow. An error means that it has not begun.
pub async fn rewind(app: &App, upstream: &Upstream, budget_ms: u64) -> Result<(), StepError> {
    let config = &app.config;
    let budget = Duration::from_millis(budget_ms);
    conf::write_passfile(config).map_err(StepError::io("write the password file"))?;
    if data::major(&config.data_dir).is_some_and(|major| major <= 15) {
        // Up to 15 pg_rewind reads the source's timeline from its last checkpoint, which may precede the promotion.
        let connection = remote(config, &upstream.host, upstream.port, Duration::from_secs(5)).await?;
        connection.row("CHECKPOINT on the new primary", "CHECKPOINT", budget).await?;
    }
    let own = own_files(app).map_err(StepError::io("keep the member's configuration"))?;
    app.state.change(|s| {
        rejoining(s, upstream.epoch);
        s.mark = Some(Mark::Rewinding);
    })?;
    let total = data::tree_bytes(&config.data_dir);
    app.show(Some(JobProgress { kind: "rewind".into(), done_bytes: 0, total_bytes: Some(total) }));
    let args = vec![
        format!("--target-pgdata={}", config.data_dir.display()),
        format!(
            "--source-server={}",
            conf::conninfo(config, &upstream.host, upstream.port, " dbname=postgres")
        ),
        "--progress".into(),
    ];
    let outcome = jobs::run(app, JobTool::PgRewind, args, budget, || {}).await;
    let refused = match &outcome {
        Ok(log) if log.contains("no rewind required") => {
            // The epochs differ, so something had diverged: its comparison was of two timelines with one number.
            Some("pg_rewind found nothing to rewind although the history has diverged".to_owned())
        }
        Ok(_) => None,
        Err(error) => Some(format!("rewind failed: {error}")),
    };
    if let Some(reason) = refused {
        tracing::warn!(reason, "a clone follows");
        app.state.change(|s| rejoining(s, upstream.epoch).clone_reason = Some(reason))?;
        return Ok(());
    }
    let copied = outcome.ok().and_then(|log| copied_bytes(&log)).unwrap_or(0);
    let finish = || -> io::Result<()> {
        for (path, bytes) in own {
            durable::replace(&path, &bytes, 0o600)?;
        }
        conf::attach(config, &config.data_dir, upstream)?;
        hba::write(config, &config.data_dir)?;
        durable::replace(&data::standby_signal(&config.data_dir), b"", 0o600)
    };
    // Still marked: a failure here ends in a clone.
    finish().map_err(StepError::io("finish the rewound directory"))?;
    app.state.change(|s| {
        let record = rejoining(s, upstream.epoch);
        (record.method, record.copied_bytes) = (Some(RejoinMethod::Rewound), copied);
        s.mark = None;
    })?;
    Ok(())
}

/// The member's own configuration files, to be put back.
pub fn own_files(app: &App) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut files = vec![];
    for name in OWN_FILES {
        let path = app.config.data_dir.join(name);
        match fs::read(&path) {
            Ok(bytes) => files.push((path, bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

/// From `12345/12345 kB (100%) copied`.
fn copied_bytes(log: &str) -> Option<u64> {
    let line = log.lines().rev().find(|l| l.contains("kB (") && l.contains("copied"))?;
    Some(line.trim().split('/').next()?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn progress_of_pg_rewind_is_read() {
        let log =
            "pg_rewind: Done!\n  100/2048 kB (4%) copied\n 2048/2048 kB (100%) copied\npg_rewind: Done!";
        assert_eq!(super::copied_bytes(log), Some(2048 * 1024));
        assert_eq!(super::copied_bytes("pg_rewind: Done!"), None);
    }
}
