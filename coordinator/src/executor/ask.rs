//! Sends a directive to a member's session, whichever it is at the moment, until its outcome comes back.

use std::time::Duration;

use regent_proto::FromCoordinator;
use regent_types::{Directive, EffectKey, Grant, InstanceId, MemberName, Outcome};

use super::Context;
use crate::sessions::Who;

/// A directive is sent again on the same session after this long: the agent knows it by its key.
const RESEND: Duration = Duration::from_secs(3);

/// Waits for a session, sends, waits for the outcome; sends again on every new session. Ends only with an outcome.
pub(super) async fn ask(
    context: &Context,
    member: &MemberName,
    key: &EffectKey,
    directive: Directive,
    grant: Option<Grant>,
) -> Outcome {
    let who: Who = (key.cluster.clone(), member.clone());
    let sessions = &context.node.sessions;
    let mut outcomes = sessions.expect(who.clone(), key.clone());
    let mut changes = sessions.changes();
    let mut sent_to = None;
    let clock = &context.node.clock;
    // Of its own: other agents' sessions come and go all the time, and must not put the next try off for ever.
    let mut resend_ns = 0;
    loop {
        let now_ns = clock.now_ns();
        if now_ns >= resend_ns {
            sent_to = None;
        }
        changes.borrow_and_update();
        let session = sessions.pick(&who, instance(&directive)).or_else(|| sessions.pick(&who, None));
        if let Some(session) = session
            && sent_to != Some(session.id)
        {
            let message = FromCoordinator::Directive {
                key: key.clone(),
                directive: Box::new(directive.clone()),
                grant: grant.clone(),
            };
            tracing::debug!(?key, %member, directive = directive.name(), session = session.id, "directive sent");
            if session.send(message) {
                sent_to = Some(session.id);
                resend_ns = now_ns + RESEND.as_nanos() as u64;
            }
        }
        let pause = match sent_to {
            Some(_) => Duration::from_nanos(resend_ns.saturating_sub(now_ns)),
            None => RESEND,
        };
        tokio::select! {
            outcome = outcomes.recv() => match outcome {
                Some(outcome) => return outcome,
                None => outcomes = sessions.expect(who.clone(), key.clone()),
            },
            _ = changes.changed() => {}
            () = clock.sleep(pause) => {}
        }
    }
}

fn instance(directive: &Directive) -> Option<InstanceId> {
    match directive {
        Directive::Promote { instance, .. } => Some(*instance),
        _ => None,
    }
}

/// A key of its own for the n-th question that belongs to an effect (a fence, a candidate's preparation): the agent
/// answers a repeated key with its first answer, and a second preparation needs a new one. The order is the effects'
/// order; leaderships differ, so that a new leader is not given what the last one was told.
pub(super) fn sub_key(key: &EffectKey, term: u64, n: u32) -> EffectKey {
    let step = (key.step & 0xFFF) << 20 | ((term & 0xFF) as u32) << 12 | (n & 0xFFF);
    EffectKey { step, ..key.clone() }
}
