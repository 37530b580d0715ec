//! What a failover would do now.

use regent_proto::v1::FailoverPlan;

use super::{
    Column, Paint, Table, Tone, duration,
    operation::{candidates, loss},
};

pub(crate) fn plan(plan: &FailoverPlan, paint: &Paint) -> String {
    let member = |name: &Option<String>| name.clone().unwrap_or_else(|| "nobody".to_owned());
    let headline = format!(
        "failover of {} at epoch {}: {} -> {}",
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
    if let Some(upper_bound) = &plan.loss_upper_bound {
        text.push_str(&format!("  loss, at most: {}\n", loss(upper_bound)));
    }
    text.push_str(&candidates(&plan.candidates, paint));
    if !plan.steps.is_empty() {
        text.push('\n');
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
