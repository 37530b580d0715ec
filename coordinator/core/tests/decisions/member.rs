//! A fake member: its facts, its heartbeats, and what a healthy one would answer to a directive.

use regent_types::{
    BootId, Branch, CandidateReport, CheckpointedEvidence, ClusterName, ClusterView, DataFacts, DataForm,
    DiskFacts, DiskProbe, Epoch, FencedEvidence, GuardFacts, Heartbeat, InstanceId, JobProgress, Lsn,
    MemberName, PostgresFacts, PostgresState, PromotedEvidence, RejoinMethod, RejoinedEvidence, Report,
    SalvageCompleteness, SalvageSummary, StandbyFacts, SyncSet, SynchronousFacts, SystemId, Timeline,
    Upstream, WalFacts, WalRetention,
};

pub const SYSTEM: SystemId = SystemId(7001);

/// Everything that a script may change.
#[derive(Debug, Clone)]
pub struct Member {
    pub cluster: ClusterName,
    pub name: MemberName,
    pub instance: InstanceId,
    pub boot: BootId,
    pub succeeds: Vec<InstanceId>,
    pub silent: bool,
    pub refused: Option<String>,
    pub state: PostgresState,
    pub down_since_ns: Option<u64>,
    pub probe: DiskProbe,
    pub form: DataForm,
    pub system_id: Option<SystemId>,
    pub timeline: Option<Timeline>,
    pub lineage: Epoch,
    pub lsn: Lsn,
    pub streaming: bool,
    pub sample_age_ms: u64,
    pub promises_closed: Epoch,
    pub members_version: u64,
    /// The list of promotable members on its disk, with the epoch that it came with.
    pub list: Option<(Epoch, u64)>,
    /// The names on it.
    pub asks: Vec<MemberName>,
    /// The group that it obeys.
    pub group: Option<regent_types::GroupId>,
    /// It holds a lease of another group's.
    pub foreign_lease: Option<Epoch>,
    pub retention: WalRetention,
    pub job: Option<JobProgress>,
    /// Its stream breaks before the shutdown checkpoint.
    pub misses_shutdown: bool,
    /// A fast shutdown does not end in time.
    pub shuts_down_late: bool,
    /// Whom its commits wait for, as it was told.
    pub synchronous: Option<SynchronousFacts>,
    /// Writes that it refuses.
    pub blocked_writes: Option<regent_types::BlockedWrites>,
    /// It does not carry out what it is told of that.
    pub holds_rule: bool,
}

/// Length of a shutdown checkpoint's record.
pub const SHUTDOWN_BYTES: u64 = 0x78;

impl Member {
    pub fn new(cluster: &ClusterName, name: &MemberName, instance: u128) -> Self {
        Self {
            cluster: cluster.clone(),
            name: name.clone(),
            instance: InstanceId(instance),
            boot: BootId("boot-1".into()),
            succeeds: Vec::new(),
            silent: false,
            refused: None,
            state: PostgresState::Stopped,
            down_since_ns: None,
            probe: DiskProbe::Ok { latency_ms: 1 },
            form: DataForm::Empty,
            system_id: None,
            timeline: None,
            lineage: Epoch::NONE,
            lsn: Lsn(0),
            streaming: false,
            sample_age_ms: 0,
            promises_closed: Epoch::NONE,
            members_version: 0,
            list: None,
            asks: Vec::new(),
            group: None,
            foreign_lease: None,
            retention: WalRetention::default(),
            job: None,
            misses_shutdown: false,
            shuts_down_late: false,
            synchronous: None,
            blocked_writes: None,
            holds_rule: false,
        }
    }

    /// Its guard starts anew; PostgreSQL died with the last one.
    pub fn restart(&mut self, instance: u128, same_boot: bool) {
        if same_boot {
            self.succeeds.insert(0, self.instance);
        } else {
            self.succeeds.clear();
            self.boot = BootId(format!("{}+", self.boot));
        }
        self.instance = InstanceId(instance);
        self.state = PostgresState::Stopped;
        self.streaming = false;
    }

    pub fn heartbeat(&self, now_ns: u64) -> Heartbeat {
        let accepting = matches!(self.state, PostgresState::Primary | PostgresState::Standby);
        let down_ms = self.down_since_ns.map_or(0, |since_ns| now_ns.saturating_sub(since_ns) / 1_000_000);
        let primary = self.state == PostgresState::Primary;
        let report = Report {
            guard: GuardFacts {
                reachable: true,
                refused: self.refused.clone(),
                highest_epoch: self.lineage,
                fenced_through: Epoch::NONE,
                lease_epoch: self.foreign_lease,
                lease_remaining_ms: None,
                succeeds: self.succeeds.clone(),
                restarts: 0,
                rogue_promotions: 0,
                state_file: "ok".into(),
                lease_ttl_max_ms: None,
            },
            postgres: PostgresFacts {
                state: self.state,
                accepting: accepting && self.down_since_ns.is_none(),
                not_accepting_for_ms: down_ms,
                major: Some(18),
                logical_slots_at_risk: 0,
            },
            data: DataFacts {
                form: self.form,
                system_id: self.system_id,
                timeline: self.timeline,
                lineage: self.lineage,
            },
            wal: WalFacts {
                write_lsn: primary.then_some(self.lsn),
                received_lsn: (!primary).then_some(self.lsn),
                streaming: self.streaming,
                timeline: self.timeline,
                sample_age_ms: self.sample_age_ms,
                retention: primary.then(|| self.retention.clone()),
                ..WalFacts::default()
            },
            disk: DiskFacts {
                probe: self.probe.clone(),
                free_bytes: None,
                total_bytes: None,
                slot_retained_bytes: None,
            },
            job: self.job.clone(),
            salvages: Vec::new(),
            promise: regent_types::PromiseFacts {
                list: self.list,
                asks: self.asks.clone(),
                ..Default::default()
            },
            parameters: regent_types::ParameterFacts::default(),
            synchronous: self.synchronous.clone().filter(|_| primary),
            blocked_writes: self.blocked_writes.clone(),
        };
        Heartbeat {
            cluster: self.cluster.clone(),
            member: self.name.clone(),
            instance: self.instance,
            boot: self.boot.clone(),
            stamp_ns: now_ns,
            nonce: now_ns,
            report,
            members_version: self.members_version,
            group: self.group,
        }
    }

