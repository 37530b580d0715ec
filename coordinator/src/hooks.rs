//! Only for tests: a node that kills or stops itself right after a committed step.
//!
//! Compiled in, so that the tested binary is the shipped one, but inert unless the configuration has a `test_hooks`
//! table; a node that has one says so loudly at its start.

use regent_core::{Kind, Operation, State, Step};
use regent_types::{ClusterName, OperationId};

use crate::config::TestHooks;

/// What to do after which `kind:step`.
#[derive(Debug, Clone)]
pub struct StepHook {
    wanted: TestHooks,
}

/// Where every cluster's operation was.
pub type Steps = Vec<(ClusterName, OperationId, Step)>;

impl StepHook {
    /// From the configuration.
    pub fn new(wanted: TestHooks) -> Self {
        tracing::error!(
            hook = ?wanted,
            "TEST HOOK IS ON: this node will kill or stop itself as leader after the step; never use it in production"
        );
        Self { wanted }
    }

    /// To be compared with afterwards.
    pub fn before(&self, state: &State) -> Steps {
        let running = state.clusters.iter().filter_map(|(name, cluster)| {
            cluster.operation.as_ref().map(|operation| (name.clone(), operation.id, operation.step))
        });
        running.collect()
    }

    /// Dies, or stops, when the wanted step was entered while this node leads.
    pub fn after(&self, before: Steps, state: &State, leads: bool) {
        if !leads {
            return;
        }
        for (name, cluster) in &state.clusters {
            for operation in cluster.operation.iter().chain(cluster.finished.back()) {
                let was = before.iter().find(|(cluster, id, _)| cluster == name && *id == operation.id);
                let entered = match was {
                    Some((_, _, step)) => *step != operation.step,
                    // Not there before: new, unless it ended long ago.
                    None => operation.result.is_none(),
                };
                if entered {
                    self.act(&name_of(operation));
                }
            }
        }
    }
}

impl StepHook {
    fn act(&self, step: &str) {
        if wanted(self.wanted.exit_after_step.as_deref(), step) {
            die(step);
        }
        if wanted(self.wanted.stop_after_step.as_deref(), step) {
            eprintln!("test hook: stopping this process after {step}");
            // SAFETY: a signal to this very process.
            unsafe { libc::kill(libc::getpid(), libc::SIGSTOP) };
        }
    }
}

fn wanted(wanted: Option<&str>, step: &str) -> bool {
    wanted.is_some_and(|wanted| match wanted.strip_suffix('*') {
        Some(kind) => step.starts_with(kind),
        None => step == wanted,
    })
}

fn name_of(operation: &Operation) -> String {
    let kind = match operation.kind {
        Kind::Bootstrap => "bootstrap",
        Kind::Failover => "failover",
        Kind::Rejoin { .. } => "rejoin",
        Kind::Switchover => "switchover",
        Kind::Failback => "failback",
        Kind::Restart { .. } => "restart",
        Kind::Drill { .. } => "drill",
        Kind::Observed { .. } => "observed",
    };
    format!("{kind}:{}", crate::service::view::step_name(operation.step))
}

fn die(wanted: &str) -> ! {
    // Unbuffered: the tests assert on this line.
    eprintln!("test hook: killing this process after {wanted}");
    // SAFETY: a signal to this very process.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    std::process::abort()
}
