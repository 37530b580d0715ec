//! Round trips of every variant, and refusals that name the field and the value.

use prost::Message;
use regent_types::*;

use crate::{
    session::{FromAgent, FromCoordinator, Hello, PROTOCOL_VERSION},
    v1,
};

fn member(name: &str) -> MemberName {
    MemberName::new(name).unwrap()
}

fn cluster() -> ClusterName {
    ClusterName::new("gravl").unwrap()
}

fn key() -> EffectKey {
    EffectKey { cluster: cluster(), operation: OperationId(7), step: 3, epoch: Epoch(4) }
}

fn salvage(completeness: SalvageCompleteness) -> SalvageSummary {
    SalvageSummary {
        folder: "4-20260101T000000".into(),
        epoch: Epoch(4),
        timeline: Timeline(1),
        from_lsn: Lsn(10),
        to_lsn: Lsn(20),
        transactions: 3,
        span_ms: 900,
        completeness,
        relations: vec![SalvagedRelation {
            name: "app.public.orders".into(),
            inserts: 1,
            updates: 2,
            deletes: 3,
        }],
        relations_total: 1,
        data: Some("4-20260101T000000/data".into()),
    }
}

fn report() -> Report {
    Report {
        guard: GuardFacts {
            reachable: true,
            refused: Some("no PID namespace".into()),
            highest_epoch: Epoch(4),
            fenced_through: Epoch(3),
            lease_epoch: Some(Epoch(4)),
            lease_remaining_ms: Some(7_500),
            succeeds: vec![InstanceId(1), InstanceId(u128::MAX)],
            restarts: 2,
            rogue_promotions: 1,
            state_file: "ok".into(),
            lease_ttl_max_ms: Some(270_000),
        },
        postgres: PostgresFacts {
            state: PostgresState::Primary,
            accepting: true,
            not_accepting_for_ms: 0,
            major: Some(18),
            logical_slots_at_risk: 2,
        },
        data: DataFacts {
            form: DataForm::Primary,
            system_id: Some(SystemId(u64::MAX)),
            timeline: Some(Timeline(2)),
            lineage: Epoch(4),
        },
        wal: WalFacts {
            write_lsn: Some(Lsn(0x16_B374_D848)),
            received_lsn: Some(Lsn(1)),
            replayed_lsn: None,
            streaming: true,
            timeline: Some(Timeline(2)),
            replay_lag_ms: Some(12),
            sample_age_ms: 40,
            standbys: vec![StandbyFacts {
                member: member("us-east-1"),
                state: "streaming".into(),
                flush_lsn: Some(Lsn(u64::MAX)),
                replay_lsn: None,
            }],
            retention: Some(WalRetention {
                oldest_lsn: Some(Lsn(0x100_0000)),
                bytes_per_s: Some(1_000),
                slot_keep_max_bytes: None,
                full_in_s: Some(3_600),
            }),
        },
        disk: DiskFacts {
            probe: DiskProbe::Ok { latency_ms: 3 },
            free_bytes: Some(10),
            total_bytes: None,
            slot_retained_bytes: Some(0),
        },
        job: Some(JobProgress { kind: "clone".into(), done_bytes: 5, total_bytes: Some(10) }),
        salvages: vec![salvage(SalvageCompleteness::Complete)],
        promise: PromiseFacts {
            list: Some((Epoch(4), 2)),
            given: Some(GivenPromise { epoch: None, remaining_ms: 9 }),
            extended: Some(PromisedLease { epoch: Epoch(4), by: vec![member("us-east-1")], remaining_ms: 8 }),
            asks: vec![member("us-east-1"), member("eu-north-1")],
        },
        parameters: ParameterFacts {
            version: 3,
            pending_restart: vec!["max_connections".into(), "shared_buffers".into()],
            raise_first: vec!["max_connections".into()],
            refused: [("nonsense".to_owned(), "unrecognized configuration parameter".to_owned())].into(),
        },
        synchronous: Some(SynchronousFacts {
            epoch: Epoch(4),
            version: 6,
            names: "ANY 1 (\"us-east-1\")".into(),
            since_lsn: Some(Lsn(0x5000)),
        }),
        blocked_writes: Some(BlockedWrites { reason: "rpo_limit".into(), for_ms: 5, ended_ms_ago: Some(6) }),
    }
}

fn heartbeat(report: Report) -> FromAgent {
    FromAgent::Heartbeat(Box::new(Heartbeat {
        cluster: cluster(),
        member: member("eu-north-1"),
        instance: InstanceId(0xABCD),
        boot: BootId("6f9c".into()),
        stamp_ns: u64::MAX,
        nonce: 17,
        report,
        members_version: 3,
        group: Some(regent_types::GroupId(0xFEED)),
    }))
}

