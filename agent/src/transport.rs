//! Connections to coordinators and to other members' agents: mutual TLS, or plain text on loopback when asked for.
//!
//! The certificates are looked at before each connection and every now and then, so that renewed ones are taken up without
//! a restart; new ones that do not check out leave those in use.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use regent_pki::{Live, Look, ServerConfig, TlsMaterial};
use regent_types::MemberName;
use tokio::time::Instant;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use crate::{app::App, config::Config};

/// A coordinator cannot be connected.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The address.
    #[error("{url} is not an address: {source}")]
    Address {
        /// As configured.
        url: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// Certificates.
    #[error("{0}")]
    Tls(String),
    /// The connection.
    #[error("{url}: {}", chain(source))]
    Connect {
        /// The coordinator.
        url: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// No answer.
    #[error("{url}: not connected within {limit_ms} ms")]
    Deadline {
        /// The coordinator.
        url: String,
        /// The deadline.
        limit_ms: u64,
    },
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// Between two looks at the certificate files while nothing connects.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Between two warnings of the same certificate's end.
const WARN_INTERVAL: Duration = Duration::from_secs(12 * 3600);

/// The agent's certificates. Opened at the first connection: an agent whose files are missing lives on and tries again,
/// because its guard and its directives in flight need it.
#[derive(Debug, Default)]
pub struct Certificates(Mutex<Option<Arc<Live>>>);

impl Certificates {
    /// What to connect and to serve with now.
    fn material(&self, files: &crate::config::Tls) -> Result<Arc<TlsMaterial>, TransportError> {
        let mut opened = self.0.lock().expect("no panic while held");
        let live = match &*opened {
            Some(live) => {
                look(live);
                live.clone()
            }
            None => {
                let (ca, cert, key) = (files.ca.clone(), files.cert.clone(), files.key.clone());
                let live = Live::open(regent_pki::TlsFiles { ca, cert, key });
                opened.insert(Arc::new(live.map_err(|e| TransportError::Tls(chain(&e)))?)).clone()
            }
        };
        Ok(live.current())
    }

    fn live(&self) -> Option<Arc<Live>> {
        self.0.lock().expect("no panic while held").clone()
    }

    /// Seconds until the certificate in use expires, and whether newer files are refused.
    pub fn state(&self) -> Option<(i64, bool)> {
        let live = self.live()?;
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
        Some((live.current().not_after().unix_timestamp() - now_s, live.complaint().is_some()))
    }
}

fn look(live: &Live) {
    match live.look() {
        Look::Unchanged => {}
        Look::Renewed(material) => {
            tracing::info!(not_after = %material.not_after(), "new certificates are in use");
        }
        Look::Refused(error) => {
            tracing::error!("new certificates are refused, those in use stay: {}", chain(&error));
        }
    }
}

/// Looks at the files for ever, and warns before the certificate in use expires.
pub async fn watch(app: Arc<App>) {
    let mut warned: Option<Instant> = None;
    loop {
        if let Some(live) = app.certificates.live() {
            look(&live);
        }
        let days = app.certificates.state().map(|(left_s, _)| left_s / 86_400);
        let due = warned.is_none_or(|at| at.elapsed() >= WARN_INTERVAL);
        if let Some(days) = days.filter(|days| *days < regent_pki::WARN_BEFORE_EXPIRY_DAYS && due) {
            warned = Some(Instant::now());
            tracing::warn!(days_left = days, "this agent's certificate expires soon: renew it");
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Connects to another member's agent: the certificate must be that member's own.
pub async fn connect_peer(app: &App, member: &MemberName, address: &str) -> Result<Channel, TransportError> {
    let tls = match &app.config.tls {
        None => None,
        Some(files) => Some(app.certificates.material(files)?.peer_client(&app.config.cluster, member)),
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    connect_with(limits(&app.config), &format!("{scheme}://{address}"), tls).await
}

/// For one handshake of the listener that other members' agents connect to.
pub fn peer_acceptor(app: &App) -> Result<Arc<ServerConfig>, TransportError> {
    let Some(files) = &app.config.tls else { return Err(TransportError::Tls("no [tls]".into())) };
    app.certificates.material(files)?.peer_acceptor().map_err(|e| TransportError::Tls(chain(&e)))
}

/// Connects to `url`.
pub async fn connect(app: &App, url: &str) -> Result<Channel, TransportError> {
    connect_as(&app.certificates, app.config.tls.as_ref(), url, limits(&app.config)).await
}

/// The same, without the rest of an agent.
pub async fn connect_as(
    certificates: &Certificates,
    tls: Option<&crate::config::Tls>,
    url: &str,
    limits: Limits,
) -> Result<Channel, TransportError> {
    let tls = match tls {
        None => None,
        Some(files) => Some(certificates.material(files)?.client()),
    };
    connect_with(limits, url, tls).await
}

/// How long a connection may take, and may be silent.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// TCP.
    pub connect: Duration,
    /// Without a sign of life.
    pub session: Duration,
}

fn limits(config: &Config) -> Limits {
    Limits { connect: config.connect_timeout, session: config.session_timeout() }
}

async fn connect_with(
    limits: Limits,
    url: &str,
    tls: Option<ClientTlsConfig>,
) -> Result<Channel, TransportError> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|source| TransportError::Address { url: url.to_owned(), source })?
        .connect_timeout(limits.connect)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(limits.session)
        .keep_alive_timeout(limits.session)
        .keep_alive_while_idle(true);
    let endpoint = match tls {
        None => endpoint,
        Some(tls) => endpoint
            .tls_config(tls)
            .map_err(|source| TransportError::Tls(format!("TLS: {}", chain(&source))))?,
    };
    // connect_timeout covers TCP; the TLS handshake needs a bound of its own.
    let limit = limits.connect + Duration::from_millis(500);
    match tokio::time::timeout(limit, endpoint.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(source)) => Err(TransportError::Connect { url: url.to_owned(), source }),
        Err(_) => Err(TransportError::Deadline { url: url.to_owned(), limit_ms: crate::clock::ms(limit) }),
    }
}
