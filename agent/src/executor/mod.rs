//! Directives in, outcomes out. One at a time; a fence pre-empts whatever runs; a repeated key gets its first answer.
//! What to do next is decided by `regent-agent-core` from fresh facts; this module only carries it out.

pub mod facts;
mod run;
pub mod steps;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, atomic::Ordering},
};

use regent_agent_core::{Admission, OutcomeCache, Work};
use regent_types::{Directive, EffectKey, Grant, Outcome};
use tokio::{runtime::Handle, sync::Notify, task::AbortHandle};

use crate::{app::App, clock::boottime_ns};

#[derive(Debug, Default)]
struct Inner {
    directives: OutcomeCache,
    fences: OutcomeCache,
    running: Option<(EffectKey, AbortHandle)>,
    outbox: VecDeque<(EffectKey, Outcome)>,
}

/// Outcomes that wait for a session; the coordinator asks again for what is dropped.
const OUTBOX_MAX: usize = 128;

/// Runs directives.
#[derive(Debug)]
pub struct Executor {
    app: Arc<App>,
    /// Where directives run: they write and fsync, and a dead disk must not stop heartbeats.
    work: Handle,
    inner: Mutex<Inner>,
    ready: Notify,
}

impl Executor {
    /// Idle; directives will run on `work`, fences where they arrive.
    pub fn new(app: Arc<App>, work: Handle) -> Self {
        Self { app, work, inner: Mutex::default(), ready: Notify::new() }
    }

    /// A directive has arrived.
    pub fn submit(self: &Arc<Self>, key: EffectKey, directive: Directive, grant: Option<Grant>) {
        if key.cluster != self.app.config.cluster {
            let reason = format!("this agent is of cluster {}, not {}", self.app.config.cluster, key.cluster);
            return self.answer(key, Outcome::Refused { reason });
        }
        let fence = matches!(directive, Directive::Fence { .. });
        let mut inner = self.inner.lock().expect("no panic while held");
        let cache = if fence { &mut inner.fences } else { &mut inner.directives };
        match cache.admit(&key) {
            Admission::Running => return,
            Admission::Answered(outcome) => {
                drop(inner);
                return self.answer(key, outcome);
            }
            Admission::Older { running } => {
                drop(inner);
                let (op, step) = (running.operation, running.step);
                let reason = format!("operation {op} step {step} runs, and it is newer");
                return self.answer(key, Outcome::Refused { reason });
            }
            Admission::Start { .. } => {}
        }
        tracing::info!(
            directive = directive.name(), epoch = %directive.epoch(), operation = %key.operation, step = key.step,
            "directive begins"
        );
        // Whatever runs gives way: to a fence always, to a newer directive because the coordinator has moved on.
        if let Some((old, handle)) = inner.running.take() {
            handle.abort();
            tracing::info!(operation = %old.operation, step = old.step, "superseded");
            let unknown = Outcome::Unknown { reason: format!("superseded by {}", directive.name()) };
            inner.directives.finish(&old, &unknown);
            inner.outbox.push_back((old, unknown));
        }
        let (me, work_key) = (self.clone(), key.clone());
        self.app.busy.store(true, Ordering::SeqCst);
        let work = Work { directive, grant, started_ns: boottime_ns() };
        let task = async move {
            let outcome = run::run(&me.app, &work).await;
            me.finish(work_key, fence, &work, outcome);
        };
        // A fence touches no disk, and must not wait behind a step that does.
        if fence {
            tokio::spawn(task);
        } else {
            inner.running = Some((key, self.work.spawn(task).abort_handle()));
        }
    }

    /// A directive that this agent cannot read: it does nothing, and will not do it later.
    pub fn refuse(&self, key: EffectKey, problem: &str) {
        let version = env!("CARGO_PKG_VERSION");
        let reason =
            format!("this agent (version {version}) cannot read the directive: {problem}; upgrade it");
        tracing::warn!(operation = %key.operation, step = key.step, reason, "refused");
        self.answer(key, Outcome::Refused { reason });
    }

    fn finish(&self, key: EffectKey, fence: bool, work: &Work, outcome: Outcome) {
        let name = work.directive.name();
        let elapsed_ms = crate::clock::ms_since(work.started_ns);
        match &outcome {
            Outcome::Done(_) => tracing::info!(directive = name, elapsed_ms, "directive done"),
            Outcome::Refused { reason } => tracing::warn!(directive = name, elapsed_ms, reason, "refused"),
            Outcome::Unknown { reason } => tracing::warn!(directive = name, elapsed_ms, reason, "unknown"),
        }
        let mut inner = self.inner.lock().expect("no panic while held");
        if fence {
            inner.fences.finish(&key, &outcome);
        } else {
            inner.directives.finish(&key, &outcome);
            if inner.running.as_ref().is_some_and(|(k, _)| *k == key) {
                inner.running = None;
            }
        }
        let idle = inner.running.is_none() && inner.fences.running().is_none();
        self.app.busy.store(!idle, Ordering::SeqCst);
        if idle {
            self.app.show(None);
        }
        drop(inner);
        self.answer(key, outcome);
    }

    fn answer(&self, key: EffectKey, outcome: Outcome) {
        let mut inner = self.inner.lock().expect("no panic while held");
        inner.outbox.push_back((key, outcome));
        if inner.outbox.len() > OUTBOX_MAX {
            inner.outbox.pop_front();
        }
        drop(inner);
        self.ready.notify_one();
    }

    /// Resolves when there is an outcome to send.
    pub async fn outcome_ready(&self) {
        loop {
            let ready = self.ready.notified();
            if !self.inner.lock().expect("no panic while held").outbox.is_empty() {
                return;
            }
            ready.await;
        }
    }

    /// The outcomes to send.
    pub fn take_outcomes(&self) -> Vec<(EffectKey, Outcome)> {
        self.inner.lock().expect("no panic while held").outbox.drain(..).collect()
    }
}
