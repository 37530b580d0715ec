//! Carries out the synchronous rule that was logged, and says in heartbeats what the server runs with. Decides nothing: whom
//! commits wait for comes with the view of a confirmed leader, which is made from what the log has.
//!
//! The rule stands in a file of its own beside `regent.conf`, which includes it. A standby has the rule there that it
//! would need as primary, so that its first commit waits already. Without a view (the agent was restarted, no coordinator
//! answers) the file stays as it is.
//!
//! Interleaving to fear: a primary that is being replaced hears of the next epoch, takes the rule of a standby, and releases
//! commits that wait. A running primary therefore takes a rule only for the epoch of its own lease. The mistake is a
//! primary that waits for longer.

use std::{fs, io, path::Path, sync::Arc, sync::Mutex, time::Duration};

use regent_types::{Epoch, Lsn, SyncSet, SynchronousFacts, SynchronousView};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    app::App,
    clock::{boottime_ns, ms_since},
    durable,
    postgres::synchronous::{self as server, Shown},
};

/// The file, in the data directory.
pub const FILE: &str = "regent.synchronous.conf";
const LOOK: Duration = Duration::from_millis(250);
/// After a proof that failed.
const PAUSE: Duration = Duration::from_secs(10);
/// Looks between two of a server that does what it should.
const SHOW_EVERY: u32 = 4;
/// Another value that lasted for so many heartbeats has been told to the leader: then it is taken away.
const TOLD_BEATS: u32 = 4;

/// What was shown to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Proof {
    names: String,
    run: String,
    since_lsn: Lsn,
}

#[derive(Debug, Default)]
struct Inner {
    /// What the last view said; `None` before the first one. The inner one is absent while the policy is off.
    told: Option<Option<SynchronousView>>,
    /// The version whose rule is in the file.
    written: Option<(Epoch, u64)>,
    shown: Option<Shown>,
    proof: Option<Proof>,
}

/// Shared with the session and the heartbeats.
#[derive(Debug, Default)]
pub struct Synchronous(Mutex<Inner>);

impl Synchronous {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().expect("no panic while held")
    }

    /// A view was heard. An older one than the last is not taken.
    pub fn heard(&self, view: Option<&SynchronousView>) {
        let mut inner = self.inner();
        let known = inner.told.as_ref().and_then(Option::as_ref).map(|view| (view.epoch, view.version));
        if view.is_some_and(|view| known.is_some_and(|known| (view.epoch, view.version) < known)) {
            return;
        }
        inner.told = Some(view.cloned());
    }

    /// What a heartbeat says.
    pub fn facts(&self) -> Option<SynchronousFacts> {
        let inner = self.inner();
        let (epoch, version) = inner.written?;
        let shown = inner.shown.as_ref().filter(|shown| !shown.in_recovery)?;
        let proof = inner.proof.as_ref().filter(|proof| proof.names == shown.names && proof.run == shown.run);
        Some(SynchronousFacts {
            epoch,
            version,
            names: shown.names.clone(),
            since_lsn: proof.map(|proof| proof.since_lsn),
        })
    }
}

fn text(view: Option<&SynchronousView>, set: Option<&SyncSet>) -> String {
    let head =
        "# Written by regent-agent: changes here are lost. Whom commits wait for is the cluster's policy.\n";
    match view {
        // Not managed: a value of the user's own counts.
        None => head.to_owned(),
        Some(_) => {
            let names = set.map(SyncSet::names).unwrap_or_default();
            format!("{head}synchronous_standby_names = {}\n", crate::postgres::conf::quoted(&names))
        }
    }
}

/// The file while no rule was ever asked for.
pub(crate) fn none() -> String {
    text(None, None)
}

/// Whether the setting is Regent's: it is the user's until the cluster has a policy.
pub(crate) fn is_managed(data_dir: &Path) -> bool {
    fs::read_to_string(data_dir.join(FILE)).is_ok_and(|text| text.contains("\nsynchronous_standby_names = "))
}

