//! The salvages that are kept on this host, from their manifests. Only reads; a folder that cannot be read is passed over,
//! and said so in the log when it is new.

use std::{fs, path::Path};

use regent_types::SalvageSummary;
use serde::Deserialize;

/// Summaries that travel with heartbeats.
const NEWEST_MAX: usize = 8;

#[derive(Deserialize)]
struct Manifest {
    summary: SalvageSummary,
}

/// The newest, oldest first. Folder names end with the time.
pub fn newest(salvage_dir: &Path) -> Vec<SalvageSummary> {
    let entries = fs::read_dir(salvage_dir).into_iter().flatten().flatten();
    let mut found: Vec<(String, SalvageSummary)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (_, stamp) = name.split_once('-')?;
            let text = fs::read_to_string(entry.path().join("manifest.json")).ok()?;
            let manifest: Manifest = serde_json::from_str(&text)
                .inspect_err(|error| tracing::debug!(folder = %name, %error, "not a salvage's manifest"))
                .ok()?;
            Some((stamp.to_owned(), manifest.summary))
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let skip = found.len().saturating_sub(NEWEST_MAX);
    found.into_iter().skip(skip).map(|(_, summary)| summary).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_read_and_anything_else_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        assert!(newest(&dir.path().join("missing")).is_empty());
        // As written before relations were told.
        let summary = |epoch: u64| {
            serde_json::json!({"summary": {"folder": "f", "epoch": epoch, "timeline": 1, "from_lsn": 1, "to_lsn": 2,
                "transactions": 3, "span_ms": 4, "completeness": "complete"}})
        };
        for (name, text) in [
            ("9-20261122T100000Z", summary(9).to_string()),
            ("10-20261122T090000Z", summary(10).to_string()),
            ("11-20261122T110000Z", "{".into()),
        ] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("manifest.json"), text).unwrap();
        }
        fs::create_dir(dir.path().join("12-20261122T120000Z.partial")).unwrap();
        let epochs: Vec<u64> = newest(dir.path()).iter().map(|summary| summary.epoch.0).collect();
        assert_eq!(epochs, [10, 9]);
    }
}
