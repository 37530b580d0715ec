//! An explanation as a page: the answer first, then what it rests on.

use regent_proto::v1::{Condition, ExplainReply, MemberGaps};

use super::{Column, Paint, Table, Tone, bytes, duration};

pub(crate) fn explain(reply: &ExplainReply, paint: &Paint) -> String {
    let primary = reply.primary.as_deref().unwrap_or("nobody");
    let heading = format!("{} at epoch {}, primary {primary}", reply.cluster, reply.epoch);
    let mut text = format!("{}\n", paint.tone(Tone::Heading, &heading));
    let tone = if reply.would_fail_over { Tone::Bad } else { Tone::Good };
    text.push_str(&format!("  would it fail over now?  {}\n", paint.tone(tone, &reply.verdict)));
    let tone = if reply.would_if_silent { Tone::Good } else { Tone::Warn };
    let if_silent = paint.tone(tone, &reply.if_silent);
    text.push_str(&format!("  if its region were lost: {if_silent}\n"));
    if let Some(exposed_ms) = reply.loss_exposed_ms {
        let lag = reply.loss_bytes.map_or("an unknown amount".to_owned(), bytes);
        text.push_str(&format!(
            "  loss, at most: {lag} of WAL at last contact, and what it accepts cut off until it is fenced ({})\n",
            duration(exposed_ms)
        ));
    }
    section(&mut text, paint, "triggers", "REACHED", &reply.triggers);
    section(&mut text, paint, "guards", "AGREES", &reply.guards);
    candidates(&mut text, reply, paint);
    phases(&mut text, reply, paint);
    heard(&mut text, reply, paint);
    for gaps in &reply.gaps {
        text.push_str(&self::gaps(gaps));
    }
    text
}

/// The part that belongs to the moment at which an operation was declared.
pub(super) fn evidence(reply: &ExplainReply, paint: &Paint) -> String {
    let mut text = format!("\n{}\n", paint.tone(Tone::Heading, "when it was declared"));
    section(&mut text, paint, "triggers", "REACHED", &reply.triggers);
    section(&mut text, paint, "guards", "AGREES", &reply.guards);
    candidates(&mut text, reply, paint);
    heard(&mut text, reply, paint);
    text
}

fn section(text: &mut String, paint: &Paint, name: &str, holds: &'static str, conditions: &[Condition]) {
    if conditions.is_empty() {
        return;
    }
    text.push_str(&format!("\n{name}\n"));
    let mut table = Table::new(2, &[Column::Left("NAME"), Column::Left(holds), Column::Left("EVIDENCE")]);
    for one in conditions {
        let good = (name == "guards") == one.holds;
        let word = if one.holds { "yes" } else { "no" };
        let tone = (!good).then_some(Tone::Warn);
        table.row([(one.name.clone(), None), (word.to_owned(), tone), (one.text.clone(), None)]);
    }
    text.push_str(&table.render(paint));
}

fn candidates(text: &mut String, reply: &ExplainReply, paint: &Paint) {
    if reply.candidates.is_empty() {
        return;
    }
    text.push_str("\ncandidates\n");
    let mut table = Table::new(2, &[Column::Left("MEMBER"), Column::Left("ABLE"), Column::Left("WHY")]);
    for one in &reply.candidates {
        let (word, tone) = if one.able { ("yes", Tone::Good) } else { ("no", Tone::Warn) };
        table.row([(one.member.clone(), None), (word.to_owned(), Some(tone)), (one.text.clone(), None)]);
    }
    text.push_str(&table.render(paint));
}

fn phases(text: &mut String, reply: &ExplainReply, paint: &Paint) {
    text.push_str("\nphases of a failover\n");
    let columns = [
        Column::Left("PHASE"),
        Column::Right("MEDIAN"),
        Column::Right("LONGEST"),
        Column::Right("OF"),
        Column::Right("AT MOST"),
        Column::Left("WHAT"),
    ];
    let mut table = Table::new(2, &columns);
    for one in &reply.phases {
        table.plain([
            one.name.clone(),
            one.median_ms.map(duration).unwrap_or_default(),
            one.longest_ms.map(duration).unwrap_or_default(),
            one.samples.to_string(),
            one.at_most_ms.map(duration).unwrap_or_default(),
            one.text.clone(),
        ]);
    }
    text.push_str(&table.render(paint));
}

fn heard(text: &mut String, reply: &ExplainReply, paint: &Paint) {
    if reply.heard.is_empty() {
        return;
    }
    text.push_str("\nwho heard whom\n");
    let columns = [
        Column::Left("MEMBER"),
        Column::Right("BY"),
        Column::Left("REGION"),
        Column::Right("HEARD AGO"),
        Column::Right("TOLD AGO"),
    ];
    let mut table = Table::new(2, &columns);
    for one in &reply.heard {
        table.plain([
            one.member.clone(),
            one.coordinator.to_string(),
            one.region.clone(),
            one.age_ms.map_or("never".to_owned(), duration),
            one.told_ms.map_or("never".to_owned(), duration),
        ]);
    }
    text.push_str(&table.render(paint));
}

/// `at 5m: never in 90d; at 1m: 3 times`: longest threshold first, down to the first that was reached often.
fn gaps(gaps: &MemberGaps) -> String {
    let mut said = Vec::new();
    for count in gaps.counts.iter().rev().filter(|count| count.threshold_ms <= 600_000) {
        let threshold = duration(count.threshold_ms);
        match count.reached {
            // Of the thresholds that were never reached the lowest says most.
            0 if said.len() == 1 && gaps.longest_ms < count.threshold_ms => {
                said[0] = format!("at {threshold} and above: never");
            }
            0 => said.push(format!("at {threshold}: never")),
            n => said.push(format!("at {threshold}: {n}")),
        }
        if count.reached > 100 {
            break;
        }
    }
    format!(
        "\nsilences of {} in {} of hearing (longest {}): {}\n",
        gaps.member,
        duration(gaps.observed_ms),
        duration(gaps.longest_ms),
        said.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use regent_proto::v1::GapCount;

    use super::*;

    #[test]
    fn thresholds_that_were_never_reached_are_said_once() {
        let count = |threshold_ms, reached| GapCount { threshold_ms, reached };
        let member = MemberGaps {
            member: "a".into(),
            observed_ms: 90 * 86_400_000,
            longest_ms: 70_000,
            heard: 9,
            counts: vec![count(10_000, 140), count(60_000, 3), count(90_000, 0), count(300_000, 0)],
        };
        let text = gaps(&member);
        assert_eq!(
            text,
            "\nsilences of a in 90d00h of hearing (longest 1m10s): at 1m30s and above: never; at 1m: 3; at 10s: 140\n"
        );
    }
}