/// Through the bytes, as on the wire.
fn from_agent(message: FromAgent) -> Result<FromAgent, super::ConvertError> {
    let bytes = v1::AgentMessage::from(message).encode_to_vec();
    v1::AgentMessage::decode(bytes.as_slice()).unwrap().try_into()
}

fn from_coordinator(message: FromCoordinator) -> Result<FromCoordinator, super::ConvertError> {
    let bytes = v1::CoordinatorMessage::from(message).encode_to_vec();
    v1::CoordinatorMessage::decode(bytes.as_slice()).unwrap().try_into()
}

fn same_from_agent(message: FromAgent) {
    assert_eq!(from_agent(message.clone()), Ok(message));
}

fn same_from_coordinator(message: FromCoordinator) {
    assert_eq!(from_coordinator(message.clone()), Ok(message));
}

#[test]
fn hello_round_trips() {
    same_from_agent(FromAgent::Hello(Hello {
        protocol_version: PROTOCOL_VERSION,
        cluster: cluster(),
        member: member("eu-north-1"),
        instance: InstanceId(9),
        agent_version: "0.1.0".into(),
    }));
}

#[test]
fn every_report_round_trips() {
    same_from_agent(heartbeat(report()));
    for state in [
        PostgresState::Unknown,
        PostgresState::Stopped,
        PostgresState::Starting,
        PostgresState::Standby,
        PostgresState::Primary,
        PostgresState::Stopping,
    ] {
        let mut report = report();
        report.postgres.state = state;
        same_from_agent(heartbeat(report));
    }
    for form in [
        DataForm::Empty,
        DataForm::Primary,
        DataForm::Standby,
        DataForm::Rewinding,
        DataForm::Cloning,
        DataForm::Unusable,
    ] {
        let mut report = report();
        report.data.form = form;
        same_from_agent(heartbeat(report));
    }
    for probe in [
        DiskProbe::Ok { latency_ms: 0 },
        DiskProbe::Stalled { for_ms: 31_000 },
        DiskProbe::Failed { error: "EIO".into() },
        DiskProbe::NotProbed,
    ] {
        let mut report = report();
        report.disk.probe = probe;
        same_from_agent(heartbeat(report));
    }
    // What is not known stays unknown: it must not come back as zero.
    let mut nothing = report();
    nothing.guard.lease_epoch = None;
    nothing.guard.lease_remaining_ms = None;
    nothing.guard.refused = None;
    nothing.postgres.major = None;
    nothing.data.system_id = None;
    nothing.data.timeline = None;
    nothing.wal = WalFacts::default();
    nothing.disk.free_bytes = None;
    nothing.disk.slot_retained_bytes = None;
    nothing.job = None;
    same_from_agent(heartbeat(nothing));
}

#[test]
fn every_outcome_round_trips() {
    let candidate = CandidateReport {
        member: member("us-east-1"),
        instance: InstanceId(5),
        boot: BootId("b".into()),
        received_lsn: Some(Lsn(100)),
        replayed_lsn: None,
        timeline: Some(Timeline(3)),
        system_id: Some(SystemId(42)),
        form: DataForm::Standby,
        lineage: Epoch(3),
        promises_closed: Epoch(4),
        refused: Some("no kernel timer".into()),
        stamp_ns: 1,
        promise_left_ms: Some(7),
    };
    let fenced = FencedEvidence {
        epoch: Epoch(4),
        instance: InstanceId(5),
        boot: BootId("b".into()),
        succeeds: vec![InstanceId(4)],
        checkpoint_lsn: Some(Lsn(7)),
        timeline: Some(Timeline(1)),
        clean: true,
    };
    let promoted = PromotedEvidence {
        epoch: Epoch(5),
        system_id: SystemId(42),
        timeline: Timeline(4),
        switch_lsn: Lsn(0x3_0000_0000),
        elapsed_ms: 80,
        replay_ms: 3,
    };
    let mut evidence = vec![
        Evidence::Fenced(fenced),
        Evidence::Prepared(candidate),
        Evidence::Promoted(promoted),
        Evidence::Validated { address: "127.0.0.2".into(), elapsed_ms: 4, connected_ms: Some(3) },
        Evidence::Restarted { elapsed_ms: 900 },
        Evidence::Redirected { provider: "embedded".into(), changed: true },
        Evidence::Checkpointed(CheckpointedEvidence {
            epoch: Epoch(4),
            write_lsn: Lsn(9),
            standbys: vec![StandbyFacts {
                member: MemberName::new("b").unwrap(),
                state: "streaming".into(),
                flush_lsn: Some(Lsn(9)),
                replay_lsn: None,
            }],
            elapsed_ms: 12,
        }),
    ];
    let completeness =
        [SalvageCompleteness::Complete, SalvageCompleteness::Partial { reason: "segment missing".into() }];
    for completeness in completeness {
        for method in
            [RejoinMethod::Unchanged, RejoinMethod::Repointed, RejoinMethod::Rewound, RejoinMethod::Cloned]
        {
            evidence.push(Evidence::Rejoined(RejoinedEvidence {
                method,
                reason: Some("rewind ran over".into()),
                salvage: Some(salvage(completeness.clone())),
                copied_bytes: 1,
                elapsed_ms: 2,
            }));
        }
    }
    let mut outcomes: Vec<Outcome> = evidence.into_iter().map(Outcome::Done).collect();
    outcomes.push(Outcome::Refused { reason: "epoch 3 is below 4".into() });
    outcomes.push(Outcome::Unknown { reason: "no answer within 10 s".into() });
    for outcome in outcomes {
        same_from_agent(FromAgent::Outcome { key: key(), outcome: Box::new(outcome) });
    }
}

