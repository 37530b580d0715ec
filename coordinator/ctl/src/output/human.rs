//! Figures for people.

use time::{OffsetDateTime, macros::format_description};

/// `850ms`, `12.3s`, `4m30s`, `2h05m`, `3d04h`.
pub(crate) fn duration(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0 => format!("{ms}ms"),
        1..60 if ms.is_multiple_of(1000) => format!("{s}s"),
        1..60 => format!("{}.{}s", s, ms % 1000 / 100),
        60..3600 if s.is_multiple_of(60) => format!("{}m", s / 60),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86_400 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{:02}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// `0.3s ago`.
pub(crate) fn ago(ms: u64) -> String {
    format!("{} ago", duration(ms))
}

/// As PostgreSQL counts: `512 B`, `1.5 kB`, `16 MB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10;
    while tenths >= 10_240 && unit + 1 < units.len() {
        tenths /= 1024;
        unit += 1;
    }
    if unit == 0 || tenths >= 1000 || tenths.is_multiple_of(10) {
        format!("{} {}", tenths / 10, units[unit])
    } else {
        format!("{}.{} {}", tenths / 10, tenths % 10, units[unit])
    }
}

/// Wall time in UTC: `2026-01-02 03:04:05.678`.
pub(crate) fn wall(ms: u64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3]");
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
        .ok()
        .and_then(|moment| moment.format(format).ok())
        .unwrap_or_else(|| format!("{ms} ms"))
}

/// `2026-01-02`.
pub(crate) fn date(moment: OffsetDateTime) -> String {
    moment.date().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        let cases = [
            (0, "0ms"),
            (999, "999ms"),
            (1_000, "1s"),
            (12_345, "12.3s"),
            (59_999, "59.9s"),
            (60_000, "1m"),
            (270_000, "4m30s"),
            (7_500_000, "2h05m"),
            (273_600_000, "3d04h"),
        ];
        for (ms, text) in cases {
            assert_eq!(duration(ms), text);
        }
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 kB"),
            (1536, "1.5 kB"),
            (16 << 20, "16 MB"),
            (u64::MAX, "15.9 EB"),
        ];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(wall(1_767_323_045_678), "2026-01-02 03:04:05.678");
        assert_eq!(wall(u64::MAX), format!("{} ms", u64::MAX));
    }
}
