//! A certificate authority in a folder, for a start: `ca.crt` and `ca.key`. Who has an organisation's own CA uses
//! that one; only the names in the certificates matter.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

use crate::{
    COORDINATOR_DNS_NAME, CertificateInfo, Identity, PkiError, agent_dns_name,
    files::{self, Overwrite},
};

/// Validity of a CA unless told otherwise.
pub const CA_DAYS_DEFAULT: u32 = 3650;
/// Validity of a CA at most.
pub const CA_DAYS_MAX: u32 = 7300;
/// Validity of any other certificate unless told otherwise.
pub const LEAF_DAYS_DEFAULT: u32 = 365;
/// Validity of any other certificate at most.
pub const LEAF_DAYS_MAX: u32 = 3650;

/// A clock that is this much behind still finds a fresh certificate valid.
const BACKDATED: Duration = Duration::hours(1);

/// A CA that can issue.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    info: CertificateInfo,
}

/// A certificate with its key, both in PEM form.
pub struct Issued {
    /// Whose.
    pub identity: Identity,
    /// The certificate.
    pub cert_pem: String,
    /// The key. Never log it.
    pub key_pem: String,
    /// End of validity.
    pub not_after: OffsetDateTime,
}

/// `ca.crt` and `ca.key` in `folder`.
pub(crate) fn ca_paths(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("ca.crt"), folder.join("ca.key"))
}

impl Authority {
    /// Makes a CA and writes it into `folder`, which is created when it is missing.
    pub fn init(folder: &Path, name: &str, days: u32, overwrite: Overwrite) -> Result<Self, PkiError> {
        check_days(days, CA_DAYS_MAX)?;
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = now - BACKDATED;
        params.not_after = now + Duration::days(i64::from(days));
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let (cert_path, key_path) = ca_paths(folder);
        files::write_pair(&cert_path, &certificate.pem(), &key_path, &key.serialize_pem(), overwrite)?;
        let info = read_back(&cert_path, certificate.der())?;
        Ok(Self { issuer: Issuer::new(params, key), info })
    }

    /// Reads the CA in `folder`.
    pub fn load(folder: &Path) -> Result<Self, PkiError> {
        let (cert_path, key_path) = ca_paths(folder);
        let cert = files::read_certificate(&cert_path)?;
        let info = read_back(&cert_path, &cert)?;
        if !info.is_ca {
            return Err(PkiError::Unusable {
                path: cert_path,
                problem: "it is not a CA's certificate".into(),
            });
        }
        let key_pem = files::read_text(&key_path)?;
        let key = KeyPair::from_pem(&key_pem)
            .map_err(|_| PkiError::NotPem { path: key_path.clone(), wanted: "private key" })?;
        if key.public_key_raw() != info.public_key {
            return Err(PkiError::KeyMismatch { cert: cert_path, key: key_path });
        }
        let issuer = Issuer::from_ca_cert_der(&cert, key)?;
        Ok(Self { issuer, info })
    }

    /// The CA's own certificate.
    pub fn info(&self) -> &CertificateInfo {
        &self.info
    }

    /// Issues a certificate for `identity`: to coordinators and agents for serving and calling, to all
    /// others for calling only. An agent serves the other members' agents, under a name that no coordinator has.
    pub fn issue(&self, identity: &Identity, days: u32) -> Result<Issued, PkiError> {
        check_days(days, LEAF_DAYS_MAX)?;
        let now = OffsetDateTime::now_utc();
        let not_after = now + Duration::days(i64::from(days));
        if not_after > self.info.not_after {
            let ca_not_after = self.info.not_after.date().to_string();
            return Err(PkiError::OutlivesCa { days, ca_not_after, most: self.info.days_left(now) });
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&identity.file_stem());
        params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if let Identity::Coordinator(_) = identity {
            params.subject_alt_names.push(SanType::DnsName(COORDINATOR_DNS_NAME.try_into()?));
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        if let Identity::Agent { cluster, member } = identity {
            let name = agent_dns_name(cluster, member);
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.not_before = now - BACKDATED;
        params.not_after = not_after;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            identity: identity.clone(),
            cert_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            not_after,
        })
    }
}

fn read_back(path: &Path, der: &[u8]) -> Result<CertificateInfo, PkiError> {
    CertificateInfo::from_der(der).map_err(|source| PkiError::Identity { path: path.to_owned(), source })
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished_name = DistinguishedName::new();
    distinguished_name.push(DnType::CommonName, name);
    distinguished_name
}

fn check_days(days: u32, max: u32) -> Result<(), PkiError> {
    if (1..=max).contains(&days) { Ok(()) } else { Err(PkiError::Days { days, max }) }
}
