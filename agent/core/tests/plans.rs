//! Every directive against every form of data: facts in, the next step out.

use regent_agent_core::{
    AgentView, DataView, Facts, GuardView, Limits, Next, Promoting, Rejoining, Server, Steady, Step,
    UpstreamWal, Wait, WalEnd, Work, Worked, plan, steady,
};
use regent_types::{
    BootId, Branch, DataForm, Directive, Epoch, Evidence, FencedEvidence, Grant, InstanceId, Lsn, MemberName,
    PostgresState, RejoinMethod, SalvageCompleteness, SalvageSummary, SystemId, Timeline, Upstream,
};

const ME: InstanceId = InstanceId(7);
const FORMS: [DataForm; 6] = [
    DataForm::Empty,
    DataForm::Primary,
    DataForm::Standby,
    DataForm::Rewinding,
    DataForm::Cloning,
    DataForm::Unusable,
];

/// A member at epoch 1, timeline 1, stopped, fenced through 1.
fn facts(form: DataForm) -> Facts {
    let known = !matches!(form, DataForm::Empty | DataForm::Unusable);
    Facts {
        member: MemberName::new("a").unwrap(),
        now_ns: 1_000_000_000_000,
        guard: GuardView {
            instance: ME,
            boot: BootId("boot".into()),
            highest_epoch: Epoch(1),
            fenced_through: Epoch(1),
            promises_closed: Epoch(1),
            lease_epoch: None,
            run: PostgresState::Stopped,
            started_at_ns: None,
            job_running: false,
            refused: None,
            succeeds: vec![],
            promise: None,
        },
        data: DataView {
            form,
            system_id: known.then_some(SystemId(9)),
            timeline: known.then_some(Timeline(1)),
            checkpoint_lsn: known.then_some(Lsn(100)),
            clean: true,
            upstream: None,
            switch_lsn: None,
            archive: false,
        },
        server: None,
        agent: AgentView { highest_epoch: Epoch(2), lineage: Epoch(1), ..AgentView::default() },
        worked: Worked::default(),
        archive: false,
    }
}

fn server(in_recovery: bool) -> Server {
    Server {
        in_recovery,
        lsn: Some(Lsn(500)),
        replayed: Some(Lsn(500)),
        replay_paused: false,
        replay_idle: true,
        receiver: false,
        streaming: false,
        timeline: Some(Timeline(1)),
        switch_lsn: None,
    }
}

fn standby() -> Facts {
    let mut f = facts(DataForm::Standby);
    f.guard.run = PostgresState::Standby;
    f.server = Some(server(true));
    f
}

fn next(directive: Directive, facts: &Facts) -> Next {
    next_with(directive, None, facts)
}

fn next_with(directive: Directive, grant: Option<Grant>, facts: &Facts) -> Next {
    let work = Work { directive, grant, started_ns: facts.now_ns - 5_000_000 };
    plan(&work, facts, &Limits::default())
}

fn promote() -> Directive {
    Directive::Promote { epoch: Epoch(2), instance: ME, initialize: false, replay_timeout_ms: 1000 }
}

fn upstream() -> Upstream {
    let member = MemberName::new("b").unwrap();
    Upstream { member, epoch: Epoch(2), host: "h".into(), port: 5, timeline: Timeline(2) }
}

fn branch() -> Branch {
    Branch { epoch: Epoch(1), timeline: Timeline(1), switch_lsn: Lsn(300) }
}

fn rejoin() -> Directive {
    Directive::Rejoin { upstream: upstream(), branches: vec![branch()], rewind_timeout_ms: 9 }
}

fn refused(next: Next, parts: &[&str]) {
    let Next::Refuse(reason) = next else { panic!("{next:?}") };
    for part in parts {
        assert!(reason.contains(part), "{part:?} in {reason:?}");
    }
}

fn step(next: Next) -> Step {
    let Next::Step(step) = next else { panic!("{next:?}") };
    step
}

