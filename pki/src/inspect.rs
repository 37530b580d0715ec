//! Reading certificates: the identity of a peer, and what `regentctl pki show` prints.

use time::OffsetDateTime;
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, parse_x509_certificate, prelude::ParsedExtension,
};

use crate::{Identity, IdentityError};

/// Why a certificate carries no usable identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityOfError {
    /// Not a certificate.
    #[error("not an X.509 certificate: {0}")]
    NotX509(String),
    /// A CA is nobody's identity.
    #[error("it is a CA's certificate and carries no identity")]
    IsCa,
    /// No URI SAN of this scheme.
    #[error("it has no URI SAN of the form regent://...")]
    None,
    /// More than one: which one counts must not depend on the reader.
    #[error("it has several identities: {}", .0.join(", "))]
    Several(Vec<String>),
    /// One that is malformed.
    #[error(transparent)]
    Malformed(#[from] IdentityError),
}

/// Whose certificate this is. Says nothing about who signed it: TLS has verified that before.
pub fn identity_of(cert_der: &[u8]) -> Result<Identity, IdentityOfError> {
    identity_in(&parse(cert_der)?)
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, IdentityOfError> {
    match parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok((rest, _)) => Err(IdentityOfError::NotX509(format!("{} bytes follow it", rest.len()))),
        Err(error) => Err(IdentityOfError::NotX509(error.to_string())),
    }
}

fn identity_in(certificate: &X509Certificate<'_>) -> Result<Identity, IdentityOfError> {
    if certificate.is_ca() {
        return Err(IdentityOfError::IsCa);
    }
    let (uris, _) = names(certificate);
    let own: Vec<String> = uris.into_iter().filter(|uri| uri.starts_with("regent:")).collect();
    match own.as_slice() {
        [] => Err(IdentityOfError::None),
        [uri] => Ok(uri.parse()?),
        _ => Err(IdentityOfError::Several(own)),
    }
}

/// All URI and DNS names, of every SAN extension.
fn names(certificate: &X509Certificate<'_>) -> (Vec<String>, Vec<String>) {
    let (mut uris, mut dns) = (Vec::new(), Vec::new());
    for extension in certificate.extensions() {
        if let ParsedExtension::SubjectAlternativeName(san) = extension.parsed_extension() {
            for name in &san.general_names {
                match name {
                    GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                    GeneralName::DNSName(name) => dns.push((*name).to_owned()),
                    _ => {}
                }
            }
        }
    }
    (uris, dns)
}

/// What there is to know about a certificate.
#[derive(Debug, Clone)]
pub struct CertificateInfo {
    /// Distinguished name.
    pub subject: String,
    /// Distinguished name of the signer.
    pub issuer: String,
    /// Hexadecimal.
    pub serial: String,
    /// A CA's certificate.
    pub is_ca: bool,
    /// Its identity, or why it has none.
    pub identity: Result<Identity, IdentityOfError>,
    /// DNS SANs.
    pub dns_names: Vec<String>,
    /// May be used by a server.
    pub server_auth: bool,
    /// May be used by a client.
    pub client_auth: bool,
    /// Begin of validity.
    pub not_before: OffsetDateTime,
    /// End of validity.
    pub not_after: OffsetDateTime,
    /// The public key as it stands in the certificate.
    pub public_key: Vec<u8>,
}

impl CertificateInfo {
    /// Reads a certificate in DER form.
    pub fn from_der(der: &[u8]) -> Result<Self, IdentityOfError> {
        let certificate = parse(der)?;
        let usage = certificate.extended_key_usage().ok().flatten().map(|usage| usage.value.clone());
        Ok(Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            serial: certificate.raw_serial_as_string(),
            is_ca: certificate.is_ca(),
            identity: identity_in(&certificate),
            dns_names: names(&certificate).1,
            server_auth: usage.as_ref().is_some_and(|usage| usage.server_auth),
            client_auth: usage.as_ref().is_some_and(|usage| usage.client_auth),
            not_before: certificate.validity().not_before.to_datetime(),
            not_after: certificate.validity().not_after.to_datetime(),
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
        })
    }

    /// Whole days until it expires, negative afterwards.
    pub fn days_left(&self, now: OffsetDateTime) -> i64 {
        (self.not_after - now).whole_days()
    }
}
