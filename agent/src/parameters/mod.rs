//! PostgreSQL's parameters as an operator set them for the cluster (`regentctl postgres set`), on this member: written into a
//! file of their own that `regent.conf` includes last, read by the server, and what takes a restart reported.
//!
//! Which values are compared between members, and when one is held back, is decided in `regent_agent_core::parameters`. This
//! module looks and writes. Invariants: a value that this member's own binaries refuse is never written (one bad line, and the server
//! does not start); what was told is on this member's disk before it is used, so a start without a coordinator has it too; a
//! file that came with a clone or a rewind is replaced before the server starts.

mod check;
mod file;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use file::Kept;
use regent_agent_core::parameters::{Levels, Numbers, levels};
use regent_types::{ParameterFacts, STANDBY_NEEDS};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    app::App,
    config::Config,
    data, durable,
    executor::steps::StepError,
    postgres::{
        conf,
        connect::{Connection, PgError, local},
    },
};

/// Its name in the data directory.
pub const FILE: &str = "regent.parameters.conf";
const STATE: &str = "parameters.state";
const LOOK: Duration = Duration::from_secs(1);
/// The server is asked what waits for a restart once in this many looks.
const ASK_EVERY: u32 = 3;
const QUERY: Duration = Duration::from_secs(5);
const RELOADED_POLL: Duration = Duration::from_millis(20);
const RELOADED_POLLS: u32 = 100;
const SLOTS: &str = "synchronized_standby_slots";

/// What the file says, and why.
#[derive(Debug, Clone, Default)]
struct Written {
    version: u64,
    standby: bool,
    /// What the files come to, where it is compared between members.
    wanted: Numbers,
    in_force: Numbers,
    levels: Levels,
    refused: BTreeMap<String, String>,
    slots: Option<String>,
}

/// Shared by the tasks.
#[derive(Debug)]
pub struct Parameters {
    path: PathBuf,
    kept: Mutex<Kept>,
    written: Mutex<Option<Written>>,
    facts: Mutex<ParameterFacts>,
    writing: tokio::sync::Mutex<()>,
}

impl Parameters {
    /// As the last agent left it.
    pub fn open(state_dir: &Path) -> Self {
        let path = state_dir.join(STATE);
        let kept = Mutex::new(file::read(&path));
        Self {
            path,
            kept,
            written: Mutex::default(),
            facts: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// For heartbeats.
    pub fn facts(&self) -> ParameterFacts {
        self.facts.lock().expect("no panic while held").clone()
    }

    fn kept(&self) -> Kept {
        self.kept.lock().expect("no panic while held").clone()
    }

    fn written(&self) -> Option<Written> {
        self.written.lock().expect("no panic while held").clone()
    }

    fn keep(&self, next: Kept) -> io::Result<()> {
        file::write(&self.path, &next)?;
        *self.kept.lock().expect("no panic while held") = next;
        Ok(())
    }
}

/// Runs for ever: takes in what coordinators tell, and follows the member's role.
pub async fn run(app: Arc<App>) {
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = 0u32;
    loop {
        tick.tick().await;
        looks = looks.wrapping_add(1);
        let asking = looks.is_multiple_of(ASK_EVERY);
        match look(&app, asking).await {
            Ok(()) => {}
            // The observer tells of a server that does not answer.
            Err(StepError::Postgres(error)) => tracing::debug!(%error, "PostgreSQL's parameters"),
            Err(error) => tracing::warn!(%error, "PostgreSQL's parameters"),
        }
    }
}

async fn look(app: &App, asking: bool) -> Result<(), StepError> {
    adopt(app).map_err(StepError::io("write down the parameters"))?;
    // A directive writes them by itself before it starts anything.
    if app.is_busy() {
        return Ok(());
    }
    let changed = is_stale(app, asking).await;
    if changed {
        write(app, false).await.map_err(StepError::io("write the parameters"))?;
    }
    if data::is_stopped(app) {
        note(app, None);
        return Ok(());
    }
    if changed || asking {
        let connection = local(&app.config, QUERY).await?;
        if changed {
            reload(&connection).await?;
        }
        let found = ask(&connection, app).await?;
        note(app, Some(found));
    }
    Ok(())
}

/// What a coordinator has told, on disk.
fn adopt(app: &App) -> io::Result<()> {
    let Some(view) = app.view() else { return Ok(()) };
    let told = view.parameters.unwrap_or_default();
    let kept = app.parameters.kept();
    if (told.version, &told.values) == (kept.version, &kept.values) {
        return Ok(());
    }
    tracing::info!(version = told.version, "PostgreSQL's parameters");
    let named = told.values.keys().filter(|name| STANDBY_NEEDS.contains(&name.as_str())).cloned();
    let compared = kept.compared.iter().cloned().chain(named).collect();
    // Of what was taken before, what is still wanted: in case nothing can be asked.
    let taken = kept.taken.into_iter().filter(|(name, value)| told.values.get(name) == Some(value)).collect();
    app.parameters.keep(Kept { version: told.version, values: told.values, taken, compared })
}

async fn is_stale(app: &App, asking: bool) -> bool {
    let kept = app.parameters.kept();
    let Some(written) = app.parameters.written() else { return true };
    if written.version != kept.version
        || written.standby != data::standby_signal(&app.config.data_dir).exists()
        || written.slots != slots(app)
    {
        return true;
    }
    // Its primary may run with less by now, and this server with more.
    let waits = !written.levels.kept_up.is_empty() || !written.levels.held_back.is_empty();
    asking && waits && check::in_force(&app.config).await != written.in_force
}

/// The physical slots that logical consumers must not run ahead of, where PostgreSQL can wait for them; without a coordinator's
/// word the list that is there.
fn slots(app: &App) -> Option<String> {
    let config = &app.config;
    let can = data::major(&config.data_dir).is_some_and(|major| major >= conf::LOGICAL_FROM);
    if !config.logical_slots || !can {
        return None;
    }
    let promotable = app.view().and_then(|view| view.promises).map(|promises| promises.promotable);
    let Some(promotable) = promotable else { return read_line(&config.data_dir, SLOTS) };
    let others = promotable.iter().filter(|one| one.member != config.member);
    Some(others.map(|one| conf::slot_name(&one.member)).collect::<Vec<_>>().join(", "))
}

fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(" = "))
}

