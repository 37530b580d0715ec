//! Data from a time without Regent, and data after a removal: what it counts as, and what is refused.

use regent_agent_core::{
    AgentView, DataView, Facts, GuardView, Limits, Next, Promoting, Steady, Step, WalEnd, Work, Worked, plan,
    steady,
};
use regent_types::{
    AdoptedHistory, BootId, DataForm, Directive, Epoch, Evidence, InstanceId, Lsn, MemberName, PostgresState,
    SystemId, Timeline,
};

const ME: InstanceId = InstanceId(7);
/// A member at epoch 1, timeline 1, stopped, fenced through 1.
fn facts(form: DataForm) -> Facts {
    let known = !matches!(form, DataForm::Empty | DataForm::Unusable);
    Facts {
        archive: false,
        member: MemberName::new("a").unwrap(),
        now_ns: 1_000_000_000_000,
        guard: GuardView {
            started_at_ns: None,
            instance: ME,
            boot: BootId("boot".into()),
            highest_epoch: Epoch(1),
            fenced_through: Epoch(1),
            promises_closed: Epoch(1),
            lease_epoch: None,
            run: PostgresState::Stopped,
            job_running: false,
            refused: None,
            succeeds: vec![],
            promise: None,
        },
        data: DataView {
            archive: false,
            form,
            system_id: known.then_some(SystemId(9)),
            timeline: known.then_some(Timeline(1)),
            checkpoint_lsn: known.then_some(Lsn(100)),
            clean: true,
            upstream: None,
            switch_lsn: None,
        },
        server: None,
        agent: AgentView { highest_epoch: Epoch(2), lineage: Epoch(1), ..AgentView::default() },
        worked: Worked::default(),
    }
}

/// Nothing of it is known to Regent.
fn stranger(form: DataForm) -> Facts {
    let mut f = facts(form);
    f.agent.lineage = Epoch::NONE;
    f
}

fn next(directive: Directive, facts: &Facts) -> Next {
    let work = Work { directive, grant: None, started_ns: facts.now_ns };
    plan(&work, facts, &Limits::default())
}

fn primary() -> Directive {
    Directive::Adopt { epoch: Epoch(2), system_id: SystemId(9), standby_of: None }
}

fn standby(timeline: u32, switch_lsn: Option<Lsn>) -> Directive {
    let history = AdoptedHistory { timeline: Timeline(timeline), switch_lsn, end_lsn: Lsn(500) };
    Directive::Adopt { epoch: Epoch(2), system_id: SystemId(9), standby_of: Some(history) }
}

fn refused(next: &Next, word: &str) {
    assert!(matches!(next, Next::Refuse(why) if why.contains(word)), "{word}: {next:?}");
}

#[test]
fn a_primary_is_taken_over_in_place() {
    let mut f = stranger(DataForm::Primary);
    let begin = Step::BeginPromotion { epoch: Epoch(2), from_timeline: Timeline(1) };
    assert_eq!(next(primary(), &f), Next::Step(begin));
    f.agent.promoting = Some(Promoting { epoch: Epoch(2), from_timeline: Timeline(1) });
    assert!(matches!(next(primary(), &f), Next::Done(Evidence::Claimed { .. })));

    refused(&next(primary(), &stranger(DataForm::Standby)), "Standby");
    refused(&next(primary(), &stranger(DataForm::Empty)), "Empty");
    let mut other = stranger(DataForm::Primary);
    other.data.system_id = Some(SystemId(8));
    refused(&next(primary(), &other), "is 8, the cluster's is 9");
    let mut unreadable = stranger(DataForm::Primary);
    unreadable.data.timeline = None;
    refused(&next(primary(), &unreadable), "timeline is not known");
}

#[test]
fn a_standby_is_taken_over_only_when_its_whole_history_matches() {
    let mut f = stranger(DataForm::Standby);
    assert_eq!(next(standby(1, None), &f), Next::Step(Step::MeasureWalEnd(Timeline(1))));
    f.worked.wal_end = Some(WalEnd::At(Lsn(500)));
    assert_eq!(next(standby(1, None), &f), Next::Step(Step::PersistLineage(Epoch(2))));
    f.worked.wal_end = Some(WalEnd::At(Lsn(501)));
    refused(&next(standby(1, None), &f), "what the primary never wrote");
    f.worked.wal_end = Some(WalEnd::Unreadable("gap".into()));
    refused(&next(standby(1, None), &f), "gap");
    refused(&next(standby(2, None), &f), "timeline 1, the primary on timeline 2");
    // The same number, made by another promotion.
    f.data.switch_lsn = Some(Lsn(30));
    refused(&next(standby(1, Some(Lsn(40))), &f), "began at 0/1E here, at 0/28");
    f.agent.lineage = Epoch(2);
    assert!(matches!(next(standby(1, None), &f), Next::Done(Evidence::Claimed { .. })));
}

#[test]
fn disowning_forgets_everything_but_never_under_a_lease() {
    let disown = || Directive::Disown { epoch: Epoch(2) };
    let mut f = facts(DataForm::Standby);
    assert_eq!(next(disown(), &f), Next::Step(Step::Disown));
    f.agent.lineage = Epoch::NONE;
    assert!(matches!(next(disown(), &f), Next::Done(Evidence::Claimed { .. })));
    f.guard.lease_epoch = Some(Epoch(2));
    refused(&next(disown(), &f), "lease for epoch 2");
}

#[test]
fn a_removed_member_stops_and_stays_stopped_until_it_is_a_member_again() {
    let mut f = facts(DataForm::Standby);
    f.agent.removed = Some(3);
    f.guard.run = PostgresState::Standby;
    assert!(matches!(steady(&f), Steady::StopStandby(why) if why.contains("version 3")));
    f.guard.run = PostgresState::Stopped;
    assert!(matches!(steady(&f), Steady::StaysStopped(_)));
    f.agent.removed = None;
    assert_eq!(steady(&f), Steady::StartStandby);
}
