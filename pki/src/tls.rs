//! From three files to TLS settings. Everything that would fail later, in a handshake that only says "bad
//! certificate", is checked here, where the file can be named.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    CertificateError, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::WebPkiClientVerifier,
    sign::CertifiedKey,
};
use time::OffsetDateTime;
use tonic::transport::{Certificate, ClientTlsConfig, Identity as TlsIdentity, ServerTlsConfig};

use crate::{COORDINATOR_DNS_NAME, CertificateInfo, Identity, PkiError, files};

/// A certificate with fewer days left is worth a warning.
pub const WARN_BEFORE_EXPIRY_DAYS: i64 = 30;

/// The three files of one process.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificates of the CAs whose word counts, PEM.
    pub ca: PathBuf,
    /// Own certificate (and intermediates), PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// Files that were read and found to fit together.
#[derive(Clone)]
pub struct TlsMaterial {
    /// Own identity.
    pub identity: Identity,
    /// Own certificate.
    pub info: CertificateInfo,
    /// What an administrator should know: expiry that is near, a key that others can read.
    pub warnings: Vec<String>,
    files: TlsFiles,
    ca_pem: Vec<u8>,
    cert_pem: Vec<u8>,
    key_pem: Vec<u8>,
}

impl TlsFiles {
    /// Reads and checks the files: PEM, key belongs to certificate, within validity, issued by the CA, an identity.
    pub fn load(&self) -> Result<TlsMaterial, PkiError> {
        self.load_at(SystemTime::now())
    }

    /// The same at a given time.
    pub fn load_at(&self, now: SystemTime) -> Result<TlsMaterial, PkiError> {
        // Each file is read once: what was checked is what will be used, also while somebody renews them.
        let ca_pem = files::read_bytes(&self.ca)?;
        let cas = files::certificates_in(&self.ca, &ca_pem)?;
        let cert_pem = files::read_bytes(&self.cert)?;
        let chain = files::certificates_in(&self.cert, &cert_pem)?;
        let key_pem = files::read_bytes(&self.key)?;
        let key = PrivateKeyDer::from_pem_slice(&key_pem)
            .map_err(|_| PkiError::NotPem { path: self.key.clone(), wanted: "private key" })?;

        let moment = OffsetDateTime::from(now);
        for ca in &cas {
            check_validity(&self.ca, &inspect(&self.ca, ca)?, moment)?;
        }
        let info = inspect(&self.cert, &chain[0])?;
        let identity =
            info.identity.clone().map_err(|source| PkiError::Identity { path: self.cert.clone(), source })?;
        check_validity(&self.cert, &info, moment)?;
        self.check_key(chain.clone(), key)?;
        self.check_issuer(&cas, &chain, now)?;

        let mut warnings = Vec::new();
        let days_left = info.days_left(moment);
        if days_left < WARN_BEFORE_EXPIRY_DAYS {
            let path = self.cert.display();
            warnings.push(format!("{path} expires on {} ({days_left} days left)", info.not_after.date()));
        }
        let mode = std::fs::metadata(&self.key).map(|metadata| metadata.permissions().mode()).unwrap_or(0);
        if mode & 0o077 != 0 {
            let path = self.key.display();
            warnings.push(format!("{path} can be read by others (mode {:03o}): use 600", mode & 0o777));
        }
        Ok(TlsMaterial { identity, info, warnings, files: self.clone(), ca_pem, cert_pem, key_pem })
    }

    fn check_key(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), PkiError> {
        match CertifiedKey::from_der(chain, key, &ring::default_provider()) {
            Ok(_) => Ok(()),
            Err(rustls::Error::InconsistentKeys(_)) => {
                Err(PkiError::KeyMismatch { cert: self.cert.clone(), key: self.key.clone() })
            }
            Err(error) => Err(PkiError::Unusable { path: self.key.clone(), problem: error.to_string() }),
        }
    }

    fn check_issuer(
        &self,
        cas: &[CertificateDer<'static>],
        chain: &[CertificateDer<'static>],
        now: SystemTime,
    ) -> Result<(), PkiError> {
        let unusable_ca = |problem: String| PkiError::Unusable { path: self.ca.clone(), problem };
        let mut roots = RootCertStore::empty();
        for ca in cas {
            roots.add(ca.clone()).map_err(|error| unusable_ca(error.to_string()))?;
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| unusable_ca(error.to_string()))?;
        let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(since_1970);
        let problem = match verifier.verify_client_cert(&chain[0], &chain[1..], now) {
            Ok(_) => return Ok(()),
            Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                "another CA signed it".to_owned()
            }
            Err(rustls::Error::InvalidCertificate(CertificateError::BadSignature)) => {
                "a CA of the same name with another key signed it".to_owned()
            }
            Err(error) => error.to_string(),
        };
        Err(PkiError::OtherCa { cert: self.cert.clone(), ca: self.ca.clone(), problem })
    }
}

impl TlsMaterial {
    /// For a server: every client must present a certificate of the CA. Only a coordinator's certificate serves.
    pub fn server(&self) -> Result<ServerTlsConfig, PkiError> {
        let named = self.info.dns_names.iter().any(|name| name == COORDINATOR_DNS_NAME);
        if !matches!(self.identity, Identity::Coordinator(_)) || !named || !self.info.server_auth {
            return Err(PkiError::NotACoordinator {
                path: self.files.cert.clone(),
                identity: self.identity.clone(),
            });
        }
        Ok(ServerTlsConfig::new()
            .identity(TlsIdentity::from_pem(&self.cert_pem, &self.key_pem))
            .client_ca_root(Certificate::from_pem(&self.ca_pem)))
    }

    /// For a client: the server must be a coordinator of the same CA, whatever its address.
    pub fn client(&self) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .identity(TlsIdentity::from_pem(&self.cert_pem, &self.key_pem))
            .ca_certificate(Certificate::from_pem(&self.ca_pem))
            .domain_name(COORDINATOR_DNS_NAME)
    }

    /// End of validity.
    pub fn not_after(&self) -> OffsetDateTime {
        self.info.not_after
    }
}

fn inspect(path: &Path, der: &[u8]) -> Result<CertificateInfo, PkiError> {
    CertificateInfo::from_der(der).map_err(|source| PkiError::Identity { path: path.to_owned(), source })
}

fn check_validity(path: &Path, info: &CertificateInfo, now: OffsetDateTime) -> Result<(), PkiError> {
    if now > info.not_after {
        return Err(PkiError::Expired {
            path: path.to_owned(),
            not_after: info.not_after.date().to_string(),
            days: (now - info.not_after).whole_days(),
        });
    }
    if now < info.not_before {
        return Err(PkiError::NotYetValid { path: path.to_owned(), not_before: info.not_before.to_string() });
    }
    Ok(())
}
