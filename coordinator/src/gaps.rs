//! Keeps the counted silences of members from one process to the next: a file of this node's own, written now and then.
//!
//! Advice only: a file that is missing or damaged costs the history, and nothing else depends on it. What was counted since
//! the last writing is lost with a killed process.

use std::{fs, path::Path, sync::Arc, time::Duration};

use regent_core::Gaps;

use crate::node::Node;

const FILE: &str = "silences.json";
/// Between two writings.
const INTERVAL: Duration = Duration::from_secs(60);

/// What an earlier process counted.
pub fn load(data_dir: &Path) -> Gaps {
    let path = data_dir.join(FILE);
    let Ok(text) = fs::read(&path) else { return Gaps::default() };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "the counted silences cannot be read; counting anew");
        Gaps::default()
    })
}

fn save(data_dir: &Path, gaps: &Gaps) -> std::io::Result<()> {
    let text = serde_json::to_vec(gaps)?;
    let fresh = data_dir.join(format!("{FILE}.new"));
    fs::write(&fresh, text)?;
    fs::rename(fresh, data_dir.join(FILE))
}

/// Writes while there is something new, for ever.
pub async fn run(node: Arc<Node>) {
    let mut written = load(&node.config.data_dir);
    node.shared.lock().detector.restore_gaps(written.clone());
    loop {
        node.clock.sleep(INTERVAL).await;
        let now = node.shared.lock().detector.gaps().clone();
        if now == written {
            continue;
        }
        match save(&node.config.data_dir, &now) {
            Ok(()) => written = now,
            Err(error) => tracing::warn!(%error, "the counted silences cannot be written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_counts_anew_and_a_written_one_is_read() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()), Gaps::default());
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(load(dir.path()), Gaps::default());
        let gaps: Gaps = serde_json::from_str(
            r#"{"members":{"c":{"m":{"reached":[1],"heard":1,"observed_ms":600,"longest_ms":600}}}}"#,
        )
        .unwrap();
        save(dir.path(), &gaps).unwrap();
        assert_eq!(load(dir.path()), gaps);
    }
}
