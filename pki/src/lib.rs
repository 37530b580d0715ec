//! Who is who: identities, the certificates that carry them, and the TLS settings that demand them (DESIGN
//! section 10).
//!
//! The URI SAN of a certificate is its identity and its role, see [`Identity`]. Coordinators also carry the DNS name
//! [`COORDINATOR_DNS_NAME`], which every client requires of its server: a certificate of an agent or an operator can
//! therefore never serve as a coordinator, whatever address it answers on.
//!
//! This crate decides who a peer is, never what it may do. It never writes over a key without being told to, writes
//! keys readable by their owner only, and no key ever reaches an error message.

mod authority;
mod error;
mod files;
mod identity;
mod inspect;
mod live;
mod serve;
mod tls;

pub use authority::{Authority, CA_DAYS_DEFAULT, CA_DAYS_MAX, Issued, LEAF_DAYS_DEFAULT, LEAF_DAYS_MAX};
pub use error::PkiError;
pub use files::{Overwrite, read_certificate, write_issued};
pub use identity::{Identity, IdentityError, PrincipalName};
pub use inspect::{CertificateInfo, IdentityOfError, identity_of};
pub use live::{Live, Look};
pub use rustls::ServerConfig;
pub use serve::{Patience, incoming};
pub use tls::{TlsFiles, TlsMaterial, WARN_BEFORE_EXPIRY_DAYS};

/// The name that every coordinator's certificate carries and every client requires.
pub const COORDINATOR_DNS_NAME: &str = "coordinator.regent.internal";

/// The name that an agent's certificate carries: another member's agent requires exactly it of the agent that it asks for
/// a promise.
pub fn agent_dns_name(cluster: &regent_types::ClusterName, member: &regent_types::MemberName) -> String {
    format!("{member}.{cluster}.agent.regent.internal")
}

/// Makes ring the process's crypto provider; call it first in every `main` that speaks TLS. A second call, or a
/// provider that was installed before, changes nothing.
pub fn install_crypto() {
    // An error only says that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
