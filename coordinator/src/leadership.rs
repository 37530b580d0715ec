//! Follows Raft's leadership: begins and ends the leader's memory, tells the followers the ages of silence, asks the
//! detector, adds configured clusters, and prefers to live outside the primaries' region.
//!
//! Invariant: lease table and detector begin anew with every leadership of this node, also when the same node was
//! re-elected before anyone saw the gap; they end when it does.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc, time::Duration};

use regent_core::{Body, Declare, GroupNews, Hearing, PositionAges};
use regent_proto::v1::{
    AgesRequest, MemberAge, PrimaryPosition, WalMark, peer_service_client::PeerServiceClient,
};
use regent_raft::LeadershipChange;
use regent_types::{ClusterName, CoordinatorId, Epoch, GroupId, Lsn, LsnError, MemberName, Region};
use tokio::task::JoinSet;

use crate::{
    callout, levels,
    node::Node,
    proposer::ProposeFailure,
    service,
    shared::{Inner, leadership},
};

/// Between two exchanges of ages.
const EXCHANGE_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for a follower's answer.
const EXCHANGE_TIMEOUT: Duration = Duration::from_millis(900);
/// Between two looks of the detector.
const DETECTOR_INTERVAL: Duration = Duration::from_millis(50);
/// Heartbeat intervals after which a primary is too silent for the leadership to move.
const HEARD_INTERVALS: u64 = 3;

/// Follows the leadership until Raft ends.
pub async fn follow(node: Arc<Node>) {
    let mut changes = node.raft.leadership();
    loop {
        let now: LeadershipChange = *changes.borrow_and_update();
        change(&node, now);
        if changes.changed().await.is_err() {
            change(&node, LeadershipChange::default());
            return;
        }
    }
}

fn change(node: &Node, now: LeadershipChange) {
    let mut inner = node.shared.lock();
    let current = now.current.map(leadership);
    if inner.leadership != current {
        let now_ns = node.clock.now_ns();
        if inner.leadership.is_some() {
            // What this leader knew, if nobody tells it anything newer until it leads again.
            let ages = inner.detector.ages(now_ns);
            node.heard.told(now_ns, ages);
            inner.leases.end();
            inner.detector.end_leadership();
        }
        if let Some(current) = current {
            inner.leases.begin(current, now_ns);
            inner.detector.begin_leadership(current, now_ns, node.heard.inherited(now_ns));
            tracing::info!(leadership = %current, "this node leads");
        }
        inner.leadership = current;
    }
    drop(inner);
    node.led.send_replace(current);
}

/// Runs the leader's periodic work for ever; on a follower it does nothing.
pub async fn tick(node: Arc<Node>) {
    let mut configured = false;
    loop {
        node.clock.sleep(DETECTOR_INTERVAL).await;
        let voters = node.raft.membership().voters.len();
        let wanted = {
            let mut inner = node.shared.lock();
            let Inner { state, detector, cooldowns, leases, leadership, .. } = &mut *inner;
            let now_ns = node.clock.now_ns();
            cooldowns.observe(now_ns, state);
            if leadership.is_none() {
                configured = false;
                continue;
            }
            let mut wanted = Vec::new();
            if !configured {
                let bodies = node.config.clusters.iter().filter_map(|cluster| missing(cluster, state));
                // What not everybody understands yet is proposed when the group's level has been raised.
                let (now, later): (Vec<_>, Vec<_>) = bodies.partition(|body| body.level() <= state.level());
                (wanted, configured) = (now, later.is_empty());
            }
            wanted.extend(unnamed(state));
            wanted.extend(leases.settled(now_ns, state));
            wanted.extend(cooldowns.over(now_ns, state));
            wanted.extend(detector.tick(now_ns, state, voters));
            wanted.extend(detector.planned(now_ns, node.clock.wall_ms(), state));
            wanted.extend(leases.acknowledged_lists(state));
            let inner = &*inner;
            for body in &mut wanted {
                let (Body::Declare(Declare { cluster: name, .. })
                | Body::Drill { cluster: name, .. }
                | Body::Observed { cluster: name, .. }) = body
                else {
                    continue;
                };
                if let Some(cluster) = inner.state.clusters.get(name) {
                    let shell = service::explain::shell(&node, inner, now_ns, cluster);
                    inner.detector.testify(now_ns, &inner.state, &shell, body);
                }
            }
            wanted
        };
        node.vetoes.forget(&wanted);
        for body in wanted {
            if let Body::Declare(declare) = &body
                && callout::veto::concerns(&declare.trigger)
                && !waits_anyway(&node, &declare.cluster)
                && !callout::veto::Vetoes::permits(&node, declare)
            {
                continue;
            }
            let configures = matches!(body, Body::Configure(_));
            match node.proposer.propose(body).await {
                Ok(_) => {}
                Err(ProposeFailure::Rejected(rejection)) if configures => {
                    tracing::error!(%rejection, "a cluster of this node's file is not accepted by the group");
                }
                Err(ProposeFailure::Rejected(rejection)) => tracing::info!(%rejection, "wish rejected"),
                Err(error) => {
                    // A rejection is final for this leadership; this is not.
                    configured &= !configures;
                    tracing::debug!(%error, "wish not committed");
                }
            }
        }
    }
}

