//! Names of WAL segments and timeline history files, and what a history file says.

use regent_types::{Lsn, Timeline};

/// Name of the segment of `timeline` that holds `lsn`.
pub fn segment_name(timeline: Timeline, lsn: Lsn, segment_bytes: u64) -> String {
    let per_id = 0x1_0000_0000 / segment_bytes;
    let number = lsn.0 / segment_bytes;
    format!("{:08X}{:08X}{:08X}", timeline.0, number / per_id, number % per_id)
}

/// Names of the segments that hold `from..to`, in order; the one of `from` is always among them.
pub fn segment_names(timeline: Timeline, from: Lsn, to: Lsn, segment_bytes: u64) -> Vec<String> {
    let first = from.0 / segment_bytes;
    let last = to.0.saturating_sub(1).max(from.0) / segment_bytes;
    (first..=last).map(|n| segment_name(timeline, Lsn(n * segment_bytes), segment_bytes)).collect()
}

/// The timeline of a `NNNNNNNN.history` file name.
pub fn history_timeline(name: &str) -> Option<Timeline> {
    let digits = name.strip_suffix(".history")?;
    (digits.len() == 8).then(|| u32::from_str_radix(digits, 16).ok().map(Timeline))?
}

/// One line of a history file: `parent` was left at `switch_lsn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The timeline that was left.
    pub parent: Timeline,
    /// Where.
    pub switch_lsn: Lsn,
}

/// Reads a timeline history file; a line that is not understood is an error that names it.
pub fn parse_history(text: &str) -> Result<Vec<HistoryEntry>, String> {
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines
        .map(|line| {
            let mut words = line.split_whitespace();
            let parent = words.next().and_then(|w| w.parse().ok()).map(Timeline);
            let switch_lsn = words.next().and_then(|w| w.parse().ok());
            match (parent, switch_lsn) {
                (Some(parent), Some(switch_lsn)) => Ok(HistoryEntry { parent, switch_lsn }),
                _ => Err(format!("timeline history line {line:?} has not the form `timeline LSN reason`")),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB16: u64 = 16 << 20;

    #[test]
    fn segments_are_named_as_postgresql_names_them() {
        let name = |lsn: &str| segment_name(Timeline(1), lsn.parse().unwrap(), MIB16);
        assert_eq!(name("0/1000028"), "000000010000000000000001");
        assert_eq!(name("1/FF000000"), "0000000100000001000000FF");
        let names = segment_names(Timeline(2), Lsn(MIB16 + 5), Lsn(3 * MIB16), MIB16);
        assert_eq!(names, ["000000020000000000000001", "000000020000000000000002"]);
        assert_eq!(segment_names(Timeline(2), Lsn(MIB16), Lsn(MIB16), MIB16).len(), 1);
    }

    #[test]
    fn history_files_are_read_and_nonsense_is_refused() {
        let text = "1\t0/3000148\tno recovery target specified\n\n2\t0/5000000\tx\n";
        let entries = parse_history(text).unwrap();
        assert_eq!(
            entries[1],
            HistoryEntry { parent: Timeline(2), switch_lsn: "0/5000000".parse().unwrap() }
        );
        assert!(parse_history("one 0/1 x").is_err());
        assert_eq!(history_timeline("0000000A.history"), Some(Timeline(10)));
        assert_eq!(history_timeline("A.history"), None);
    }
}