    /// Acts by what it is told, as its agent would: in force since the end of its WAL.
    pub fn waits_as_told(&mut self, view: &ClusterView) {
        let Some(told) = view.synchronous.as_ref().filter(|_| !self.holds_rule) else { return };
        if self.synchronous.as_ref().is_some_and(|facts| facts.version == told.version) {
            return;
        }
        self.synchronous = Some(SynchronousFacts {
            epoch: told.epoch,
            version: told.version,
            names: told.rules.get(&self.name).map(SyncSet::names).unwrap_or_default(),
            since_lsn: Some(self.lsn),
        });
    }

    /// Its data counts as part of this epoch's history.
    pub fn adopt(&mut self, epoch: Epoch) -> String {
        if self.form == DataForm::Standby {
            self.lineage = epoch;
        }
        "taken over".into()
    }

    /// Nothing is known of its data any more.
    pub fn disown(&mut self) -> String {
        self.lineage = Epoch::NONE;
        "disowned".into()
    }

    /// Fences: PostgreSQL stops if it could write.
    pub fn fence(&mut self, epoch: Epoch) -> FencedEvidence {
        let ran = self.state == PostgresState::Primary;
        if ran {
            self.state = PostgresState::Stopped;
        }
        let clean = ran && !self.shuts_down_late;
        FencedEvidence {
            epoch,
            instance: self.instance,
            boot: self.boot.clone(),
            succeeds: self.succeeds.clone(),
            checkpoint_lsn: clean.then_some(self.lsn),
            timeline: self.timeline,
            clean,
        }
    }

    pub fn prepare(&mut self, fenced: Epoch, now_ns: u64) -> CandidateReport {
        self.promises_closed = self.promises_closed.max(fenced);
        // Detached: nothing attaches it again but a rejoin.
        self.streaming = false;
        CandidateReport {
            member: self.name.clone(),
            instance: self.instance,
            boot: self.boot.clone(),
            received_lsn: Some(self.lsn),
            replayed_lsn: Some(self.lsn),
            timeline: self.timeline,
            system_id: self.system_id,
            form: self.form,
            lineage: self.lineage,
            promises_closed: self.promises_closed,
            refused: self.refused.clone(),
            stamp_ns: now_ns,
            promise_left_ms: None,
        }
    }

    pub fn checkpoint(&self, epoch: Epoch, standbys: Vec<StandbyFacts>) -> CheckpointedEvidence {
        CheckpointedEvidence { epoch, write_lsn: self.lsn, standbys, elapsed_ms: 90 }
    }

    pub fn promote(&mut self, epoch: Epoch) -> PromotedEvidence {
        let timeline = match (self.form, self.timeline) {
            (DataForm::Standby, Some(timeline)) => Timeline(timeline.0 + 1),
            (_, timeline) => timeline.unwrap_or(Timeline(1)),
        };
        self.form = DataForm::Primary;
        self.state = PostgresState::Primary;
        self.streaming = false;
        self.timeline = Some(timeline);
        self.system_id = Some(SYSTEM);
        self.lineage = epoch;
        PromotedEvidence {
            epoch,
            system_id: SYSTEM,
            timeline,
            switch_lsn: self.lsn,
            elapsed_ms: 300,
            replay_ms: 20,
        }
    }

    pub fn rejoin(&mut self, upstream: &Upstream, branches: &[Branch], head: Lsn) -> RejoinedEvidence {
        let left = branches.iter().find(|branch| branch.timeline != upstream.timeline);
        let salvage = left.filter(|branch| self.lsn > branch.switch_lsn).map(|branch| SalvageSummary {
            folder: format!("salvage/epoch-{}", branch.epoch),
            epoch: branch.epoch,
            timeline: branch.timeline,
            from_lsn: branch.switch_lsn,
            to_lsn: self.lsn,
            transactions: 3,
            span_ms: 900,
            completeness: SalvageCompleteness::Complete,
            relations: vec![],
            relations_total: 0,
            data: None,
        });
        let method = match self.form {
            DataForm::Primary if salvage.is_some() => RejoinMethod::Rewound,
            DataForm::Standby | DataForm::Primary if self.lineage != Epoch::NONE => RejoinMethod::Repointed,
            _ => RejoinMethod::Cloned,
        };
        self.form = DataForm::Standby;
        self.state = PostgresState::Standby;
        self.streaming = true;
        self.down_since_ns = None;
        self.timeline = Some(upstream.timeline);
        self.system_id = Some(SYSTEM);
        self.lineage = upstream.epoch;
        self.lsn = head;
        RejoinedEvidence { method, reason: None, salvage, copied_bytes: 4096, elapsed_ms: 800 }
    }
}
