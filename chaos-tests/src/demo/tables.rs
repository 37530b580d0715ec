//! The two tables at the end: phases beside the plan's budgets, and acknowledged rows.

use serde_json::Value;

use super::narrator::seconds;
use crate::real::checker::Verdict;

fn duration(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{:.2} s", ms as f64 / 1e3),
        10_000..120_000 => format!("{:.1} s", ms as f64 / 1e3),
        _ => format!("{:.0} min", ms as f64 / 60e3),
    }
}

fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// Time per phase beside its budget, from the failover's report, and the full sync from the rejoin's.
pub fn phases(failover: &Value, rejoin: &Value) -> Vec<String> {
    let mut lines = vec![format!("  {:<24}{:>12}{:>12}", "phase", "measured", "budget")];
    let of = |report: &Value| report["phases"].as_array().cloned().unwrap_or_default();
    let synced = of(rejoin);
    for phase in of(failover) {
        let later = synced.iter().find(|other| other["name"] == phase["name"]);
        let phase = later.unwrap_or(&phase);
        let measured = phase["elapsed_ms"].as_u64().map_or("-".to_owned(), duration);
        let budget = phase["budget_ms"].as_u64().map_or("-".to_owned(), duration);
        lines.push(format!(
            "  {:<24}{measured:>12}{budget:>12}",
            words(phase["name"].as_str().unwrap_or("?"))
        ));
    }
    lines
}

/// The steps of an operation.
pub fn steps(report: &Value) -> Vec<String> {
    let mut lines = vec![format!("  {:<12}{:>10}  {}", "step", "took", "evidence")];
    for step in report["steps"].as_array().into_iter().flatten() {
        let took = step["elapsed_ms"].as_u64().map_or("-".to_owned(), duration);
        let evidence = step["evidence"].as_str().unwrap_or("");
        lines.push(format!("  {:<12}{took:>10}  {evidence}", step["name"].as_str().unwrap_or("?")));
    }
    lines
}

/// What became of every acknowledged row.
pub fn rows(verdict: &Verdict, name_of: impl Fn(i32) -> String) -> Vec<String> {
    let head = ["acknowledged", "kept", "salvaged", "lost"].map(|name| format!("{name:>14}")).concat();
    let mut lines = vec![format!("  {:<40}{head}", "writer")];
    let mut line = |name: &str, tally: &crate::real::checker::Tally| {
        let numbers = [tally.acknowledged, tally.kept, tally.salvaged, tally.lost];
        lines.push(format!("  {name:<40}{}", numbers.map(|number| format!("{number:>14}")).concat()));
    };
    for (writer, tally) in &verdict.writers {
        line(&name_of(*writer), tally);
    }
    line("all", &verdict.total());
    lines
}

/// A loss report in words.
pub fn loss(report: &Value) -> String {
    if report.is_null() {
        return "not known".into();
    }
    if report["none"] == true {
        return "none".into();
    }
    let text = |key: &str| report[key].as_str().unwrap_or("?").to_owned();
    let number = |key: &str| report[key].as_u64().map_or("?".to_owned(), |value| value.to_string());
    format!(
        "{} transactions, {} bytes of WAL from {} to {}, over {}",
        number("transactions"),
        number("bytes"),
        text("from_lsn"),
        text("to_lsn"),
        report["span_ms"].as_u64().map_or("?".into(), |ms| seconds(ms * 1_000_000))
    )
}
