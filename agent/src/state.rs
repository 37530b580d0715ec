//! The agent's state file: highest epoch obeyed, lineage, and what was being done to the data directory.
//!
//! Versioned and checksummed; each change is on disk before it counts. A damaged file is kept aside as evidence and read
//! as *nothing known*: lineage 0, so the member is cloned or rewound again and never promoted. A mistake that way costs a
//! clone; the other way it would serve data of an unknown history.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Mutex,
};

use regent_agent_core::AgentView;

use crate::{checked, durable};

/// A failure of the state file.
#[derive(Debug, thiserror::Error)]
#[error("agent state file {path}: {what}")]
pub struct StateError {
    path: PathBuf,
    what: String,
    #[source]
    source: Option<io::Error>,
}

const MAGIC: &str = "regent-agent-state ";
const VERSION: u32 = 1;

/// The file and what it says.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    current: Mutex<AgentView>,
    /// Held while the disk is written, so that readers (heartbeats, a fence) never wait for it.
    writing: Mutex<()>,
    found: String,
}

impl State {
    /// Opens `state_dir/agent.state`.
    pub fn open(state_dir: &Path) -> Result<Self, StateError> {
        let path = state_dir.join("agent.state");
        let fail = |what: &str, source| StateError { path: path.clone(), what: what.into(), source };
        let (view, found) = match fs::read_to_string(&path) {
            // Not damage: what a newer agent has written must be neither moved aside nor overwritten.
            Ok(text) if newer(&text).is_some() => {
                let found = newer(&text).unwrap_or_default();
                let what = format!(
                    "version {found} is newer than this agent's {VERSION}: start an agent that knows it"
                );
                return Err(fail(&what, None));
            }
            Ok(text) => match parse(&text) {
                Ok(view) => (view, "ok".to_owned()),
                Err(why) => {
                    let aside = keep_aside(&path).map_err(|e| fail("cannot be kept aside", Some(e)))?;
                    let found = format!("damaged ({why}), kept as {}", aside.display());
                    (AgentView::default(), found)
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (AgentView::default(), "missing".to_owned())
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let aside = keep_aside(&path).map_err(|e| fail("cannot be kept aside", Some(e)))?;
                (AgentView::default(), format!("damaged (not text), kept as {}", aside.display()))
            }
            Err(error) => return Err(fail("cannot be read", Some(error))),
        };
        Ok(Self { path, current: Mutex::new(view), writing: Mutex::new(()), found })
    }

    /// What was found at start: `ok`, `missing` or `damaged (...)`.
    pub fn found(&self) -> &str {
        &self.found
    }

    /// What it says.
    pub fn get(&self) -> AgentView {
        self.current.lock().expect("no panic while held").clone()
    }

    /// Changes it, on disk before in memory.
    pub fn change(&self, edit: impl FnOnce(&mut AgentView)) -> Result<AgentView, StateError> {
        let _writing = self.writing.lock().expect("no panic while held");
        let current = self.get();
        let mut next = current.clone();
        edit(&mut next);
        assert!(next.highest_epoch >= current.highest_epoch, "the highest epoch never goes down");
        if next != current {
            durable::replace(&self.path, render(&next).as_bytes(), 0o600).map_err(|source| StateError {
                path: self.path.clone(),
                what: "cannot be written".into(),
                source: Some(source),
            })?;
            *self.current.lock().expect("no panic while held") = next.clone();
        }
        Ok(next)
    }
}

fn header() -> String {
    format!("{MAGIC}{VERSION}")
}

fn render(view: &AgentView) -> String {
    checked::render(&header(), view)
}

fn parse(text: &str) -> Result<AgentView, String> {
    checked::parse(&header(), text)
}

fn newer(text: &str) -> Option<u32> {
    let version = text.lines().next()?.strip_prefix(MAGIC)?.parse().ok()?;
    (version > VERSION).then_some(version)
}

fn keep_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = (1..).map(|n| path.with_extension(format!("state.damaged-{n}"))).find(|p| !p.exists());
    let aside = aside.expect("an unbounded range");
    fs::rename(path, &aside)?;
    durable::sync_parent(path)?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use regent_types::Epoch;

    #[test]
    fn what_is_changed_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        assert_eq!(state.found(), "missing");
        state.change(|s| s.lineage = Epoch(3)).unwrap();
        let again = State::open(dir.path()).unwrap();
        assert_eq!((again.found(), again.get().lineage), ("ok", Epoch(3)));
    }

    fn file(head: &str, body: &str) -> String {
        format!("{head}\n{:08x}\n{body}\n", crc32fast::hash(body.as_bytes()))
    }

    /// As the first release wrote it, and as one minor version later may write it.
    #[test]
    fn files_of_neighbouring_versions_are_read_and_a_newer_version_is_refused() {
        let first = r#"{"highest_epoch":4,"lineage":3,"mark":"rewinding","promoting":{"epoch":4,"from_timeline":2},"rejoining":{"epoch":3,"method":null,"clone_reason":null,"copied_bytes":7,"salvaged":true,"cloned":false},"salvage":null}"#;
        let later = first.replace("\"mark\"", "\"added\":{\"later\":1},\"mark\"");
        for body in [first, later.as_str()] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("agent.state"), file("regent-agent-state 1", body)).unwrap();
            let state = State::open(dir.path()).unwrap();
            assert_eq!((state.found(), state.get().lineage), ("ok", Epoch(3)));
            assert_eq!(state.get().rejoining.unwrap().copied_bytes, 7);
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.state");
        fs::write(&path, file("regent-agent-state 99", first)).unwrap();
        let error = State::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("version 99 is newer than this agent's"), "{error}");
        assert!(path.exists(), "left where it is");
    }

    #[test]
    fn a_damaged_file_is_kept_and_read_as_nothing_known() {
        for spoil in [|_: &str| String::new(), |t: &str| t.replace("\"lineage\":3", "\"lineage\":4")] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("agent.state");
            State::open(dir.path()).unwrap().change(|s| s.lineage = Epoch(3)).unwrap();
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, spoil(&text)).unwrap();
            let state = State::open(dir.path()).unwrap();
            assert!(state.found().starts_with("damaged"), "{}", state.found());
            assert_eq!(state.get().lineage, Epoch::NONE);
            assert!(dir.path().join("agent.state.damaged-1").exists());
        }
    }
}
