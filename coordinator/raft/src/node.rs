//! A running member of the group.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use openraft::{
    BasicNode, ChangeMembers, LinearizerOption,
    async_runtime::watch::WatchReceiver,
    errors::{
        ClientWriteError, ForwardReason, ForwardToLeader, InitializeError, LinearizableReadError, RaftError,
    },
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    ConfirmError, LeadershipChange, LeadershipId, LogPosition, Machine, Options, ProposeError, RaftRpc,
    RaftServiceServer, StartError, Status, TransferError,
    gate::QuorumGate,
    leadership,
    network::Network,
    snapshot::SnapshotFile,
    state_machine::StateMachine,
    status,
    store::{self, LogStore},
    transfer,
    types::{Command, Raft, TypeConfig, position},
};

/// Pause before a proposal is put again to a leader that has not heard its first quorum yet.
const FRESH_LEADER_PAUSE: Duration = Duration::from_millis(10);

/// A leadership that a quorum confirmed after it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmed {
    /// The leadership that was confirmed.
    pub leadership: LeadershipId,
    /// Everything acknowledged before the call is at or below this index, and this node's machine has applied it.
    pub read_index: u64,
}

struct Inner {
    options: Options,
    raft: Raft,
    store: LogStore,
    leadership: watch::Receiver<LeadershipChange>,
    recovered: Arc<AtomicBool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in self.tasks.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).drain(..) {
            task.abort();
        }
    }
}

/// A running member of the group. Clones are the same member; it runs until `shutdown`.
#[derive(Clone)]
pub struct RaftNode {
    inner: Arc<Inner>,
}

impl RaftNode {
    /// Opens the directory, brings `machine` (which must be empty) up to the last known commit, and takes part in the
    /// group from then on. A node whose directory is new founds the group out of the member list, as do all others:
    /// the same first entry everywhere.
    pub async fn start(options: Options, machine: Arc<dyn Machine>) -> Result<RaftNode, StartError> {
        let config = options.check()?;
        let (dir, node, group) = (options.data_dir.clone(), options.node_id, options.group.clone());
        let existing = options.expect_existing;
        let opened = tokio::task::spawn_blocking(move || {
            // The log last: it holds a lock, and whatever fails after it must close it.
            let file = SnapshotFile::open(&dir)?;
            Ok::<_, StartError>((store::open(&dir, node, &group, existing)?, file))
        });
        let recover = |reason: &dyn std::fmt::Display| StartError::Recover {
            dir: options.data_dir.clone(),
            reason: reason.to_string(),
        };
        let (store, file) = opened.await.map_err(|error| recover(&error))??;
        let gate = Arc::new(QuorumGate::new(options.election_timeout_max));
        let raft = Raft::build(
            node,
            Arc::new(config),
            Network::new(options.clone(), gate.clone()),
            store.clone(),
            StateMachine::new(machine, Arc::new(file)),
        )
        .await;
        let raft = match raft {
            Ok(raft) => raft,
            Err(error) => {
                store.close().await;
                return Err(recover(&error));
            }
        };
        gate.watch(raft.metrics());
        raft.run();
        if let Err(error) = found(&raft, &options).await {
            raft.shutdown().await.ok();
            store.close().await;
            return Err(error);
        }
        let (changes, leadership) = watch::channel(LeadershipChange::default());
        let recovered = Arc::new(AtomicBool::new(false));
        let tasks = vec![
            tokio::spawn(leadership::follow(raft.metrics(), changes)),
            tokio::spawn(note_recovery(raft.clone(), recovered.clone())),
        ];
        let tasks = Mutex::new(tasks);
        Ok(RaftNode { inner: Arc::new(Inner { options, raft, store, leadership, recovered, tasks }) })
    }

    /// What the other members call; to be served at this node's address.
    pub fn service(&self) -> RaftServiceServer<RaftRpc> {
        let options = &self.inner.options;
        RaftRpc {
            group: options.group.clone(),
            me: options.node_id,
            members: options.members.keys().copied().collect(),
            join: options.join,
            raft: self.inner.raft.clone(),
        }
        .into_service()
    }

