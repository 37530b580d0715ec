//! openraft's own suite, and what it does not ask: restarts, strangers, damage.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use openraft::{
    EntryPayload, RaftLogReader, StorageError,
    storage::{IOFlushed, RaftLogStorage, RaftLogStorageExt},
    testing::log::{StoreBuilder, Suite},
};
use redb::{ReadableTable, StorageBackend, backends::InMemoryBackend};
use tempfile::TempDir;

use super::*;
use crate::{
    LogPosition, Machine,
    snapshot::SnapshotFile,
    state_machine::StateMachine,
    types::{Command, LeaderId},
};

struct Nothing;

impl Machine for Nothing {
    fn apply(&self, _: LogPosition, _: &[u8]) -> Result<Vec<u8>, String> {
        Ok(Vec::new())
    }
    fn passed(&self, _at: LogPosition) {}

    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }
    fn restore(&self, _: Option<LogPosition>, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), 1, "suite", false).unwrap();
        let file = Arc::new(SnapshotFile::open(dir.path()).unwrap());
        Ok((dir, store, StateMachine::new(Arc::new(Nothing), file)))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_the_suite_of_openraft() {
    Suite::test_all(Builder).await.unwrap();
}

fn id(index: u64) -> LogId {
    LogId::new(LeaderId { term: 3, node_id: 1 }, index)
}

fn entries(range: std::ops::Range<u64>) -> Vec<Entry> {
    range
        .map(|i| Entry {
            log_id: id(i),
            payload: EntryPayload::Normal(Command(format!("command {i}").into_bytes())),
        })
        .collect()
}

async fn filled(dir: &Path) {
    let mut store = open(dir, 1, "g", false).unwrap();
    store.save_vote(&Vote::new(3, 1)).await.unwrap();
    store.blocking_append(entries(0..40)).await.unwrap();
    store.truncate_after(Some(id(29))).await.unwrap();
    store.purge(id(4)).await.unwrap();
    store.save_committed(Some(id(28))).await.unwrap();
    store.close().await;
}

/// All that the store holds, or why it does not open or read.
async fn contents(dir: &Path) -> Result<String, String> {
    let mut store = open(dir, 1, "g", true).map_err(|e| chain(&e))?;
    let mut reader = store.get_log_reader().await;
    let state = store.get_log_state().await.map_err(|e| e.to_string())?;
    let read = reader.try_get_log_entries(0..100).await.map_err(|e| e.to_string())?;
    let all = format!(
        "{:?} {:?} {state:?} {read:?}",
        reader.read_vote().await.unwrap(),
        store.read_committed().await.unwrap()
    );
    drop(reader);
    store.close().await;
    Ok(all)
}

fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or(error.to_string(), |source| format!("{error}: {}", chain(source)))
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let mut store = open(dir.path(), 1, "g", true).unwrap();
    let mut reader = store.get_log_reader().await;
    assert_eq!(reader.read_vote().await.unwrap(), Some(Vote::new(3, 1)));
    assert_eq!(store.read_committed().await.unwrap(), Some(id(28)));
    let state = store.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(4)), Some(id(29))));
    assert_eq!(reader.try_get_log_entries(0..100).await.unwrap(), entries(5..30));
}

#[tokio::test]
async fn an_entry_is_readable_when_append_returns_and_a_batch_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), 1, "g", false).unwrap();
    let mut reader = store.get_log_reader().await;
    for i in 0..200 {
        store.append(entries(i..i + 1), IOFlushed::noop()).await.unwrap();
        assert_eq!(reader.try_get_log_entries(0..=i).await.unwrap().len() as u64, i + 1);
    }
    let large = |i| Entry { log_id: id(i), payload: EntryPayload::Normal(Command(vec![7; 400_000])) };
    store.append((200..220).map(large), IOFlushed::noop()).await.unwrap();
    let batch = reader.limited_get_log_entries(200, 220).await.unwrap();
    assert_eq!(batch.len(), 3, "about one mebibyte");
}

#[tokio::test]
async fn the_directory_of_another_and_a_lost_log_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let refused = |node, group, existing| open(dir.path(), node, group, existing).err().unwrap().to_string();
    assert!(refused(2, "g", false).contains("belongs to node 1 of group \"g\", this is node 2"));
    assert!(refused(1, "h", false).contains("this is node 1 of \"h\""));
    // The same without the file beside the log.
    fs::remove_file(dir.path().join("identity")).unwrap();
    assert!(refused(2, "g", false).contains("log.redb belongs to node 1"));
    contents(dir.path()).await.unwrap();
    fs::remove_file(dir.path().join("log.redb")).unwrap();
    assert!(refused(1, "g", false).contains("has forgotten its vote"));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(open(empty.path(), 1, "g", true).err().unwrap(), StoreError::Forgotten { node: 1, .. }));
}

