//! The executor: on the leader, one task per effect in the replicated state; cancelled when the effect is retired or
//! the leadership ends. At least once; decides nothing: what it learns it proposes, and the core judges.
//!
//! Invariant: a task exists for an effect exactly while the effect is in this leader's applied state. A new leadership
//! starts every task anew, because proofs and grants of the last one are worth nothing.

mod ask;
mod collect;
mod external;
mod fence;
mod handover;
mod prepare;
mod redirect;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use regent_core::{Body, Effect, EffectKind, Leadership};
use regent_types::{Directive, EffectKey, Outcome};
use tokio::task::JoinHandle;

use crate::{node::Node, proposer::ProposeFailure};
pub use prepare::Prepared;

/// How long after an outcome that did not retire the effect the work is done again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// A tick beside the wake-ups, in case one was missed.
const TICK: Duration = Duration::from_millis(500);

/// What every effect's task has.
#[derive(Clone)]
struct Context {
    node: Arc<Node>,
    /// The leadership under which the task runs.
    leadership: Leadership,
    /// Candidates' reports of this leadership that may count as heartbeats.
    prepared: Arc<Prepared>,
    /// What this leadership has told of candidates that cannot be promoted.
    told: Arc<collect::Told>,
}

impl Context {
    /// Whether the state still wants `key` under the same leadership.
    fn wanted(&self, key: &EffectKey) -> bool {
        let inner = self.node.shared.lock();
        inner.leadership == Some(self.leadership)
            && inner
                .state
                .clusters
                .get(&key.cluster)
                .is_some_and(|cluster| cluster.effects().iter().any(|effect| effect.key == *key))
    }

    /// Proposes until the fate is known. False when it is of no use to go on.
    async fn propose(&self, body: Body) -> bool {
        loop {
            match self.node.proposer.propose(body.clone()).await {
                Ok(_) => return true,
                Err(ProposeFailure::Rejected(rejection)) => {
                    tracing::warn!(%rejection, "the core rejects what the executor learnt");
                    return true;
                }
                Err(ProposeFailure::NotLeader { .. }) => return false,
                // Keyed, so a second commit of the same is rejected as stale.
                Err(ProposeFailure::Unknown { reason }) => {
                    tracing::warn!(reason, "a proposal's fate is unknown; proposing it again");
                    self.node.clock.sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Runs for ever; does something while this node leads.
pub async fn run(node: Arc<Node>) {
    let mut changes = node.shared.changes();
    let mut led = node.led.subscribe();
    let mut tasks: BTreeMap<EffectKey, JoinHandle<()>> = BTreeMap::new();
    let mut context: Option<Context> = None;
    loop {
        changes.borrow_and_update();
        let current = *led.borrow_and_update();
        if context.as_ref().map(|context| context.leadership) != current {
            tasks.values().for_each(JoinHandle::abort);
            tasks.clear();
            context = current.map(|leadership| Context {
                node: node.clone(),
                leadership,
                prepared: Arc::default(),
                told: Arc::default(),
            });
        }
        if let Some(context) = &context {
            sync(context, &mut tasks);
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            changed = led.changed() => if changed.is_err() { return },
            () = node.clock.sleep(TICK) => {}
        }
    }
}

/// Starts and stops tasks so that they match the state.
fn sync(context: &Context, tasks: &mut BTreeMap<EffectKey, JoinHandle<()>>) {
    let effects: Vec<Effect> = {
        let inner = context.node.shared.lock();
        inner.state.clusters.values().flat_map(|cluster| cluster.effects().to_vec()).collect()
    };
    tasks.retain(|key, task| {
        let wanted = effects.iter().any(|effect| effect.key == *key);
        if !wanted {
            task.abort();
        }
        // A task that ended while its effect is still there starts again below.
        wanted && !task.is_finished()
    });
    for effect in effects {
        tasks.entry(effect.key.clone()).or_insert_with(|| tokio::spawn(perform(context.clone(), effect)));
    }
}

/// Works on one effect until it is retired.
async fn perform(context: Context, effect: Effect) {
    let Effect { key, kind } = effect;
    tracing::info!(?key, kind = name(&kind), "effect begins");
    match kind {
        EffectKind::Fence { epoch, member, instance, boot, grace_ms, candidates } => {
            let order = fence::Order { epoch, member, instance, boot, grace_ms, candidates };
            fence::run(&context, &key, order).await;
        }
        EffectKind::Handover { epoch, member, instance, boot, grace_ms, target, timeout_ms, candidates } => {
            let fence = fence::Order { epoch, member, instance, boot, grace_ms, candidates };
            handover::run(&context, &key, handover::Handover { fence, target, timeout_ms }).await;
        }
        EffectKind::Collect { epoch, member, candidates } => {
            collect::run(&context, &key, epoch, &member, &candidates).await;
        }
        EffectKind::Agent { member, directive } => agent(&context, &key, &member, directive).await,
        EffectKind::Redirect { provider, name, record } => {
            redirect::run(&context, &key, &provider, &name, &record).await;
        }
    }
}

fn name(kind: &EffectKind) -> &'static str {
    match kind {
        EffectKind::Fence { .. } => "fence",
        EffectKind::Handover { .. } => "handover",
        EffectKind::Collect { .. } => "collect",
        EffectKind::Agent { directive, .. } => directive.name(),
        EffectKind::Redirect { .. } => "redirect",
    }
}

/// Sends a directive and proposes its outcome. The same outcome is proposed once: a refusal that repeats is no news.
async fn agent(context: &Context, key: &EffectKey, member: &regent_types::MemberName, directive: Directive) {
    let mut proposed: Option<Outcome> = None;
    while context.wanted(key) {
        let grant = match &directive {
            Directive::Promote { epoch, instance, .. } => {
                context.prepared.grant(context, &key.cluster, member, *epoch, *instance).await
            }
            _ => None,
        };
        let outcome = ask::ask(context, member, key, directive.clone(), grant).await;
        if proposed.as_ref() != Some(&outcome) {
            let body = Body::Outcome { key: key.clone(), outcome: outcome.clone() };
            if !context.propose(body).await {
                return;
            }
            proposed = Some(outcome);
        }
        context.node.clock.sleep(RETRY_PAUSE).await;
    }
}