#[test]
fn every_directive_round_trips() {
    let directives = [
        Directive::Fence { epoch: Epoch(4), grace_ms: 500 },
        Directive::Prepare { fenced: Epoch(4), promises_void: true },
        Directive::Promote {
            epoch: Epoch(5),
            instance: InstanceId(5),
            initialize: true,
            replay_timeout_ms: 9,
        },
        Directive::Rejoin {
            upstream: Upstream {
                member: member("us-east-1"),
                epoch: Epoch(5),
                host: "10.0.0.2".into(),
                port: 5432,
                timeline: Timeline(4),
            },
            branches: vec![Branch { epoch: Epoch(4), timeline: Timeline(1), switch_lsn: Lsn(7) }],
            rewind_timeout_ms: 60_000,
        },
        Directive::Adopt { epoch: Epoch(1), system_id: SystemId(u64::MAX), standby_of: None },
        Directive::Adopt {
            epoch: Epoch(1),
            system_id: SystemId(9),
            standby_of: Some(AdoptedHistory {
                timeline: Timeline(3),
                switch_lsn: Some(Lsn(7)),
                end_lsn: Lsn(9),
            }),
        },
        Directive::Disown { epoch: Epoch(4) },
        Directive::Restart { epoch: Epoch(5), primary: true, reload_only: false },
        Directive::Validate { name: "gravl.db".into(), address: "10.0.0.2".into(), port: 1, epoch: Epoch(5) },
        Directive::Checkpoint { epoch: Epoch(4) },
        Directive::Drain { fenced: Epoch(4), timeout_ms: 30_000 },
    ];
    for directive in directives {
        for grant in
            [None, Some(Grant { epoch: Epoch(5), instance: InstanceId(5), stamp_ns: 1, ttl_ms: 8_000 })]
        {
            let directive = Box::new(directive.clone());
            same_from_coordinator(FromCoordinator::Directive { key: key(), directive, grant });
        }
    }
}

#[test]
fn every_acknowledgement_round_trips() {
    let leases = [
        LeaseDecision::Granted(Grant {
            epoch: Epoch(5),
            instance: InstanceId(5),
            stamp_ns: 1,
            ttl_ms: 8_000,
        }),
        LeaseDecision::Refused(LeaseRefusal::NotAppointed { epoch: Epoch(5), holder: None }),
        LeaseDecision::Refused(LeaseRefusal::NotAppointed { epoch: Epoch(5), holder: Some(member("m")) }),
        LeaseDecision::Refused(LeaseRefusal::Fenced { epoch: Epoch(5), fenced_through: Epoch(6) }),
        LeaseDecision::Refused(LeaseRefusal::OtherInstance {
            epoch: Epoch(5),
            bound: InstanceId(1),
            presented: InstanceId(2),
        }),
        LeaseDecision::Refused(LeaseRefusal::Unknown { cluster: cluster(), member: member("m") }),
    ];
    let primary = PrimaryView {
        member: member("us-east-1"),
        region: Region::new("us-east-1").unwrap(),
        epoch: Epoch(5),
        host: "h".into(),
        port: 65_535,
        established: true,
    };
    for primary in [None, Some(primary)] {
        let view = ClusterView {
            epoch: Epoch(5),
            fenced_through: Epoch(4),
            primary,
            members: vec![member("eu-north-1"), member("us-east-1")],
            members_version: 3,
            heartbeat_interval_ms: Some(1_000),
            promises: Some(PromiseView {
                version: 3,
                promotable: vec![
                    PromotableMember { member: member("eu-north-1"), agent_address: None },
                    PromotableMember { member: member("us-east-1"), agent_address: Some("h:1".into()) },
                ],
                terms: LeaseTerms { ttl_ms: 60_000, rho_ppm: 5_000, kill_ms: 1_000 },
            }),
            parameters: Some(ParametersView {
                version: 3,
                values: [("work_mem".to_owned(), "8MB".to_owned())].into(),
            }),
            supersedes: vec![regent_types::GroupId(7)],
            synchronous: Some(SynchronousView {
                epoch: Epoch(5),
                version: 6,
                rules: [(member("us-east-1"), SyncSet { number: 1, members: [member("eu-north-1")].into() })]
                    .into(),
            }),
        };
        for view in [None, Some(view)] {
            for lease in leases.clone() {
                same_from_coordinator(FromCoordinator::Acknowledgement(Box::new(Acknowledgement {
                    nonce: 17,
                    lease,
                    view: view.clone(),
                    group: view.is_some().then_some(regent_types::GroupId(1)),
                })));
            }
        }
    }
    same_from_coordinator(FromCoordinator::Goodbye { reason: "shutting down".into() });
}