#[test]
fn a_directive_of_the_past_is_refused_with_both_values() {
    let mut f = facts(DataForm::Standby);
    f.agent.highest_epoch = Epoch(40);
    refused(next(promote(), &f), &["2", "40"]);
    refused(next(rejoin(), &f), &["2", "40"]);
    refused(next(Directive::Prepare { fenced: Epoch(2), promises_void: false }, &f), &["2", "40"]);
    // The guard's file counts as well as the agent's.
    f.agent.highest_epoch = Epoch(0);
    f.guard.highest_epoch = Epoch(41);
    refused(next(promote(), &f), &["2", "41"]);
}

#[test]
fn a_higher_epoch_is_persisted_before_anything_else() {
    for form in FORMS {
        let mut f = facts(form);
        f.agent.highest_epoch = Epoch(1);
        assert_eq!(step(next(promote(), &f)), Step::PersistEpoch(Epoch(2)));
        assert_eq!(step(next(rejoin(), &f)), Step::PersistEpoch(Epoch(2)));
    }
}

#[test]
fn a_fence_asks_the_guard_whatever_the_data_is_and_hands_back_its_answer() {
    let fence = Directive::Fence { epoch: Epoch(2), grace_ms: 50 };
    for form in FORMS {
        let mut f = facts(form);
        f.guard.fenced_through = Epoch(2);
        assert_eq!(step(next(fence.clone(), &f)), Step::GuardFence { epoch: Epoch(2), grace_ms: 50 });
        let answer = FencedEvidence {
            epoch: Epoch(2),
            instance: ME,
            boot: BootId("boot".into()),
            succeeds: vec![],
            checkpoint_lsn: None,
            timeline: None,
            clean: true,
        };
        f.worked.fenced = Some(answer.clone());
        assert_eq!(next(fence.clone(), &f), Next::Done(Evidence::Fenced(answer)));
    }
    // A late fence must not touch a higher lease.
    let mut f = facts(DataForm::Primary);
    f.guard.lease_epoch = Some(Epoch(3));
    refused(next(fence, &f), &["2", "3"]);
}

#[test]
fn nothing_writable_starts_without_the_lease_for_exactly_this_epoch() {
    for form in FORMS {
        for lease in [None, Some(Epoch(1)), Some(Epoch(3))] {
            for run in [PostgresState::Stopped, PostgresState::Standby] {
                let mut f = facts(form);
                (f.guard.lease_epoch, f.guard.run, f.server) = (lease, run, Some(server(true)));
                f.agent.promoting = Some(Promoting { epoch: Epoch(2), from_timeline: Timeline(1) });
                for initialize in [false, true] {
                    let directive = Directive::Promote {
                        epoch: Epoch(2),
                        instance: ME,
                        initialize,
                        replay_timeout_ms: 1,
                    };
                    let next = next(directive, &f);
                    let writable = matches!(
                        next,
                        Next::Step(Step::StartPrimary(_) | Step::PromoteServer | Step::Initialize(_))
                    );
                    assert!(!writable, "{form:?} {lease:?} {run:?}: {next:?}");
                }
            }
        }
    }
}

#[test]
fn a_promotion_is_refused_when_it_is_not_for_this_guard_or_this_data() {
    let mut f = standby();
    f.guard.instance = InstanceId(8);
    refused(next(promote(), &f), &[&ME.to_string(), &InstanceId(8).to_string()]);
    let mut f = standby();
    f.guard.fenced_through = Epoch(2);
    refused(next(promote(), &f), &["fenced"]);
    let mut f = standby();
    f.guard.refused = Some("no namespaces".into());
    refused(next(promote(), &f), &["no namespaces"]);
    let mut f = standby();
    f.agent.lineage = Epoch::NONE;
    refused(next(promote(), &f), &["lineage"]);
    for form in [DataForm::Empty, DataForm::Rewinding, DataForm::Cloning, DataForm::Unusable] {
        refused(next(promote(), &facts(form)), &[]);
    }
}

