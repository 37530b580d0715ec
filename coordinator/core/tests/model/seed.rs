//! The core's inputs: the state that every search starts from, made by real proposals, and the proposals, heartbeats and
//! reports that the shells put to it. What the model does not look at (LSNs, disks, wall time) is the same everywhere.

use std::collections::BTreeMap;

use regent_core::{
    Body, Cluster, ClusterConfig, Declare, DeclareEvidence, EffectKind, MemberConfig, Policy, Position,
    Proposal, State, Trigger,
};
use regent_types::{
    BootId, CandidateReport, ClusterName, CoordinatorId, DataFacts, DataForm, DiskFacts, DiskProbe,
    EffectKey, Epoch, Evidence, FencedEvidence, GuardFacts, Heartbeat, InstanceId, LeaseTerms, Lsn,
    MemberName, Outcome, PostgresFacts, PostgresState, PromotedEvidence, Region, RejoinMethod,
    RejoinedEvidence, Report, SystemId, Timeline, WalFacts,
};

use crate::world::{FIRST_LEADERSHIP, Member};

const SYSTEM: SystemId = SystemId(7);
const LSN: Lsn = Lsn(100);

pub fn cluster() -> ClusterName {
    ClusterName::new("gravl").expect("a valid name")
}

pub fn name(member: usize) -> MemberName {
    MemberName::new(["a", "b", "c"][member]).expect("a valid name")
}

pub fn instance(member: usize, restarts: u8) -> InstanceId {
    InstanceId(10 * (member as u128 + 1) + u128::from(restarts))
}

fn boot(member: usize) -> BootId {
    BootId(format!("boot-{member}"))
}

pub fn proposal(proposer: CoordinatorId, body: Body) -> Proposal {
    Proposal { wall_ms: 0, proposer, body }
}

/// The first member is the primary of epoch 1, every other one is a confirmed standby of it.
pub fn state(members: usize, lease: LeaseTerms) -> State {
    let mut state = State::default();
    let node = FIRST_LEADERSHIP.node;
    let put = |state: &mut State, body: Body| {
        let at = Position { index: state.applied_index + 1, leadership: FIRST_LEADERSHIP };
        state.apply(at, &proposal(node, body)).expect("the seed is accepted");
    };
    put(&mut state, Body::Configure(Box::new(config(members, lease))));
    put(&mut state, declare(Trigger::Bootstrap, Epoch::NONE, 0, bootstrap_evidence()));
    let key = only_effect(&state);
    put(&mut state, promoted(key, Epoch(1)));
    let key = only_effect(&state);
    let evidence = Evidence::Validated { address: "127.0.0.1".into(), elapsed_ms: 0, connected_ms: None };
    put(&mut state, Body::Outcome { key, outcome: Outcome::Done(evidence) });
    for member in 1..members {
        let trigger = Trigger::NotInSync { why: String::new() };
        put(&mut state, declare(trigger, Epoch(1), member, DeclareEvidence::default()));
        let evidence = RejoinedEvidence {
            method: RejoinMethod::Unchanged,
            reason: None,
            salvage: None,
            copied_bytes: 0,
            elapsed_ms: 0,
        };
        let key = only_effect(&state);
        put(&mut state, Body::Outcome { key, outcome: Outcome::Done(Evidence::Rejoined(evidence)) });
        let (cluster, member) = (cluster(), name(member));
        put(&mut state, Body::SyncConfirmed { cluster, member, epoch: Epoch(1), received_lsn: LSN });
    }
    forget(&mut state);
    state
}

/// Drops what no decision reads: states that differ in their events only are one.
pub fn forget(state: &mut State) {
    state.events.clear();
    for cluster in state.clusters.values_mut() {
        cluster.finished.clear();
    }
}

fn config(members: usize, lease: LeaseTerms) -> ClusterConfig {
    let member = |index: usize| MemberConfig {
        region: Region::new(format!("region-{index}")).expect("a valid name"),
        host: "127.0.0.1".into(),
        port: 5432,
        client_address: [127, 0, 0, 1].into(),
        client_port: 5432,
        priority: 0,
        promotable: true,
        agent_address: None,
    };
    ClusterConfig {
        name: cluster(),
        dns_name: "gravl.example".into(),
        dns_ttl_s: 1,
        dns_providers: Vec::new(),
        initial_primary: name(0),
        members: (0..members).map(|index| (name(index), member(index))).collect::<BTreeMap<_, _>>(),
        policy: Policy {
            partition_timeout_ms: 10_000,
            lease,
            postgres_down_timeout_ms: 1,
            disk_stall_timeout_ms: 1,
            heartbeat_interval_ms: 1,
            fence_grace_ms: 1,
            promote_timeout_ms: 2,
            replay_timeout_ms: 1,
            validate_timeout_ms: 1,
            rejoin_timeout_ms: 2,
            rewind_timeout_ms: 1,
            sync_lag_bytes_max: 0,
            sync_window_ms: 1,
            max_lag_bytes: None,
            cooldown_ms: 0,
            max_lag_ms: None,
            disk_full_alert_ms: 0,
            switchover_timeout_ms: 1_000_000,
            failback: regent_core::FailbackMode::Manual,
            failback_after_ms: 1_000_000,
            failback_window: None,
            promise_ms: 0,
            synchronous: Default::default(),
        },
        automation: regent_types::Automation::Automatic,
        preferred_region: None,
    }
}

fn bootstrap_evidence() -> DeclareEvidence {
    DeclareEvidence { instance: Some((instance(0, 0), boot(0))), empty: true, ..DeclareEvidence::default() }
}

