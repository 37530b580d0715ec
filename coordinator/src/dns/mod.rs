//! DNS providers: make a name lead to the primary, by compare-and-swap on the epoch (DESIGN section 9).
//!
//! The contract of [`DnsProvider::ensure`]: the record's epoch is kept in a companion TXT record. Finding the desired
//! record is success. Finding a lower epoch, or none, it is replaced atomically (only if it is still what was found).
//! Finding a higher epoch it changes nothing and says so: a late change of an older epoch never overwrites a newer one.

pub mod embedded;
pub mod health_check;
pub mod look;
mod question;
#[cfg(feature = "route53")]
pub mod route53;
mod verify;

use std::{collections::BTreeMap, net::IpAddr, net::SocketAddr, sync::Arc};

use regent_core::DnsRecord;
use regent_types::{Epoch, MemberName};
use tokio::net::{TcpListener, UdpSocket};

use crate::{
    clock::Clock,
    config::{Config, EMBEDDED, Route53Mode},
    node::NodeError,
};

/// What `ensure` found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ensured {
    /// It had to be changed.
    Changed,
    /// The desired record was there.
    AlreadyThere,
}

/// What a provider shows for a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Where the name leads.
    pub address: IpAddr,
    /// From the companion record.
    pub epoch: Option<Epoch>,
    /// From the companion record.
    pub member: Option<MemberName>,
}

/// Why a provider does not show the record. To be tried again, except for `Superseded`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// A newer epoch is published.
    #[error("the record is of epoch {found} already, epoch {wanted} must not overwrite it")]
    Superseded {
        /// Published.
        found: Epoch,
        /// Wanted.
        wanted: Epoch,
    },
    /// Nobody answered with it.
    #[error("no server shows {wanted}: {found}")]
    NotShown {
        /// The wanted record.
        wanted: String,
        /// What each server said.
        found: String,
    },
    /// A call to the provider failed, or what it holds stands in the way.
    #[error("{0}")]
    Failed(String),
}

/// A place where names are published.
#[tonic::async_trait]
pub trait DnsProvider: Send + Sync {
    /// Its name in the configuration.
    fn name(&self) -> &str;
    /// Makes `name` lead to `record`, by compare-and-swap (module documentation).
    async fn ensure(&self, name: &str, record: &DnsRecord) -> Result<Ensured, DnsError>;
    /// What it shows now.
    async fn observe(&self, name: &str) -> Result<Option<Observed>, DnsError>;
}

/// Providers by name.
pub type Providers = BTreeMap<String, Arc<dyn DnsProvider>>;

/// Those that the configuration asks for.
pub fn providers(config: &Config, clock: &Clock) -> Providers {
    let mut providers: Providers = BTreeMap::new();
    if let Some(dns) = &config.dns {
        let embedded = verify::Embedded::new(dns.verify.clone(), clock.clone());
        providers.insert(EMBEDDED.to_owned(), Arc::new(embedded));
    }
    add_route53(config, clock, &mut providers);
    providers
}

fn add_route53(config: &Config, clock: &Clock, providers: &mut Providers) {
    #[cfg(feature = "route53")]
    let pace = Arc::new(route53::Pace::new(clock.clone()));
    for (name, settings) in &config.route53 {
        let provider: Arc<dyn DnsProvider> = match &settings.mode {
            Route53Mode::HealthCheck { resolvers } => {
                Arc::new(health_check::HealthCheck::new(name.clone(), resolvers.clone(), clock.clone()))
            }
            #[cfg(feature = "route53")]
            Route53Mode::Change(mode) => {
                Arc::new(route53::Route53::new(name.clone(), mode.clone(), clock.clone(), pace.clone()))
            }
            // Refused when the configuration is read.
            #[cfg(not(feature = "route53"))]
            Route53Mode::Change(_) => continue,
        };
        providers.insert(name.clone(), provider);
    }
}

/// Both sockets of the embedded server.
pub async fn bind(address: SocketAddr) -> Result<(UdpSocket, TcpListener), NodeError> {
    let failed = |source| NodeError::Listen { what: "dns.listen", address, source };
    let udp = UdpSocket::bind(address).await.map_err(failed)?;
    let tcp = TcpListener::bind(address).await.map_err(failed)?;
    Ok((udp, tcp))
}
