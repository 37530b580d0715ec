//! Connections to coordinators: mutual TLS, or plain text on loopback when asked for. Certificates are read at each
//! connection, so that renewed ones are taken up without a restart.

use std::time::Duration;

use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use crate::config::Config;

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

fn tls(files: &crate::config::Tls) -> Result<ClientTlsConfig, TransportError> {
    let (ca, cert, key) = (files.ca.clone(), files.cert.clone(), files.key.clone());
    let material = regent_pki::TlsFiles { ca, cert, key }.load();
    Ok(material.map_err(|e| TransportError::Tls(chain(&e)))?.client())
}

/// Connects to `url`.
pub async fn connect(config: &Config, url: &str) -> Result<Channel, TransportError> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|source| TransportError::Address { url: url.to_owned(), source })?
        .connect_timeout(config.connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(config.session_timeout())
        .keep_alive_timeout(config.session_timeout())
        .keep_alive_while_idle(true);
    let endpoint = match &config.tls {
        None => endpoint,
        Some(files) => endpoint
            .tls_config(tls(files)?)
            .map_err(|source| TransportError::Tls(format!("TLS: {}", chain(&source))))?,
    };
    // connect_timeout covers TCP; the TLS handshake needs a bound of its own.
    let limit = config.connect_timeout + Duration::from_millis(500);
    match tokio::time::timeout(limit, endpoint.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(source)) => Err(TransportError::Connect { url: url.to_owned(), source }),
        Err(_) => Err(TransportError::Deadline { url: url.to_owned(), limit_ms: crate::clock::ms(limit) }),
    }
}