    /// Has `command` replicated and applied, and returns the machine's reply. Cancelling the call does not cancel the
    /// command.
    pub async fn propose(
        &self,
        command: Vec<u8>,
        deadline: Instant,
    ) -> Result<(LogPosition, Vec<u8>), ProposeError> {
        let max = self.inner.options.command_bytes_max;
        if command.len() > max {
            return Err(ProposeError::TooLarge { bytes: command.len(), max });
        }
        loop {
            let write = self.inner.raft.client_write(Command(command.clone()));
            let Ok(result) = timeout_at(deadline, write).await else {
                return Err(ProposeError::Unknown {
                    reason: "no quorum answered before the deadline".into(),
                });
            };
            return match result {
                Ok(done) => Ok((position(&done.log_id), done.data.0)),
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                    // Refused, so not appended, so it may be put again.
                    if self.is_fresh_leader(&forward) && Instant::now() + FRESH_LEADER_PAUSE < deadline {
                        sleep(FRESH_LEADER_PAUSE).await;
                        continue;
                    }
                    Err(ProposeError::NotLeader { leader: forward.leader_id })
                }
                Err(RaftError::APIError(error)) => Err(ProposeError::Unknown { reason: error.to_string() }),
                Err(RaftError::Fatal(error)) => Err(ProposeError::Fatal { reason: error.to_string() }),
            };
        }
    }

    /// Elected so recently that no quorum has answered yet; it will within a round trip, or never.
    fn is_fresh_leader(&self, forward: &ForwardToLeader<TypeConfig>) -> bool {
        let metrics = self.inner.raft.metrics();
        let now = metrics.borrow_watched();
        forward.reason == ForwardReason::LeaseExpired
            && leadership::of(&now).current.is_some()
            && now.last_quorum_acked.is_none()
    }

    /// Proves by one round with a quorum, begun after this call, that this node leads, and waits until its machine has
    /// applied all that had been acknowledged by then. Never answered out of a lease: no clock is trusted.
    pub async fn confirm_leadership(&self, deadline: Instant) -> Result<Confirmed, ConfirmError> {
        let raft = &self.inner.raft;
        let fatal = |error: &dyn std::fmt::Display| ConfirmError::Fatal { reason: error.to_string() };
        let left = || deadline.saturating_duration_since(Instant::now());
        let late = |reason: &str| ConfirmError::NoQuorum { reason: reason.to_string() };
        // Age zero: only an answer to a message that is sent after this point counts (ReadIndex).
        let option = LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(left());
        let round = match timeout_at(deadline, raft.get_read_linearizer(option)).await {
            Err(_) => return Err(late("no quorum answered before the deadline")),
            Ok(Ok(round)) => round,
            Ok(Err(RaftError::Fatal(error))) => return Err(fatal(&error)),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                return Err(ConfirmError::NotLeader { leader: forward.leader_id });
            }
            Ok(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(error)))) => {
                return Err(late(&error.to_string()));
            }
        };
        // The read index is an entry of the very leadership that the round was for.
        let leader = *round.read_log_id().committed_leader_id();
        let read_index = round.read_log_id().index();
        match round.try_await_ready(raft, Some(left())).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(late("the machine did not catch up before the deadline")),
            Err(error) => return Err(fatal(&error)),
        }
        // Asked of openraft's own task, not of the metrics, which trail it.
        let vote = raft.with_raft_state(|state| *state.vote_ref()).await.map_err(|error| fatal(&error))?;
        if vote.leader_id != leader || !vote.committed || leader.node_id != self.inner.options.node_id {
            let leader = vote.committed.then_some(vote.leader_id.node_id);
            return Err(ConfirmError::NotLeader {
                leader: leader.filter(|node| *node != self.inner.options.node_id),
            });
        }
        Ok(Confirmed { leadership: LeadershipId { term: leader.term, node: leader.node_id }, read_index })
    }

    /// Changes of leadership. A watcher that was slow sees the last one only; two leaderships of this node still differ.
    pub fn leadership(&self) -> watch::Receiver<LeadershipChange> {
        self.inner.leadership.clone()
    }

    /// This node at a glance.
    pub fn status(&self) -> Status {
        let recovered = self.inner.recovered.load(Ordering::Relaxed);
        status::of(&self.inner.raft.metrics().borrow_watched(), recovered)
    }

    /// Waits until the machine has applied all that was committed before this node's start. Before that its state may
    /// lie behind what this very node showed earlier. False at the deadline.
    pub async fn recovered(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        self.inner.raft.wait_for_recovery(Some(left)).await.is_ok()
    }

    /// Waits until the node has stopped, and says why. Its process should then end: it will not work again.
    pub async fn stopped(&self) -> String {
        let mut metrics = self.inner.raft.metrics();
        loop {
            if let Err(error) = &metrics.borrow_watched().running_state {
                return error.to_string();
            }
            if metrics.changed().await.is_err() {
                return "its task has ended".to_string();
            }
        }
    }

    /// Hands the leadership to `to`, which must have every entry. Proposals are refused meanwhile. At an overdue
    /// hand-over somebody is elected.
    pub async fn transfer_leader(&self, to: u64, deadline: Instant) -> Result<(), TransferError> {
        let raft = self.inner.raft.clone();
        let heartbeat = self.inner.options.heartbeat_interval;
        let task = tokio::spawn(transfer::transfer(raft, to, deadline, heartbeat));
        task.await.unwrap_or_else(|error| Err(TransferError::Fatal { reason: error.to_string() }))
    }

    /// Who votes and who only learns, as far as this node knows.
    pub fn membership(&self) -> GroupMembership {
        let metrics = self.inner.raft.metrics();
        let now = metrics.borrow_watched();
        let membership = now.membership_config.membership();
        GroupMembership {
            voters: membership.voter_ids().collect(),
            learners: membership.learner_ids().collect(),
            joint: membership.get_joint_config().len() > 1,
        }
    }

    /// Has the leader feed the log to a node that does not vote yet. Done again it changes nothing.
    pub async fn add_learner(&self, node: u64, address: &str, deadline: Instant) -> Result<(), ProposeError> {
        let added = self.inner.raft.add_learner(node, BasicNode::new(address), false);
        changed(timeout_at(deadline, added).await)
    }

    /// Has these vote and nobody else, by joint consensus. New ones must be learners that have caught up; who is left out is
    /// out of the group.
    pub async fn set_voters(&self, voters: BTreeSet<u64>, deadline: Instant) -> Result<(), ProposeError> {
        changed(timeout_at(deadline, self.inner.raft.change_membership(voters, false)).await)
    }

    /// Has a learner fed no more.
    pub async fn remove_learner(&self, node: u64, deadline: Instant) -> Result<(), ProposeError> {
        let change = ChangeMembers::RemoveNodes(BTreeSet::from([node]));
        changed(timeout_at(deadline, self.inner.raft.change_membership(change, false)).await)
    }

    /// Leaves the group to itself, writes what is to be written and lets go of the directory.
    pub async fn shutdown(&self) {
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "raft did not end well");
        }
        self.inner.store.close().await;
    }
}

