//! Status: coordinators, clusters and members as this node sees them.

use regent_core::{BoundPending, Cluster, SyncState};
use regent_proto::v1;
use regent_types::{Heartbeat, MemberName, PostgresState, Report};

use super::{automation, operation};
use crate::{node::Node, shared::Inner};

/// A peer that has not answered for this long counts as unreachable, ms.
const UNREACHABLE_MS: u64 = 3_500;

/// The status, of one cluster or of all. What only a leader knows is absent when this node does not lead.
pub fn status(node: &Node, only: Option<&str>) -> v1::StatusReply {
    let raft = node.raft.status();
    let wall_ms = node.clock.wall_ms();
    let inner = node.shared.lock();
    let clusters =
        inner.state.clusters.iter().filter(|(name, _)| only.is_none_or(|only| only == name.as_str()));
    v1::StatusReply {
        answered_by: node.config.node_id.0,
        leader: inner.leadership.map(|leadership| leadership.node.0),
        wall_ms,
        coordinators: coordinators(
            node,
            &raft,
            inner.leadership.is_some(),
            &crate::coordinators::known(node, &inner.state.group),
        ),
        clusters: clusters.map(|(_, cluster)| cluster_status(node, &inner, cluster, wall_ms)).collect(),
        feature_level: Some(inner.state.level().into()),
    }
}

fn coordinators(
    node: &Node,
    raft: &regent_raft::Status,
    leads: bool,
    known: &std::collections::BTreeMap<regent_types::CoordinatorId, crate::config::Peer>,
) -> Vec<v1::CoordinatorStatus> {
    let now_ns = node.clock.now_ns();
    let own = node.config.node_id;
    let one = |(id, peer): (&regent_types::CoordinatorId, &crate::config::Peer)| {
        let mut status = v1::CoordinatorStatus {
            id: id.0,
            address: peer.address.clone(),
            region: peer.region.to_string(),
            ..Default::default()
        };
        let role = if *id == own {
            status.term = Some(raft.term);
            status.applied_index = raft.applied.map(|at| at.index);
            status.quorum_ack_age_ms = raft.quorum_ack_age_ms.filter(|_| leads);
            status.version = Some(env!("CARGO_PKG_VERSION").to_owned());
            status.feature_level = Some(node.shared.level_max.into());
            status.certificate_days_left = node.certificate_days_left();
            match raft.role {
                "leader" => v1::CoordinatorRole::Leader,
                "candidate" => v1::CoordinatorRole::Candidate,
                _ => v1::CoordinatorRole::Follower,
            }
        } else if leads {
            let news = node.peers.news(*id);
            let follower = raft.followers.get(&id.0);
            status.term = news.term;
            status.feature_level = news.level.map(u32::from);
            status.version = news.version;
            status.certificate_days_left = news.certificate_days_left;
            status.applied_index = follower.and_then(|follower| follower.matched_index);
            let answered_ms = news.answered_ns.map(|at| now_ns.saturating_sub(at) / 1_000_000);
            let heard_ms = follower.and_then(|follower| follower.heard_age_ms);
            let age_ms = answered_ms.into_iter().chain(heard_ms).min();
            match age_ms {
                Some(age_ms) if age_ms <= UNREACHABLE_MS => v1::CoordinatorRole::Follower,
                _ => v1::CoordinatorRole::Unreachable,
            }
        } else if raft.leader == Some(id.0) {
            v1::CoordinatorRole::Leader
        } else {
            // A follower knows nothing of the other followers.
            v1::CoordinatorRole::Unspecified
        };
        status.role = role as i32;
        status
    };
    known.iter().map(one).collect()
}

