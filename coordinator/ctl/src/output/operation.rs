//! Operations: the list, and the report of one with its times beside the recovery plan's budgets.

use regent_proto::v1::{
    CandidateVerdict, FenceCertainty, HistoryReply, LossReport, OperationReport, OperationState,
    OperationSummary, StepReport,
};

use super::{Column, Paint, Table, Tone, bytes, duration, wall};

fn state_tone(state: OperationState) -> Tone {
    match state {
        OperationState::Done => Tone::Good,
        OperationState::Running | OperationState::Waiting => Tone::Warn,
        _ => Tone::Bad,
    }
}

pub(crate) fn history(reply: &HistoryReply, paint: &Paint) -> String {
    if reply.operations.is_empty() {
        return "no operations\n".to_owned();
    }
    let mut table = Table::new(
        0,
        &[
            Column::Right("#"),
            Column::Left("STARTED (UTC)"),
            Column::Left("KIND"),
            Column::Left("TRIGGER"),
            Column::Left("EPOCH"),
            Column::Left("FROM -> TO"),
            Column::Right("TOOK"),
            Column::Left("RESULT"),
        ],
    );
    let mut notes = String::new();
    for operation in &reply.operations {
        let started = wall(operation.started_wall_ms);
        table.row([
            (operation.id.to_string(), None),
            (started.split('.').next().unwrap_or_default().to_owned(), None),
            (operation.kind().to_string(), None),
            (operation.trigger().to_string(), None),
            (epochs(operation), None),
            (members(operation), None),
            (duration(operation.elapsed_ms), None),
            (operation.state().to_string(), Some(state_tone(operation.state()))),
        ]);
        for note in [&operation.reason, &operation.warning].into_iter().flatten() {
            notes.push_str(&paint.tone(Tone::Warn, &format!("! #{}: {note}", operation.id)));
            notes.push('\n');
        }
    }
    table.render(paint) + &notes
}

fn epochs(operation: &OperationSummary) -> String {
    match operation.to_epoch {
        Some(to) => format!("{} -> {to}", operation.from_epoch),
        None => operation.from_epoch.to_string(),
    }
}

fn members(operation: &OperationSummary) -> String {
    match (&operation.from_member, &operation.to_member) {
        (None, None) => String::new(),
        (Some(only), None) | (None, Some(only)) => only.clone(),
        (Some(from), Some(to)) => format!("{from} -> {to}"),
    }
}

pub(crate) fn report(report: &OperationReport, paint: &Paint) -> String {
    let summary = report.summary.clone().unwrap_or_default();
    let headline = format!("{} #{} of {}", summary.kind(), summary.id, report.cluster);
    let state = paint.tone(state_tone(summary.state()), &summary.state().to_string());
    let mut text = format!("{}: {state}\n", paint.tone(Tone::Heading, &headline));
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            text.push_str(&format!("  {name:<10} {value}\n"));
        }
    };
    line("trigger", &summary.trigger().to_string());
    line("by", &report.requested_by);
    line("why", &report.why);
    line("members", &members(&summary));
    line("epoch", &epochs(&summary));
    line("started", &format!("{} UTC", wall(summary.started_wall_ms)));
    line("took", &duration(summary.elapsed_ms));
    line("reason", summary.reason.as_deref().unwrap_or_default());
    line("warning", summary.warning.as_deref().unwrap_or_default());
    line("request", report.request_id.as_deref().unwrap_or_default());
    match (&report.loss_final, &report.loss_upper_bound) {
        (Some(known), _) => line("loss", &loss(known)),
        (None, Some(bound)) if report.drill.is_some() => {
            line("loss", &format!("none; a failover would have lost at most {}", loss(bound)));
        }
        (None, Some(bound)) => line("loss", &format!("not known yet, at most {}", loss(bound))),
        (None, None) => {}
    }
    if let Some(drill) = &report.drill {
        line("region", &format!("{} counted as lost", drill.region));
        line("grade", &drill.grade);
        line("found", drill.verdict.as_deref().unwrap_or_default());
        line("candidate", drill.candidate.as_deref().unwrap_or_default());
    }
    line("acknowledged writes lost", report.acknowledged_loss.as_deref().unwrap_or_default());
    if let Some(salvage) = &report.salvage {
        let whole = match &salvage.partial {
            None => "complete".to_owned(),
            Some(reason) => format!("partial: {reason}"),
        };
        let range = format!("{}..{}", salvage.from_lsn, salvage.to_lsn);
        line(
            "salvage",
            &format!("{} ({range}, {} transactions, {whole})", salvage.folder, salvage.transactions),
        );
    }
    text.push_str(&steps(&report.steps, paint));
    text.push_str(&phases(report, paint));
    text.push_str(&fences(report, paint));
    text.push_str(&candidates(&report.candidates, paint));
    if let Some(evidence) = &report.evidence {
        text.push_str(&super::explain::evidence(evidence, paint));
    }
    text
}

