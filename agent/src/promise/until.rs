//! `promised.until`: until when this member's lease may run on by promises, so that an agent that restarts does not forget it.
//!
//! Invariant: it is on disk before the guard is handed the later deadline. Interleaving that it prevents: by a list without M
//! a promise of 270 s was given; the agent restarts, a coordinator answers, the policy is shortened to 60 s and M added;
//! an agent that has forgotten the 270 s names the new list at once, and M, whom nobody asked, is promoted when the shorter
//! lease is over. A file that cannot be read counts as the longest lease that the guard takes, from the agent's start; one of
//! another boot as nothing, since the lease that it is about has ended with that boot.

use std::{fs, io, path::Path};

use regent_types::BootId;
use serde::{Deserialize, Serialize};

use crate::{checked, durable};

const NAME: &str = "promised.until";
const HEADER: &str = "regent-promised-until 1";

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    boot: BootId,
    until_ns: u64,
}

/// What an earlier run has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// CLOCK_BOOTTIME of this boot; 0 for never.
    Until(u64),
    /// Nobody knows.
    Damaged,
}

/// Reads it.
pub(super) fn read(state_dir: &Path, boot: &BootId) -> Found {
    let path = state_dir.join(NAME);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::Until(0),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "until when promises last cannot be read");
            return Found::Damaged;
        }
    };
    match checked::parse::<Kept>(HEADER, &text) {
        Ok(kept) if kept.boot == *boot => Found::Until(kept.until_ns),
        Ok(_) => Found::Until(0),
        Err(reason) => {
            tracing::warn!(path = %path.display(), reason, "damaged: the longest promise is assumed");
            Found::Damaged
        }
    }
}

/// Writes it; returns when it is on disk.
pub(super) fn keep(state_dir: &Path, boot: &BootId, until_ns: u64) -> io::Result<()> {
    let text = checked::render(HEADER, &Kept { boot: boot.clone(), until_ns });
    durable::replace(&state_dir.join(NAME), text.as_bytes(), 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_again_in_the_same_boot_and_damage_is_not_forgetting() {
        let dir = tempfile::tempdir().unwrap();
        let (here, other) = (BootId("here".into()), BootId("other".into()));
        assert_eq!(read(dir.path(), &here), Found::Until(0));
        keep(dir.path(), &here, 77).unwrap();
        assert_eq!(read(dir.path(), &here), Found::Until(77));
        assert_eq!(read(dir.path(), &other), Found::Until(0));
        let path = dir.path().join(NAME);
        let good = fs::read_to_string(&path).unwrap();
        for bad in [good.replace("77", "78"), good[..good.len() / 2].to_owned(), String::new()] {
            fs::write(&path, bad).unwrap();
            assert_eq!(read(dir.path(), &here), Found::Damaged);
        }
    }
}
