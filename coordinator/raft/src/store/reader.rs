//! Reading the log, also while it is written.

use std::{collections::BTreeMap, fmt::Debug, io, ops::RangeBounds};

use openraft::{OptionalSend, storage::RaftLogReader};
use redb::{ReadableDatabase, ReadableTable};

use super::{LOG, Shared, StoreError, lock};
use crate::types::{Entry, TypeConfig, Vote};

/// One message of replication carries at most about this much, so that it passes a slow link within its deadline.
const READ_BYTES_MAX: usize = 1024 * 1024;

/// Reads entries and the vote. Cheap to make.
pub(crate) struct LogReader {
    pub(super) shared: std::sync::Arc<Shared>,
}

impl LogReader {
    fn read(&self, range: impl RangeBounds<u64> + Clone, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let mut records: BTreeMap<u64, Entry> = BTreeMap::new();
        let tail: Vec<_> = lock(&self.shared.tail)
            .range(range.clone())
            .map(|(index, record)| (*index, record.clone()))
            .collect();
        let db = self.shared.database()?;
        let mut bytes = 0;
        let mut decode = |index: u64, record: &[u8]| -> Result<bool, StoreError> {
            records.insert(index, self.shared.decode_entry(index, record)?);
            bytes += record.len();
            Ok(bytes >= bytes_max)
        };
        let from_database = || -> Result<(), StoreError> {
            let failed = |e: redb::Error| self.shared.database_error(e);
            let table = db
                .begin_read()
                .map_err(|e| failed(e.into()))?
                .open_table(LOG)
                .map_err(|e| failed(e.into()))?;
            for row in table.range(range).map_err(|e| failed(e.into()))? {
                let (index, record) = row.map_err(|e| failed(e.into()))?;
                if tail.first().is_some_and(|(first, _)| *first <= index.value()) {
                    break;
                }
                if decode(index.value(), record.value())? {
                    return Ok(());
                }
            }
            for (index, record) in &tail {
                if decode(*index, record)? {
                    break;
                }
            }
            Ok(())
        };
        from_database().map_err(io::Error::other)?;
        Ok(records.into_values().collect())
    }

    pub(super) fn last_entry(&self) -> io::Result<Option<Entry>> {
        let newest = lock(&self.shared.tail).last_key_value().map(|(index, record)| (*index, record.clone()));
        if let Some((index, record)) = newest {
            return self.shared.decode_entry(index, &record).map(Some).map_err(io::Error::other);
        }
        let failed = |e: redb::Error| io::Error::other(self.shared.database_error(e));
        let db = self.shared.database()?;
        let read = db.begin_read().map_err(|e| failed(e.into()))?;
        let table = read.open_table(LOG).map_err(|e| failed(e.into()))?;
        match table.last().map_err(|e| failed(e.into()))? {
            Some((index, record)) => {
                self.shared.decode_entry(index.value(), record.value()).map(Some).map_err(io::Error::other)
            }
            None => Ok(None),
        }
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        self.read(range, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start..end, READ_BYTES_MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(*lock(&self.shared.vote))
    }
}
