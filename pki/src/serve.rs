//! A listener whose every handshake uses the certificate of that moment, so that a renewal needs no restart and an end is
//! noticed without one. Coordinators and agents serve by it; who may connect is decided by rustls and by the services.
//!
//! Invariant: nothing that has not finished its handshake with a certificate of the CA reaches the server. No clock is read
//! here: the caller's [`Patience`] waits.

use std::{future::Future, io, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;

/// Longest handshake: one that has gone dark must not hold a socket for ever.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Until the next attempt when the kernel gives no connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Finished handshakes that wait for the server.
const BACKLOG: usize = 64;

/// How the caller waits: by its injected clock.
pub trait Patience: Clone + Send + Sync + 'static {
    /// Waits that long.
    fn wait(&self, duration: Duration) -> impl Future<Output = ()> + Send;
}

/// Connections whose handshake is done, each with what `config` gave for it. Ends with its receiver.
pub fn incoming<C, E, P>(
    listener: TcpListener,
    config: C,
    patience: P,
) -> ReceiverStream<io::Result<TlsStream<TcpStream>>>
where
    C: Fn() -> Result<Arc<ServerConfig>, E> + Send + Sync + 'static,
    E: std::error::Error + Send + Sync + 'static,
    P: Patience,
{
    let (tx, rx) = mpsc::channel(BACKLOG);
    let config = Arc::new(config);
    tokio::spawn(async move {
        loop {
            let socket = tokio::select! {
                accepted = listener.accept() => accepted,
                () = tx.closed() => return,
            };
            let socket = match socket {
                Ok((socket, _)) => socket,
                // No file descriptor left, say: the next one may work.
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    patience.wait(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            let (tx, patience, config) = (tx.clone(), patience.clone(), config.clone());
            tokio::spawn(async move {
                tokio::select! {
                    done = handshake(socket, &*config) => match done {
                        Ok(stream) => drop(tx.send(Ok(stream)).await),
                        Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
                    },
                    () = patience.wait(HANDSHAKE_TIMEOUT) => tracing::debug!("a TLS handshake took too long"),
                }
            });
        }
    });
    ReceiverStream::new(rx)
}

async fn handshake<C, E>(socket: TcpStream, config: &C) -> io::Result<TlsStream<TcpStream>>
where
    C: Fn() -> Result<Arc<ServerConfig>, E>,
    E: std::error::Error + Send + Sync + 'static,
{
    socket.set_nodelay(true)?;
    let config = config().map_err(|error| {
        tracing::warn!(%error, "the certificate cannot serve");
        io::Error::other(error)
    })?;
    TlsAcceptor::from(config).accept(socket).await
}
