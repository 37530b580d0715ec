//! Clusters: how they come, by configuration or by request, and how they are forgotten.
//!
//! Epochs never go back, also over the end of a cluster: one that is created under a forgotten name goes on from the last
//! epoch, and only once no lease of the forgotten one can be valid.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use regent_types::{Automation, ClusterName, Epoch, SystemId};

use super::Change;
use crate::{
    Adoption, Cluster, ClusterConfig, ConfigError, EventKind, Forgotten, GroupRequest, Rejection, State,
};

/// Adds a cluster. Its coordinator checked the relation to its own election time-outs; what does not depend on them
/// is checked again here. An existing cluster is not changed: thresholds that one node's file says differently must
/// not change leases in flight. A forgotten one does not come back because a file still names it.
pub(crate) fn configure(
    state: &mut State,
    change: &mut Change,
    config: &ClusterConfig,
) -> Result<(), Rejection> {
    if let Some(forgotten) = state.forgotten.get(&config.name) {
        let problem = format!("the cluster was forgotten at epoch {} ({})", forgotten.epoch, forgotten.by);
        return Err(ConfigError { field: format!("cluster.{}", config.name), problem }.into());
    }
    begin(state, change, config, 0, None, "configuration")
}

/// An operator adds a cluster.
pub(crate) fn create(
    state: &mut State,
    change: &mut Change,
    request: &GroupRequest,
    config: &ClusterConfig,
    election_worst_ms: u64,
    adopt: Option<SystemId>,
) -> Result<(), Rejection> {
    if let Some(forgotten) = state.forgotten.get(&config.name).filter(|forgotten| !forgotten.settled) {
        let bound_ms = forgotten.terms.bound_ns().div_ceil(1_000_000);
        return Err(Rejection::StillLeased {
            cluster: config.name.clone(),
            epoch: forgotten.epoch,
            bound_ms,
        });
    }
    let rule = format!("{}: {}", request.actor, request.reason);
    begin(state, change, config, election_worst_ms, adopt, &rule)?;
    state.forgotten.remove(&config.name);
    Ok(())
}

pub(super) fn begin(
    state: &mut State,
    change: &mut Change,
    config: &ClusterConfig,
    election_worst_ms: u64,
    adopt: Option<SystemId>,
    by: &str,
) -> Result<(), Rejection> {
    config.check(election_worst_ms)?;
    if let Some(cluster) = state.clusters.get(&config.name) {
        let problem = format!("the cluster is configured already (epoch {})", cluster.epoch);
        return Err(ConfigError { field: format!("cluster.{}", config.name), problem }.into());
    }
    if let Some(other) = state.clusters.values().find(|other| other.config.dns_name == config.dns_name) {
        let problem = format!("{:?} is the name of cluster {} already", config.dns_name, other.config.name);
        return Err(ConfigError { field: format!("cluster.{}.dns_name", config.name), problem }.into());
    }
    let epoch = state.forgotten.get(&config.name).map_or(Epoch::NONE, |forgotten| forgotten.epoch);
    let standbys: BTreeSet<_> =
        config.members.keys().filter(|member| **member != config.initial_primary).cloned().collect();
    let cluster = Cluster {
        config: config.clone(),
        automation: config.automation,
        paused_by: None,
        epoch,
        appointment: None,
        fenced_through: epoch,
        history: Vec::new(),
        sync: BTreeMap::new(),
        record: None,
        operation: None,
        finished: VecDeque::new(),
        next_operation: 0,
        requests: VecDeque::new(),
        resumed: match config.automation {
            Automation::Paused => Automation::Automatic,
            mode => mode,
        },
        cooldown: None,
        pending: None,
        membership: Default::default(),
        lease_in_flight: None,
        adoption: adopt.map(|system_id| Adoption { system_id, standbys }),
        alerts: Vec::new(),
        scheduled: None,
        pending_failback: None,
        promotable: crate::PromotableList::default(),
        parameters: crate::Parameters::default(),
        rehearsal: None,
        observed: None,
        import: None,
        synchronous: crate::Synchronous::default(),
    };
    let how = match adopt {
        Some(system_id) => format!(", taking over running servers of system {system_id}"),
        None => String::new(),
    };
    let text = format!("cluster {} with {} members{how} ({by})", config.name, config.members.len());
    change.event(&cluster, EventKind::ClusterConfigured, "configuration", None, text);
    state.clusters.insert(config.name.clone(), cluster);
    Ok(())
}

/// An operator takes a cluster out of the group.
pub(crate) fn forget(
    state: &mut State,
    change: &mut Change,
    request: &GroupRequest,
    name: &ClusterName,
    expected_epoch: Epoch,
    primary_silent_ms: Option<u64>,
    consent: bool,
) -> Result<(), Rejection> {
    let cluster = super::cluster(state, name)?;
    super::check_epoch(cluster, expected_epoch)?;
    // Fenced is not enough: the proof may still be awaited, or be an expiry that a promise outlasts.
    let promises = cluster.config.policy.promise_ms > 0;
    let unproved = cluster.appointment.as_ref().filter(|_| !cluster.promises_void());
    if let Some(appointment) = unproved.filter(|_| !consent) {
        let needed_ms = cluster.lease_bound_ns().div_ceil(1_000_000);
        let silent_ms = primary_silent_ms.unwrap_or(0);
        if silent_ms < needed_ms {
            let (cluster, primary) = (name.clone(), appointment.member.clone());
            return Err(Rejection::LivePrimary { cluster, primary, silent_ms, needed_ms });
        }
        let others = cluster.config.members.iter().any(|(m, c)| c.promotable && *m != appointment.member);
        if others && promises {
            let (cluster, primary) = (name.clone(), appointment.member.clone());
            return Err(Rejection::MayRunOnPromises { cluster, primary });
        }
    }
    let exception = match unproved.filter(|_| consent) {
        Some(appointment) => {
            format!("EXCEPTION TO PROMISE 1: {} is taken for fenced by consent; ", appointment.member)
        }
        None => String::new(),
    };
    let by = format!("{}: {}", request.actor, request.reason);
    let flight = cluster.lease_in_flight.map(|flight| flight.terms);
    let terms = flight.into_iter().chain([cluster.config.policy.lease]).max_by_key(|terms| terms.bound_ns());
    let forgotten = Forgotten {
        epoch: cluster.epoch,
        terms: terms.unwrap_or(cluster.config.policy.lease),
        index: change.at.index,
        settled: false,
        by: by.clone(),
        wall_ms: change.wall_ms,
    };
    let cluster = state.clusters.remove(name).expect("found above");
    let text = format!("{exception}cluster {name} is forgotten at epoch {} ({by})", cluster.epoch);
    change.event(&cluster, EventKind::ClusterForgotten, "configuration", None, text);
    state.forgotten.insert(name.clone(), forgotten);
    Ok(())
}