#[test]
fn a_promotion_takes_its_lease_then_waits_for_replay_then_promotes() {
    let mut f = standby();
    let grant = Grant { epoch: Epoch(2), instance: ME, stamp_ns: f.now_ns - 1, ttl_ms: 1000 };
    assert_eq!(step(next_with(promote(), Some(grant.clone()), &f)), Step::Grant(grant.clone()));
    // One that is over, or another's, is not handed on: the heartbeats bring one.
    for bad in [
        Grant { stamp_ns: 0, ..grant.clone() },
        Grant { instance: InstanceId(8), ..grant.clone() },
        Grant { epoch: Epoch(3), ..grant },
    ] {
        let got = step(next_with(promote(), Some(bad), &f));
        assert!(matches!(got, Step::Wait { wait: Wait::Lease, .. }), "{got:?}");
    }
    f.worked.waiting_since_ns.insert(Wait::Lease, 0);
    refused(next(promote(), &f), &["no lease for epoch 2"]);

    f.guard.lease_epoch = Some(Epoch(2));
    f.data.upstream = Some(("old".into(), 1));
    assert_eq!(step(next(promote(), &f)), Step::Detach);
    f.data.upstream = None;
    f.server.as_mut().unwrap().replay_paused = true;
    assert_eq!(step(next(promote(), &f)), Step::ResumeReplay);
    f.server.as_mut().unwrap().replay_paused = false;
    f.server.as_mut().unwrap().replayed = Some(Lsn(400));
    assert!(matches!(step(next(promote(), &f)), Step::Wait { wait: Wait::Replay, .. }));
    f.worked.waiting_since_ns.insert(Wait::Replay, f.now_ns - 2_000_000_000);
    refused(next(promote(), &f), &["0/190", "0/1F4", "2000 ms", "1000 ms"]);
    f.server.as_mut().unwrap().replayed = Some(Lsn(500));
    let begin = Step::BeginPromotion { epoch: Epoch(2), from_timeline: Timeline(1) };
    assert_eq!(step(next(promote(), &f)), begin);
    f.agent.promoting = Some(Promoting { epoch: Epoch(2), from_timeline: Timeline(1) });
    assert_eq!(step(next(promote(), &f)), Step::PromoteServer);

    // Found promoted, also by a restarted agent: verified, recorded, answered with the switch.
    f.guard.run = PostgresState::Primary;
    f.server = Some(Server { timeline: Some(Timeline(2)), switch_lsn: Some(Lsn(480)), ..server(false) });
    assert_eq!(step(next(promote(), &f)), Step::PersistLineage(Epoch(2)));
    f.agent.lineage = Epoch(2);
    let Next::Done(Evidence::Promoted(evidence)) = next(promote(), &f) else { panic!() };
    assert_eq!((evidence.timeline, evidence.switch_lsn), (Timeline(2), Lsn(480)));
}

#[test]
fn a_primary_is_reappointed_in_place_on_its_own_timeline() {
    let mut f = facts(DataForm::Primary);
    f.guard.lease_epoch = Some(Epoch(2));
    let begin = Step::BeginPromotion { epoch: Epoch(2), from_timeline: Timeline(1) };
    assert_eq!(step(next(promote(), &f)), begin);
    f.agent.promoting = Some(Promoting { epoch: Epoch(2), from_timeline: Timeline(1) });
    assert_eq!(step(next(promote(), &f)), Step::StartPrimary(Epoch(2)));
    f.guard.run = PostgresState::Primary;
    f.agent.lineage = Epoch(2);
    // The timeline's own beginning, not its present position: see `promote::evidence`.
    f.server = Some(Server { switch_lsn: Some(Lsn(7)), ..server(false) });
    let Next::Done(Evidence::Promoted(evidence)) = next(promote(), &f) else { panic!() };
    assert_eq!((evidence.timeline, evidence.switch_lsn), (Timeline(1), Lsn(7)));
}

#[test]
fn the_first_epoch_initialises_an_empty_directory_only_when_it_may() {
    let initialize =
        Directive::Promote { epoch: Epoch(2), instance: ME, initialize: true, replay_timeout_ms: 1 };
    let mut f = facts(DataForm::Empty);
    f.guard.lease_epoch = Some(Epoch(2));
    assert_eq!(step(next(initialize.clone(), &f)), Step::Initialize(Epoch(2)));
    refused(next(promote(), &f), &["empty"]);
    f.guard.job_running = true;
    assert_eq!(step(next(initialize, &f)), Step::KillJob);
}

