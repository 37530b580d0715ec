//! `apply`: dispatch only. Every decision is in `procedure`, every rise of an epoch in `authority`.

use regent_types::{Epoch, OperationId};
use serde::{Deserialize, Serialize};

use crate::{
    Body, Effect, Event, Position, Proposal, Rejection, RequestKind, State, invariant, procedure, promotable,
};

/// What an accepted proposal changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// What has changed.
    pub events: Vec<Event>,
    /// New effects.
    pub effects: Vec<Effect>,
    /// The operation that it started or belongs to.
    pub operation: Option<OperationId>,
    /// The cluster's epoch afterwards.
    pub epoch: Epoch,
}

/// What `apply` answers to the proposer.
pub type Reply = Result<Applied, Rejection>;

impl State {
    /// Applies one entry. A rejection changes nothing but `applied_index`.
    pub fn apply(&mut self, at: Position, proposal: &Proposal) -> Reply {
        assert!(at.index > self.applied_index, "entries are applied once and in order");
        self.applied_index = at.index;
        let mut change = procedure::Change::new(at, proposal);
        if !matches!(proposal.body, Body::RaiseLevel { .. }) {
            procedure::level::check(self, proposal.body.level())?;
        }
        let reply = match &proposal.body {
            Body::RaiseLevel { level } => procedure::level::raise(self, *level),
            Body::Configure(config) => procedure::membership::configure(self, &mut change, config),
            Body::Declare(declare) => procedure::declare::declare(self, &mut change, declare),
            Body::Request(request) => match &request.kind {
                RequestKind::Failover { .. } => {
                    procedure::declare::request_failover(self, &mut change, request)
                }
                RequestKind::Drill { .. } => procedure::drill::request(self, &mut change, request),
                RequestKind::Restart { .. } => procedure::restart::request(self, &mut change, request),
                RequestKind::Pause => procedure::automation::pause(self, &mut change, request),
                RequestKind::Resume => procedure::automation::resume(self, &mut change, request),
                RequestKind::Switchover { to, readiness } => {
                    procedure::switchover::request(self, &mut change, request, to.as_ref(), false, readiness)
                }
                RequestKind::Failback { readiness } => {
                    procedure::switchover::request(self, &mut change, request, None, true, readiness)
                }
                RequestKind::Schedule { to, at_wall_ms } => {
                    procedure::schedule::schedule(self, &mut change, request, to.as_ref(), *at_wall_ms)
                }
                RequestKind::Abort => procedure::switchover::abort(self, &mut change, request),
                RequestKind::AssumeFenced => procedure::failover::assume_fenced(self, &mut change, request),
                RequestKind::SetAutomation { automation } => {
                    procedure::automation::set_mode(self, &mut change, request, *automation)
                }
                RequestKind::Acknowledge => procedure::restraint::acknowledge(self, &mut change, request),
                RequestKind::Approve { evidence, readiness } => {
                    procedure::restraint::approve(self, &mut change, request, evidence, readiness)
                }
                RequestKind::SetParameters { set, unset } => {
                    procedure::parameters::set(self, &mut change, request, set, unset)
                }
                RequestKind::SetPolicy { .. } => procedure::policy::set(self, &mut change, request),
                RequestKind::AddMember { .. }
                | RequestKind::RemoveMember { .. }
                | RequestKind::SetMember { .. } => procedure::members::request(self, &mut change, request),
            },
            Body::FenceProven { key, proof, candidates } => {
                procedure::failover::fence_proven(self, &mut change, key, proof, candidates)
            }
            Body::CandidatesReported { key, acknowledged, candidates } => {
                procedure::failover::candidates_reported(
                    self,
                    &mut change,
                    key,
                    acknowledged.as_ref(),
                    candidates,
                )
            }
            Body::Outcome { key, outcome } => procedure::outcome::outcome(self, &mut change, key, outcome),
            Body::StepOverdue { cluster, operation, step, epoch, after_ms } => {
                procedure::outcome::overdue(self, &mut change, cluster, *operation, *step, *epoch, *after_ms)
            }
            Body::SwitchoverDue { cluster, at_wall_ms, expired, readiness } => {
                procedure::schedule::due(self, &mut change, cluster, *at_wall_ms, *expired, readiness)
            }
            Body::FailbackReady { cluster, expected_epoch, target, readiness } => {
                procedure::schedule::failback_ready(
                    self,
                    &mut change,
                    cluster,
                    *expected_epoch,
                    target,
                    readiness,
                )
            }
            Body::SyncConfirmed { cluster, member, epoch, received_lsn } => {
                procedure::rejoin::sync_confirmed(self, &mut change, cluster, member, *epoch, *received_lsn)
            }
            Body::CooldownOver { cluster, operation, counted_ms } => {
                procedure::restraint::cooldown_over(self, &mut change, cluster, *operation, *counted_ms)
            }
            Body::Vetoed { cluster, epoch, reason } => {
                procedure::restraint::vetoed(self, &mut change, cluster, *epoch, reason)
            }
            Body::EventsTold { through } => {
                self.events_told = self.events_told.max((*through).min(self.next_event));
                Ok(())
            }
            Body::Drill { cluster, operation, news } => {
                procedure::drill::news(self, &mut change, cluster, *operation, news)
            }
            Body::Observed { cluster, sighting } => {
                procedure::observe::sighting(self, &mut change, cluster, sighting)
            }
            Body::Withdraw { cluster, epoch, found } => {
                procedure::restraint::withdraw(self, &mut change, cluster, *epoch, found)
            }
            Body::LeasesSettled { cluster, index } => {
                procedure::policy::settled(self, &mut change, cluster, *index)
            }
            Body::MembersAcknowledged { cluster, member, version } => {
                procedure::members::acknowledged(self, &mut change, cluster, member, *version)
            }
            Body::Group(request) => procedure::group::request(self, &mut change, request),
            Body::GroupNews(news) => procedure::group::news(self, &mut change, news),
            Body::Alert { cluster, member, kind, text } => {
                procedure::alert::alert(self, &mut change, cluster, member, *kind, text.as_ref())
            }
            Body::ImportAcknowledged { cluster, member, group, said, succeeds } => {
                procedure::import::acknowledged(self, &mut change, cluster, member, *group, said, succeeds)
            }
            Body::PromotableAcknowledged { cluster, epoch, instance, version } => {
                procedure::promise::acknowledged(self, &mut change, cluster, *epoch, *instance, *version)
            }
            Body::SynchronousSet { cluster, epoch, version, set, why } => {
                procedure::synchronous::set(self, &mut change, cluster, *epoch, *version, set.as_ref(), why)
            }
            Body::SynchronousProven { cluster, epoch, version, since_lsn, received } => {
                let since_lsn = *since_lsn;
                procedure::synchronous::proven(
                    self,
                    &mut change,
                    cluster,
                    *epoch,
                    *version,
                    since_lsn,
                    received,
                )
            }
            Body::SynchronousLost { cluster, epoch, version, found } => {
                procedure::synchronous::lost(self, &mut change, cluster, *epoch, *version, found)
            }
        };
        reply?;
        promotable::follow(self.clusters.values_mut());
        invariant::check(self);
        Ok(change.finish(self))
    }

    /// An entry that carries no proposal was passed. Its index counts: a grant needs everything up to the read index.
    pub fn pass(&mut self, at: Position) {
        assert!(at.index >= self.applied_index, "entries are passed once and in order");
        self.applied_index = at.index;
    }

    /// What applying `proposal` next would answer, without changing anything.
    pub fn dry_run(&self, under: crate::Leadership, proposal: &Proposal) -> Reply {
        let at = Position { index: self.applied_index + 1, leadership: under };
        self.clone().apply(at, proposal)
    }
}