fn read_line(data_dir: &Path, wanted: &str) -> Option<String> {
    let text = fs::read_to_string(data_dir.join(FILE)).ok()?;
    let (_, value) = lines(&text).find(|(name, _)| *name == wanted)?;
    Some(value.trim_matches('\'').to_owned())
}

/// The names that the file sets: nothing else may win over them.
pub fn names(data_dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(data_dir.join(FILE)).unwrap_or_default();
    lines(&text).map(|(name, _)| name.to_owned()).collect()
}

fn render(version: u64, slots: Option<&str>, taken: &BTreeMap<String, String>, levels: &Numbers) -> String {
    let mut text = format!(
        "# Written by regent-agent from the cluster's parameters (regentctl postgres): changes here are lost.\n\
         # version {version}\n"
    );
    let mut line = |name: &str, value: &str| text.push_str(&format!("{name} = {}\n", conf::quoted(value)));
    if let Some(slots) = slots {
        line(SLOTS, slots);
    }
    for (name, value) in taken.iter().filter(|(name, _)| !levels.contains_key(*name)) {
        line(name, value);
    }
    for (name, number) in levels {
        line(name, &number.to_string());
    }
    text
}

/// Writes the file for the role that the data directory has. `restarting`: an operator restarts this server, so that a primary may
/// take what was raised. Whether the file was changed.
pub async fn write(app: &App, restarting: bool) -> io::Result<bool> {
    let _writing = app.parameters.writing.lock().await;
    let config = &app.config;
    let dir = &config.data_dir;
    if !dir.join("PG_VERSION").exists() {
        return Ok(false);
    }
    let mut kept = app.parameters.kept();
    let path = dir.join(FILE);
    let slots = slots(app);
    let mut written = Written {
        version: kept.version,
        standby: data::standby_signal(dir).exists(),
        slots: slots.clone(),
        ..Written::default()
    };
    match check::check(config, &kept.values).await {
        Ok(checked) => {
            (kept.taken, written.refused) = (checked.taken, checked.refused);
            app.parameters.keep(kept.clone())?;
        }
        Err(why) => {
            tracing::warn!(why, "the parameters cannot be checked: what was taken before is written");
            let unchecked = kept.values.keys().filter(|name| !kept.taken.contains_key(*name));
            written.refused = unchecked.map(|name| (name.clone(), format!("not checked: {why}"))).collect();
        }
    }
    let before = fs::read_to_string(&path).unwrap_or_default();
    if !kept.compared.is_empty() {
        written.in_force = check::in_force(config).await;
        written.wanted = wanted(config, &kept, &path, slots.as_deref()).await?;
        written.levels = levels(written.standby, restarting, &written.wanted, &written.in_force);
    }
    for (name, why) in &written.refused {
        tracing::warn!(name, why, "a parameter is left out");
    }
    let text = render(kept.version, slots.as_deref(), &kept.taken, &written.levels.lines);
    // Also when nothing was ever set: one that came with a clone must not stay.
    durable::replace_if_changed(&path, text.as_bytes(), 0o600)?;
    *app.parameters.written.lock().expect("no panic while held") = Some(written);
    Ok(before != text)
}