/// Who votes and who learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMembership {
    /// Every voter, of both sets while a change is half done.
    pub voters: BTreeSet<u64>,
    /// Fed without a vote.
    pub learners: BTreeSet<u64>,
    /// A change is half done.
    pub joint: bool,
}

/// What came of a change of the membership.
fn changed<T>(
    result: Result<
        Result<T, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>,
        tokio::time::error::Elapsed,
    >,
) -> Result<(), ProposeError> {
    match result {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
            Err(ProposeError::NotLeader { leader: forward.leader_id })
        }
        Ok(Err(RaftError::APIError(error))) => Err(ProposeError::Unknown { reason: error.to_string() }),
        Ok(Err(RaftError::Fatal(error))) => Err(ProposeError::Fatal { reason: error.to_string() }),
        Err(_) => Err(ProposeError::Unknown { reason: "not done before the deadline".into() }),
    }
}

/// Founds the group on a new directory; on an old one checks that it was founded by the same members.
async fn found(raft: &Raft, options: &Options) -> Result<(), StartError> {
    let recover = |reason: &dyn std::fmt::Display| StartError::Recover {
        dir: options.data_dir.clone(),
        reason: reason.to_string(),
    };
    if options.join {
        // Founding a group here would be a second one of the same name, with votes of its own.
        return Ok(());
    }
    if !raft.is_initialized().await.map_err(|error| recover(&error))? {
        let members = options
            .members
            .iter()
            .map(|(node, address)| (*node, BasicNode::new(&address.raft_addr)))
            .collect::<std::collections::BTreeMap<_, _>>();
        match raft.initialize(members).await {
            Ok(()) => {}
            // The others were faster: they founded it, and this node has heard of it.
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
            Err(error) => return Err(recover(&error)),
        }
    }
    let metrics = raft.metrics();
    let now = metrics.borrow_watched();
    let stored: Vec<u64> = now.membership_config.membership().voter_ids().collect();
    let configured: Vec<u64> = options.members.keys().copied().collect();
    // Later members were counted in by a leader; the configuration names those that this node knew at its start.
    let founding = now.membership_config.log_id().as_ref().is_none_or(|id| id.index() == 0);
    if founding && !stored.is_empty() && stored != configured {
        return Err(StartError::Members { dir: Path::new(&options.data_dir).into(), configured, stored });
    }
    Ok(())
}

async fn note_recovery(raft: Raft, recovered: Arc<AtomicBool>) {
    if raft.wait_for_recovery(None).await.is_ok() {
        recovered.store(true, Ordering::Relaxed);
    }
}
