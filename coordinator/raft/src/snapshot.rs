//! The one snapshot of a node, in one file: written beside the old one, fsynced, renamed, so that always a whole one is
//! there. A file that does not check out stops the node: the entries that it stood for are no longer in the log.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Mutex,
};

use crate::{
    store::{StoreError, seal, unseal, write_durably},
    types::{LogId, Snapshot, SnapshotMeta},
};

const TABLE: &str = "snapshot";

pub(crate) struct SnapshotFile {
    path: PathBuf,
    /// What the file covers; also serialises writers.
    current: Mutex<Option<SnapshotMeta>>,
}

impl SnapshotFile {
    /// Opens and checks what is there.
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        let file = Self { path: dir.join("snapshot"), current: Mutex::new(None) };
        let meta = file.read()?.map(|snapshot| snapshot.meta);
        *file.lock() = meta;
        Ok(file)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<SnapshotMeta>> {
        self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Saves a snapshot unless the file already covers as much: two that end at the same entry hold the same state, and
    /// an older one that was slow to build must not replace a newer one that was received meanwhile.
    pub(crate) fn save(&self, meta: &SnapshotMeta, state: &[u8]) -> Result<(), StoreError> {
        let mut current = self.lock();
        let covered: Option<LogId> = current.as_ref().and_then(|held| held.last_log_id);
        if current.is_some() && covered >= meta.last_log_id {
            return Ok(());
        }
        let invalid = |error: postcard::Error| StoreError::Io {
            action: "encode",
            path: self.path.clone(),
            source: io::Error::other(error),
        };
        let head = postcard::to_allocvec(meta).map_err(invalid)?;
        let mut body = Vec::with_capacity(8 + head.len() + state.len());
        body.extend_from_slice(&(head.len() as u64).to_le_bytes());
        body.extend_from_slice(&head);
        body.extend_from_slice(state);
        write_durably(&self.path, &seal(TABLE, &[], &body))?;
        *current = Some(meta.clone());
        Ok(())
    }

    /// The snapshot, read from disk: it is not kept in memory.
    pub(crate) fn read(&self) -> Result<Option<Snapshot>, StoreError> {
        let record = match fs::read(&self.path) {
            Ok(record) => record,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(StoreError::Io { action: "read", path: self.path.clone(), source });
            }
        };
        let damaged = |what: String| StoreError::Damaged {
            file: self.path.clone(),
            table: TABLE,
            key: "whole file".into(),
            what,
        };
        let body = unseal(TABLE, &[], &record).map_err(damaged)?;
        let short = || damaged("shorter than its head says".into());
        let (length, rest) = body.split_first_chunk::<8>().ok_or_else(short)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|e| damaged(e.to_string()))?;
        let (head, state) = rest.split_at_checked(length).ok_or_else(short)?;
        let meta: SnapshotMeta = postcard::from_bytes(head).map_err(|e| damaged(e.to_string()))?;
        Ok(Some(Snapshot { meta, snapshot: state.to_vec() }))
    }
}
