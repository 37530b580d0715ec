//! One directive and the present facts → the next step. Asked again after each step, so it never assumes that an
//! earlier step worked: it looks.
//!
//! Refusals carry both sides' values. Every wait is named and bounded by [`Limits`], and ends in a refusal (nothing was
//! done that could still take effect) or in `Unknown`.

mod adopt;
mod checkpoint;
mod drain;
mod fence;
mod prepare;
mod promote;
mod rejoin;
mod restart;

use regent_types::{Directive, Epoch, Evidence, Grant, Timeline, Upstream};

use crate::{Facts, Mark, Work, check_epoch};

/// What a wait is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// The guard finishes a start, a stop or a job.
    Settle,
    /// The server accepts connections.
    Accepting,
    /// The WAL receiver ends.
    ReceiverGone,
    /// Local WAL is replayed to its end, so that what was received is known.
    ReplayIdle,
    /// A lease for the epoch.
    Lease,
    /// What was received is replayed.
    Replay,
    /// The standby streams.
    Streaming,
    /// The old primary's shutdown ends the stream.
    Drained,
}

/// How long each wait may take, ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// [`Wait::Settle`] and [`Wait::Accepting`].
    pub server_ms: u64,
    /// [`Wait::ReceiverGone`].
    pub receiver_ms: u64,
    /// [`Wait::ReplayIdle`]: over it, the report goes out with what is known.
    pub replay_idle_ms: u64,
    /// [`Wait::Lease`].
    pub lease_ms: u64,
    /// [`Wait::Streaming`], without progress.
    pub streaming_ms: u64,
    /// [`Wait::Streaming`] of a switchover's target that is between two streams when it is asked.
    pub stream_gap_ms: u64,
    /// Without a stream for this long the upstream is asked what it has, again and again.
    pub upstream_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            server_ms: 60_000,
            receiver_ms: 15_000,
            replay_idle_ms: 5_000,
            lease_ms: 60_000,
            streaming_ms: 90_000,
            stream_gap_ms: 2_000,
            upstream_ms: 5_000,
        }
    }
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Persist the highest epoch before obeying.
    PersistEpoch(Epoch),
    /// `fence` at the guard; its answer goes to [`crate::Worked::fenced`].
    GuardFence {
        /// This and below.
        epoch: Epoch,
        /// Fast shutdown first, ms.
        grace_ms: u64,
    },
    /// `close-promises` at the guard.
    ClosePromises {
        /// No promise to this epoch and below from now on.
        epoch: Epoch,
        /// What was promised to them is void.
        void: bool,
    },
    /// Empty `primary_conninfo`, reload if the server runs.
    Detach,
    /// Point `primary_conninfo` and the slot at the upstream, put `standby.signal` there, reload if the server runs.
    Attach(Upstream),
    /// Hand the lease to the guard.
    Grant(Grant),
    /// `start-standby` at the guard.
    StartStandby,
    /// `start-primary` at the guard.
    StartPrimary(Epoch),
    /// Stop the server: fast, and harder when that has failed.
    StopServer,
    /// Kill a job that an earlier run of this agent has left.
    KillJob,
    /// `initdb` into a fresh directory, record the promotion at this epoch, put it in place.
    Initialize(Epoch),
    /// Resume a paused replay.
    ResumeReplay,
    /// Persist that a promotion from this timeline begins.
    BeginPromotion {
        /// The epoch.
        epoch: Epoch,
        /// The timeline now.
        from_timeline: Timeline,
    },
    /// `pg_promote`.
    PromoteServer,
    /// Persist the lineage; the record of how it came stays until the next directive of its kind.
    PersistLineage(Epoch),
    /// Forget the lineage, and every record of how the data came to be.
    Disown,
    /// Roles, slots and the marker schema on a new primary.
    ConfigurePrimary,
    /// Find the end of the stopped server's WAL, into [`crate::Worked::wal_end`].
    MeasureWalEnd(Timeline),
    /// Keep the divergent WAL; recorded in [`crate::AgentView::salvage`].
    Salvage {
        /// Where the history was left.
        branch: regent_types::Branch,
        /// The upstream, which can name what its files are.
        upstream: Upstream,
    },
    /// Persist how the rejoin goes on without changing the data: data fits as it is.
    ChooseRepoint {
        /// The upstream's epoch.
        epoch: Epoch,
        /// The directory is of primary form.
        was_primary: bool,
    },
    /// Ask the upstream where its WAL begins, into [`crate::Worked::upstream`].
    AskUpstream(Upstream),
    /// As `Attach`, and take WAL from the archive too.
    UseArchive(Upstream),
    /// Persist that only a clone will do, and why.
    ChooseClone {
        /// The upstream's epoch.
        epoch: Epoch,
        /// Why.
        reason: String,
    },
    /// Mark, `pg_rewind`; on success record *rewound*, on failure record why a clone follows.
    Rewind {
        /// The source.
        upstream: Upstream,
        /// Budget, ms.
        budget_ms: u64,
    },
    /// Mark, `pg_basebackup` into a fresh directory, put it in place; record *cloned*.
    Clone {
        /// The source.
        upstream: Upstream,
        /// The old directory is not known to be of this cluster, or is not salvaged: it is kept beside, never removed.
        keep_old: bool,
    },
    /// Write and read back the marker row through the name.
    ValidateName {
        /// The name.
        name: String,
        /// The address it must lead to.
        address: String,
        /// The port.
        port: u16,
        /// The epoch written.
        epoch: Epoch,
    },
    /// `CHECKPOINT` on the primary, and a look at whom it streams to, into [`crate::Worked::checkpointed`].
    Checkpoint(Epoch),
    /// `pg_reload_conf()`, with `regent.conf` and `pg_hba.conf` written anew.
    Reload,
    /// Look again soon.
    Wait {
        /// What for.
        wait: Wait,
        /// In words, with numbers.
        why: String,
    },
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Do this, then ask again.
    Step(Step),
    /// It is done.
    Done(Evidence),
    /// Nothing was done and nothing will be.
    Refuse(String),
    /// It may have taken effect.
    Unknown(String),
}

