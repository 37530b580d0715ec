//! Which procedure an outcome or an overdue step belongs to. Decides nothing else.

use regent_types::{ClusterName, Directive, EffectKey, Epoch, Evidence, OperationId, Outcome};

use super::{
    Change, adopt, check_effect, check_epoch, cluster, failover, redirect, rejoin, restart, running,
    switchover,
};
use crate::{EffectKind, EventKind, Rejection, State, Step};

/// What came of an effect.
pub(crate) fn outcome(
    state: &mut State,
    change: &mut Change,
    key: &EffectKey,
    outcome: &Outcome,
) -> Result<(), Rejection> {
    let cluster = cluster(state, &key.cluster)?;
    let (_, effect) = check_effect(cluster, key)?;
    let effect = effect.kind.clone();
    match (&effect, outcome) {
        (
            EffectKind::Agent { directive: Directive::Promote { .. }, .. },
            Outcome::Done(Evidence::Promoted(evidence)),
        ) => redirect::promoted(cluster, change, key, evidence),
        (EffectKind::Agent { directive: Directive::Promote { .. }, .. }, Outcome::Refused { reason }) => {
            failover::promotion_failed(cluster, change, reason);
            Ok(())
        }
        (
            EffectKind::Agent { directive: Directive::Checkpoint { .. }, .. },
            Outcome::Done(Evidence::Checkpointed(evidence)),
        ) => switchover::checkpointed(cluster, change, key, evidence),
        (EffectKind::Agent { directive: Directive::Checkpoint { .. }, .. }, Outcome::Refused { reason }) => {
            switchover::stop_before_fence(cluster, change, reason);
            Ok(())
        }
        (
            EffectKind::Agent { directive: Directive::Rejoin { .. }, .. },
            Outcome::Done(Evidence::Rejoined(evidence)),
        ) => {
            rejoin::rejoined(cluster, change, key, evidence);
            Ok(())
        }
        (EffectKind::Agent { directive: Directive::Rejoin { .. }, .. }, Outcome::Refused { reason }) => {
            rejoin::rejoin_failed(cluster, change, reason);
            Ok(())
        }
        (
            EffectKind::Agent { directive: Directive::Validate { .. }, .. },
            Outcome::Done(Evidence::Validated { address, elapsed_ms, connected_ms }),
        ) => {
            running(cluster).reconnected_ms = *connected_ms;
            redirect::validated(cluster, change, key, address, *elapsed_ms);
            Ok(())
        }
        (
            EffectKind::Agent { directive: Directive::Adopt { .. } | Directive::Disown { .. }, .. },
            Outcome::Done(Evidence::Claimed { text }),
        ) => {
            adopt::claimed(cluster, change, key, Ok(text));
            Ok(())
        }
        (
            EffectKind::Agent { directive: Directive::Adopt { .. } | Directive::Disown { .. }, .. },
            Outcome::Refused { reason },
        ) => {
            adopt::claimed(cluster, change, key, Err(reason));
            Ok(())
        }
        (
            EffectKind::Agent { directive: Directive::Restart { .. }, .. },
            Outcome::Done(Evidence::Restarted { elapsed_ms }),
        ) => {
            restart::restarted(cluster, change, *elapsed_ms);
            Ok(())
        }
        (EffectKind::Agent { directive: Directive::Restart { .. }, .. }, Outcome::Refused { reason }) => {
            restart::failed(cluster, change, reason);
            Ok(())
        }
        (
            EffectKind::Redirect { provider: asked, .. },
            Outcome::Done(Evidence::Redirected { provider, changed }),
        ) if asked == provider => {
            redirect::redirected(cluster, change, key, provider, *changed);
            Ok(())
        }
        // A DNS provider is retried for ever, a marker row until its deadline, and what is unknown may still happen:
        // the operation only says why it waits.
        (_, Outcome::Unknown { reason } | Outcome::Refused { reason }) => {
            if running(cluster).waiting.as_ref() != Some(reason) {
                running(cluster).waiting = Some(reason.clone());
                change.event(cluster, EventKind::Waiting, "8 retry", None, reason.clone());
            }
            Ok(())
        }
        (_, Outcome::Done(evidence)) => {
            Err(Rejection::BadOutcome { reason: format!("{evidence:?} does not answer {effect:?}") })
        }
    }
}

/// A step has outlasted its deadline: the next rung.
pub(crate) fn overdue(
    state: &mut State,
    change: &mut Change,
    name: &ClusterName,
    operation: OperationId,
    step: Step,
    epoch: Epoch,
    after_ms: u64,
) -> Result<(), Rejection> {
    let cluster = cluster(state, name)?;
    check_epoch(cluster, epoch)?;
    let current = cluster.operation.as_ref().map(|running| (running.id, running.step));
    if current != Some((operation, step)) {
        return Err(Rejection::NotWaiting);
    }
    let reason = format!("no answer for {after_ms} ms");
    match step {
        Step::Promote => failover::promotion_failed(cluster, change, &reason),
        Step::Validate => redirect::validation_failed(cluster, change, &reason),
        Step::Rebuild | Step::Confirm => rejoin::rejoin_failed(cluster, change, &reason),
        Step::Checkpoint => switchover::overdue(cluster, change, &reason),
        Step::Choose if running(cluster).kind.is_planned() => {
            switchover::overdue(cluster, change, &reason);
        }
        Step::Restart => restart::failed(cluster, change, &reason),
        // These end by themselves: the bound passes, a candidate reports, a provider answers.
        Step::Declare
        | Step::Fence
        | Step::Choose
        | Step::Redirect
        | Step::Done
        | Step::Detect
        | Step::Away
        | Step::Back => {
            return Err(Rejection::NotWaiting);
        }
    }
    Ok(())
}