/// What an operator is asked for anyway is not put to the hook.
fn waits_anyway(node: &Node, cluster: &ClusterName) -> bool {
    let inner = node.shared.lock();
    let cluster = inner.state.clusters.get(cluster);
    cluster.is_none_or(|cluster| {
        cluster.cooldown.is_some() || cluster.automation != regent_types::Automation::Automatic
    })
}

/// A group gets an id once, as soon as everyone understands it: by it a member tells this group from one that is formed anew.
fn unnamed(state: &regent_core::State) -> Option<Body> {
    let body = Body::GroupNews(GroupNews::Named { id: GroupId(rand::random()) });
    let founded = !state.group.coordinators.is_empty();
    (founded && state.group.id.is_none() && state.level() >= body.level()).then_some(body)
}

/// A configured cluster that the group does not know. One that differs from the state is left alone, and said so.
fn missing(config: &regent_core::ClusterConfig, state: &regent_core::State) -> Option<Body> {
    let Some(known) = state.clusters.get(&config.name) else {
        return Some(Body::Configure(Box::new(config.clone())));
    };
    if known.config != *config {
        tracing::warn!(
            cluster = %config.name,
            "the cluster's configuration in this node's file differs from the replicated one, which stays in force"
        );
    }
    None
}

/// Once a second, a leader confirmed in that same second tells the followers the ages, and merges theirs.
pub async fn exchange(node: Arc<Node>) {
    loop {
        node.clock.sleep(EXCHANGE_INTERVAL).await;
        if node.led.borrow().is_none() {
            continue;
        }
        let deadline = node.clock.deadline(EXCHANGE_INTERVAL);
        let Ok(confirmed) = node.raft.confirm_leadership(deadline).await else { continue };
        let current = leadership(confirmed.leadership);
        let ages = {
            let inner = node.shared.lock();
            if inner.leadership != Some(current) {
                continue;
            }
            inner.detector.ages(node.clock.now_ns())
        };
        let request = AgesRequest {
            leader_term: current.term,
            leader_id: current.node.0,
            ages: ages.into_iter().map(to_proto).collect(),
            removed: None,
        };
        let mut calls = JoinSet::new();
        for (id, channel) in node.peers.others() {
            let (node, request) = (node.clone(), request.clone());
            calls.spawn(async move {
                let mut client = PeerServiceClient::new(channel);
                let answer = node.clock.within(EXCHANGE_TIMEOUT, client.exchange_ages(request)).await;
                let reply = match answer {
                    Some(Ok(reply)) => reply,
                    Some(Err(status)) => {
                        tracing::debug!(%id, %status, "a follower has not taken the ages");
                        return;
                    }
                    None => return,
                };
                let (reply, now_ns) = (reply.into_inner(), node.clock.now_ns());
                node.peers.answered(id, levels::news(now_ns, &reply));
                let heard = reply.heard.into_iter().filter_map(|age| from_proto(age).ok()).collect();
                let votes = node.raft.membership().voters.contains(&id.0);
                let mut inner = node.shared.lock();
                if inner.leadership != Some(current) {
                    return;
                }
                if votes {
                    inner.detector.on_relay_report(now_ns, id, heard);
                } else {
                    inner.detector.on_learner_report(now_ns, id, heard);
                }
            });
        }
        for (id, channel) in node.peers.removed() {
            let removed = Some(format!("told by leader {}", current.node));
            let (node, request) =
                (node.clone(), AgesRequest { ages: Vec::new(), removed, ..request.clone() });
            calls.spawn(async move {
                let mut client = PeerServiceClient::new(channel);
                if let Some(Ok(_)) = node.clock.within(EXCHANGE_TIMEOUT, client.exchange_ages(request)).await
                {
                    tracing::warn!(%id, "a coordinator that was removed was still there; it has been told");
                }
            });
        }
        calls.join_all().await;
        levels::raise(&node).await;
    }
}

/// An age as it travels.
pub fn to_proto(hearing: Hearing) -> MemberAge {
    let position = hearing.position.map(|position| PrimaryPosition {
        epoch: position.epoch.0,
        frozen_ms: position.frozen_ms,
        marks: position
            .marks
            .into_iter()
            .map(|(lsn, age_ms)| WalMark { lsn: lsn.to_string(), age_ms })
            .collect(),
    });
    MemberAge {
        cluster: hearing.cluster.into(),
        member: hearing.member.into(),
        age_ms: hearing.age_ms,
        position,
    }
}