#[test]
fn prepare_ends_the_receiver_before_it_reads_the_position() {
    let prepare = || Directive::Prepare { fenced: Epoch(2), promises_void: false };
    let mut f = standby();
    f.data.upstream = Some(("old".into(), 1));
    assert_eq!(step(next(prepare(), &f)), Step::Detach);
    f.data.upstream = None;
    f.worked.detached = true;
    f.server.as_mut().unwrap().receiver = true;
    assert!(matches!(step(next(prepare(), &f)), Step::Wait { wait: Wait::ReceiverGone, .. }));
    f.server.as_mut().unwrap().receiver = false;
    assert_eq!(step(next(prepare(), &f)), Step::ClosePromises { epoch: Epoch(2), void: false });
    f.guard.promises_closed = Epoch(2);
    let Next::Done(Evidence::Prepared(report)) = next(prepare(), &f) else { panic!() };
    assert_eq!((report.received_lsn, report.stamp_ns, report.lineage), (Some(Lsn(500)), f.now_ns, Epoch(1)));

    // A primary that could write is not a candidate; a stopped one reports its clean end.
    f.guard.lease_epoch = Some(Epoch(2));
    refused(next(prepare(), &f), &["primary"]);
    let mut f = facts(DataForm::Primary);
    f.guard.promises_closed = Epoch(2);
    let Next::Done(Evidence::Prepared(report)) = next(prepare(), &f) else { panic!() };
    assert_eq!((report.received_lsn, report.refused), (Some(Lsn(100)), None));
    f.data.clean = false;
    let Next::Done(Evidence::Prepared(report)) = next(prepare(), &f) else { panic!() };
    assert_eq!(report.received_lsn, None);
}

/// A bootstrap whose first promotion was overdue: `initdb` was slow, and everything after it was refused for ever.
#[test]
fn a_first_promotion_that_was_never_verified_may_be_tried_again() {
    let mut f = facts(DataForm::Primary);
    f.guard.promises_closed = Epoch(2);
    f.agent.lineage = Epoch::NONE;
    let reported = |f: &Facts| match next(Directive::Prepare { fenced: Epoch(2), promises_void: false }, f) {
        Next::Done(Evidence::Prepared(report)) => report.refused,
        other => panic!("{other:?}"),
    };
    assert!(reported(&f).is_some_and(|why| why.contains("lineage")));
    f.agent.promoting = Some(Promoting { epoch: Epoch(1), from_timeline: Timeline(0) });
    assert_eq!(reported(&f), None);
}

#[test]
fn every_unusable_form_says_why_it_cannot_be_promoted() {
    for form in [DataForm::Empty, DataForm::Rewinding, DataForm::Cloning, DataForm::Unusable] {
        let mut f = facts(form);
        f.guard.promises_closed = Epoch(2);
        let Next::Done(Evidence::Prepared(report)) =
            next(Directive::Prepare { fenced: Epoch(2), promises_void: false }, &f)
        else {
            panic!()
        };
        assert!(report.refused.is_some(), "{form:?}");
    }
}

fn salvage() -> SalvageSummary {
    SalvageSummary {
        folder: "f".into(),
        epoch: Epoch(1),
        timeline: Timeline(1),
        from_lsn: Lsn(300),
        to_lsn: Lsn(500),
        transactions: 1,
        span_ms: 0,
        completeness: SalvageCompleteness::Complete,
        relations: vec![],
        relations_total: 0,
        data: None,
    }
}

