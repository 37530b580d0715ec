//! The guard's memory on disk: `guard.state`.
//!
//! Text lines and a CRC, written to a temporary file, fsynced, renamed, and the directory fsynced: after a crash at any
//! point there is the old file or the new one. What cannot be read counts as *fenced*: nothing is started writable on
//! the strength of it, and the damaged file is kept as evidence.
//!
//! The interleaving it prevents: the guard answers "E is fenced", its host restarts, and a late grant of E that was in
//! flight finds a guard that has forgotten. It mistakes towards a needless wait for a new lease, never towards a write.

use crate::wire::{format_instance, parse_instance};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

const MAGIC: &str = "regent-guard-state";
const VERSION: u32 = 2;
/// Before promises: such a file says that none was ever given.
const VERSION_WITHOUT_PROMISES: u32 = 1;
const NAME: &str = "guard.state";

/// How many earlier instances are remembered.
pub const LINEAGE_MAX: usize = 64;

/// What is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The guard instance that wrote it.
    pub instance: u128,
    /// The instance it succeeded, if it could speak for that one's death.
    pub previous_instance: Option<u128>,
    /// All instances of this boot it can speak for, newest first.
    pub lineage: Vec<u128>,
    /// The boot it was written in.
    pub boot_id: String,
    /// The highest epoch granted; 0 for none.
    pub highest_epoch: u64,
    /// Refused for ever: this epoch and all below; 0 for none.
    pub fenced_through: u64,
    /// No promise for this epoch or any below; 0 for none.
    pub promises_closed: u64,
    /// A promise not to be promoted above this epoch was given; 0 for none, or for one whose epoch is lost.
    pub promised_epoch: u64,
    /// It is held until then, CLOCK_BOOTTIME of `boot_id`; 0 for none.
    pub promised_until_ns: u64,
}

/// What was found at the start.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A good file. Its boot id is the caller's to compare.
    Good(State),
    /// No file.
    Missing,
    /// Not readable as a state file; the text says why.
    Damaged(String),
}

/// CRC-32 (IEEE), bit by bit: a few hundred bytes a time do not deserve a table.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

impl State {
    fn encode(&self) -> String {
        let lineage: Vec<_> = self.lineage.iter().map(|i| format_instance(*i)).collect();
        let mut text = format!(
            "{MAGIC} {VERSION}\ninstance={}\nprevious_instance={}\nlineage={}\nboot_id={}\nhighest_epoch={}\n\
             fenced_through={}\npromises_closed={}\npromised_epoch={}\npromised_until_ns={}\n",
            format_instance(self.instance),
            self.previous_instance.map_or_else(|| "-".to_owned(), format_instance),
            lineage.join(","),
            self.boot_id,
            self.highest_epoch,
            self.fenced_through,
            self.promises_closed,
            self.promised_epoch,
            self.promised_until_ns,
        );
        text.push_str(&format!("crc32={:08x}\n", crc32(text.as_bytes())));
        text
    }

    fn decode(text: &str) -> Result<Self, String> {
        let body_end = text.rfind("crc32=").ok_or("no checksum line")?;
        let (body, sum) = text.split_at(body_end);
        if sum != format!("crc32={:08x}\n", crc32(body.as_bytes())) {
            return Err(format!("checksum does not match: {}", sum.trim_end()));
        }
        let mut lines = body.lines();
        let head = lines.next().unwrap_or_default();
        let promises = head != format!("{MAGIC} {VERSION_WITHOUT_PROMISES}");
        if promises && head != format!("{MAGIC} {VERSION}") {
            return Err(format!("first line `{head}` is not `{MAGIC} {VERSION}`"));
        }
        let mut field = |key: &str| {
            let line = lines.next().ok_or_else(|| format!("line `{key}` is missing"))?;
            line.strip_prefix(key)
                .and_then(|rest| rest.strip_prefix('='))
                .map(str::to_owned)
                .ok_or_else(|| format!("`{line}` where `{key}=` was expected"))
        };
        let instance = |key: &str, text: &str| parse_instance(text).ok_or_else(|| format!("{key} `{text}`"));
        let number = |key: &str, text: String| text.parse::<u64>().map_err(|_| format!("{key} `{text}`"));
        let own = instance("instance", &field("instance")?)?;
        let previous = field("previous_instance")?;
        let lineage = field("lineage")?;
        let state = Self {
            instance: own,
            previous_instance: match previous.as_str() {
                "-" => None,
                text => Some(instance("previous_instance", text)?),
            },
            lineage: lineage
                .split(',')
                .filter(|text| !text.is_empty())
                .map(|text| instance("lineage", text))
                .collect::<Result<_, _>>()?,
            boot_id: field("boot_id")?,
            highest_epoch: number("highest_epoch", field("highest_epoch")?)?,
            fenced_through: number("fenced_through", field("fenced_through")?)?,
            promises_closed: number("promises_closed", field("promises_closed")?)?,
            promised_epoch: if promises { number("promised_epoch", field("promised_epoch")?)? } else { 0 },
            promised_until_ns: if promises {
                number("promised_until_ns", field("promised_until_ns")?)?
            } else {
                0
            },
        };
        match lines.next() {
            None => Ok(state),
            Some(line) => Err(format!("unexpected line `{line}`")),
        }
    }
}