/// Writes the file. Whether it has changed.
fn write(data_dir: &Path, view: Option<&SynchronousView>, set: Option<&SyncSet>) -> io::Result<bool> {
    let path = data_dir.join(FILE);
    if view.is_none() && !path.exists() {
        return Ok(false);
    }
    // Nothing to configure: an empty directory, or one that is being replaced.
    match fs::metadata(data_dir.join("postgresql.conf")) {
        Ok(_) => durable::replace_if_changed(&path, text(view, set).as_bytes(), 0o600),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Runs for ever.
pub async fn run(app: Arc<App>) {
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = 0u32;
    let mut other_since_ns = None;
    let mut said = String::new();
    loop {
        tick.tick().await;
        looks = looks.wrapping_add(1);
        let result = step(&app, looks.is_multiple_of(SHOW_EVERY), &mut other_since_ns).await;
        match result {
            Ok(()) => said.clear(),
            Err(problem) if said != problem => {
                tracing::warn!(problem, "synchronous replication");
                said = problem;
            }
            Err(_) => {}
        }
    }
}

/// One look: file, server, proof.
async fn step(app: &App, look: bool, other_since_ns: &mut Option<u64>) -> Result<(), String> {
    let Some(view) = app.synchronous.inner().told.clone() else { return Ok(()) };
    let (running, in_recovery, lease) = {
        let seen = app.observed();
        let running = seen.sample.is_some() && seen.sample_error.is_none();
        let in_recovery = seen.sample.as_ref().is_some_and(|(sample, _)| sample.server.in_recovery);
        let lease = seen.guard.as_ref().and_then(|(status, _)| status.lease_epoch).map(Epoch);
        (running, in_recovery, lease)
    };
    if app.progress.lock().expect("no panic while held").is_some() {
        // The directory is being replaced.
        return Ok(());
    }
    let primary = running && !in_recovery;
    if primary && view.as_ref().is_some_and(|view| lease != Some(view.epoch)) {
        return Ok(());
    }
    let set = view.as_ref().and_then(|view| view.rules.get(&app.config.member));
    let version = view.as_ref().map(|view| (view.epoch, view.version));
    let changed =
        write(&app.config.data_dir, view.as_ref(), set).map_err(|error| format!("{FILE}: {error}"))?;
    let news = app.synchronous.inner().written != version;
    if changed {
        // What was shown of the rule before, or of this one at an earlier time, says nothing of what comes now.
        app.synchronous.inner().proof = None;
        let rule = set.map_or("nobody".to_owned(), ToString::to_string);
        tracing::info!(rule, ?version, "commits of this member wait for");
    }
    if !running {
        app.synchronous.inner().shown = None;
        app.synchronous.inner().written = version;
        return Ok(());
    }
    if changed || news {
        server::reload(&app.config).await.map_err(|error| error.to_string())?;
        app.synchronous.inner().written = version;
    }
    let Some(view) = view.filter(|_| primary) else {
        let mut inner = app.synchronous.inner();
        (inner.shown, inner.proof) = (None, None);
        return Ok(());
    };
    if look || changed || news {
        let shown = server::show(&app.config).await.map_err(|error| error.to_string())?;
        app.synchronous.inner().shown = Some(shown);
    }
    act(app, &view, other_since_ns).await
}

/// Of a primary: proves that it acts by the rule, or takes away what stands in its way.
async fn act(app: &App, view: &SynchronousView, other_since_ns: &mut Option<u64>) -> Result<(), String> {
    let set = view.rules.get(&app.config.member);
    let names = set.map(SyncSet::names).unwrap_or_default();
    let (shown, proof) = {
        let inner = app.synchronous.inner();
        (inner.shown.clone(), inner.proof.clone())
    };
    let Some(shown) = shown else { return Ok(()) };
    if shown.names != names {
        app.synchronous.inner().proof = None;
        let since_ns = *other_since_ns.get_or_insert_with(boottime_ns);
        let told = crate::session::heartbeat_interval(app) * TOLD_BEATS;
        if Duration::from_millis(ms_since(since_ns)) < told {
            return Ok(());
        }
        *other_since_ns = None;
        tracing::warn!(
            found = shown.names,
            wanted = names,
            "another synchronous_standby_names: ALTER SYSTEM RESET"
        );
        return server::reset_override(&app.config).await.map_err(|error| error.to_string());
    }
    *other_since_ns = None;
    let holds = proof.is_some_and(|proof| proof.names == shown.names && proof.run == shown.run);
    let Some(set) = set.filter(|_| !holds) else { return Ok(()) };
    let since_lsn = tokio::select! {
        proved = server::prove(&app.config, set) => match proved {
            Ok(since_lsn) => since_lsn,
            Err(error) => {
                // Each try writes a checkpoint.
                let _ = tokio::time::timeout(PAUSE, superseded(app, view)).await;
                return Err(error.to_string());
            }
        },
        // A checkpoint may take minutes; a newer rule must not wait for it.
        () = superseded(app, view) => return Ok(()),
    };
    tracing::info!(rule = %set, %since_lsn, "every process of the server acts by the rule");
    app.synchronous.inner().proof = Some(Proof { names, run: shown.run, since_lsn });
    Ok(())
}

/// Until another view was heard.
async fn superseded(app: &App, view: &SynchronousView) {
    loop {
        tokio::time::sleep(LOOK).await;
        if app.synchronous.inner().told.as_ref() != Some(&Some(view.clone())) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use regent_types::MemberName;

    fn view(epoch: u64, version: u64) -> SynchronousView {
        let set = SyncSet { number: 1, members: [MemberName::new("us-east-1").unwrap()].into() };
        let rules = [(MemberName::new("eu-north-1").unwrap(), set)].into();
        SynchronousView { epoch: Epoch(epoch), version, rules }
    }

    #[test]
    fn the_file_is_made_only_for_a_policy_and_left_without_a_value_after_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("postgresql.conf"), "").unwrap();
        assert!(!write(dir.path(), None, None).unwrap());
        assert!(!dir.path().join(FILE).exists());
        let view = view(3, 4);
        let set = view.rules.values().next();
        assert!(write(dir.path(), Some(&view), set).unwrap());
        assert!(!write(dir.path(), Some(&view), set).unwrap());
        let read = || fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert!(read().ends_with("synchronous_standby_names = 'ANY 1 (\"us-east-1\")'\n"), "{}", read());
        assert!(write(dir.path(), Some(&view), None).unwrap());
        assert!(read().ends_with("synchronous_standby_names = ''\n"), "{}", read());
        assert!(write(dir.path(), None, None).unwrap());
        assert!(!read().contains("synchronous_standby_names"), "{}", read());
    }

    #[test]
    fn an_older_view_is_not_taken_and_a_proof_ends_with_its_run() {
        let all = Synchronous::default();
        all.heard(Some(&view(3, 4)));
        all.heard(Some(&view(3, 3)));
        assert_eq!(all.inner().told, Some(Some(view(3, 4))));
        assert_eq!(all.facts(), None);
        let shown = Shown { names: "ANY 1 (a)".into(), in_recovery: false, run: "1".into() };
        let proof = Proof { names: shown.names.clone(), run: "1".into(), since_lsn: Lsn(9) };
        {
            let mut inner = all.inner();
            inner.written = Some((Epoch(3), 4));
            (inner.shown, inner.proof) = (Some(shown.clone()), Some(proof));
        }
        assert_eq!(all.facts().unwrap().since_lsn, Some(Lsn(9)));
        all.inner().shown = Some(Shown { run: "2".into(), ..shown });
        assert_eq!(all.facts().unwrap().since_lsn, None);
    }
}