#[test]
fn a_divergent_primary_is_measured_salvaged_rewound_and_only_then_started() {
    let mut f = facts(DataForm::Primary);
    f.guard.fenced_through = Epoch(0);
    assert_eq!(step(next(rejoin(), &f)), Step::GuardFence { epoch: Epoch(1), grace_ms: 0 });
    f.guard.fenced_through = Epoch(1);
    assert_eq!(step(next(rejoin(), &f)), Step::MeasureWalEnd(Timeline(1)));
    for end in [WalEnd::At(Lsn(500)), WalEnd::Unreadable("x".into())] {
        f.worked.wal_end = Some(end);
        assert_eq!(step(next(rejoin(), &f)), Step::Salvage { branch: branch(), upstream: upstream() });
    }
    f.agent.salvage = Some(salvage());
    assert!(matches!(step(next(rejoin(), &f)), Step::Rewind { budget_ms: 9, .. }));

    // Rewound: attach, start, wait for the stream, record, answer.
    f.data.form = DataForm::Standby;
    let record =
        Rejoining { method: Some(RejoinMethod::Rewound), salvaged: true, ..Rejoining::begin(Epoch(2)) };
    f.agent.rejoining = Some(record);
    assert_eq!(step(next(rejoin(), &f)), Step::Attach(upstream()));
    f.data.upstream = Some(("h".into(), 5));
    assert_eq!(step(next(rejoin(), &f)), Step::StartStandby);
    f.guard.run = PostgresState::Standby;
    f.server = Some(server(true));
    assert!(matches!(step(next(rejoin(), &f)), Step::Wait { wait: Wait::Streaming, .. }));
    f.server = Some(Server { streaming: true, timeline: Some(Timeline(2)), ..server(true) });
    assert_eq!(step(next(rejoin(), &f)), Step::AskUpstream(upstream()));
    f.worked.upstream = Some((UpstreamWal::From(Lsn(500)), f.now_ns));
    assert_eq!(step(next(rejoin(), &f)), Step::PersistLineage(Epoch(2)));
    f.agent.lineage = Epoch(2);
    let Next::Done(Evidence::Rejoined(evidence)) = next(rejoin(), &f) else { panic!() };
    assert_eq!((evidence.method, evidence.salvage), (RejoinMethod::Rewound, Some(salvage())));
}

#[test]
fn another_divergence_needs_a_salvage_of_its_own() {
    let mut f = facts(DataForm::Primary);
    f.worked.wal_end = Some(WalEnd::At(Lsn(500)));
    f.agent.salvage = Some(SalvageSummary { from_lsn: Lsn(299), ..salvage() });
    assert_eq!(step(next(rejoin(), &f)), Step::Salvage { branch: branch(), upstream: upstream() });
}

#[test]
fn what_has_not_diverged_is_only_repointed() {
    let mut f = facts(DataForm::Primary);
    f.worked.wal_end = Some(WalEnd::At(Lsn(300)));
    assert_eq!(
        step(next(rejoin(), &f)),
        Step::ChooseRepoint { epoch: Epoch(2), was_primary: f.data.form == DataForm::Primary }
    );
    let mut f = standby();
    f.server.as_mut().unwrap().lsn = Some(Lsn(300));
    assert_eq!(
        step(next(rejoin(), &f)),
        Step::ChooseRepoint { epoch: Epoch(2), was_primary: f.data.form == DataForm::Primary }
    );
    f.server.as_mut().unwrap().lsn = Some(Lsn(301));
    assert_eq!(step(next(rejoin(), &f)), Step::StopServer);
}

#[test]
fn an_interrupted_rewrite_is_followed_by_a_clone_and_nothing_else() {
    for form in [DataForm::Rewinding, DataForm::Cloning, DataForm::Empty] {
        let mut f = facts(form);
        f.agent.mark = match form {
            DataForm::Rewinding => Some(regent_agent_core::Mark::Rewinding),
            DataForm::Cloning => Some(regent_agent_core::Mark::Cloning),
            _ => None,
        };
        let Step::ChooseClone { reason, .. } = step(next(rejoin(), &f)) else { panic!() };
        f.agent.rejoining = Some(Rejoining { clone_reason: Some(reason), ..Rejoining::begin(Epoch(2)) });
        assert_eq!(
            step(next(rejoin(), &f)),
            Step::Clone { upstream: upstream(), keep_old: false },
            "{form:?}"
        );
        assert!(!matches!(steady(&f), Steady::StartStandby | Steady::StartPrimary(_)));
    }
    refused(next(rejoin(), &facts(DataForm::Unusable)), &["left alone"]);
}

#[test]
fn a_standby_that_was_stopped_while_it_left_recovery_is_not_started_on_the_word_of_its_last_rejoin() {
    let mut f = facts(DataForm::Primary);
    f.agent.lineage = Epoch(2);
    f.agent.rejoining = Some(Rejoining { method: Some(RejoinMethod::Cloned), ..Rejoining::begin(Epoch(2)) });
    f.worked.wal_end = Some(WalEnd::At(Lsn(500)));
    // Fit: the clone itself, before it is attached.
    f.data.timeline = Some(Timeline(2));
    assert_eq!(step(next(rejoin(), &f)), Step::Attach(upstream()));
    // A timeline of its own, which a start would follow.
    f.data.timeline = Some(Timeline(3));
    assert!(matches!(step(next(rejoin(), &f)), Step::ChooseClone { .. }));
}

