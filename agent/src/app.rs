//! What the agent's tasks share: configuration, the guard's client, the state file, and the latest observations. No task
//! holds a lock while it waits for anything.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use regent_agent_core::{DataView, Server, outlook::Rate};
use regent_guard::wire::Status;
use regent_types::{
    BootId, ClusterView, DataFacts, DiskFacts, DiskProbe, JobProgress, Report, SalvageSummary, Timeline,
};

use crate::{
    clock::{boottime_ns, ms, ms_since},
    config::Config,
    disk::Disk,
    guard::Guard,
    limits::Limits,
    metrics::Counters,
    parameters::Parameters,
    postgres::probe::Sample,
    promise::Promises,
    report,
    runs::Runs,
    state::State,
    synchronous::Synchronous,
    transport::Certificates,
};

/// The latest observations.
#[derive(Debug)]
pub struct Observed {
    /// The guard's last answer, and when.
    pub guard: Option<(Status, u64)>,
    /// Its last failure, unless it has answered since.
    pub guard_error: Option<String>,
    /// The last look at the server, and when.
    pub sample: Option<(Sample, u64)>,
    /// The last failure, unless it has answered since.
    pub sample_error: Option<String>,
    /// The last answer that counts, or the agent's start.
    pub answered_ns: u64,
    /// Which answers count.
    pub runs: Runs,
    /// The timeline that the running standby was seen to stream, and when that run was started.
    pub streamed: Option<(u64, Timeline)>,
    /// The data directory.
    pub data: Option<DataView>,
    /// Major version.
    pub major: Option<u32>,
    /// Free and total bytes.
    pub space: Option<(u64, u64)>,
    /// How fast a primary writes WAL.
    pub rate: Rate,
    /// The newest salvages.
    pub salvages: Vec<SalvageSummary>,
    /// Logical slots of this primary that a failover would lose.
    pub logical_slots_at_risk: u32,
}

/// Shared by every task.
#[derive(Debug)]
pub struct App {
    /// The configuration.
    pub config: Config,
    /// The guard.
    pub guard: Guard,
    /// The state file.
    pub state: State,
    /// This boot.
    pub boot: BootId,
    /// What was seen last.
    pub observed: Mutex<Observed>,
    /// The cluster, as the last acknowledgement had it.
    pub view: Mutex<Option<ClusterView>>,
    /// Whether the last answer of a leader was that this member is removed (`Some(Some(version))`) or is not; `None` before
    /// the first answer.
    pub removed: Mutex<Option<Option<u64>>>,
    /// The long piece of work under way.
    pub progress: Mutex<Option<JobProgress>>,
    /// Promises between members.
    pub promises: Promises,
    /// PostgreSQL's parameters.
    pub parameters: Parameters,
    /// The fsync probe.
    pub disk: Disk,
    /// Figures for `/metrics`.
    pub counters: Counters,
    /// A directive is running: the steady loop keeps its hands off.
    pub busy: AtomicBool,
    /// A fence is under way.
    pub fencing: AtomicBool,
    /// Another group of coordinators is being written down.
    pub taking_group: AtomicBool,
    /// What it connects with.
    pub certificates: Certificates,
    /// Whom commits wait for.
    pub synchronous: Synchronous,
    /// Writes that are refused.
    pub limits: Limits,
}

impl App {
    /// Opens the state file; starts nothing.
    pub fn open(config: Config) -> anyhow::Result<Self> {
        use anyhow::Context;
        std::fs::create_dir_all(&config.state_dir)
            .with_context(|| format!("state_dir {} cannot be made", config.state_dir.display()))?;
        crate::postgres::conf::write_passfile(&config).context("replication_password_file")?;
        let state = State::open(&config.state_dir)?;
        let boot = crate::clock::boot_id().context("boot id")?;
        let promises = Promises::open(&config.state_dir, &boot);
        Ok(Self {
            guard: Guard::new(config.guard_socket.clone()),
            state,
            boot,
            observed: Mutex::new(Observed {
                guard: None,
                guard_error: None,
                sample: None,
                sample_error: None,
                answered_ns: boottime_ns(),
                runs: Runs::default(),
                streamed: None,
                data: None,
                major: None,
                space: None,
                rate: Rate::default(),
                salvages: vec![],
                logical_slots_at_risk: 0,
            }),
            view: Mutex::new(None),
            removed: Mutex::new(None),
            progress: Mutex::new(None),
            promises,
            parameters: Parameters::open(&config.state_dir),
            disk: Disk::default(),
            counters: Counters::default(),
            busy: AtomicBool::new(false),
            fencing: AtomicBool::new(false),
            taking_group: AtomicBool::new(false),
            certificates: Certificates::default(),
            synchronous: Synchronous::default(),
            limits: Limits::default(),
            config,
        })
    }