fn only_effect(state: &State) -> EffectKey {
    let effects = state.clusters[&cluster()].effects();
    assert_eq!(effects.len(), 1, "one effect is waiting");
    effects[0].key.clone()
}

/// What the executor is to prove, or to ask again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fencing {
    pub key: EffectKey,
    /// Whose guard is asked.
    pub member: usize,
    /// What it is to refuse for ever.
    pub epoch: u64,
    /// `Fence`; else `Collect`, after the proof.
    pub is_proof_wanted: bool,
    /// The instance that a driver is told to kill.
    pub instance: Option<InstanceId>,
}

/// The waiting `Fence` or `Collect` effect.
pub fn fencing(cluster: &Cluster) -> Option<Fencing> {
    cluster.effects().iter().find_map(|effect| {
        let (member, epoch, instance) = match &effect.kind {
            EffectKind::Fence { member, epoch, instance, .. }
            | EffectKind::Handover { member, epoch, instance, .. } => (member, epoch.0, Some(*instance)),
            EffectKind::Collect { member, epoch, .. } => (member, epoch.0, None),
            EffectKind::Agent { .. } | EffectKind::Redirect { .. } => return None,
        };
        let (key, member) = (effect.key.clone(), index(member));
        Some(Fencing { key, member, epoch, is_proof_wanted: instance.is_some(), instance })
    })
}

pub fn index(member: &MemberName) -> usize {
    (0..3).find(|index| name(*index) == *member).expect("a member of the model")
}

fn declare(trigger: Trigger, expected_epoch: Epoch, member: usize, evidence: DeclareEvidence) -> Body {
    Body::Declare(Declare { cluster: cluster(), expected_epoch, member: name(member), trigger, evidence })
}

/// The detector's wish: the primary is silent, or its guard has restarted.
pub fn declare_failover(epoch: Epoch, primary: usize, members: usize, restarts: Option<u8>) -> Body {
    let trigger = match restarts {
        None => Trigger::Partition { silent_ms: 0 },
        Some(restarts) => Trigger::InstanceChanged {
            bound: instance(primary, restarts - 1),
            found: instance(primary, restarts),
        },
    };
    let heard = (0..members).filter(|member| *member != primary).map(name).collect();
    declare(trigger, epoch, primary, DeclareEvidence { heard, ..DeclareEvidence::default() })
}

pub fn promoted(key: EffectKey, epoch: Epoch) -> Body {
    let timeline = Timeline(u32::try_from(epoch.0).expect("a small epoch"));
    let evidence =
        PromotedEvidence { epoch, system_id: SYSTEM, timeline, switch_lsn: LSN, elapsed_ms: 0, replay_ms: 0 };
    Body::Outcome { key, outcome: Outcome::Done(Evidence::Promoted(evidence)) }
}

/// What a fenced guard says.
pub fn fenced(member: usize, guard: &Member) -> FencedEvidence {
    FencedEvidence {
        epoch: Epoch(guard.fenced_through),
        instance: instance(member, guard.restarts),
        boot: boot(member),
        succeeds: (0..guard.restarts).map(|restarts| instance(member, restarts)).collect(),
        checkpoint_lsn: Some(LSN),
        timeline: Some(Timeline(1)),
        clean: false,
    }
}

/// What a candidate reports, its promises closed.
pub fn report(member: usize, guard: &Member, fenced: Epoch) -> CandidateReport {
    CandidateReport {
        member: name(member),
        instance: instance(member, guard.restarts),
        boot: boot(member),
        received_lsn: Some(LSN),
        replayed_lsn: Some(LSN),
        timeline: Some(Timeline(1)),
        system_id: Some(SYSTEM),
        form: if guard.primary_of == 0 { DataForm::Standby } else { DataForm::Primary },
        lineage: Epoch(guard.primary_of.max(1)),
        promises_closed: fenced,
        refused: None,
        stamp_ns: 0,
        promise_left_ms: None,
    }
}

pub fn heartbeat(member: usize, restarts: u8, stamp_ns: u64) -> Heartbeat {
    Heartbeat {
        cluster: cluster(),
        member: name(member),
        instance: instance(member, restarts),
        boot: boot(member),
        stamp_ns,
        nonce: 0,
        members_version: 0,
        group: None,
        report: Report {
            guard: GuardFacts {
                reachable: true,
                refused: None,
                highest_epoch: Epoch::NONE,
                fenced_through: Epoch::NONE,
                lease_epoch: None,
                lease_remaining_ms: None,
                succeeds: Vec::new(),
                restarts: 0,
                rogue_promotions: 0,
                state_file: String::new(),
                lease_ttl_max_ms: None,
            },
            postgres: PostgresFacts {
                state: PostgresState::Unknown,
                accepting: false,
                not_accepting_for_ms: 0,
                major: None,
                logical_slots_at_risk: 0,
            },
            data: DataFacts {
                form: DataForm::Standby,
                system_id: None,
                timeline: None,
                lineage: Epoch::NONE,
            },
            wal: WalFacts::default(),
            disk: DiskFacts {
                probe: DiskProbe::NotProbed,
                free_bytes: None,
                total_bytes: None,
                slot_retained_bytes: None,
            },
            job: None,
            salvages: Vec::new(),
            promise: regent_types::PromiseFacts::default(),
            parameters: regent_types::ParameterFacts::default(),
            synchronous: None,
            blocked_writes: None,
        },
    }
}