/// A valid file of a newer version is not damage: an older guard must not overwrite what it cannot understand.
fn newer_version(text: &str) -> Option<u32> {
    let version = text.lines().next()?.strip_prefix(MAGIC)?.trim().parse().ok()?;
    (version > VERSION).then_some(version)
}

/// Reads the state file. An error is one of the disk, or a file from a newer guard: the caller must not go on.
pub fn load(dir: &Path) -> io::Result<Found> {
    let bytes = match fs::read(dir.join(NAME)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
        Err(error) => return Err(error),
    };
    let Ok(text) = String::from_utf8(bytes) else {
        return Ok(Found::Damaged("not text".into()));
    };
    if let Some(version) = newer_version(&text) {
        return Err(io::Error::other(format!(
            "version {version} is newer than this guard's {VERSION}: start a guard that knows it"
        )));
    }
    Ok(State::decode(&text).map_or_else(Found::Damaged, Found::Good))
}

/// Moves a damaged file aside as `guard.state.damaged-N` and returns that name.
pub fn keep_damaged(dir: &Path) -> io::Result<String> {
    for number in 1..10_000 {
        let name = format!("{NAME}.damaged-{number}");
        if !dir.join(&name).try_exists()? {
            fs::rename(dir.join(NAME), dir.join(&name))?;
            File::open(dir)?.sync_all()?;
            return Ok(name);
        }
    }
    Err(io::Error::other("10000 damaged state files are kept already"))
}

/// Writes the state so that it survives a crash. On an error the old state may or may not be there: it is not durable.
pub fn store(dir: &Path, state: &State) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let tmp = dir.join("guard.state.tmp");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&tmp)?;
    file.write_all(state.encode().as_bytes())?;
    file.sync_all()?;
    fs::rename(&tmp, dir.join(NAME))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> State {
        State {
            instance: 5,
            previous_instance: Some(4),
            lineage: vec![4, 3],
            boot_id: "boot".into(),
            highest_epoch: 9,
            fenced_through: 8,
            promises_closed: 7,
            promised_epoch: 9,
            promised_until_ns: 77,
        }
    }

    #[test]
    fn a_file_from_before_promises_says_that_none_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let text = sample().encode();
        let mut body: String = text
            .lines()
            .filter(|line| !line.starts_with("promised_") && !line.starts_with("crc32="))
            .map(|line| format!("{line}\n"))
            .collect();
        body = body.replacen("regent-guard-state 2", "regent-guard-state 1", 1);
        body.push_str(&format!("crc32={:08x}\n", crc32(body.as_bytes())));
        fs::write(dir.path().join(NAME), body).unwrap();
        let expected = State { promised_epoch: 0, promised_until_ns: 0, ..sample() };
        assert_eq!(load(dir.path()).unwrap(), Found::Good(expected));
    }

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn it_survives_a_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()).unwrap(), Found::Missing);
        store(dir.path(), &sample()).unwrap();
        assert_eq!(load(dir.path()).unwrap(), Found::Good(sample()));
        let alone = State { previous_instance: None, lineage: vec![], ..sample() };
        store(dir.path(), &alone).unwrap();
        assert_eq!(load(dir.path()).unwrap(), Found::Good(alone));
    }

    /// Proved by weakening: without the checksum a flipped digit of an epoch passes.
    #[test]
    fn every_truncation_and_every_flipped_bit_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let good = sample().encode().into_bytes();
        for length in 0..good.len() {
            fs::write(dir.path().join(NAME), &good[..length]).unwrap();
            assert!(matches!(load(dir.path()).unwrap(), Found::Damaged(_)), "{length}");
        }
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                fs::write(dir.path().join(NAME), &bad).unwrap();
                // A flip in the version can make it a newer one, which is refused altogether.
                assert!(!matches!(load(dir.path()), Ok(Found::Good(_))), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn a_newer_version_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), "regent-guard-state 3\nfuture\n").unwrap();
        let error = load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("version 3"), "{error}");
    }

    #[test]
    fn damaged_files_are_kept_each_under_its_own_name() {
        let dir = tempfile::tempdir().unwrap();
        for number in 1..3 {
            fs::write(dir.path().join(NAME), "bad").unwrap();
            assert_eq!(keep_damaged(dir.path()).unwrap(), format!("guard.state.damaged-{number}"));
        }
    }
}