#[tokio::test]
async fn a_log_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1, "g", false).unwrap();
    let error = chain(&open(dir.path(), 1, "g", false).err().unwrap());
    assert!(error.contains("log.redb cannot be used as a log"), "{error}");
    store.close().await;
    open(dir.path(), 1, "g", false).unwrap();
}

/// A flipped byte anywhere in the file is either without meaning (the contents are the same) or is refused: never is
/// something else read, nor an older state. Also in the image of a running node, which redb recovers at opening: with
/// commits of one phase it returned to the state before the last commit there.
#[tokio::test]
async fn a_flipped_byte_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), 1, "g", false).unwrap();
    store.save_vote(&Vote::new(3, 1)).await.unwrap();
    store.blocking_append(entries(0..40)).await.unwrap();
    store.save_vote(&Vote::new(4, 2)).await.unwrap();
    let running = fs::read(dir.path().join("log.redb")).unwrap();
    store.close().await;
    let closed = fs::read(dir.path().join("log.redb")).unwrap();
    for (name, image) in [("running", running), ("closed", closed)] {
        fs::write(dir.path().join("log.redb"), &image).unwrap();
        let whole = contents(dir.path()).await.unwrap();
        assert!(whole.starts_with(&format!("{:?}", Some(Vote::new(4, 2)))), "{name}: {whole}");
        let used: Vec<usize> = (0..image.len()).filter(|at| image[*at] != 0).collect();
        let mut refused = BTreeSet::new();
        for at in used.iter().step_by(used.len() / 150 + 1) {
            let mut flipped = image.clone();
            flipped[*at] ^= 0x10;
            fs::write(dir.path().join("log.redb"), &flipped).unwrap();
            match contents(dir.path()).await {
                Ok(read) => assert_eq!(read, whole, "{name}: byte {at}"),
                Err(error) => {
                    assert!(error.contains("log.redb"), "{name}: byte {at}: {error}");
                    refused.insert(error);
                }
            }
        }
        assert!(!refused.is_empty(), "{name}: no flip was noticed");
    }
}

/// Damage that redb's page checksums cannot see, as from its cache or a bug: the record's own checksum names it.
#[tokio::test]
async fn a_record_changed_behind_the_page_checksums_is_named() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let file = dir.path().join("log.redb");
    let change = |index: u64, with: &dyn Fn(&mut Vec<u8>)| {
        let db = Database::open(&file).unwrap();
        let write = db.begin_write().unwrap();
        {
            let mut table = write.open_table(LOG).unwrap();
            let mut record = table.get(index).unwrap().unwrap().value().to_vec();
            with(&mut record);
            table.insert(index, record.as_slice()).unwrap();
        }
        write.commit().unwrap();
    };
    change(17, &|record| *record.last_mut().unwrap() ^= 1);
    let error = contents(dir.path()).await.unwrap_err();
    assert!(error.contains("log.redb is damaged: table log, index 17: checksum is"), "{error}");
    change(17, &|record| *record.last_mut().unwrap() ^= 1);
    contents(dir.path()).await.unwrap();
    let db = Database::open(&file).unwrap();
    let write = db.begin_write().unwrap();
    write.open_table(LOG).unwrap().remove(20).unwrap();
    write.commit().unwrap();
    drop(db);
    let error = contents(dir.path()).await.unwrap_err();
    assert!(error.contains("table log, index 21: index 20 is missing before it"), "{error}");
}

/// A disk in memory whose fsync fails while it is told to.
#[derive(Debug)]
struct Disk {
    memory: InMemoryBackend,
    broken: Arc<AtomicBool>,
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.memory.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.memory.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(io::Error::other("fsync fails"));
        }
        self.memory.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.memory.write(offset, data)
    }
}

/// What a kernel could not write it may drop, and report the next fsync as a success.
#[tokio::test]
async fn after_a_failed_fsync_nothing_is_acknowledged_any_more() {
    let broken = Arc::new(AtomicBool::new(false));
    let disk = Disk { memory: InMemoryBackend::new(), broken: broken.clone() };
    let db = Database::builder().create_with_backend(disk).unwrap();
    let wanted = identity::Identity { node: 1, group: "g".into() };
    let mut store = open::begin(db, Path::new("disk"), &wanted, false).unwrap();
    store.blocking_append(entries(0..3)).await.unwrap();
    broken.store(true, Ordering::SeqCst);
    let error = store.blocking_append(entries(3..4)).await.unwrap_err();
    assert!(error.to_string().contains("disk cannot be used as a log"), "{error}");
    broken.store(false, Ordering::SeqCst);
    for result in [
        store.save_vote(&Vote::new(9, 1)).await,
        store.append(entries(3..4), IOFlushed::noop()).await,
        store.truncate_after(None).await,
        store.purge(id(1)).await,
        store.save_committed(None).await,
    ] {
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with("no more writes after a failed one"), "{error}");
    }
    let mut reader = store.get_log_reader().await;
    assert_eq!(reader.read_vote().await.unwrap(), None);
    store.close().await;
}