fn cluster_status(node: &Node, inner: &Inner, cluster: &Cluster, wall_ms: u64) -> v1::ClusterStatus {
    let policy = &cluster.config.policy;
    let now_ns = node.clock.now_ns();
    v1::ClusterStatus {
        name: cluster.config.name.to_string(),
        epoch: cluster.epoch.0,
        fenced_through: cluster.fenced_through.0,
        automation: automation(cluster.automation) as i32,
        automation_reason: cluster.paused_by.clone(),
        primary: cluster.appointment.as_ref().map(|appointment| appointment.member.to_string()),
        dns: cluster.record.as_ref().map(|record| v1::DnsRecord {
            name: cluster.config.dns_name.clone(),
            address: record.address.to_string(),
            ttl_s: record.ttl_s,
            epoch: record.epoch.0,
        }),
        members: cluster
            .config
            .members
            .keys()
            .map(|member| self::member(inner, cluster, member, now_ns, wall_ms))
            .collect(),
        operation: cluster.operation.as_ref().map(|running| operation::summary(cluster, running, wall_ms)),
        policy: Some(v1::PolicyNumbers {
            partition_timeout_ms: policy.partition_timeout_ms,
            postgres_down_timeout_ms: policy.postgres_down_timeout_ms,
            disk_stall_timeout_ms: policy.disk_stall_timeout_ms,
            lease_ttl_ms: policy.lease.ttl_ms,
            rho_ppm: policy.lease.rho_ppm,
            kill_ms: policy.lease.kill_ms,
            lag_bytes_max: policy.max_lag_bytes,
            lag_ms_max: policy.max_lag_ms,
        }),
        drill: cluster.rehearsal.as_ref().map(|way| operation::summary(cluster, &way.drill, wall_ms)),
        restraint: super::restraint::restraint(node, inner, cluster, now_ns),
        scheduled: cluster.scheduled.as_ref().map(|scheduled| v1::ScheduledSwitchover {
            at_wall_ms: scheduled.at_wall_ms,
            target: scheduled.to.as_ref().map(ToString::to_string),
            requested_by: scheduled.actor.clone(),
            reason: scheduled.reason.clone(),
            waiting: scheduled.waiting.clone(),
        }),
        pending_failback: cluster.pending_failback.as_ref().filter(|p| p.epoch == cluster.epoch).map(|p| {
            v1::PendingFailback {
                target: p.target.to_string(),
                region: p.region.to_string(),
                since_wall_ms: p.since_wall_ms,
            }
        }),
        preferred_region: cluster.config.preferred_region().map(ToString::to_string),
        lease_bound_remaining_ms: lease_left_ns(inner, cluster, now_ns).map(|left_ns| left_ns / 1_000_000),
        file_differs: super::file_differs(&node.config, cluster),
        synchronous: super::synchronous::synchronous(cluster),
    }
}

fn member(
    inner: &Inner,
    cluster: &Cluster,
    name: &MemberName,
    now_ns: u64,
    wall_ms: u64,
) -> v1::MemberStatus {
    let config = &cluster.config.members[name];
    let appointed = cluster.appointment.as_ref().is_some_and(|appointment| appointment.member == *name);
    let (sync_confirmed, sync_reason) = match cluster.sync.get(name) {
        _ if appointed => (false, None),
        Some(SyncState::Confirmed { epoch })
            if cluster.history.last().is_some_and(|last| last.epoch == *epoch) =>
        {
            (true, None)
        }
        Some(SyncState::Confirmed { epoch }) => (false, Some(format!("confirmed for epoch {epoch} only"))),
        Some(SyncState::Unconfirmed { why }) => (false, Some(why.clone())),
        None => (false, Some("never in sync".to_owned())),
    };
    let mut status = v1::MemberStatus {
        name: name.to_string(),
        region: config.region.to_string(),
        host: config.host.clone(),
        port: config.port.into(),
        postgres: v1::PostgresState::Unknown as i32,
        sync_confirmed,
        sync_reason,
        promotable: config.promotable,
        ..Default::default()
    };
    let last = inner.detector.last_report(now_ns, &cluster.config.name, name);
    let heartbeat = last.map(|(heartbeat, _)| heartbeat);
    if let Some((heartbeat, age_ms)) = last {
        let promise = &heartbeat.report.promise;
        let left = |ms: u64| ms.checked_sub(age_ms).filter(|left_ms| *left_ms > 0);
        status.writes_by_promise = promise.extended.as_ref().and_then(|extended| {
            let remaining_ms = left(extended.remaining_ms)?;
            Some(v1::PromisedWrites {
                by: extended.by.iter().map(ToString::to_string).collect(),
                epoch: extended.epoch.0,
                remaining_ms,
                until_wall_ms: wall_ms + remaining_ms,
            })
        });
        status.promise_given_remaining_ms = promise.given.as_ref().and_then(|given| left(given.remaining_ms));
    }
    status.heard_age_ms =
        inner.leadership.map(|_| inner.detector.silence_ms(now_ns, &cluster.config.name, name));
    let role = match heartbeat {
        _ if appointed && cluster.leasable().is_some() => v1::MemberRole::Primary,
        _ if appointed => v1::MemberRole::Fenced,
        None => v1::MemberRole::Unknown,
        Some(heartbeat) if heartbeat.report.postgres.state == PostgresState::Standby => {
            v1::MemberRole::Standby
        }
        Some(heartbeat) if heartbeat.report.data.form == regent_types::DataForm::Primary => {
            v1::MemberRole::Fenced
        }
        Some(_) => v1::MemberRole::Standby,
    };
    status.role = role as i32;
    let alerts = cluster.alerts.iter().filter(|alert| alert.member == *name);
    status.alerts = alerts.map(|alert| alert.text.clone()).collect();
    if let Some(heartbeat) = heartbeat {
        observed(&mut status, heartbeat);
        status.lag_bytes = lag_bytes(inner, cluster, &heartbeat.report, appointed, now_ns);
    }
    status
}

