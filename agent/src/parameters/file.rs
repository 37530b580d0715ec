//! What was told of the parameters, on disk: a standby that is started before any coordinator is heard needs them. A damaged
//! file is nothing known: the next answer of a coordinator has them again, and until then the values of PostgreSQL's own
//! files are in force.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::durable;

const HEAD: &str = "regent-agent-parameters 1";

/// See the module's documentation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The version that was told.
    pub version: u64,
    /// As told.
    pub values: BTreeMap<String, String>,
    /// Those that this PostgreSQL took when it was asked last.
    pub taken: BTreeMap<String, String>,
    /// Names compared between members that were ever set: unset, the files' own value has to be compared.
    #[serde(default)]
    pub compared: BTreeSet<String>,
}

/// Reads it; a file that is not there, damaged or newer is nothing known.
pub fn read(path: &Path) -> Kept {
    let Ok(text) = fs::read_to_string(path) else { return Kept::default() };
    match parse(&text) {
        Ok(kept) => kept,
        Err(why) => {
            tracing::warn!(path = %path.display(), why, "the parameters are read anew from a coordinator");
            Kept::default()
        }
    }
}

/// Writes it, durably.
pub fn write(path: &Path, kept: &Kept) -> io::Result<()> {
    let body = serde_json::to_string(kept).expect("plain data");
    let text = format!("{HEAD}\n{:08x}\n{body}\n", crc32fast::hash(body.as_bytes()));
    durable::replace_if_changed(path, text.as_bytes(), 0o600).map(drop)
}

fn parse(text: &str) -> Result<Kept, String> {
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    if head != HEAD {
        return Err(format!("first line {head:?}, expected {HEAD:?}"));
    }
    let (sum, body) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let computed = format!("{:08x}", crc32fast::hash(body.as_bytes()));
    if sum != computed {
        return Err(format!("checksum {sum:?}, computed {computed:?}"));
    }
    serde_json::from_str(body).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_damage_is_nothing_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("parameters.state");
        assert_eq!(read(&path), Kept::default());
        let values = BTreeMap::from([("work_mem".to_owned(), "8MB".to_owned())]);
        let kept = Kept { version: 3, values: values.clone(), taken: values, compared: BTreeSet::new() };
        write(&path, &kept).unwrap();
        assert_eq!(read(&path), kept);
        let text = fs::read_to_string(&path).unwrap();
        for spoilt in
            [text.replace("8MB", "9MB"), text.replace("parameters 1", "parameters 2"), String::new()]
        {
            fs::write(&path, spoilt).unwrap();
            assert_eq!(read(&path), Kept::default());
        }
    }
}