/// `none`, or what is lost with its range and note.
pub(super) fn loss(loss: &LossReport) -> String {
    let mut parts = Vec::new();
    if loss.none {
        parts.push("none".to_owned());
    } else {
        parts.extend(loss.transactions.map(|count| format!("{count} transactions")));
        parts.extend(loss.bytes.map(bytes));
        parts.extend(loss.span_ms.map(duration));
        if let (Some(from), Some(to)) = (&loss.from_lsn, &loss.to_lsn) {
            parts.push(format!("{from}..{to}"));
        }
        if parts.is_empty() {
            parts.push("unknown".to_owned());
        }
    }
    let note = if loss.note.is_empty() { String::new() } else { format!(" ({})", loss.note) };
    parts.join(", ") + &note
}

/// One step in a line, as --wait prints it.
pub(crate) fn step_line(step: &StepReport) -> String {
    let took = step.elapsed_ms.map(|ms| format!(" {}", duration(ms))).unwrap_or_default();
    format!("{}  {}{took}  {}", wall(step.started_wall_ms), step.name, step.evidence).trim_end().to_owned()
}

fn over(elapsed_ms: Option<u64>, budget_ms: Option<u64>) -> Option<Tone> {
    match (elapsed_ms, budget_ms) {
        (Some(elapsed), Some(budget)) if elapsed > budget => Some(Tone::Bad),
        _ => None,
    }
}

fn steps(steps: &[StepReport], paint: &Paint) -> String {
    if steps.is_empty() {
        return String::new();
    }
    let columns =
        [Column::Left("STEP"), Column::Right("TOOK"), Column::Right("BUDGET"), Column::Left("EVIDENCE")];
    let mut table = Table::new(2, &columns);
    for step in steps {
        table.row([
            (step.name.clone(), None),
            (
                step.elapsed_ms.map(duration).unwrap_or_else(|| "running".to_owned()),
                over(step.elapsed_ms, step.budget_ms),
            ),
            (step.budget_ms.map(duration).unwrap_or_default(), None),
            (step.evidence.clone(), None),
        ]);
    }
    format!("\n{}", table.render(paint))
}

fn phases(report: &OperationReport, paint: &Paint) -> String {
    if report.phases.is_empty() {
        return String::new();
    }
    let mut table = Table::new(2, &[Column::Left("PHASE"), Column::Right("TOOK"), Column::Right("BUDGET")]);
    for phase in &report.phases {
        table.row([
            (phase.name.replace('_', " "), None),
            (
                phase.elapsed_ms.map(duration).unwrap_or_default(),
                over(phase.elapsed_ms, Some(phase.budget_ms)),
            ),
            (duration(phase.budget_ms), None),
        ]);
    }
    format!("\n{}", table.render(paint))
}

fn fences(report: &OperationReport, paint: &Paint) -> String {
    if report.fence.is_empty() {
        return String::new();
    }
    let mut table =
        Table::new(2, &[Column::Left("FENCE"), Column::Left("CERTAINTY"), Column::Left("EVIDENCE")]);
    for rung in &report.fence {
        let tone = match rung.certainty() {
            FenceCertainty::Confirmed => Tone::Good,
            FenceCertainty::AssumedByLease => Tone::Warn,
            _ => Tone::Bad,
        };
        table.row([
            (rung.rung.replace('_', " "), None),
            (rung.certainty().to_string().replace('_', " "), Some(tone)),
            (rung.evidence.clone(), None),
        ]);
    }
    format!("\n{}", table.render(paint))
}

pub(super) fn candidates(candidates: &[CandidateVerdict], paint: &Paint) -> String {
    if candidates.is_empty() {
        return String::new();
    }
    let columns = [
        Column::Left("CANDIDATE"),
        Column::Left("CHOSEN"),
        Column::Left("RECEIVED"),
        Column::Right("LAG"),
        Column::Left("WHY"),
    ];
    let mut table = Table::new(2, &columns);
    for candidate in candidates {
        let chosen = if candidate.chosen { ("yes", Some(Tone::Good)) } else { ("no", None) };
        table.row([
            (candidate.member.clone(), None),
            (chosen.0.to_owned(), chosen.1),
            (candidate.received_lsn.clone().unwrap_or_default(), None),
            (candidate.lag_bytes.map(bytes).unwrap_or_default(), None),
            (candidate.reason.clone(), None),
        ]);
    }
    format!("\n{}", table.render(paint))
}
