//! `promotable.list`: who may be promoted, as last heard, so that it survives the coordinators' loss and the agent's restarts.
//!
//! Invariant: a heartbeat names a list only after it is on disk, and from then on no older one is asked by. Without it: the
//! primary acknowledges a list with a new member, its agent restarts with the old file, and runs on without that member's promise.
//! A file that cannot be read counts as none: no promise is asked for until a coordinator has told the list again.

use std::{fs, io, path::Path, sync::Arc, sync::atomic::Ordering::SeqCst};

use regent_agent_core::promise::PromiseList;
use regent_types::ClusterView;

use crate::{app::App, checked, durable};

const NAME: &str = "promotable.list";
const HEADER: &str = "regent-promotable-list 1";

/// What an earlier run has left.
pub(super) fn read(state_dir: &Path) -> Option<PromiseList> {
    let path = state_dir.join(NAME);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the list of who may be promoted cannot be read");
            return None;
        }
    };
    let list = checked::parse(HEADER, &text);
    if let Err(reason) = &list {
        tracing::warn!(path = %path.display(), reason, "the list of who may be promoted is damaged: none is known");
    }
    list.ok()
}

/// Takes the list of a view, on disk before in memory. Nothing waits for the disk.
pub fn adopt(app: &Arc<App>, view: &ClusterView) {
    let Some(heard) = PromiseList::of(view) else { return };
    let known = app.promises.list();
    if known.is_some_and(|known| !known.gives_way_to(&heard)) || app.promises.adopting.swap(true, SeqCst) {
        return;
    }
    let app = app.clone();
    tokio::task::spawn_blocking(move || {
        let path = app.config.state_dir.join(NAME);
        match durable::replace(&path, checked::render(HEADER, &heard).as_bytes(), 0o600) {
            Ok(()) => *app.promises.list.lock().expect("no panic while held") = Some(heard),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the list of who may be promoted was not written");
            }
        }
        app.promises.adopting.store(false, SeqCst);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use regent_types::{Epoch, LeaseTerms, PromiseView};

    #[test]
    fn what_is_written_is_read_and_damage_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), None);
        let terms = LeaseTerms { ttl_ms: 1, rho_ppm: 2, kill_ms: 3 };
        let view = PromiseView { version: 2, promotable: vec![], terms };
        let list = PromiseList { epoch: Epoch(4), view };
        let path = dir.path().join(NAME);
        durable::replace(&path, checked::render(HEADER, &list).as_bytes(), 0o600).unwrap();
        assert_eq!(read(dir.path()), Some(list));
        let good = fs::read_to_string(&path).unwrap();
        for bad in [good.replace("\"epoch\":4", "\"epoch\":5"), good[..good.len() / 2].to_owned()] {
            fs::write(&path, bad).unwrap();
            assert_eq!(read(dir.path()), None);
        }
    }
}