#[test]
fn a_directory_that_may_be_somebody_elses_is_kept() {
    for form in [DataForm::Primary, DataForm::Standby] {
        let mut f = facts(form);
        f.agent.lineage = Epoch::NONE;
        f.worked.wal_end = Some(WalEnd::At(Lsn(1)));
        let Step::ChooseClone { reason, .. } = step(next(rejoin(), &f)) else { panic!() };
        f.agent.rejoining = Some(Rejoining { clone_reason: Some(reason), ..Rejoining::begin(Epoch(2)) });
        assert_eq!(step(next(rejoin(), &f)), Step::Clone { upstream: upstream(), keep_old: true });
    }
}

#[test]
fn a_member_with_a_lease_or_of_the_same_name_does_not_rejoin() {
    let mut f = facts(DataForm::Primary);
    f.guard.lease_epoch = Some(Epoch(2));
    refused(next(rejoin(), &f), &["lease for epoch 2"]);
    let mut f = facts(DataForm::Standby);
    f.member = MemberName::new("b").unwrap();
    refused(next(rejoin(), &f), &["itself"]);
}

#[test]
fn a_rewound_standby_that_never_streams_is_cloned_and_a_cloned_one_is_unknown() {
    let mut f = standby();
    f.data.upstream = Some(("h".into(), 5));
    f.worked.waiting_since_ns.insert(Wait::Streaming, 0);
    // The upstream has what it needs, and still it does not stream.
    f.worked.upstream = Some((UpstreamWal::From(Lsn(1)), f.now_ns));
    for (method, clones) in [(RejoinMethod::Rewound, true), (RejoinMethod::Cloned, false)] {
        f.agent.rejoining = Some(Rejoining { method: Some(method), ..Rejoining::begin(Epoch(2)) });
        let next = next(rejoin(), &f);
        assert_eq!(matches!(next, Next::Step(Step::ChooseClone { .. })), clones, "{next:?}");
        assert_eq!(matches!(next, Next::Unknown(_)), !clones, "{next:?}");
    }
}

#[test]
fn left_alone_a_standby_starts_and_a_primary_needs_its_lease() {
    assert_eq!(steady(&facts(DataForm::Standby)), Steady::StartStandby);
    let mut f = facts(DataForm::Primary);
    assert!(matches!(steady(&f), Steady::StaysStopped(_)));
    f.guard.lease_epoch = Some(Epoch(2));
    assert!(matches!(steady(&f), Steady::StaysStopped(_)));
    f.agent.lineage = Epoch(2);
    assert_eq!(steady(&f), Steady::StartPrimary(Epoch(2)));
    let mut f = facts(DataForm::Standby);
    f.agent.lineage = Epoch::NONE;
    assert!(matches!(steady(&f), Steady::StaysStopped(_)));
    f.agent.lineage = Epoch(1);
    f.guard.job_running = true;
    assert_eq!(steady(&f), Steady::Nothing);
}

/// A rejoin salvaged, and the epoch moved on before anybody heard of it: told as nothing, the loss would be called
/// none.
#[test]
fn a_salvage_is_told_also_after_the_epoch_has_moved_on() {
    let mut f = standby();
    f.data.upstream = Some(("h".into(), 5));
    f.server = Some(Server { streaming: true, timeline: Some(Timeline(2)), ..server(true) });
    f.agent.lineage = Epoch(2);
    f.agent.salvage = Some(salvage());
    f.agent.rejoining = Some(Rejoining { salvaged: true, ..Rejoining::begin(Epoch(1)) });
    f.worked.upstream = Some((UpstreamWal::Unreachable("no route".into()), f.now_ns));
    let Next::Done(Evidence::Rejoined(evidence)) = next(rejoin(), &f) else { panic!() };
    assert_eq!((evidence.method, evidence.salvage), (RejoinMethod::Unchanged, Some(salvage())));
}

