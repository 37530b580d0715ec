//! What the fake coordinator answers unless a test says otherwise.

use regent_proto::v1;

use crate::support::World;

/// Three coordinators, one cluster: a primary, and a standby that is being cloned and has trouble.
pub fn world() -> World {
    let coordinator = |id: u64, region: &str, role: v1::CoordinatorRole| v1::CoordinatorStatus {
        id,
        address: format!("127.0.0.1:740{id}"),
        region: region.into(),
        role: role.into(),
        term: (role != v1::CoordinatorRole::Unreachable).then_some(4),
        applied_index: (role != v1::CoordinatorRole::Unreachable).then_some(120),
        quorum_ack_age_ms: (role == v1::CoordinatorRole::Leader).then_some(12),
        version: (role != v1::CoordinatorRole::Unreachable).then(|| "0.1.0".into()),
        feature_level: Some(2),
        certificate_days_left: Some(360),
    };
    let primary = v1::MemberStatus {
        name: "eu-north-1".into(),
        region: "eu-north-1".into(),
        host: "10.0.0.1".into(),
        port: 5432,
        role: v1::MemberRole::Primary.into(),
        postgres: v1::PostgresState::Primary.into(),
        accepting: true,
        lease_remaining_ms: Some(252_000),
        lease_epoch: Some(4),
        heard_age_ms: Some(310),
        timeline: Some(3),
        write_lsn: Some("0/5000060".into()),
        disk: Some(v1::DiskProbe {
            outcome: Some(v1::disk_probe::Outcome::Ok(v1::disk_probe::Ok { latency_ms: 2 })),
        }),
        free_bytes: Some(50 << 30),
        total_bytes: Some(100 << 30),
        instance: Some("0".repeat(32)),
        postgres_major: Some(18),
        promotable: true,
        highest_epoch: Some(4),
        ..Default::default()
    };
    let standby = v1::MemberStatus {
        name: "us-east-1".into(),
        region: "us-east-1".into(),
        role: v1::MemberRole::Standby.into(),
        postgres: v1::PostgresState::Starting.into(),
        heard_age_ms: Some(1_200),
        lag_bytes: Some(1_536),
        lag_ms: Some(40),
        timeline: Some(3),
        received_lsn: Some("0/5000000".into()),
        sync_reason: Some("a clone is running".into()),
        disk: Some(v1::DiskProbe {
            outcome: Some(v1::disk_probe::Outcome::Failed(v1::disk_probe::Failed { error: "EIO".into() })),
        }),
        free_bytes: Some(1 << 30),
        total_bytes: Some(100 << 30),
        slot_retained_bytes: Some(16 << 20),
        job: Some(v1::MemberJob {
            kind: "clone".into(),
            done_bytes: 43 << 20,
            total_bytes: Some(100 << 20),
            percent: Some(43),
        }),
        guard_refused: Some("no PID namespace".into()),
        promotable: true,
        ..Default::default()
    };
    let cluster = v1::ClusterStatus {
        name: "gravl".into(),
        epoch: 4,
        fenced_through: 3,
        automation: v1::Automation::Automatic.into(),
        primary: Some("eu-north-1".into()),
        dns: Some(v1::DnsRecord {
            name: "gravl.db.regent.internal".into(),
            address: "10.0.0.1".into(),
            ttl_s: 5,
            epoch: 4,
        }),
        members: vec![primary, standby],
        policy: Some(v1::PolicyNumbers {
            partition_timeout_ms: 300_000,
            postgres_down_timeout_ms: 60_000,
            disk_stall_timeout_ms: 30_000,
            lease_ttl_ms: 270_000,
            ..Default::default()
        }),
        ..Default::default()
    };
    let status = v1::StatusReply {
        feature_level: Some(2),
        answered_by: 1,
        leader: Some(2),
        wall_ms: 1_767_323_045_678,
        coordinators: vec![
            coordinator(1, "eu-north-1", v1::CoordinatorRole::Follower),
            coordinator(2, "eu-west-1", v1::CoordinatorRole::Leader),
            coordinator(3, "us-east-1", v1::CoordinatorRole::Unreachable),
        ],
        clusters: vec![cluster],
    };
    let plan = v1::FailoverPlan {
        cluster: "gravl".into(),
        epoch: 4,
        from_member: Some("eu-north-1".into()),
        to_member: Some("us-east-1".into()),
        candidates: vec![v1::CandidateVerdict {
            member: "us-east-1".into(),
            chosen: true,
            reason: "has received most".into(),
            received_lsn: Some("0/5000000".into()),
            lag_bytes: Some(96),
            lag_ms: Some(40),
        }],
        loss_upper_bound: Some(v1::LossReport {
            bytes: Some(96),
            note: "at last contact".into(),
            ..Default::default()
        }),
        steps: vec![v1::PlannedStep {
            name: "fence".into(),
            text: "ask the guard, else wait for the lease".into(),
            at_most_ms: Some(273_713),
        }],
        ..Default::default()
    };
    World { status, plan, ..World::default() }
}

/// The report of operation 7 in some state.
pub fn operation(state: v1::OperationState, reason: Option<&str>) -> v1::OperationReport {
    let step = |name: &str, elapsed_ms: Option<u64>, evidence: &str| v1::StepReport {
        name: name.into(),
        started_wall_ms: 1_767_323_045_678,
        elapsed_ms,
        budget_ms: Some(300_000),
        evidence: evidence.into(),
    };
    let running = matches!(state, v1::OperationState::Running | v1::OperationState::Waiting);
    let mut steps = vec![step("declare", Some(3), "asked for by regent://operator/alice")];
    steps.push(step("fence", (!running).then_some(8_400), "lease expired"));
    v1::OperationReport {
        cluster: "gravl".into(),
        summary: Some(v1::OperationSummary {
            id: 7,
            kind: v1::OperationKind::Failover.into(),
            trigger: v1::Trigger::Operator.into(),
            state: state.into(),
            step: if running { "fence".into() } else { "done".into() },
            started_wall_ms: 1_767_323_045_678,
            elapsed_ms: 9_100,
            reason: reason.map(Into::into),
            from_epoch: 4,
            to_epoch: (!running).then_some(5),
            from_member: Some("eu-north-1".into()),
            to_member: Some("us-east-1".into()),
            warning: None,
        }),
        requested_by: "regent://operator/alice".into(),
        why: "eu-north-1 is flooded".into(),
        request_id: Some("r-1".into()),
        steps,
        phases: vec![v1::PhaseReport {
            name: "failover_preparation".into(),
            elapsed_ms: Some(8_500),
            budget_ms: 1_200_000,
        }],
        fence: vec![v1::FenceRung {
            rung: "lease_expired".into(),
            certainty: v1::FenceCertainty::AssumedByLease.into(),
            evidence: "9 s bound passed".into(),
        }],
        candidates: vec![],
        loss_upper_bound: Some(v1::LossReport { bytes: Some(2_048), ..Default::default() }),
        loss_final: None,
        acknowledged_loss: None,
        salvage: None,
        evidence: None,
        drill: None,
    }
}