/// The next step of `work`.
pub fn plan(work: &Work, facts: &Facts, limits: &Limits) -> Next {
    let directive = &work.directive;
    let asked = directive.epoch();
    // A late fence of a lower epoch is obeyed when it cannot touch a higher lease: it only closes what is closed.
    let seen = match directive {
        Directive::Fence { .. } => facts.guard.lease_epoch.unwrap_or(Epoch::NONE),
        _ => facts.seen(),
    };
    if let Err(stale) = check_epoch(asked, seen) {
        return Next::Refuse(stale.to_string());
    }
    // The guard persists a fence by itself, and a fence must not wait for the agent's disk.
    if !matches!(directive, Directive::Fence { .. }) && facts.agent.highest_epoch < asked {
        return Next::Step(Step::PersistEpoch(asked));
    }
    match directive {
        Directive::Fence { epoch, grace_ms } => fence::plan(*epoch, *grace_ms, facts),
        Directive::Prepare { fenced, promises_void } => prepare::plan(*fenced, *promises_void, facts, limits),
        Directive::Promote { epoch, instance, initialize, replay_timeout_ms } => {
            let ask = promote::Ask {
                epoch: *epoch,
                instance: *instance,
                initialize: *initialize,
                replay_timeout_ms: *replay_timeout_ms,
            };
            promote::plan(&ask, work, facts, limits)
        }
        Directive::Rejoin { upstream, branches, rewind_timeout_ms } => {
            rejoin::plan(upstream, branches, *rewind_timeout_ms, work, facts, limits)
        }
        Directive::Adopt { epoch, system_id, standby_of } => {
            adopt::adopt(*epoch, *system_id, standby_of.as_ref(), facts, limits)
        }
        Directive::Disown { .. } => adopt::disown(facts),
        Directive::Restart { epoch, primary, reload_only } => {
            let ask = restart::Ask { epoch: *epoch, primary: *primary, reload_only: *reload_only };
            restart::plan(&ask, work, facts, limits)
        }
        Directive::Validate { name, address, port, epoch } => match &facts.worked.validated {
            Some(seen) => Next::Done(Evidence::Validated {
                address: seen.address.clone(),
                elapsed_ms: seen.elapsed_ms,
                connected_ms: Some(seen.connected_ms),
            }),
            None => Next::Step(Step::ValidateName {
                name: name.clone(),
                address: address.clone(),
                port: *port,
                epoch: *epoch,
            }),
        },
        Directive::Checkpoint { epoch } => checkpoint::plan(*epoch, facts),
        Directive::Drain { fenced, timeout_ms } => drain::plan(*fenced, *timeout_ms, facts, limits),
    }
}

/// Time since `wait` began, ms; 0 when it has not.
fn waited_ms(facts: &Facts, wait: Wait) -> u64 {
    let since = facts.worked.waiting_since_ns.get(&wait).copied().unwrap_or(facts.now_ns);
    facts.now_ns.saturating_sub(since) / 1_000_000
}

/// Waits, or gives up after `limit_ms` with `over`.
fn wait_or(facts: &Facts, wait: Wait, limit_ms: u64, why: &str, over: impl FnOnce(String) -> Next) -> Next {
    let waited = waited_ms(facts, wait);
    if waited >= limit_ms {
        let last = facts.worked.error.as_ref().map_or(String::new(), |e| format!("; last error: {e}"));
        return over(format!("{why}: waited {waited} ms, the limit is {limit_ms} ms{last}"));
    }
    Next::Step(Step::Wait { wait, why: why.to_owned() })
}

/// Total time of the directive, ms.
fn elapsed_ms(work: &Work, facts: &Facts) -> u64 {
    facts.now_ns.saturating_sub(work.started_ns) / 1_000_000
}

/// Whether the directory may not be started because it is being rewritten.
fn is_marked(mark: Option<Mark>) -> bool {
    mark.is_some()
}
