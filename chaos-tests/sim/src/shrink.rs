//! A short schedule that still breaks the same promise: delta debugging over the faults, then shorter faults.

use crate::{
    fault::Fault,
    run::{Plan, Report, run},
};

/// Tries so many runs at most.
const RUNS_MAX: usize = 400;

/// The shortest schedule found, and its report.
pub fn shrink(plan: &Plan, report: Report) -> Report {
    let Some(failure) = report.failure.clone() else { return report };
    let mut best = report;
    let mut runs = 0;
    let attempt = |faults: Vec<Fault>, runs: &mut usize| -> Option<Report> {
        *runs += 1;
        let tried = run(&Plan { faults: Some(faults), told: false, ..plan.clone() });
        tried.failure.as_ref().filter(|found| found.invariant == failure.invariant)?;
        Some(tried)
    };
    let mut pieces = 2;
    while pieces <= best.faults.len().max(1) && runs < RUNS_MAX {
        let size = best.faults.len().div_ceil(pieces);
        let mut found = None;
        for from in (0..best.faults.len()).step_by(size.max(1)) {
            let rest = |at: &usize| *at < from || *at >= from + size;
            let faults = (0..best.faults.len()).filter(rest).map(|at| best.faults[at].clone()).collect();
            if let Some(smaller) = attempt(faults, &mut runs) {
                found = Some(smaller);
                break;
            }
        }
        match found {
            Some(smaller) => {
                best = smaller;
                pieces = pieces.saturating_sub(1).max(2);
            }
            None if size <= 1 => break,
            None => pieces = (pieces * 2).min(best.faults.len()),
        }
    }
    best
}
