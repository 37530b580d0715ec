//! One event, one line.

use regent_proto::v1::Event;

use super::{Paint, Tone, wall};

pub(crate) fn event_line(event: &Event, paint: &Paint) -> String {
    let mut about = format!("{} epoch {}", event.cluster, event.epoch);
    if let Some(operation) = event.operation {
        about.push_str(&format!(" #{operation}"));
    }
    if let Some(member) = &event.member {
        about.push_str(&format!(" {member}"));
    }
    let rule = if event.rule.is_empty() { String::new() } else { format!(" [{}]", event.rule) };
    format!(
        "{:>6}  {}  {about}  {}  {}{}",
        event.sequence,
        wall(event.wall_ms),
        paint.tone(Tone::Heading, &event.kind),
        event.text,
        paint.tone(Tone::Quiet, &rule),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event = Event {
            sequence: 12,
            wall_ms: 1_767_323_045_678,
            cluster: "gravl".into(),
            epoch: 4,
            kind: "fence_decided".into(),
            rule: "5.4".into(),
            text: "epoch 4 is closed".into(),
            operation: Some(7),
            member: Some("eu-north-1".into()),
        };
        assert_eq!(
            event_line(&event, &Paint::plain()),
            "    12  2026-01-02 03:04:05.678  gravl epoch 4 #7 eu-north-1  fence_decided  epoch 4 is closed [5.4]"
        );
    }
}