fn heartbeat_error(break_it: impl FnOnce(&mut v1::Heartbeat)) -> String {
    let mut message = v1::AgentMessage::from(heartbeat(report()));
    let Some(v1::agent_message::Message::Heartbeat(heartbeat)) = &mut message.message else { unreachable!() };
    break_it(heartbeat);
    FromAgent::try_from(message).unwrap_err().to_string()
}

#[test]
fn refusals_name_the_field_and_the_value() {
    let wal = |heartbeat: &mut v1::Heartbeat| heartbeat.report.as_mut().unwrap().wal.take().unwrap();
    let error = heartbeat_error(|heartbeat| {
        let wal = v1::WalFacts { write_lsn: Some("16-1".into()), ..wal(heartbeat) };
        heartbeat.report.as_mut().unwrap().wal = Some(wal);
    });
    assert_eq!(
        error,
        r#"heartbeat.report.wal.write_lsn: "16-1" is not an LSN (expected the form 16/B374D848)"#
    );
    let error = heartbeat_error(|heartbeat| {
        let mut wal = wal(heartbeat);
        wal.standbys[0].member = "No".into();
        heartbeat.report.as_mut().unwrap().wal = Some(wal);
    });
    assert!(error.starts_with(r#"heartbeat.report.wal.standbys[0].member: member name "No""#), "{error}");
    assert_eq!(heartbeat_error(|h| drop(wal(h))), "heartbeat.report.wal: is missing");
    assert_eq!(heartbeat_error(|h| h.report = None), "heartbeat.report: is missing");
    assert_eq!(heartbeat_error(|h| h.boot.clear()), "heartbeat.boot: is empty");
    assert!(
        heartbeat_error(|h| h.instance = "12".into())
            .starts_with(r#"heartbeat.instance: instance id "12" is not"#)
    );
    let state =
        |value| heartbeat_error(|h| h.report.as_mut().unwrap().postgres.as_mut().unwrap().state = value);
    assert_eq!(state(0), "heartbeat.report.postgres.state: is missing");
    let succeeds = heartbeat_error(|h| {
        h.report.as_mut().unwrap().guard.as_mut().unwrap().succeeds.push("z".into());
    });
    assert!(succeeds.starts_with("heartbeat.report.guard.succeeds[2]: instance id \"z\""), "{succeeds}");
}

#[test]
fn empty_messages_are_refused() {
    let empty = v1::AgentMessage { message: Some(v1::agent_message::Message::Hello(v1::Hello::default())) };
    let error = FromAgent::try_from(empty).unwrap_err().to_string();
    assert!(error.starts_with("hello.cluster:"), "{error}");
    let no_lease = v1::Acknowledgement { nonce: 1, lease: None, view: None, group: None };
    assert_eq!(Acknowledgement::try_from(no_lease).unwrap_err().to_string(), "lease: is missing");
}

#[test]
fn a_port_outside_its_range_is_refused() {
    for port in [0, 65_536] {
        let upstream = v1::Upstream { member: "m".into(), host: "h".into(), port, ..Default::default() };
        let error = Upstream::try_from(upstream).unwrap_err();
        assert_eq!(error.to_string(), format!("port: {port} is not a port (1 to 65535)"));
    }
}
