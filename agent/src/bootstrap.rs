//! `initdb` into a folder beside the data directory, which then takes its place by one rename: a data directory is either
//! empty or whole, whatever dies in between.

use std::{fs, time::Duration};

use regent_agent_core::Promoting;
use regent_guard::wire::JobTool;
use regent_types::{Epoch, Timeline};

use crate::{
    app::App,
    data,
    executor::steps::StepError,
    jobs,
    postgres::{conf, hba},
};

const BUDGET: Duration = Duration::from_secs(300);

/// Initialises an empty data directory for its first epoch.
pub async fn initialize(app: &App, epoch: Epoch) -> Result<(), StepError> {
    let config = &app.config;
    let fresh = data::beside(&config.data_dir, "new");
    clear(&fresh)?;
    let mut args = vec![
        format!("--pgdata={}", fresh.display()),
        format!("--username={}", config.superuser()),
        "--data-checksums".into(),
        "--auth-local=peer".into(),
        "--auth-host=scram-sha-256".into(),
        "--encoding=UTF8".into(),
        "--locale=C.UTF-8".into(),
    ];
    args.extend(config.initdb_args.iter().cloned());
    jobs::run(app, JobTool::Initdb, args, BUDGET, || {}).await?;
    conf::append_settings(config, &fresh).map_err(StepError::io("write postgresql.conf"))?;
    conf::write(config, &fresh, None).map_err(StepError::io("write regent.conf"))?;
    hba::write(config, &fresh).map_err(StepError::io("write pg_hba.conf"))?;
    // Before the rename: a directory of primary form without a lineage may only be started with this record.
    app.state.change(|s| s.promoting = Some(Promoting { epoch, from_timeline: Timeline(0) }))?;
    let aside = data::beside(&config.data_dir, "old");
    data::put_in_place(&fresh, &config.data_dir, &aside)
        .map_err(StepError::io("put the new data directory in place (its parent must be writable)"))
}

/// Removes a folder that an earlier attempt left.
pub fn clear(folder: &std::path::Path) -> Result<(), StepError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StepError::io(format!("remove {}", folder.display()))(error))
        }
        _ => Ok(()),
    }
}
