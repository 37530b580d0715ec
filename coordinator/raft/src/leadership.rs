//! Who leads, as this node sees it, for those who must act on a change.
//!
//! To be seen as leader here is no authority, it says only whom to ask for a confirmation. What it does promise: two
//! leaderships of this node are never taken for one, also when it was re-elected so fast that nobody saw the gap,
//! because their terms differ.

use openraft::{ServerState, async_runtime::watch::WatchReceiver, type_config::alias::WatchReceiverOf};
use tokio::sync::watch;

use crate::{
    LeadershipId,
    types::{Metrics, TypeConfig, leadership},
};

/// The state of leadership at this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeadershipChange {
    /// This node's own leadership, when it was elected and knows of no successor.
    pub current: Option<LeadershipId>,
    /// Who leads, as far as this node knows.
    pub leader: Option<u64>,
}

pub(crate) fn of(metrics: &Metrics) -> LeadershipChange {
    let vote = &metrics.vote;
    let leads = metrics.state == ServerState::Leader
        && vote.committed
        && vote.leader_id.node_id == metrics.id
        && metrics.running_state.is_ok();
    LeadershipChange {
        current: leads.then(|| leadership(&vote.leader_id)),
        leader: metrics.current_leader.filter(|_| metrics.running_state.is_ok()),
    }
}

/// Follows openraft until it ends; then nobody leads here.
pub(crate) async fn follow(
    mut metrics: WatchReceiverOf<TypeConfig, Metrics>,
    changes: watch::Sender<LeadershipChange>,
) {
    loop {
        let now = of(&metrics.borrow_watched());
        changes.send_if_modified(|last| {
            let changed = *last != now;
            if changed {
                tracing::info!(current = ?now.current, leader = ?now.leader, "leadership changed");
                *last = now;
            }
            changed
        });
        if metrics.changed().await.is_err() {
            changes.send_if_modified(|last| std::mem::take(last) != LeadershipChange::default());
            return;
        }
    }
}
