//! Certificate and key files. Invariants: a key is never readable by others, not even for an instant; nothing is
//! replaced unless told to; a certificate and its key are both refused or both written, the key first, so that an
//! interruption leaves a pair that does not match (and is refused) rather than a key that is lost.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::{Issued, PkiError};

/// What to do about files that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// Refuse (the default everywhere).
    Refuse,
    /// Replace them (`--force`).
    Replace,
}

const KEY_MODE: u32 = 0o600;
const CERT_MODE: u32 = 0o644;

/// Writes `NAME.crt` and `NAME.key` into `folder` and returns both paths.
pub fn write_issued(
    folder: &Path,
    issued: &Issued,
    overwrite: Overwrite,
) -> Result<(PathBuf, PathBuf), PkiError> {
    let stem = issued.identity.file_stem();
    let (cert, key) = (folder.join(format!("{stem}.crt")), folder.join(format!("{stem}.key")));
    write_pair(&cert, &issued.cert_pem, &key, &issued.key_pem, overwrite)?;
    Ok((cert, key))
}

pub(crate) fn write_pair(
    cert_path: &Path,
    cert_pem: &str,
    key_path: &Path,
    key_pem: &str,
    overwrite: Overwrite,
) -> Result<(), PkiError> {
    if overwrite == Overwrite::Refuse {
        for path in [cert_path, key_path] {
            if path.symlink_metadata().is_ok() {
                return Err(PkiError::Exists { path: path.to_owned() });
            }
        }
    }
    if let Some(folder) = key_path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| PkiError::Write { path: folder.to_owned(), source })?;
    }
    write(key_path, key_pem, KEY_MODE, overwrite)?;
    write(cert_path, cert_pem, CERT_MODE, overwrite)
}

/// Writes a temporary file beside `path`, with its final mode from the start, and moves it into place.
fn write(path: &Path, text: &str, mode: u32, overwrite: Overwrite) -> Result<(), PkiError> {
    let error = |source| PkiError::Write { path: path.to_owned(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = (|| -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        match overwrite {
            Overwrite::Replace => fs::rename(&temporary, path)?,
            // A link, unlike a rename, fails when somebody else has made the file in the meantime.
            Overwrite::Refuse => fs::hard_link(&temporary, path)?,
        }
        File::open(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))?.sync_all()
    })();
    let _ = fs::remove_file(&temporary);
    match written {
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists && overwrite == Overwrite::Refuse => {
            Err(PkiError::Exists { path: path.to_owned() })
        }
        other => other.map_err(error),
    }
}

pub(crate) fn read_text(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|source| PkiError::Read { path: path.to_owned(), source })
}

pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>, PkiError> {
    fs::read(path).map_err(|source| PkiError::Read { path: path.to_owned(), source })
}

/// All certificates in the text of a PEM file, at least one.
pub(crate) fn certificates_in(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    match CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(PkiError::NotPem { path: path.to_owned(), wanted: "certificate" }),
    }
}

/// The first certificate of a PEM file.
pub fn read_certificate(path: &Path) -> Result<CertificateDer<'static>, PkiError> {
    Ok(certificates_in(path, &read_bytes(path)?)?.swap_remove(0))
}
