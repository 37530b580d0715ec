//! TLS of this node's port and of its connections, with certificates that are renewed while it runs: each handshake uses
//! what is in use at that moment (`regent_pki::incoming`, which the agents serve by too). Who may connect is decided by
//! rustls and by `service::auth`, never here.

use std::{io, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use regent_pki::{COORDINATOR_DNS_NAME, Live, Look, Patience, TlsMaterial, WARN_BEFORE_EXPIRY_DAYS};
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsConnector, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::{clock::Clock, node::Node};

/// Between two looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Between two warnings of the same certificate's end.
const WARN_INTERVAL_NS: u64 = 12 * 3600 * 1_000_000_000;

/// Connections whose handshake is done. Ends with its receiver.
pub fn incoming(
    node: &Node,
    listener: TcpListener,
    live: Arc<Live>,
) -> ReceiverStream<io::Result<TlsStream<TcpStream>>> {
    regent_pki::incoming(listener, move || live.current().acceptor(), node.clock.clone())
}

impl Patience for Clock {
    async fn wait(&self, duration: Duration) {
        self.sleep(duration).await;
    }
}

/// A channel to a coordinator that connects when it is used, with what is in use then.
pub fn channel(endpoint: &Endpoint, address: &str, live: &Arc<Live>) -> Channel {
    let (address, live) = (address.to_owned(), live.clone());
    endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
        let (address, live) = (address.clone(), live.clone());
        async move {
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            let config = live.current().connector().map_err(io::Error::other)?;
            let name = ServerName::try_from(COORDINATOR_DNS_NAME).map_err(io::Error::other)?;
            let stream = TlsConnector::from(config).connect(name, socket).await?;
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    }))
}

/// Whole days until the certificate in use expires.
pub fn days_left(node: &Node, material: &TlsMaterial) -> i64 {
    (material.not_after().unix_timestamp() - node.clock.wall_ms() as i64 / 1000) / 86_400
}

/// Looks at the files for ever, and warns before the certificate in use expires.
pub async fn watch(node: Arc<Node>, live: Arc<Live>) {
    let mut warned_ns = None;
    loop {
        match live.look() {
            Look::Unchanged => {}
            Look::Renewed(material) => {
                warned_ns = None;
                tracing::info!(not_after = %material.not_after(), "new certificates are in use");
                for warning in &material.warnings {
                    tracing::warn!("{warning}");
                }
            }
            Look::Refused(error) => {
                node.metrics.certificates_refused.add(1);
                let error = anyhow::Error::from(error);
                tracing::error!("new certificates are refused, those in use stay: {error:#}");
            }
        }
        let (days, now_ns) = (days_left(&node, &live.current()), node.clock.now_ns());
        let due = warned_ns.is_none_or(|at| now_ns.saturating_sub(at) >= WARN_INTERVAL_NS);
        if days < WARN_BEFORE_EXPIRY_DAYS && due {
            warned_ns = Some(now_ns);
            tracing::warn!(days_left = days, "this node's certificate expires soon: renew it");
        }
        node.clock.sleep(LOOK_INTERVAL).await;
    }
}