/// A clone that never streamed is replaced by the next one, not kept: each kept copy takes the room of a database.
#[test]
fn a_clone_of_our_own_is_not_somebody_elses() {
    let mut f = facts(DataForm::Standby);
    f.agent.lineage = Epoch::NONE;
    f.worked.wal_end = Some(WalEnd::At(Lsn(1)));
    let record = |cloned| Rejoining { clone_reason: Some("x".into()), cloned, ..Rejoining::begin(Epoch(2)) };
    for cloned in [true, false] {
        f.agent.rejoining = Some(record(cloned));
        assert_eq!(step(next(rejoin(), &f)), Step::Clone { upstream: upstream(), keep_old: !cloned });
    }
}

fn restart(primary: bool, reload_only: bool) -> Directive {
    Directive::Restart { epoch: Epoch(2), primary, reload_only }
}

fn primary_under_lease() -> Facts {
    let mut f = facts(DataForm::Primary);
    f.agent.lineage = Epoch(2);
    f.guard.lease_epoch = Some(Epoch(2));
    f.guard.run = PostgresState::Primary;
    f.guard.started_at_ns = Some(5);
    f.server = Some(server(false));
    f.worked.run_at_begin = Some(Some(5));
    f
}

#[test]
fn a_restart_stops_the_run_that_was_there_and_starts_it_in_its_role() {
    let mut f = primary_under_lease();
    assert_eq!(step(next(restart(true, false), &f)), Step::StopServer);
    f.guard.run = PostgresState::Stopped;
    f.guard.started_at_ns = None;
    f.server = None;
    assert_eq!(step(next(restart(true, false), &f)), Step::StartPrimary(Epoch(2)));
    f.guard.run = PostgresState::Starting;
    f.guard.started_at_ns = Some(9);
    assert!(matches!(step(next(restart(true, false), &f)), Step::Wait { .. }));
    f.guard.run = PostgresState::Primary;
    f.server = Some(server(false));
    assert!(matches!(next(restart(true, false), &f), Next::Done(Evidence::Restarted { .. })));

    let mut f = standby();
    f.guard.started_at_ns = Some(5);
    f.worked.run_at_begin = Some(Some(5));
    assert_eq!(step(next(restart(false, false), &f)), Step::StopServer);
    f.guard.run = PostgresState::Stopped;
    f.guard.started_at_ns = None;
    assert_eq!(step(next(restart(false, false), &f)), Step::StartStandby);
}

#[test]
fn a_restart_in_another_role_or_without_the_lease_is_refused_before_anything_is_stopped() {
    refused(next(restart(true, false), &standby()), &["lease of epoch 2", "none"]);
    refused(next(restart(false, false), &primary_under_lease()), &["Primary"]);
    let mut lost = primary_under_lease();
    lost.guard.lease_epoch = None;
    refused(next(restart(true, false), &lost), &["lease of epoch 2", "none"]);
    // Once it is stopped, a lost lease is no refusal: the server was touched.
    lost.guard.started_at_ns = None;
    lost.guard.run = PostgresState::Stopped;
    assert!(matches!(next(restart(true, false), &lost), Next::Unknown(_)));
}

#[test]
fn a_reload_stops_nothing() {
    let mut f = primary_under_lease();
    assert_eq!(step(next(restart(true, true), &f)), Step::Reload);
    f.worked.reloaded = true;
    assert!(matches!(next(restart(true, true), &f), Next::Done(Evidence::Restarted { .. })));
}

/// A follower without a stream: the upstream is asked before anything is decided.
fn without_a_stream() -> Facts {
    let mut f = standby();
    f.data.upstream = Some(("h".into(), 5));
    f.agent.lineage = Epoch(2);
    f.server.as_mut().unwrap().timeline = Some(Timeline(2));
    f.agent.rejoining =
        Some(Rejoining { method: Some(RejoinMethod::Repointed), ..Rejoining::begin(Epoch(2)) });
    f.worked.waiting_since_ns.insert(Wait::Streaming, f.now_ns - 6_000_000_000);
    f
}

