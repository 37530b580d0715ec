//! What holds automatic failover back, in the status.

use regent_proto::v1::Restraint;

use super::{Paint, Tone, duration, wall};

pub(crate) fn restraint(restraint: &Restraint, paint: &Paint) -> String {
    let mut text = String::new();
    let mut line = |tone, line: String| {
        text.push_str(&paint.tone(tone, &line));
        text.push('\n');
    };
    if let Some(pending) = &restraint.pending {
        let since = wall(pending.since_wall_ms);
        line(
            Tone::Bad,
            format!(
                "  ! failover of {} waits since {since}: {}; {}",
                pending.member, pending.found, pending.why
            ),
        );
    }
    if let Some(after) = restraint.cooldown_after {
        let left = restraint.cooldown_remaining_ms.map(duration).unwrap_or_default();
        line(
            Tone::Warn,
            format!(
                "  cooldown: after operation {after} the next automatic failover waits for an acknowledgement, for {left}"
            ),
        );
    }
    if let Some(refusal) = restraint.refusal.as_ref().filter(|_| restraint.pending.is_none()) {
        line(Tone::Warn, format!("  held back: {refusal}"));
    }
    if let Some(veto) = &restraint.veto {
        line(Tone::Bad, format!("  ! the veto hook holds an automatic failover back: {veto}"));
    }
    if let Some(seen) = &restraint.observed {
        let since = wall(seen.since_wall_ms);
        let count = seen.count;
        line(
            Tone::Quiet,
            format!(
                "  observed: {} is primary, seen since {since}; would have failed over {count} times",
                seen.primary
            ),
        );
        if let Some(would) = &seen.would {
            line(Tone::Bad, format!("  ! now it {would}"));
        }
    }
    if let Some(mode) = &restraint.resumes_to {
        line(Tone::Quiet, format!("  resume leads to: {mode}"));
    }
    text
}