/// What the files come to without anything held back.
async fn wanted(config: &Config, kept: &Kept, path: &Path, slots: Option<&str>) -> io::Result<Numbers> {
    let mut wanted = Numbers::new();
    for name in &kept.compared {
        if let Some(number) = kept.taken.get(name).and_then(|value| value.parse().ok()) {
            wanted.insert(name.clone(), number);
            continue;
        }
        // Not set any more: the files without this one say. A line of our own would be read for theirs.
        if read_line(&config.data_dir, name).is_some() {
            let plain = render(kept.version, slots, &kept.taken, &Numbers::new());
            durable::replace_if_changed(path, plain.as_bytes(), 0o600)?;
        }
        if let Some(number) = check::number(config, name).await {
            wanted.insert(name.clone(), number);
        }
    }
    Ok(wanted)
}

/// Has the server read its files, and waits until it has.
async fn reload(connection: &Connection) -> Result<(), PgError> {
    let sql = "SELECT extract(epoch FROM pg_conf_load_time())::text, pg_reload_conf()";
    let before = connection.row("reload", sql, QUERY).await?;
    let before = before.as_ref().and_then(|row| row.text(0)).map(str::to_owned);
    for _ in 0..RELOADED_POLLS {
        let sql = "SELECT extract(epoch FROM pg_conf_load_time())::text";
        let now = connection.row("wait for the reload", sql, QUERY).await?;
        if now.as_ref().and_then(|row| row.text(0)) != before.as_deref() {
            return Ok(());
        }
        tokio::time::sleep(RELOADED_POLL).await;
    }
    Ok(())
}

struct Found {
    running: Numbers,
    pending: Vec<String>,
    at_risk: u32,
}

/// What waits for a restart, by the server's word.
async fn ask(connection: &Connection, app: &App) -> Result<Found, PgError> {
    let names = STANDBY_NEEDS.map(|name| format!("'{name}'")).join(", ");
    let sql = format!(
        "SELECT name, setting, pending_restart FROM pg_settings WHERE pending_restart OR name IN ({names}) ORDER BY name"
    );
    let (mut running, mut pending) = (Numbers::new(), Vec::new());
    for row in connection.rows("what waits for a restart", &sql, QUERY).await? {
        let Some(name) = row.text(0) else { continue };
        if row.is_true(2) {
            pending.push(name.to_owned());
        }
        if let Some(number) = row.parse(1) {
            running.insert(name.to_owned(), number);
        }
    }
    let survives = match data::major(&app.config.data_dir) {
        Some(major) if major >= conf::LOGICAL_FROM && app.config.logical_slots => "failover",
        _ => "false",
    };
    let sql = format!(
        "SELECT count(*) FROM pg_replication_slots
         WHERE slot_type = 'logical' AND NOT temporary AND NOT pg_is_in_recovery() AND NOT {survives}"
    );
    let row = connection.row("logical slots", &sql, QUERY).await?;
    Ok(Found { running, pending, at_risk: row.and_then(|row| row.parse(0)).unwrap_or(0) })
}

/// For the next heartbeat.
fn note(app: &App, found: Option<Found>) {
    let Some(written) = app.parameters.written() else { return };
    let mut facts =
        ParameterFacts { version: written.version, refused: written.refused, ..ParameterFacts::default() };
    if let Some(found) = found {
        let less = |name: &&str| {
            let running = found.running.get(*name).copied();
            running.zip(written.wanted.get(*name).copied()).is_some_and(|(running, wanted)| running < wanted)
        };
        let raised: Vec<&str> = STANDBY_NEEDS.into_iter().filter(less).collect();
        facts.pending_restart = found.pending;
        if written.standby {
            facts.raise_first = raised.iter().map(|name| (*name).to_owned()).collect();
        }
        // Held back from a primary's file, so that the server does not know of it.
        for name in raised {
            if !facts.pending_restart.iter().any(|known| known == name) {
                facts.pending_restart.push(name.to_owned());
            }
        }
        facts.pending_restart.sort();
        app.observed().logical_slots_at_risk = found.at_risk;
    }
    *app.parameters.facts.lock().expect("no panic while held") = facts;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_each_name_once_and_quotes_what_it_is_given() {
        let taken = BTreeMap::from([
            ("log_line_prefix".to_owned(), "it's \\ %m".to_owned()),
            ("max_connections".to_owned(), "200".to_owned()),
        ]);
        let levels = Numbers::from([("max_connections".to_owned(), 100)]);
        let text = render(7, Some("regent_b"), &taken, &levels);
        assert!(text.contains("log_line_prefix = 'it''s \\\\ %m'\n"), "{text}");
        assert_eq!(text.matches("max_connections").count(), 1);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), &text).unwrap();
        assert_eq!(names(dir.path()), [SLOTS, "log_line_prefix", "max_connections"]);
        assert_eq!(read_line(dir.path(), "max_connections").as_deref(), Some("100"));
        assert_eq!(read_line(dir.path(), SLOTS).as_deref(), Some("regent_b"));
    }
}
