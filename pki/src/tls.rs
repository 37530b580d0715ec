//! From three files to TLS settings. Everything that would fail later, in a handshake that only says "bad
//! certificate", is checked here, where the file can be named.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    CertificateError, ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use time::OffsetDateTime;
use tonic::transport::{Certificate, ClientTlsConfig, Identity as TlsIdentity, ServerTlsConfig};

use regent_types::{ClusterName, MemberName};

use crate::{COORDINATOR_DNS_NAME, CertificateInfo, Identity, PkiError, agent_dns_name, files};

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
    /// CAs within their validity: rustls itself never looks at a trust anchor's dates.
    roots: RootCertStore,
    chain: Vec<CertificateDer<'static>>,
    cert_pem: Vec<u8>,
    key_pem: Vec<u8>,
}

/// The three files as they were read.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Bytes {
    ca: Vec<u8>,
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl TlsFiles {
    /// Reads and checks the files: PEM, key belongs to certificate, within validity, issued by the CA, an identity.
    pub fn load(&self) -> Result<TlsMaterial, PkiError> {
        self.load_at(SystemTime::now())
    }

    /// The same at a given time.
    pub fn load_at(&self, now: SystemTime) -> Result<TlsMaterial, PkiError> {
        self.check(self.read()?, now)
    }

    /// Reads each file once: what was checked is what will be used, also while somebody renews them.
    pub(crate) fn read(&self) -> Result<Bytes, PkiError> {
        Ok(Bytes {
            ca: files::read_bytes(&self.ca)?,
            cert: files::read_bytes(&self.cert)?,
            key: files::read_bytes(&self.key)?,
        })
    }

    /// Checks what was read.
    pub(crate) fn check(&self, bytes: Bytes, now: SystemTime) -> Result<TlsMaterial, PkiError> {
        let Bytes { ca: ca_pem, cert: cert_pem, key: key_pem } = bytes;
        let cas = files::certificates_in(&self.ca, &ca_pem)?;
        let chain = files::certificates_in(&self.cert, &cert_pem)?;
        let key = PrivateKeyDer::from_pem_slice(&key_pem)
            .map_err(|_| PkiError::NotPem { path: self.key.clone(), wanted: "private key" })?;

        let moment = OffsetDateTime::from(now);
        let mut warnings = Vec::new();
        let cas = self.valid_cas(cas, moment, &mut warnings)?;
        let info = inspect(&self.cert, &chain[0])?;
        let identity =
            info.identity.clone().map_err(|source| PkiError::Identity { path: self.cert.clone(), source })?;
        check_validity(&self.cert, &info, moment)?;
        self.check_key(chain.clone(), key)?;
        let roots = self.check_issuer(&cas, &chain, now)?;
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
        Ok(TlsMaterial {
            identity,
            info,
            warnings,
            files: self.clone(),
            ca_pem,
            roots,
            chain,
            cert_pem,
            key_pem,
        })
    }

    /// The CAs whose word counts now. In a bundle of several (a rotation of the CA) an expired one is left out; a single
    /// one must be valid.
    fn valid_cas(
        &self,
        cas: Vec<CertificateDer<'static>>,
        now: OffsetDateTime,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<CertificateDer<'static>>, PkiError> {
        let (mut valid, mut refused) = (Vec::new(), Vec::new());
        for ca in cas {
            match check_validity(&self.ca, &inspect(&self.ca, &ca)?, now) {
                Ok(()) => valid.push(ca),
                Err(error) => refused.push(error),
            }
        }
        if valid.is_empty() {
            return Err(refused.remove(0));
        }
        warnings
            .extend(refused.into_iter().map(|error| format!("one of several CAs does not count: {error}")));
        Ok(valid)
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
    ) -> Result<RootCertStore, PkiError> {
        let unusable_ca = |problem: String| PkiError::Unusable { path: self.ca.clone(), problem };
        let mut roots = RootCertStore::empty();
        for ca in cas {
            roots.add(ca.clone()).map_err(|error| unusable_ca(error.to_string()))?;
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider)
            .build()
            .map_err(|error| unusable_ca(error.to_string()))?;
        let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(since_1970);
        let problem = match verifier.verify_client_cert(&chain[0], &chain[1..], now) {
            Ok(_) => return Ok(roots),
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

    /// For an acceptor of one's own: the same demands as [`TlsMaterial::server`].
    pub fn acceptor(&self) -> Result<Arc<ServerConfig>, PkiError> {
        self.server()?;
        self.accepting()
    }

    fn accepting(&self) -> Result<Arc<ServerConfig>, PkiError> {
        let unusable = |problem: String| PkiError::Unusable { path: self.files.cert.clone(), problem };
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots.clone()), provider.clone())
                .build()
                .map_err(|error| unusable(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key()?)
            .map_err(|error| unusable(error.to_string()))?;
        config.alpn_protocols.push(b"h2".to_vec());
        // A resumed session is not verified again: a certificate that has expired since would go on counting.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, PkiError> {
        PrivateKeyDer::from_pem_slice(&self.key_pem)
            .map_err(|_| PkiError::NotPem { path: self.files.key.clone(), wanted: "private key" })
    }

    /// For a connector of one's own: the same demands as [`TlsMaterial::client`]. The name to ask for is
    /// [`COORDINATOR_DNS_NAME`].
    pub fn connector(&self) -> Result<Arc<ClientConfig>, PkiError> {
        let unusable = |problem: String| PkiError::Unusable { path: self.files.cert.clone(), problem };
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.to_string()))?
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(self.chain.clone(), self.key()?)
            .map_err(|error| unusable(error.to_string()))?;
        config.alpn_protocols.push(b"h2".to_vec());
        Ok(Arc::new(config))
    }

    /// For a client: the server must be a coordinator of the same CA, whatever its address.
    pub fn client(&self) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .identity(TlsIdentity::from_pem(&self.cert_pem, &self.key_pem))
            .trust_anchors(self.roots.roots.clone())
            .domain_name(COORDINATOR_DNS_NAME)
    }

    /// For an agent that serves the agents of the other members: clients must show a certificate of the same CA.
    pub fn peer_acceptor(&self) -> Result<Arc<ServerConfig>, PkiError> {
        let named = match &self.identity {
            Identity::Agent { cluster, member } => {
                let wanted = agent_dns_name(cluster, member);
                self.info.dns_names.contains(&wanted) && self.info.server_auth
            }
            _ => false,
        };
        if !named {
            let problem =
                "it cannot serve other agents: it needs an agent's identity, the name that goes with it, \
                           and serverAuth; issue it again"
                    .to_owned();
            return Err(PkiError::Unusable { path: self.files.cert.clone(), problem });
        }
        self.accepting()
    }

    /// For a client of another member's agent: it must be that member's, whatever its address.
    pub fn peer_client(&self, cluster: &ClusterName, member: &MemberName) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .identity(TlsIdentity::from_pem(&self.cert_pem, &self.key_pem))
            .ca_certificate(Certificate::from_pem(&self.ca_pem))
            .domain_name(agent_dns_name(cluster, member))
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