/// An age that arrived; what is wrong with it otherwise.
pub fn from_proto(age: MemberAge) -> Result<Hearing, String> {
    let position = |position: PrimaryPosition| {
        let marks = position.marks.into_iter().map(|mark| {
            let lsn: Lsn =
                mark.lsn.parse().map_err(|error: LsnError| format!("position.marks.lsn: {error}"))?;
            Ok::<_, String>((lsn, mark.age_ms))
        });
        let marks = marks.collect::<Result<Vec<_>, _>>()?;
        if !marks.is_sorted_by(|a, b| a.0 <= b.0 && a.1 >= b.1) {
            return Err("position.marks: not in order, oldest first".to_owned());
        }
        Ok(PositionAges { epoch: Epoch(position.epoch), frozen_ms: position.frozen_ms, marks })
    };
    Ok(Hearing {
        cluster: ClusterName::new(age.cluster).map_err(|error| error.to_string())?,
        member: MemberName::new(age.member).map_err(|error| error.to_string())?,
        age_ms: age.age_ms,
        // Without it a loss cannot be bounded, and an operator is asked. That the member was heard must not be lost with it.
        position: age.position.and_then(|told| {
            position(told)
                .inspect_err(|problem| tracing::warn!(problem, "a position that cannot be read"))
                .ok()
        }),
    })
}

/// Hands the leadership to where a failover is quickest: outside the region where most primaries are, because a leader lost
/// together with the primary costs an election on top; and of those beside the standbys, because preparing and promoting
/// one from elsewhere costs two round trips.
///
/// Interleaving to fear: a transfer while a primary is silent. The new leadership assumes a lease granted at its own
/// election, and the failover would wait for that bound; so nothing moves until every primary is heard.
pub async fn place(node: Arc<Node>) {
    if !node.config.placement.avoid_primary_region {
        return;
    }
    loop {
        node.clock.sleep(node.config.placement.interval).await;
        if node.led.borrow().is_none() {
            continue;
        }
        let Some(to) = better_place(&node) else { continue };
        tracing::info!(%to, "handing the leadership to a region with fewer primaries or more standbys");
        let deadline = node.clock.deadline(node.config.raft.election_timeout_max * 3);
        if let Err(error) = node.raft.transfer_leader(to.0, deadline).await {
            tracing::warn!(%to, %error, "the leadership was not handed over");
        }
    }
}

/// What a region is worth as the leader's place; less is better: its primaries, then how many standbys are missing there.
type Worth = (usize, Reverse<usize>);

fn better_place(node: &Node) -> Option<CoordinatorId> {
    let mut regions: BTreeMap<Region, Worth> = BTreeMap::new();
    let peers = {
        let inner = node.shared.lock();
        let now_ns = node.clock.now_ns();
        for (name, cluster) in &inner.state.clusters {
            if cluster.operation.is_some() {
                return None;
            }
            let Some((appointment, _)) = cluster.established() else { continue };
            let silent_ms = inner.detector.silence_ms(now_ns, name, &appointment.member);
            if silent_ms > cluster.config.policy.heartbeat_interval_ms.saturating_mul(HEARD_INTERVALS) {
                return None;
            }
            for (member, config) in cluster.config.members.iter().filter(|(_, config)| config.promotable) {
                let worth = regions.entry(config.region.clone()).or_default();
                if *member == appointment.member {
                    worth.0 += 1;
                } else {
                    worth.1.0 += 1;
                }
            }
        }
        crate::coordinators::known(node, &inner.state.group)
    };
    let worth = |region| regions.get(region).copied().unwrap_or_default();
    let own = worth(&node.config.region);
    let status = node.raft.status();
    // Only to one that answers and has everything.
    let fresh_ms = node.config.raft.heartbeat_interval.as_millis() as u64 * 3;
    let able = peers.iter().filter(|(id, peer)| {
        let follower = status.followers.get(&id.0);
        let caught_up = follower.is_some_and(|f| {
            f.matched_index >= status.last_index && f.heard_age_ms.is_some_and(|age| age <= fresh_ms)
        });
        **id != node.config.node_id && status.voters.contains(&id.0) && caught_up && worth(&peer.region) < own
    });
    able.min_by_key(|(id, peer)| (worth(&peer.region), **id)).map(|(id, _)| *id)
}

/// Before this node stops: the leadership goes to the follower that is best prepared, so that nobody waits for an
/// election.
pub async fn hand_over(node: &Node) {
    if node.led.borrow().is_none() {
        return;
    }
    let status = node.raft.status();
    let caught_up = status.followers.iter().filter(|(_, f)| f.matched_index >= status.last_index);
    let Some((to, _)) = caught_up.min_by_key(|(_, f)| f.heard_age_ms.unwrap_or(u64::MAX)) else { return };
    let deadline = node.clock.deadline(node.config.raft.election_timeout_max);
    if let Err(error) = node.raft.transfer_leader(*to, deadline).await {
        tracing::info!(%error, "the leadership was not handed over before the end");
    }
}
