//! `pg_waldump` as a reader: where the WAL ends, which commits it holds. It only reads, so it is a plain child of the agent
//! and not a job of the guard.

use std::{path::Path, process::Stdio, time::Duration};

use regent_agent_core::WalEnd;
use regent_types::{Lsn, Timeline};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::Command,
};

use super::relations::{self, Touched};
use crate::{app::App, data};

const BUDGET: Duration = Duration::from_secs(600);

/// End of the valid WAL of `timeline` in the stopped data directory.
pub async fn measure_end(app: &App, timeline: Timeline) -> WalEnd {
    let dir = &app.config.data_dir;
    let checkpoint = data::look(dir, &app.state.get()).checkpoint_lsn;
    // After a promotion without a checkpoint yet, the checkpoint lies on the parent timeline, before the switch.
    let from = checkpoint.max(data::switch_lsn(dir, timeline));
    let Some(from) = from else {
        return WalEnd::Unreadable("pg_control names no checkpoint".into());
    };
    match read(app, &dir.join("pg_wal"), timeline, from, None).await {
        // There is at least the record that `from` names. Taken for the end, a place that cannot be read would say that
        // nothing diverged, and the start of a standby would recycle what nobody has salvaged.
        Ok(records) => records.end.map_or_else(
            || WalEnd::Unreadable(format!("no record at {from} on timeline {timeline}")),
            WalEnd::At,
        ),
        Err(why) => WalEnd::Unreadable(why),
    }
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records {
    /// End of the last valid record; `None` when there was none.
    pub end: Option<Lsn>,
    /// Commit records.
    pub commits: u64,
    /// Wall time of the first commit, as printed.
    pub first: Option<String>,
    /// Wall time of the last commit, as printed.
    pub last: Option<String>,
    /// The transactions that committed, subtransactions too.
    pub xids: Vec<u32>,
    /// What was changed, by file.
    pub touched: Touched,
}

impl Records {
    /// Time between the first and the last commit, ms; 0 when there are less than two.
    pub fn span_ms(&self) -> u64 {
        let (Some(first), Some(last)) = (&self.first, &self.last) else { return 0 };
        match (wall_ms(first), wall_ms(last)) {
            (Some(a), Some(b)) => b.saturating_sub(a),
            _ => 0,
        }
    }

    /// Takes in one line of `pg_waldump`'s output.
    fn line(&mut self, line: &str) {
        let Some((lsn, length)) = record(line) else { return };
        // Padding and page headers are left out: an end that is a few bytes early still lies behind the record's start,
        // and only that is compared with a switch.
        self.end = Some(Lsn((lsn.0 + length).next_multiple_of(8)));
        relations::count(&mut self.touched, line);
        if let Some((_, commit)) = line.split_once("desc: COMMIT") {
            self.commits += 1;
            self.xids.extend(xids(line));
            let commit = commit.trim_start_matches("_PREPARED").trim_start();
            let time: String = commit.chars().take_while(|c| *c != ';').collect();
            self.first.get_or_insert_with(|| time.clone());
            self.last = Some(time);
        }
    }
}

/// The transactions of a commit record: its own, and those after `subxacts:`.
fn xids(line: &str) -> Vec<u32> {
    let own = line.split_once("tx:").and_then(|(_, text)| text.split(',').next()?.trim().parse().ok());
    let subs = line.split_once("subxacts: ").map_or("", |(_, text)| text.split(';').next().unwrap_or(""));
    own.into_iter()
        .chain(subs.split_whitespace().map_while(|xid| xid.parse().ok()))
        .filter(|xid| *xid > 0)
        .collect()
}

/// Start and length of the record that a line describes.
fn record(line: &str) -> Option<(Lsn, u64)> {
    let (_, lengths) = line.split_once("len (rec/tot):")?;
    let (_, total) = lengths.split_once('/')?;
    let total = total.split(',').next()?.trim().parse().ok()?;
    let (_, lsn) = line.split_once("lsn: ")?;
    Some((lsn.split(',').next()?.trim().parse().ok()?, total))
}

/// `2026-11-22 17:00:00.123456 UTC` in ms since the epoch; the zone is the tool's own and the same in every line.
fn wall_ms(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace();
    let mut date = words.next()?.split('-').map(|n| n.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = words.next()?.split(':');
    let (hour, minute): (i64, i64) = (time.next()?.parse().ok()?, time.next()?.parse().ok()?);
    let second: f64 = time.next()?.parse().ok()?;
    // Days since 1970-01-01 in the proleptic Gregorian calendar, with years that begin in March.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (m * 306 + 5) / 10 + day - 1 - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60;
    u64::try_from(seconds * 1000 + (second * 1000.0) as i64).ok()
}

/// Reads WAL in `folder` from `from` to `to` or its end.
pub async fn read(
    app: &App,
    folder: &Path,
    timeline: Timeline,
    from: Lsn,
    to: Option<Lsn>,
) -> Result<Records, String> {
    let program = app.config.pg_bin.join("pg_waldump");
    let mut command = Command::new(&program);
    command.arg("-p").arg(folder).args(["-t", &timeline.to_string(), "-s", &from.to_string()]);
    if let Some(to) = to {
        command.args(["-e", &to.to_string()]);
    }
    command.env("LC_ALL", "C").env("TZ", "UTC").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = async {
        let mut child = command.spawn().map_err(|e| format!("{}: {e}", program.display()))?;
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut stderr = child.stderr.take().expect("piped");
        let complaint = tokio::spawn(async move {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text).await;
            text
        });
        let mut records = Records::default();
        while let Some(line) = lines.next_line().await.map_err(|e| e.to_string())? {
            records.line(&line);
        }
        let status = child.wait().await.map_err(|e| e.to_string())?;
        let complaint = complaint.await.unwrap_or_default();
        if !status.success() && !is_end_of_wal(status.code(), &complaint, records.end.is_some()) {
            let last = records.end.map_or(String::new(), |end| format!(", up to {end}"));
            return Err(format!(
                "pg_waldump from {from} on timeline {timeline}{last}: {status}: {}",
                complaint.trim()
            ));
        }
        Ok(records)
    };
    let late = format!("pg_waldump has not ended within {} s", BUDGET.as_secs());
    tokio::time::timeout(BUDGET, run).await.map_err(|_| late)?
}

/// Running into the end of the WAL is how it ends here. A tool that was killed, or a disk that could not be read, has an
/// end too, but of another kind: behind it there may be commits.
fn is_end_of_wal(code: Option<i32>, complaint: &str, found_records: bool) -> bool {
    // Of the transactions alone there may be none, so the first two say so with and without a record.
    let ends = ["error in WAL record at", "could not find a valid record", "could not find file"];
    let ends = if found_records { &ends[..] } else { &ends[..2] };
    code.is_some()
        && !complaint.contains("Input/output error")
        && ends.iter().any(|end| complaint.contains(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The WAL of a tool that was killed does not count as whole.
    #[test]
    fn only_the_end_of_the_wal_is_its_end() {
        let invalid =
            "pg_waldump: error: error in WAL record at 0/1: invalid record length at 0/2: wanted 24, got 0";
        assert!(is_end_of_wal(Some(1), invalid, true));
        assert!(is_end_of_wal(
            Some(1),
            "pg_waldump: error: could not find file \"0001\": No such file",
            true
        ));
        assert!(is_end_of_wal(Some(1), "could not find a valid record after 0/1", false));
        for (code, complaint, found) in [
            (None, "", true),
            (None, invalid, true),
            (Some(1), "could not read from file \"0001\", offset 8: Input/output error", true),
            (Some(1), "could not open file \"0001\": Permission denied", true),
            (Some(1), "could not find file \"0001\": No such file or directory", false),
        ] {
            assert!(!is_end_of_wal(code, complaint, found), "{code:?} {complaint}");
        }
    }

    #[test]
    fn records_and_commits_are_read() {
        let mut records = Records::default();
        records.line(
            "rmgr: Transaction len (rec/tot):     34/    34, tx:        735, lsn: 0/015314B8, prev 0/01531480, \
             desc: COMMIT 2026-11-22 17:00:00.250000 UTC",
        );
        records.line(
            "rmgr: Transaction len (rec/tot):     46/    46, tx:        736, lsn: 0/015314E0, prev 0/015314B8, \
             desc: COMMIT 2026-11-22 17:00:01.500000 UTC; inval msgs: catcache 7",
        );
        records.line("pg_waldump: something else");
        records.line(
            "rmgr: Transaction len (rec/tot):     34/    34, tx:        740, lsn: 0/01531400, prev 0/015314B8, \
             desc: COMMIT 2026-11-22 17:00:01.500000 UTC; subxacts: 741 742; inval msgs: catcache 7",
        );
        records.commits -= 1;
        assert_eq!(records.xids, [735, 736, 740, 741, 742]);
        records.end = Some(Lsn(0x0153_1510));
        assert_eq!((records.commits, records.span_ms()), (2, 1250));
        assert_eq!(records.end, Some(Lsn(0x0153_1510)));
    }

    #[test]
    fn wall_times_count_from_1970() {
        assert_eq!(wall_ms("1970-01-01 00:00:01.5 UTC"), Some(1500));
        assert_eq!(wall_ms("2024-02-29 00:00:00 UTC"), Some(1_709_164_800_000));
        assert_eq!(wall_ms("yesterday"), None);
    }
}
