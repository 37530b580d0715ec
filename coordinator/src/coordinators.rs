//! Brings Raft's membership and the replicated records of the coordinators together, on the leader; and makes a coordinator
//! that was removed stop for good.
//!
//! Decides nothing about who should vote: the core did. One step at a time, each safe to repeat, so that a new leader goes on
//! where the last one died: a learner first, a vote when it has everything, the record when Raft counts it. Interleaving to
//! fear: a removed coordinator comes back with its old log and is not told; it has no vote in any membership since, and
//! Pre-Vote keeps it from raising the term. It is told once a second all the same, and writes it down.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use regent_core::{Body, Group, GroupNews, Standing};
use regent_types::CoordinatorId;

use crate::{config::Peer, node::Node};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(500);
/// Longest wait for one change of the membership.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// A learner that lacks no more than this gets its vote: the rest comes with the change itself.
const LAG_ENTRIES_MAX: u64 = 20;

/// Every coordinator but the removed ones: the file's, with its own addresses, and those that were added since.
pub fn known(node: &Node, group: &Group) -> BTreeMap<CoordinatorId, Peer> {
    let mut all = node.config.peers.clone();
    for (id, one) in &group.coordinators {
        if one.standing == Standing::Removed {
            all.remove(id);
        } else {
            all.entry(*id)
                .or_insert_with(|| Peer { region: one.region.clone(), address: one.address.clone() });
        }
    }
    all
}

/// Keeps the connections to the others in step with the records.
pub async fn follow(node: Arc<Node>) {
    let mut changes = node.shared.changes();
    let mut seen = None;
    loop {
        changes.borrow_and_update();
        let (version, known, removed) = {
            let inner = node.shared.lock();
            let group = &inner.state.group;
            let removed = group.coordinators.iter().filter(|(_, one)| one.standing == Standing::Removed);
            let removed: BTreeMap<_, _> = removed.map(|(id, one)| (*id, one.address.clone())).collect();
            (group.version, known(&node, group), removed)
        };
        if seen != Some(version) {
            node.peers.set(node.config.node_id, &known, &removed, &node.config);
            seen = Some(version);
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// The leader's part.
pub async fn reconcile(node: Arc<Node>) {
    loop {
        node.clock.sleep(INTERVAL).await;
        if node.led.borrow().is_none() {
            continue;
        }
        if let Err(reason) = step(&node).await {
            tracing::warn!(reason, "the coordinators are not as they should be yet");
        }
    }
}

async fn step(node: &Node) -> Result<(), String> {
    let group = node.shared.lock().state.group.clone();
    let raft = &node.raft;
    let membership = raft.membership();
    let deadline = node.clock.deadline(CHANGE_TIMEOUT);
    if group.coordinators.is_empty() {
        return found(node, &membership.voters.iter().copied().collect::<Vec<_>>()).await;
    }
    let unsettled = group
        .coordinators
        .iter()
        .find(|(_, one)| matches!(one.standing, Standing::Joining | Standing::Leaving));
    let Some((id, one)) = unsettled else { return Ok(()) };
    let (is_voter, is_learner) = (membership.voters.contains(&id.0), membership.learners.contains(&id.0));
    let said = |error: regent_raft::ProposeError| format!("coordinator {id}: {error}");
    let mut voters = membership.voters.clone();
    match one.standing {
        Standing::Joining if is_voter && !membership.joint => {
            propose(node, GroupNews::Joined { id: *id }).await
        }
        Standing::Joining if is_voter || is_learner => {
            let status = raft.status();
            let matched = status.followers.get(&id.0).and_then(|follower| follower.matched_index);
            let behind = status.last_index.unwrap_or(0).saturating_sub(matched.unwrap_or(0));
            if !is_voter && (matched.is_none() || behind > LAG_ENTRIES_MAX) {
                tracing::info!(%id, behind, ?matched, "a coordinator is catching up");
                return Ok(());
            }
            voters.insert(id.0);
            tracing::info!(%id, ?voters, "a coordinator gets its vote");
            raft.set_voters(voters, deadline).await.map_err(said)
        }
        Standing::Joining => {
            tracing::info!(%id, address = one.address, "a coordinator is fed the log");
            raft.add_learner(id.0, &one.address, deadline).await.map_err(said)
        }
        Standing::Leaving if *id == node.config.node_id => hand_over(node).await,
        Standing::Leaving if is_voter || membership.joint => {
            voters.remove(&id.0);
            tracing::info!(%id, ?voters, "a coordinator loses its vote");
            raft.set_voters(voters, deadline).await.map_err(said)
        }
        Standing::Leaving if is_learner => raft.remove_learner(id.0, deadline).await.map_err(said),
        Standing::Leaving => propose(node, GroupNews::Left { id: *id }).await,
        Standing::Voter | Standing::Removed => Ok(()),
    }
}

/// The first records: who votes, with address and region from this node's file.
async fn found(node: &Node, voters: &[u64]) -> Result<(), String> {
    let mut founders = Vec::new();
    for id in voters.iter().map(|id| CoordinatorId(*id)) {
        let Some(peer) = node.config.peers.get(&id) else {
            return Err(format!("coordinator {id} votes, but this node's file does not name it"));
        };
        founders.push((id, peer.address.clone(), peer.region.clone()));
    }
    propose(node, GroupNews::Founded { founders }).await
}

/// A leader does not take its own vote: whoever leads next does.
async fn hand_over(node: &Node) -> Result<(), String> {
    let status = node.raft.status();
    let own = node.config.node_id.0;
    let able = status
        .followers
        .iter()
        .filter(|(id, f)| **id != own && status.voters.contains(id) && f.matched_index >= status.last_index);
    let Some((to, _)) = able.min_by_key(|(_, f)| f.heard_age_ms.unwrap_or(u64::MAX)) else {
        return Err("this leader is to leave, but nobody has caught up to take over".to_owned());
    };
    tracing::info!(%to, "this leader is to leave the group: handing over");
    let deadline = node.clock.deadline(node.config.raft.election_timeout_max * 3);
    node.raft.transfer_leader(*to, deadline).await.map_err(|error| error.to_string())
}

async fn propose(node: &Node, news: GroupNews) -> Result<(), String> {
    node.proposer.propose(Body::GroupNews(news)).await.map(drop).map_err(|error| error.to_string())
}

fn marker(data_dir: &Path) -> PathBuf {
    data_dir.join("removed")
}

/// Why the node of this directory may not run, if the leader has said so before.
pub fn removal(data_dir: &Path) -> Option<String> {
    std::fs::read_to_string(marker(data_dir)).ok().map(|text| text.trim().to_owned())
}

/// The leader says that this node is out. Written down first: after a restart it must not campaign again.
pub fn stop(node: &Node, reason: &str) {
    if node.removed.borrow().is_some() {
        return;
    }
    tracing::error!(reason, "this coordinator was removed from the group: it votes no more and stops");
    if let Err(error) = std::fs::write(marker(&node.config.data_dir), format!("{reason}\n")) {
        tracing::warn!(%error, "the removal is not written down");
    }
    node.removed.send_replace(Some(reason.to_owned()));
}

/// Resolves when this node was removed.
pub async fn removed(node: &Node) -> String {
    let mut told = node.removed.subscribe();
    let found = told.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
    match found {
        Some(reason) => reason,
        None => std::future::pending().await,
    }
}
