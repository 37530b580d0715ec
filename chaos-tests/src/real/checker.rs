//! Judges a run by what clients were told and what the databases hold.
//!
//! Two questions: is every acknowledged row in the surviving primary, or at least accounted for in salvage;
//! and did the last commit at an epoch precede the first at the next. It knows nothing of Regent's own
//! reports, and errs towards alarm: commits over direct sessions whose intervals merely touch count as
//! overlapping. Over links an acknowledgement may be held back, so there only a certain overlap counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Result, bail};

use super::clock::WallOffset;
use super::workload::{Attempt, FoundRow, Outcome, SessionKind};

/// A row's identity: writer and number.
pub type RowId = (i32, i64);

/// Which server was primary at an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reign {
    /// The epoch.
    pub epoch: u64,
    /// The server, as it names itself.
    pub server: String,
    /// For a server that comes back at a later epoch: nothing of this reign was committed before.
    pub not_before_ns: u64,
}

/// Everything known about a run.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// What clients were told, of all writers.
    pub attempts: Vec<Attempt>,
    /// Who was primary, in any order.
    pub reigns: Vec<Reign>,
    /// The rows of the primary at the end.
    pub surviving: Vec<FoundRow>,
    /// The rows of salvaged or old data directories.
    pub salvaged: Vec<FoundRow>,
}

/// What a scenario may lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossAllowed {
    /// Nothing: planned moves, synchronous replication.
    Nothing,
    /// What is found in salvage: asynchronous replication.
    Salvaged,
}

/// Counts of one writer, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows acknowledged.
    pub acknowledged: usize,
    /// Of these, in the surviving primary.
    pub kept: usize,
    /// Of these, only in salvage.
    pub salvaged: usize,
    /// Of these, nowhere.
    pub lost: usize,
    /// Rows of unknown outcome.
    pub unknown: usize,
    /// Of these, in the surviving primary.
    pub unknown_kept: usize,
    /// Rows refused.
    pub failed: usize,
}

/// The judgement.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Per writer.
    pub writers: BTreeMap<i32, Tally>,
    /// Acknowledged rows found nowhere.
    pub lost: Vec<RowId>,
    /// Acknowledged rows found in salvage only.
    pub salvaged: Vec<RowId>,
    /// Whatever must never be, in words with both sides' numbers.
    pub problems: Vec<String>,
}

/// One commit and the interval that holds it.
#[derive(Clone, Debug)]
struct Commit {
    row: RowId,
    server: String,
    direct: bool,
    from_ns: u64,
    to_ns: u64,
}

/// Judges the evidence; server times are translated with `offset`.
pub fn check(evidence: &Evidence, offset: WallOffset) -> Verdict {
    let mut verdict = Verdict::default();
    check_rows(evidence, &mut verdict);
    check_order(evidence, offset, &mut verdict);
    verdict
}

impl Verdict {
    /// Sums over all writers.
    pub fn total(&self) -> Tally {
        self.writers.values().fold(Tally::default(), |sum, one| Tally {
            acknowledged: sum.acknowledged + one.acknowledged,
            kept: sum.kept + one.kept,
            salvaged: sum.salvaged + one.salvaged,
            lost: sum.lost + one.lost,
            unknown: sum.unknown + one.unknown,
            unknown_kept: sum.unknown_kept + one.unknown_kept,
            failed: sum.failed + one.failed,
        })
    }

    /// Errs, with everything that is wrong, when a promise broke.
    pub fn require(&self, allowed: LossAllowed) -> Result<()> {
        let mut wrong = self.problems.clone();
        if !self.lost.is_empty() {
            wrong.push(format!("{} acknowledged rows are nowhere: {}", self.lost.len(), sample(&self.lost)));
        }
        if allowed == LossAllowed::Nothing && !self.salvaged.is_empty() {
            wrong.push(format!(
                "{} acknowledged rows are in salvage only, where nothing may be lost: {}",
                self.salvaged.len(),
                sample(&self.salvaged)
            ));
        }
        // Told apart from a run that proves nothing: no second attempt excuses it.
        let broken = if wrong.is_empty() { "" } else { "BROKEN PROMISE: " };
        if self.total().acknowledged == 0 {
            wrong.push("no row was acknowledged at all: the run proves nothing".into());
        }
        if wrong.is_empty() {
            return Ok(());
        }
        bail!("{broken}{}\n{self}", wrong.join("\n"))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = ["writer", "acknowledged", "kept", "salvaged", "lost", "unknown", "(kept)", "failed"];
        writeln!(out, "{}", columns.map(|name| format!("{name:>12}")).join(" "))?;
        let mut row = |name: String, tally: &Tally| {
            let numbers = [
                tally.acknowledged,
                tally.kept,
                tally.salvaged,
                tally.lost,
                tally.unknown,
                tally.unknown_kept,
                tally.failed,
            ];
            writeln!(out, "{name:>12} {}", numbers.map(|number| format!("{number:>12}")).join(" "))
        };
        for (writer, tally) in &self.writers {
            row(writer.to_string(), tally)?;
        }
        row("all".into(), &self.total())
    }
}

fn sample(rows: &[RowId]) -> String {
    let shown: Vec<_> = rows.iter().take(10).map(|(writer, number)| format!("{writer}/{number}")).collect();
    let more = if rows.len() > shown.len() { ", ..." } else { "" };
    format!("{}{more}", shown.join(", "))
}

