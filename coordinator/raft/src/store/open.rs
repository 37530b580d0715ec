//! Opening a directory: whose is it, and is everything in it whole?

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    sync::{Arc, Mutex, mpsc},
};

use openraft::entry::RaftEntry;
use redb::{Database, ReadableDatabase, ReadableTable};

use super::{
    COMMITTED, LOG, LogStore, META, PURGED, Shared, StoreError, VOTE, encode_meta, identity::Identity, lock,
    writer,
};
use crate::types::LogId;

const IDENTITY: &str = "identity";
/// redb's default is a gigabyte; the whole log is a few megabytes.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Opens the log of `node` in `dir`, or begins one. Reads every record once.
pub(crate) fn open(
    dir: &Path,
    node: u64,
    group: &str,
    expect_existing: bool,
) -> Result<LogStore, StoreError> {
    fs::create_dir_all(dir).map_err(|source| StoreError::Io {
        action: "create",
        path: dir.into(),
        source,
    })?;
    let file = dir.join("log.redb");
    let wanted = Identity { node, group: group.to_string() };
    let beside = Identity::read(dir)?;
    if let Some(found) = &beside {
        wanted.check(found, &Identity::path(dir))?;
    }
    let exists = match fs::metadata(&file) {
        Ok(meta) => meta.len() > 0,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(source) => return Err(StoreError::Io { action: "inspect", path: file, source }),
    };
    if !exists && (beside.is_some() || expect_existing) {
        return Err(StoreError::Forgotten { dir: dir.into(), node });
    }
    let failed = |source: redb::Error| StoreError::Database { file: file.clone(), source: Box::new(source) };
    let db = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true)
        .create(&file)
        .map_err(|e| failed(e.into()))?;
    let store = begin(db, &file, &wanted, beside.is_some() || expect_existing)?;
    if beside.is_none() {
        wanted.write(dir)?;
    }
    Ok(store)
}

/// Takes a database into use. A `known` node's must have been used before.
pub(super) fn begin(
    db: Database,
    file: &Path,
    wanted: &Identity,
    known: bool,
) -> Result<LogStore, StoreError> {
    let shared = Arc::new(Shared {
        file: file.to_path_buf(),
        db: Mutex::new(None),
        tail: Mutex::new(BTreeMap::new()),
        vote: Mutex::new(None),
        committed: Mutex::new(None),
        purged: Mutex::new(None),
        failure: Mutex::new(None),
    });
    claim(&db, &shared, wanted, known)?;
    verify(&db, &shared)?;
    *lock(&shared.db) = Some(Arc::new(db));
    let (jobs, queue) = mpsc::channel();
    let thread = shared.clone();
    std::thread::Builder::new().name("raft-log".into()).spawn(move || writer::run(thread, queue)).map_err(
        |source| StoreError::Io { action: "start the writer of", path: file.to_path_buf(), source },
    )?;
    Ok(LogStore { shared, jobs })
}

/// Writes the identity into a database that has none yet, and refuses a stranger's.
fn claim(db: &Database, shared: &Shared, wanted: &Identity, known: bool) -> Result<(), StoreError> {
    let failed = |e: redb::Error| shared.database_error(e);
    let write = db.begin_write().map_err(|e| failed(e.into()))?;
    let fresh = {
        let log = write.open_table(LOG).map_err(|e| failed(e.into()))?;
        let mut meta = write.open_table(META).map_err(|e| failed(e.into()))?;
        let found = match meta.get(IDENTITY).map_err(|e| failed(e.into()))? {
            Some(record) => Some(shared.decode_meta::<Identity>(IDENTITY, record.value())?),
            None => None,
        };
        match found {
            Some(found) => {
                wanted.check(&found, &shared.file)?;
                false
            }
            None => {
                let empty = log.first().map_err(|e| failed(e.into()))?.is_none()
                    && meta.first().map_err(|e| failed(e.into()))?.is_none();
                if !empty || known {
                    return Err(StoreError::Damaged {
                        file: shared.file.clone(),
                        table: "meta",
                        key: IDENTITY.into(),
                        what: "is missing though the directory is not new".into(),
                    });
                }
                let record = encode_meta(IDENTITY, wanted).map_err(|source| StoreError::Io {
                    action: "encode",
                    path: shared.file.clone(),
                    source,
                })?;
                meta.insert(IDENTITY, record.as_slice()).map_err(|e| failed(e.into()))?;
                true
            }
        }
    };
    if fresh {
        write.commit().map_err(|e| failed(e.into()))?;
    } else {
        write.abort().map_err(|e| failed(e.into()))?;
    }
    Ok(())
}

fn verify(db: &Database, shared: &Shared) -> Result<(), StoreError> {
    let failed = |e: redb::Error| shared.database_error(e);
    let read = db.begin_read().map_err(|e| failed(e.into()))?;
    let meta = read.open_table(META).map_err(|e| failed(e.into()))?;
    let get = |key: &'static str| meta.get(key).map_err(|e| failed(e.into()));
    let id = |key: &'static str| -> Result<Option<LogId>, StoreError> {
        get(key)?.map(|record| shared.decode_meta(key, record.value())).transpose()
    };
    *lock(&shared.vote) = get(VOTE)?.map(|record| shared.decode_meta(VOTE, record.value())).transpose()?;
    *lock(&shared.committed) = id(COMMITTED)?;
    let purged = id(PURGED)?;
    *lock(&shared.purged) = purged;

    let log = read.open_table(LOG).map_err(|e| failed(e.into()))?;
    let mut previous = purged;
    let rows = log.iter().map_err(|e| failed(e.into()))?;
    for (expected, row) in (purged.map_or(0, |id| id.index() + 1)..).zip(rows) {
        let (index, record) = row.map_err(|e| failed(e.into()))?;
        let damaged = |what| StoreError::Damaged {
            file: shared.file.clone(),
            table: "log",
            key: format!("index {}", index.value()),
            what,
        };
        let entry = shared.decode_entry(index.value(), record.value())?;
        if index.value() != expected {
            return Err(damaged(format!("index {expected} is missing before it")));
        }
        if previous.is_some_and(|previous| previous >= entry.log_id()) {
            return Err(damaged(format!(
                "its leadership is older than that of index {}",
                index.value().saturating_sub(1)
            )));
        }
        previous = Some(entry.log_id());
    }
    Ok(())
}
