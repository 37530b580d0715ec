//! A PostgreSQL server as far as Regent depends on it: WAL with timelines, recovery, promotion, streams, clean and unclean
//! ends. A record is written once it is flushed; what was not flushed is not modelled, because nobody was told of it.
//!
//! Timelines are judged as PostgreSQL judges them: by number and position, never by content. So a wrong judgement of
//! Regent's about a history makes a corrupt standby here as it would there, and an invariant sees it.

use regent_types::{Lsn, SystemId, Timeline};

/// Bytes of a record.
const RECORD_BYTES: u64 = 0x100;
const FIRST_LSN: u64 = 0x100_0000;

/// What is in the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// A client's write.
    Write(u32),
    /// A shutdown checkpoint.
    Shutdown,
    /// The first record of a timeline; the number is the run's, so that two timelines of one number differ.
    Timeline(u64),
}

/// A data directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Data {
    /// Made by `initdb`; 0 is an empty directory.
    pub system_id: u64,
    /// Flushed records, with the timeline of each.
    pub wal: Vec<Record>,
    /// Where each timeline began, oldest first.
    pub history: Vec<(u32, usize)>,
    /// Replayed records.
    pub replayed: usize,
    /// `standby.signal`.
    pub standby: bool,
    /// Whom it streams from, by host.
    pub upstream: Option<String>,
    /// Shut down cleanly.
    pub clean: bool,
}

/// The position after so many records.
pub fn lsn(records: usize) -> Lsn {
    Lsn(FIRST_LSN + records as u64 * RECORD_BYTES)
}

/// The number of records up to a position.
pub fn records(lsn: Lsn) -> usize {
    usize::try_from(lsn.0.saturating_sub(FIRST_LSN) / RECORD_BYTES).unwrap_or(usize::MAX)
}

impl Data {
    /// After `initdb`.
    pub fn fresh(system_id: u64) -> Self {
        Self { system_id, history: vec![(1, 0)], clean: true, ..Self::default() }
    }

    /// Nothing there.
    pub fn is_empty(&self) -> bool {
        self.system_id == 0
    }

    /// For reports.
    pub fn system(&self) -> Option<SystemId> {
        (!self.is_empty()).then_some(SystemId(self.system_id))
    }

    /// The newest timeline known here.
    pub fn timeline(&self) -> Option<Timeline> {
        self.history.last().map(|(timeline, _)| Timeline(*timeline))
    }

    /// Where the newest timeline left its parent.
    pub fn switch_lsn(&self) -> Option<Lsn> {
        self.history.last().filter(|_| self.history.len() > 1).map(|(_, from)| lsn(*from))
    }

    /// The end of the WAL.
    pub fn end(&self) -> Lsn {
        lsn(self.wal.len())
    }

    /// The latest checkpoint as `pg_control` names it: a clean shutdown's record, or long ago.
    pub fn checkpoint(&self) -> Option<Lsn> {
        if self.is_empty() {
            return None;
        }
        let shut_down = self.clean && self.wal.last() == Some(&Record::Shutdown);
        Some(lsn(if shut_down { self.wal.len() - 1 } else { self.wal.len().saturating_sub(8) }))
    }

    /// Whether PostgreSQL would stream from `upstream` into this directory: the timelines fit by number and position.
    pub fn can_follow(&self, upstream: &Data) -> bool {
        if self.system_id != upstream.system_id {
            return false;
        }
        let Some((own, _)) = self.history.last() else { return false };
        let Some(at) = upstream.history.iter().position(|(timeline, _)| timeline == own) else {
            return false;
        };
        match upstream.history.get(at + 1) {
            // It left this timeline: only up to there.
            Some((_, left)) => self.wal.len() <= *left,
            None => self.wal.len() <= upstream.wal.len(),
        }
    }

    /// Takes what the upstream has more.
    pub fn receive(&mut self, upstream: &Data, most: usize) {
        let from = self.wal.len();
        let to = upstream.wal.len().min(from + most);
        self.wal.extend_from_slice(&upstream.wal[from..to]);
        let known = self.history.last().map_or(0, |(timeline, _)| *timeline);
        let newer = upstream.history.iter().skip_while(|(timeline, _)| *timeline != known).skip(1);
        self.history.extend(newer.filter(|(_, from)| *from <= to).copied());
    }

    /// Whether the upstream's WAL begins with all of this one's, judged by content: what nobody in the deployment can see.
    pub fn is_part_of(&self, other: &Data) -> bool {
        other.wal.len() >= self.wal.len() && other.wal[..self.wal.len()] == self.wal[..]
    }

    /// The records from which on this WAL differs from the other's.
    pub fn divergent_from(&self, other: &Data) -> usize {
        self.wal.iter().zip(&other.wal).take_while(|(own, theirs)| own == theirs).count()
    }

    /// The writes from a position on.
    pub fn writes_from(&self, records: usize) -> impl Iterator<Item = u32> + '_ {
        self.wal.iter().skip(records).filter_map(|record| match record {
            Record::Write(id) => Some(*id),
            _ => None,
        })
    }
}

/// How a server is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// A checkpoint, and every stream confirms it.
    Fast,
    /// At once, without a checkpoint.
    Immediate,
    /// By the kernel.
    Kill,
}

/// A running server.
#[derive(Debug, Clone)]
pub struct Server {
    /// Counts the starts on this host.
    pub run: u64,
    /// Its epoch, if it was started or promoted as a primary: for the invariants only.
    pub epoch: u64,
    /// It accepts connections from then on, world ns.
    pub ready_ns: u64,
    /// In recovery.
    pub in_recovery: bool,
    /// `pg_promote` was called.
    pub promoting: bool,
    /// It stops, in this way, since then.
    pub stopping: Option<(Stop, u64)>,
    /// Dead at that instant at the latest.
    pub dies_ns: Option<u64>,
    /// The receiver streams.
    pub streaming: bool,
}

impl Server {
    /// Accepts connections.
    pub fn is_accepting(&self, now_ns: u64) -> bool {
        now_ns >= self.ready_ns && self.stopping.is_none()
    }

    /// Could commit a client's write now. One that dies still can, until it is dead.
    pub fn is_writable(&self, now_ns: u64) -> bool {
        let gentle = matches!(self.stopping, Some((Stop::Fast | Stop::Immediate, _)));
        !self.in_recovery && now_ns >= self.ready_ns && !gentle
    }
}
