//! The procedures: one file per concern. They change the state through [`Change`], which collects what happened.

pub(crate) mod adopt;
pub(crate) mod alert;
pub(crate) mod automation;
pub(crate) mod declare;
pub(crate) mod drill;
pub(crate) mod failover;
pub(crate) mod group;
mod guards;
pub(crate) mod import;
pub(crate) mod level;
mod member_changes;
pub(crate) mod members;
pub(crate) mod membership;
pub(crate) mod observe;
pub(crate) mod outcome;
pub(crate) mod parameters;
pub(crate) mod policy;
pub mod precedence;
pub(crate) mod promise;
pub(crate) mod redirect;
pub(crate) mod rejoin;
pub(crate) mod restart;
pub(crate) mod restraint;
pub(crate) mod schedule;
mod steps;
pub(crate) mod switchover;
pub(crate) mod synchronous;

use regent_types::{ClusterName, EffectKey, Epoch, MemberName, OperationId};

use crate::{
    Applied, Cluster, Effect, Event, EventKind, Operation, Position, Proposal, Rejection, State, state,
};

/// What one entry changes, collected while it is applied.
pub(crate) struct Change {
    pub at: Position,
    pub wall_ms: u64,
    events: Vec<Event>,
    effects: Vec<Effect>,
    operation: Option<OperationId>,
    epoch: Epoch,
}

impl Change {
    pub(crate) fn new(at: Position, proposal: &Proposal) -> Self {
        let (events, effects) = (Vec::new(), Vec::new());
        Self { at, wall_ms: proposal.wall_ms, events, effects, operation: None, epoch: Epoch::NONE }
    }

    /// Records an event; its sequence number is given at the end.
    pub(crate) fn event(
        &mut self,
        cluster: &Cluster,
        kind: EventKind,
        rule: &str,
        member: Option<&MemberName>,
        text: String,
    ) {
        self.events.push(Event {
            sequence: 0,
            index: self.at.index,
            wall_ms: self.wall_ms,
            cluster: cluster.config.name.clone(),
            epoch: cluster.epoch,
            kind,
            rule: rule.to_owned(),
            text,
            operation: cluster.operation.as_ref().map(|operation| operation.id),
            member: member.cloned(),
        });
        self.touched(cluster);
    }

    /// Remembers which operation and epoch the entry is about.
    pub(crate) fn touched(&mut self, cluster: &Cluster) {
        self.epoch = cluster.epoch;
        if let Some(operation) = &cluster.operation {
            self.operation = Some(operation.id);
        }
    }

    /// The operation that a repeated request had started.
    pub(crate) fn answered(&mut self, operation: Option<OperationId>) {
        self.operation = operation;
    }

    pub(crate) fn created(&mut self, effect: &Effect) {
        self.effects.push(effect.clone());
    }

    pub(crate) fn finish(self, state: &mut State) -> Applied {
        let mut events = self.events;
        for event in &mut events {
            state.next_event += 1;
            event.sequence = state.next_event;
            state.events.push_back(event.clone());
        }
        while state.events.len() > state::EVENTS_KEPT {
            state.events.pop_front();
        }
        Applied { events, effects: self.effects, operation: self.operation, epoch: self.epoch }
    }
}

/// The cluster, or a rejection.
pub(crate) fn cluster<'s>(state: &'s mut State, name: &ClusterName) -> Result<&'s mut Cluster, Rejection> {
    state.clusters.get_mut(name).ok_or_else(|| Rejection::UnknownCluster { cluster: name.clone() })
}

/// The running operation that owns the effect `key`, and the effect.
pub(crate) fn check_effect<'o>(
    cluster: &'o Cluster,
    key: &EffectKey,
) -> Result<(&'o Operation, &'o Effect), Rejection> {
    let stale = || Rejection::StaleEffect { key: key.clone() };
    let operation = cluster.operation.as_ref().ok_or_else(stale)?;
    let effect = operation.effects.iter().find(|effect| effect.key == *key).ok_or_else(stale)?;
    Ok((operation, effect))
}

/// Rejects a caller that decided on another epoch.
pub(crate) fn check_epoch(cluster: &Cluster, expected: Epoch) -> Result<(), Rejection> {
    if cluster.epoch == expected {
        return Ok(());
    }
    Err(Rejection::StaleEpoch { expected, current: cluster.epoch })
}

/// The running operation of a procedure that has just checked for it.
pub(crate) fn running(cluster: &mut Cluster) -> &mut Operation {
    cluster.operation.as_mut().expect("checked: an operation is running")
}
