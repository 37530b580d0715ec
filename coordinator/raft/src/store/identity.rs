//! Whose directory this is. Written twice: inside the database, and in a small file beside it, so that the loss of
//! the database alone is noticed. A node that lost its log has forgotten its vote and must not vote again.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::StoreError;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) node: u64,
    pub(super) group: String,
}

impl Identity {
    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join("identity")
    }

    pub(super) fn read(dir: &Path) -> Result<Option<Identity>, StoreError> {
        let path = Self::path(dir);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::Io { action: "read", path, source }),
        };
        let mut lines = text.lines();
        let node = lines.next().and_then(|l| l.strip_prefix("node ")).and_then(|v| v.parse().ok());
        let group = lines.next().and_then(|l| l.strip_prefix("group ")).map(str::to_string);
        match (node, group, lines.next()) {
            (Some(node), Some(group), None) => Ok(Some(Identity { node, group })),
            _ => Err(StoreError::Damaged {
                file: path,
                table: "identity",
                key: "whole file".into(),
                what: format!("is not two lines `node N`, `group NAME`: {text:?}"),
            }),
        }
    }

    pub(super) fn write(&self, dir: &Path) -> Result<(), StoreError> {
        let text = format!("node {}\ngroup {}\n", self.node, self.group);
        write_durably(&Self::path(dir), text.as_bytes())
    }

    /// Refuses the directory of another.
    pub(super) fn check(&self, found: &Identity, file: &Path) -> Result<(), StoreError> {
        if self == found {
            return Ok(());
        }
        Err(StoreError::Foreign {
            file: file.to_path_buf(),
            found_node: found.node,
            found_group: found.group.clone(),
            node: self.node,
            group: self.group.clone(),
        })
    }
}

/// Replaces a file so that after a crash either the old or the new one is there, whole.
pub(crate) fn write_durably(path: &Path, contents: &[u8]) -> Result<(), StoreError> {
    let failed = |action, path: &Path| {
        let path = path.to_path_buf();
        move |source| StoreError::Io { action, path, source }
    };
    let tmp = path.with_extension("tmp");
    let mut file = fs::File::create(&tmp).map_err(failed("create", &tmp))?;
    file.write_all(contents).map_err(failed("write", &tmp))?;
    file.sync_all().map_err(failed("fsync", &tmp))?;
    fs::rename(&tmp, path).map_err(failed("rename", &tmp))?;
    let dir = path.parent().unwrap_or(Path::new("."));
    let handle = fs::File::open(dir).map_err(failed("open", dir))?;
    handle.sync_all().map_err(failed("fsync", dir))
}