/// Seen to fail (a clone because of a cut) without the question to the upstream.
#[test]
fn only_the_upstreams_own_word_makes_a_clone_of_a_standby_without_a_stream() {
    let mut f = without_a_stream();
    assert_eq!(step(next(rejoin(), &f)), Step::AskUpstream(upstream()));
    let asked_ns = f.now_ns;
    f.worked.upstream = Some((UpstreamWal::Unreachable("no route".into()), asked_ns));
    assert!(matches!(step(next(rejoin(), &f)), Step::Wait { .. }));
    f.worked.waiting_since_ns.insert(Wait::Streaming, f.now_ns - 600_000_000_000);
    let Next::Unknown(reason) = next(rejoin(), &f) else { panic!() };
    assert!(reason.contains("no route"), "{reason}");
    // It has what is needed: it waits, and asks again after a while.
    let mut f = without_a_stream();
    f.worked.upstream = Some((UpstreamWal::From(Lsn(500)), asked_ns));
    assert!(matches!(step(next(rejoin(), &f)), Step::Wait { .. }));
    f.now_ns += 5_000_000_000;
    assert_eq!(step(next(rejoin(), &f)), Step::AskUpstream(upstream()));
    // It has not.
    let mut f = without_a_stream();
    f.worked.upstream = Some((UpstreamWal::From(Lsn(501)), asked_ns));
    let Step::ChooseClone { reason, .. } = step(next(rejoin(), &f)) else { panic!() };
    assert!(reason.contains("0/1F4") && reason.contains("0/1F5"), "{reason}");
}

/// Seen on real PostgreSQL: a standby whose WAL is gone streams for a moment at each try.
#[test]
fn a_stream_that_the_upstream_cannot_go_on_with_is_none() {
    let mut f = without_a_stream();
    f.server.as_mut().unwrap().streaming = true;
    assert_eq!(step(next(rejoin(), &f)), Step::AskUpstream(upstream()));
    f.worked.upstream = Some((UpstreamWal::From(Lsn(501)), f.now_ns));
    assert!(matches!(step(next(rejoin(), &f)), Step::Wait { wait: Wait::Streaming, .. }));
    f.server.as_mut().unwrap().streaming = false;
    assert!(matches!(step(next(rejoin(), &f)), Step::ChooseClone { .. }));
}

#[test]
fn the_archive_is_taken_for_the_upstreams_timeline_only_and_as_long_as_it_gets_on() {
    let gone = |f: &Facts| Some((UpstreamWal::From(Lsn(900)), f.now_ns));
    let mut f = without_a_stream();
    f.archive = true;
    f.worked.upstream = gone(&f);
    assert_eq!(step(next(rejoin(), &f)), Step::UseArchive(upstream()));
    // A cut-off primary may have archived what has diverged.
    f.server.as_mut().unwrap().timeline = Some(Timeline(1));
    assert!(matches!(step(next(rejoin(), &f)), Step::ChooseClone { .. }));
    let mut f = without_a_stream();
    (f.archive, f.data.archive) = (true, true);
    f.now_ns += 3_600_000_000_000;
    f.worked.waiting_since_ns.insert(Wait::Streaming, f.now_ns - 3_600_000_000_000);
    f.worked.upstream = gone(&f);
    f.worked.replayed = Some((Lsn(500), f.now_ns - 60_000_000_000));
    assert!(matches!(step(next(rejoin(), &f)), Step::Wait { .. }));
    f.worked.replayed = Some((Lsn(500), f.now_ns - 91_000_000_000));
    assert!(matches!(step(next(rejoin(), &f)), Step::ChooseClone { .. }));
}

/// Seen to fail (the directory is removed) without the record of its form.
#[test]
fn a_primary_that_was_judged_fit_and_never_streamed_is_kept_aside_by_a_clone() {
    for (was_primary, lineage, keep_old) in [(true, 1, true), (false, 1, false), (true, 2, false)] {
        let mut f = facts(DataForm::Standby);
        f.agent.lineage = Epoch(lineage);
        f.agent.rejoining =
            Some(Rejoining { clone_reason: Some("x".into()), was_primary, ..Rejoining::begin(Epoch(2)) });
        assert_eq!(step(next(rejoin(), &f)), Step::Clone { upstream: upstream(), keep_old });
    }
}
