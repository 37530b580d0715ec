//! Between openraft and the [`Machine`]: hands over committed commands in order, takes and installs snapshots.
//!
//! Membership and position of the last applied entry are kept here, never in the machine.

use std::{io, sync::Arc};

use futures::{Stream, TryStreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    entry::RaftEntry,
    storage::{EntryResponder, RaftStateMachine},
};

use crate::{
    Machine,
    snapshot::SnapshotFile,
    types::{LogId, Membership, Reply, Snapshot, SnapshotMeta, TypeConfig, position},
};

pub(crate) struct StateMachine {
    machine: Arc<dyn Machine>,
    file: Arc<SnapshotFile>,
    last_applied: Option<LogId>,
    membership: Membership,
}

impl StateMachine {
    pub(crate) fn new(machine: Arc<dyn Machine>, file: Arc<SnapshotFile>) -> Self {
        Self { machine, file, last_applied: None, membership: Membership::default() }
    }
}

/// A snapshot taken and not yet on disk.
pub(crate) struct SnapshotBuilder {
    file: Arc<SnapshotFile>,
    meta: SnapshotMeta,
    state: Vec<u8>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let state = std::mem::take(&mut self.state);
        save(self.file.clone(), self.meta.clone(), state).await
    }
}

async fn save(file: Arc<SnapshotFile>, meta: SnapshotMeta, state: Vec<u8>) -> io::Result<Snapshot> {
    let saved = tokio::task::spawn_blocking(move || {
        file.save(&meta, &state).map(|()| Snapshot { meta, snapshot: state })
    });
    saved.await.map_err(io::Error::other)?.map_err(io::Error::other)
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, Membership)> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let id = entry.log_id();
            let reply = match entry.payload {
                EntryPayload::Blank => {
                    self.machine.passed(position(&id));
                    Vec::new()
                }
                EntryPayload::Normal(command) => {
                    self.machine.apply(position(&id), &command.0).map_err(|reason| {
                        let at = position(&id);
                        io::Error::other(format!("the machine cannot apply the entry at {at}: {reason}"))
                    })?
                }
                EntryPayload::Membership(members) => {
                    self.membership = Membership::new(Some(id), members);
                    self.machine.passed(position(&id));
                    Vec::new()
                }
            };
            self.last_applied = Some(id);
            if let Some(responder) = responder {
                responder.send(Reply(reply));
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            file: self.file.clone(),
            meta: SnapshotMeta { last_log_id: self.last_applied, last_membership: self.membership.clone() },
            state: self.machine.snapshot(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, state: Vec<u8>) -> io::Result<()> {
        let at = meta.last_log_id.as_ref().map(position);
        // First the machine: a snapshot that it refuses must not become what the next start depends on.
        self.machine.restore(at, &state).map_err(|reason| {
            let at = at.map_or("the beginning".to_string(), |at| at.to_string());
            io::Error::other(format!("the machine refuses the snapshot that ends at {at}: {reason}"))
        })?;
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        save(self.file.clone(), meta.clone(), state).await.map(|_| ())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let file = self.file.clone();
        let read = tokio::task::spawn_blocking(move || file.read());
        read.await.map_err(io::Error::other)?.map_err(io::Error::other)
    }
}