    /// The latest observations.
    pub fn observed(&self) -> std::sync::MutexGuard<'_, Observed> {
        self.observed.lock().expect("no panic while held")
    }

    /// Remembers the timeline that a standby streams, and recalls it when its receiver is gone: then only `pg_control` is
    /// left to ask, which names the timeline of the last restartpoint.
    ///
    /// Interleaving: a failover, and a second one before the standby's next restartpoint, minutes later. Its receiver is
    /// stopped, it reports the timeline before the first failover, and is refused as of another history though it has
    /// received everything. What is forgotten (a restart of the agent or of the server) errs towards that wait.
    pub fn recall_timeline(&self, server: &mut Server) {
        let mut seen = self.observed();
        let run = seen.guard.as_ref().and_then(|(status, _)| status.started_at_ns);
        let (Some(run), Some(timeline), true) = (run, server.timeline, server.in_recovery) else { return };
        if server.streaming {
            seen.streamed = Some((run, timeline));
        } else if let Some((_, streamed)) =
            seen.streamed.filter(|(of, streamed)| *of == run && *streamed > timeline)
        {
            drop(seen);
            server.timeline = Some(streamed);
            server.switch_lsn = crate::data::switch_lsn(&self.config.data_dir, streamed);
        }
    }

    /// The cluster as last heard.
    pub fn view(&self) -> Option<ClusterView> {
        self.view.lock().expect("no panic while held").clone()
    }

    /// Shows progress of a long piece of work, or its end.
    pub fn show(&self, progress: Option<JobProgress>) {
        *self.progress.lock().expect("no panic while held") = progress;
    }

    /// A directive is running.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst)
    }

    /// What a heartbeat says.
    pub fn report(&self) -> Report {
        let seen = self.observed();
        let fresh_ms = 3 * ms(self.config.probe_interval) + ms(self.config.probe_timeout);
        let guard_fresh = seen.guard.as_ref().filter(|(_, at)| ms_since(*at) <= fresh_ms.max(3000));
        let state = self.state.get();
        Report {
            guard: report::guard(guard_fresh.map(|(s, _)| s)),
            postgres: report::postgres(&seen, guard_fresh.map(|(s, _)| s)),
            data: DataFacts {
                form: seen.data.as_ref().map_or(regent_types::DataForm::Unusable, |d| d.form),
                system_id: seen.data.as_ref().and_then(|d| d.system_id),
                timeline: seen.data.as_ref().and_then(|d| d.timeline),
                lineage: state.lineage,
            },
            wal: report::wal(&seen),
            disk: DiskFacts {
                probe: match seen.data.as_ref().map(|d| d.form) {
                    None | Some(regent_types::DataForm::Empty) => DiskProbe::NotProbed,
                    _ => self.disk.state(),
                },
                free_bytes: seen.space.map(|s| s.0),
                total_bytes: seen.space.map(|s| s.1),
                slot_retained_bytes: seen.sample.as_ref().and_then(|(s, _)| s.slot_retained_bytes),
            },
            job: self.progress.lock().expect("no panic while held").clone(),
            salvages: seen.salvages.clone(),
            parameters: self.parameters.facts(),
            promise: self.promises.facts(
                report::promise(guard_fresh.map(|(s, _)| s)),
                guard_fresh.and_then(|(s, _)| s.lease_deadline_ns),
                guard_fresh.and_then(|(s, _)| s.lease_ttl_max_ms),
            ),
            synchronous: self.synchronous.facts(),
            blocked_writes: self.limits.facts(),
        }
    }
}
