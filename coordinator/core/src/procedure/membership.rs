//! Clusters and their configuration. Decides what may be changed while a cluster lives.

use std::collections::{BTreeMap, VecDeque};

use regent_types::{Automation, Epoch};

use super::Change;
use crate::{Cluster, ClusterConfig, ConfigError, EventKind, Rejection, State};

/// Adds a cluster. Its coordinator checked the relation to its own election time-outs; what does not depend on them
/// is checked again here. An existing cluster is not changed: thresholds that one node's file says differently must
/// not change leases in flight.
pub(crate) fn configure(
    state: &mut State,
    change: &mut Change,
    config: &ClusterConfig,
) -> Result<(), Rejection> {
    config.check(0)?;
    if let Some(cluster) = state.clusters.get(&config.name) {
        let problem = format!("the cluster is configured already (epoch {})", cluster.epoch);
        return Err(ConfigError { field: format!("cluster.{}", config.name), problem }.into());
    }
    let cluster = Cluster {
        config: config.clone(),
        automation: config.automation,
        paused_by: None,
        epoch: Epoch::NONE,
        appointment: None,
        fenced_through: Epoch::NONE,
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
    };
    let text = format!("cluster {} with {} members", config.name, config.members.len());
    change.event(&cluster, EventKind::ClusterConfigured, "configuration", None, text);
    state.clusters.insert(config.name.clone(), cluster);
    Ok(())
}