fn observed(status: &mut v1::MemberStatus, heartbeat: &Heartbeat) {
    let report = &heartbeat.report;
    status.postgres = v1::PostgresState::from(report.postgres.state) as i32;
    status.accepting = report.postgres.accepting;
    status.lease_remaining_ms = report.guard.lease_remaining_ms;
    status.lease_epoch = report.guard.lease_epoch.map(|epoch| epoch.0);
    status.lag_ms = report.wal.replay_lag_ms;
    status.timeline = report.wal.timeline.or(report.data.timeline).map(|timeline| timeline.0);
    status.write_lsn = report.wal.write_lsn.map(|lsn| lsn.to_string());
    status.received_lsn = report.wal.received_lsn.map(|lsn| lsn.to_string());
    status.replayed_lsn = report.wal.replayed_lsn.map(|lsn| lsn.to_string());
    status.disk = Some(report.disk.probe.clone().into());
    status.free_bytes = report.disk.free_bytes;
    status.total_bytes = report.disk.total_bytes;
    status.slot_retained_bytes = report.disk.slot_retained_bytes;
    status.salvages = report.salvages.iter().cloned().map(Into::into).collect();
    status.retention = report.wal.retention.clone().map(Into::into);
    status.job = report.job.as_ref().map(|job| v1::MemberJob {
        kind: job.kind.clone(),
        done_bytes: job.done_bytes,
        total_bytes: job.total_bytes,
        percent: percent(job.done_bytes, job.total_bytes),
    });
    status.blocked_writes = report.blocked_writes.clone().map(Into::into);
    status.guard_refused = report.guard.refused.clone();
    status.instance = Some(heartbeat.instance.to_string());
    status.postgres_major = report.postgres.major;
    status.logical_slots_at_risk = report.postgres.logical_slots_at_risk;
    status.parameters = Some(report.parameters.clone().into());
    status.highest_epoch = Some(report.guard.highest_epoch.0);
}

fn percent(done: u64, total: Option<u64>) -> Option<u32> {
    let total = total.filter(|total| *total > 0)?;
    Some((u128::from(done) * 100 / u128::from(total)).min(100) as u32)
}

fn lag_bytes(
    inner: &Inner,
    cluster: &Cluster,
    standby: &Report,
    appointed: bool,
    now_ns: u64,
) -> Option<u64> {
    if appointed {
        return None;
    }
    let primary = &cluster.appointment.as_ref()?.member;
    let (heartbeat, _) = inner.detector.last_report(now_ns, &cluster.config.name, primary)?;
    Some(heartbeat.report.wal.write_lsn?.bytes_since(standby.wal.received_lsn?))
}

/// While an epoch is being fenced: until when a lease may be valid by the bound. Otherwise: of the last grant.
fn lease_left_ns(inner: &Inner, cluster: &Cluster, now_ns: u64) -> Option<u64> {
    let leadership = inner.leadership?;
    match inner.leases.bound_passed(now_ns, leadership, &inner.state, &cluster.config.name) {
        Err(BoundPending::Remaining { remaining_ns }) => Some(remaining_ns),
        Ok(_) => None,
        Err(_) => inner.leases.held(now_ns, cluster),
    }
}
