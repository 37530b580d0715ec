//! Operating errors: each names the file or the value, none contains key material.

use std::{io, path::PathBuf};

use crate::{Identity, IdentityOfError};

/// Why a certificate or key could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or folder could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is there already.
    #[error("{} exists already and is not overwritten (use --force to replace it)", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file holds no PEM block of the kind that is needed.
    #[error("{} holds no {wanted} in PEM form", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// `certificate` or `private key`.
        wanted: &'static str,
    },
    /// A certificate or key that cannot be used.
    #[error("{}: {problem}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Certificate and key do not belong together.
    #[error("the key {} does not belong to the certificate {}", key.display(), cert.display())]
    KeyMismatch {
        /// The certificate file.
        cert: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// Outside of its validity.
    #[error("{} expired on {not_after} ({days} days ago): issue a new one", path.display())]
    Expired {
        /// The certificate file.
        path: PathBuf,
        /// End of validity.
        not_after: String,
        /// For how long.
        days: i64,
    },
    /// Outside of its validity.
    #[error("{} is not valid before {not_before}: check this machine's clock", path.display())]
    NotYetValid {
        /// The certificate file.
        path: PathBuf,
        /// Begin of validity.
        not_before: String,
    },
    /// Signed by somebody else.
    #[error("{} was not issued by the CA in {}: {problem}", cert.display(), ca.display())]
    OtherCa {
        /// The certificate file.
        cert: PathBuf,
        /// The CA file.
        ca: PathBuf,
        /// What the verifier says.
        problem: String,
    },
    /// It carries no usable identity.
    #[error("{}", path.display())]
    Identity {
        /// The certificate file.
        path: PathBuf,
        /// Why.
        source: IdentityOfError,
    },
    /// A renewed certificate is somebody else's.
    #[error("{} belongs to {found}, this process is {own}: the certificate in use stays", path.display())]
    OtherIdentity {
        /// The certificate file.
        path: PathBuf,
        /// Whose it is.
        found: Identity,
        /// Whose the one in use is.
        own: Identity,
    },
    /// Only coordinators serve.
    #[error("{} belongs to {identity} and cannot serve as a coordinator", path.display())]
    NotACoordinator {
        /// The certificate file.
        path: PathBuf,
        /// Whose it is.
        identity: Identity,
    },
    /// A validity that is refused.
    #[error("{days} days of validity: use 1 to {max}")]
    Days {
        /// As asked.
        days: u32,
        /// At most.
        max: u32,
    },
    /// A certificate would be valid for longer than its issuer.
    #[error(
        "{days} days of validity would outlive the CA, which expires on {ca_not_after}: use at most {most}"
    )]
    OutlivesCa {
        /// As asked.
        days: u32,
        /// End of the CA's validity.
        ca_not_after: String,
        /// At most.
        most: i64,
    },
    /// The certificate library refuses.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
}
