//! Certificates that are renewed while a process runs. The files are read again every now and then; what has changed and
//! checks out is used for every connection from then on, and connections that exist stay as they are.
//!
//! Invariants: files that do not check out (half written, expired, another identity, another CA's) never replace what is
//! in use, and are complained about once; whoever asks gets material that was checked as one, never the certificate of
//! one moment with the key of another. A mistake falls towards the old certificate, whose end is announced by days.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::SystemTime,
};

use crate::{PkiError, TlsFiles, TlsMaterial, tls::Bytes};

/// What a look at the files has found.
pub enum Look {
    /// Nothing new.
    Unchanged,
    /// New material, in use from now on.
    Renewed(Arc<TlsMaterial>),
    /// New files that are refused; said once for each change.
    Refused(PkiError),
}

struct Inner {
    current: Arc<TlsMaterial>,
    /// What was looked at last, good or not; `None` when it could not be read.
    seen: Option<Bytes>,
    /// What was said of it, when it was refused.
    complaint: Option<String>,
}

/// The material of one process, and its files.
pub struct Live {
    files: TlsFiles,
    inner: Mutex<Inner>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Live {
    /// Reads and checks the files; without good ones a process does not start.
    pub fn open(files: TlsFiles) -> Result<Self, PkiError> {
        Self::open_at(files, SystemTime::now())
    }

    /// The same at a given time.
    pub fn open_at(files: TlsFiles, now: SystemTime) -> Result<Self, PkiError> {
        let bytes = files.read()?;
        let current = Arc::new(files.check(bytes.clone(), now)?);
        let inner = Mutex::new(Inner { current, seen: Some(bytes), complaint: None });
        Ok(Self { files, inner })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What is in use.
    pub fn current(&self) -> Arc<TlsMaterial> {
        self.lock().current.clone()
    }

    /// Why the newest files are not in use, if they are not.
    pub fn complaint(&self) -> Option<String> {
        self.lock().complaint.clone()
    }

    /// Looks at the files. Certificate and key are replaced one after the other: a pair that does not match yet is looked
    /// at again when the second file has come.
    pub fn look(&self) -> Look {
        self.look_at(SystemTime::now())
    }

    /// The same at a given time.
    pub fn look_at(&self, now: SystemTime) -> Look {
        let read = self.files.read();
        let mut inner = self.lock();
        let bytes = match read {
            Ok(bytes) if inner.seen.as_ref() == Some(&bytes) => return Look::Unchanged,
            Ok(bytes) => bytes,
            Err(error) => return inner.refuse(None, error),
        };
        let own = inner.current.identity.clone();
        let checked = self.files.check(bytes.clone(), now).and_then(|material| {
            if material.identity == own {
                return Ok(material);
            }
            Err(PkiError::OtherIdentity { path: self.files.cert.clone(), found: material.identity, own })
        });
        match checked {
            Ok(material) => {
                let material = Arc::new(material);
                *inner = Inner { current: material.clone(), seen: Some(bytes), complaint: None };
                Look::Renewed(material)
            }
            Err(error) => inner.refuse(Some(bytes), error),
        }
    }
}

impl Inner {
    fn refuse(&mut self, seen: Option<Bytes>, error: PkiError) -> Look {
        let complaint = error.to_string();
        let known = self.seen == seen && self.complaint.as_ref() == Some(&complaint);
        (self.seen, self.complaint) = (seen, Some(complaint));
        if known { Look::Unchanged } else { Look::Refused(error) }
    }
}
