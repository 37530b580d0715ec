//! What a switchover or failback would do now.

use regent_proto::v1::SwitchoverPlan;

use super::{Column, Paint, Table, Tone, duration};

pub(crate) fn planned_move(plan: &SwitchoverPlan, paint: &Paint) -> String {
    let member = |name: &Option<String>| name.clone().unwrap_or_else(|| "nobody".to_owned());
    let headline = format!(
        "{} of {} at epoch {}: {} -> {}",
        if plan.failback { "failback" } else { "switchover" },
        plan.cluster,
        plan.epoch,
        member(&plan.from_member),
        member(&plan.to_member)
    );
    let mut text = format!("{}\n", paint.tone(Tone::Heading, &headline));
    for blocker in &plan.blockers {
        text.push_str(&paint.tone(Tone::Bad, &format!("  ! would not start: {blocker}")));
        text.push('\n');
    }
    if plan.blockers.is_empty() {
        text.push_str("  loss: none, or it is rolled back\n\n");
    }
    if !plan.steps.is_empty() {
        let mut table =
            Table::new(2, &[Column::Left("STEP"), Column::Right("AT MOST"), Column::Left("WHAT")]);
        for step in &plan.steps {
            table.plain([
                step.name.clone(),
                step.at_most_ms.map(duration).unwrap_or_default(),
                step.text.clone(),
            ]);
        }
        text.push_str(&table.render(paint));
    }
    text
}