fn ids(rows: &[FoundRow]) -> BTreeSet<RowId> {
    rows.iter().map(|row| (row.writer_id, row.number)).collect()
}

fn check_rows(evidence: &Evidence, verdict: &mut Verdict) {
    let (surviving, salvaged) = (ids(&evidence.surviving), ids(&evidence.salvaged));
    let mut seen = BTreeSet::new();
    for attempt in &evidence.attempts {
        let row = (attempt.writer_id, attempt.number);
        if !seen.insert(row) {
            verdict.problems.push(format!("row {}/{} was written twice: the harness is wrong", row.0, row.1));
        }
        let kept = surviving.contains(&row);
        let tally = verdict.writers.entry(attempt.writer_id).or_default();
        match &attempt.outcome {
            Outcome::Acknowledged => {
                tally.acknowledged += 1;
                if kept {
                    tally.kept += 1;
                } else if salvaged.contains(&row) {
                    tally.salvaged += 1;
                    verdict.salvaged.push(row);
                } else {
                    tally.lost += 1;
                    verdict.lost.push(row);
                }
            }
            Outcome::Unknown(_) => {
                tally.unknown += 1;
                tally.unknown_kept += usize::from(kept);
            }
            Outcome::Failed(why) => {
                tally.failed += 1;
                if kept || salvaged.contains(&row) {
                    verdict.problems.push(format!(
                        "row {}/{} was refused ({why}) by {} and is there all the same",
                        row.0, row.1, attempt.server
                    ));
                }
            }
        }
    }
}

/// Acknowledged commits, and rows that are there though nobody heard so.
fn commits(evidence: &Evidence, offset: WallOffset) -> Vec<Commit> {
    let mut commits: Vec<_> = evidence
        .attempts
        .iter()
        .filter(|attempt| attempt.is_acknowledged())
        .map(|attempt| Commit {
            row: (attempt.writer_id, attempt.number),
            server: attempt.server.clone(),
            direct: attempt.kind == SessionKind::Direct,
            from_ns: attempt.sent_ns,
            to_ns: attempt.done_ns,
        })
        .collect();
    let heard: BTreeSet<RowId> = commits.iter().map(|commit| commit.row).collect();
    let found = evidence.surviving.iter().chain(&evidence.salvaged);
    let unheard: BTreeMap<RowId, Commit> = found
        .filter(|row| !heard.contains(&(row.writer_id, row.number)))
        .map(|row| {
            let id = (row.writer_id, row.number);
            let from_ns = offset.to_monotonic_ns(row.begun_us);
            // When it was committed nobody knows, only that it was, some time after.
            (id, Commit { row: id, server: row.server.clone(), direct: false, from_ns, to_ns: u64::MAX })
        })
        .collect();
    commits.extend(unheard.into_values());
    commits
}

fn check_order(evidence: &Evidence, offset: WallOffset, verdict: &mut Verdict) {
    let mut reigns: Vec<(Reign, Vec<Commit>)> =
        evidence.reigns.iter().cloned().map(|reign| (reign, Vec::new())).collect();
    reigns.sort_by_key(|(reign, _)| reign.epoch);
    for commit in commits(evidence, offset) {
        let reign = reigns
            .iter_mut()
            .rev()
            .find(|(reign, _)| reign.server == commit.server && reign.not_before_ns <= commit.from_ns);
        match reign {
            Some((_, commits)) => commits.push(commit),
            None => verdict.problems.push(format!(
                "row {}/{} was committed by {}, which held no epoch then",
                commit.row.0, commit.row.1, commit.server
            )),
        }
    }
    for (at, (earlier, before)) in reigns.iter().enumerate() {
        for (later, after) in &reigns[at + 1..] {
            compare((earlier, before), (later, after), &mut verdict.problems);
        }
    }
}

fn compare(earlier: (&Reign, &[Commit]), later: (&Reign, &[Commit]), problems: &mut Vec<String>) {
    let direct = |commits: &[Commit]| commits.iter().filter(|c| c.direct).cloned().collect::<Vec<_>>();
    let (before, after) = (direct(earlier.1), direct(later.1));
    let last = before.iter().max_by_key(|commit| commit.to_ns);
    let first = after.iter().min_by_key(|commit| commit.from_ns);
    if let (Some(last), Some(first)) = (last, first)
        && last.to_ns >= first.from_ns
    {
        problems.push(overlap((earlier.0, last, last.to_ns), (later.0, first, first.from_ns)));
        return;
    }
    // Over links: only what cannot have been in order.
    let last = earlier.1.iter().max_by_key(|commit| commit.from_ns);
    let first = later.1.iter().min_by_key(|commit| commit.to_ns);
    if let (Some(last), Some(first)) = (last, first)
        && last.from_ns > first.to_ns
    {
        problems.push(overlap((earlier.0, last, last.from_ns), (later.0, first, first.to_ns)));
    }
}

fn overlap(last: (&Reign, &Commit, u64), first: (&Reign, &Commit, u64)) -> String {
    format!(
        "two writers: the last commit at epoch {} ({}, row {}/{}) at {} ns does not precede the first at epoch {} \
         ({}, row {}/{}) at {} ns: {} ms too late",
        last.0.epoch,
        last.0.server,
        last.1.row.0,
        last.1.row.1,
        last.2,
        first.0.epoch,
        first.0.server,
        first.1.row.0,
        first.1.row.1,
        first.2,
        last.2.saturating_sub(first.2) / 1_000_000
    )
}

#[cfg(test)]
mod tests;
