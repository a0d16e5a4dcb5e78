//! Accepts connections, and ends their TLS handshakes.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::serve::Listener;
use rustix::net::sockopt;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::either::Either;

use super::access::{Access, Tls};

/// Handshakes at the same time. Further connections wait in the kernel.
const HANDSHAKES: usize = 128;

/// What the clients of one listening socket may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientLimits {
    /// Open connections, with those in a handshake. Further ones wait in the kernel.
    pub(super) connections: usize,
    /// The time for a TLS handshake.
    pub(super) handshake: Duration,
    /// The time until the next request is complete.
    pub(super) request: Duration,
    /// How long a client may leave a response unread or unacknowledged.
    pub(super) unread: Duration,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connections: 256,
            // Less than the 10 s that Prometheus has for a scrape.
            handshake: Duration::from_secs(5),
            // More than a minute, the usual time between two scrapes.
            request: Duration::from_secs(150),
            unread: Duration::from_secs(30),
        }
    }
}

/// A listening socket, with TLS while the rules have it.
pub(super) struct TlsListener {
    socket: TcpListener,
    access: Arc<Access>,
    limits: ClientLimits,
    open: Arc<Semaphore>,
    handshakes: JoinSet<Option<Connection>>,
}

/// An open connection.
pub(super) struct Connection {
    pub(super) stream: Either<TcpStream, TlsStream<TcpStream>>,
    /// What it was accepted with.
    pub(super) tls: Tls,
    /// Its place among the open connections. Dropping it makes room for another one.
    pub(super) permit: OwnedSemaphorePermit,
}

impl TlsListener {
    pub(super) fn new(socket: TcpListener, access: Arc<Access>, limits: ClientLimits) -> Self {
        Self {
            socket,
            access,
            limits,
            open: Arc::new(Semaphore::new(limits.connections)),
            handshakes: JoinSet::new(),
        }
    }

    /// Waits for the next connection whose handshake has ended.
    pub(super) async fn accept(&mut self) -> Connection {
        loop {
            let has_room = self.handshakes.len() < HANDSHAKES;
            tokio::select! {
                (stream, peer, permit) = accept(&mut self.socket, &self.open), if has_room => {
                    self.limit_unread(&stream);
                    let Some(tls) = self.access.rules().tls.clone() else {
                        let stream = Either::Left(stream);
                        return Connection { stream, tls: None, permit };
                    };
                    let handshake = shake_hands(tls.clone(), stream, peer, self.limits.handshake);
                    self.handshakes.spawn(async move {
                        let stream = Either::Right(handshake.await?);
                        Some(Connection { stream, tls: Some(tls), permit })
                    });
                }
                Some(ended) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = ended {
                        return connection;
                    }
                }
            }
        }
    }

    /// The kernel also counts the time in which the window of the client is closed.
    fn limit_unread(&self, stream: &TcpStream) {
        let limit = u32::try_from(self.limits.unread.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = sockopt::set_tcp_user_timeout(stream, limit) {
            log::debug!("cannot limit how long a response stays unread: {error}");
        }
    }
}

/// Waits for room before it accepts. Dropping the future loses no connection.
async fn accept(
    socket: &mut TcpListener,
    open: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    let permit = open.clone().acquire_owned().await;
    let permit = permit.expect("it is never closed");
    let (stream, peer) = Listener::accept(socket).await;
    (stream, peer, permit)
}

async fn shake_hands(
    tls: Arc<ServerConfig>,
    stream: TcpStream,
    peer: SocketAddr,
    limit: Duration,
) -> Option<TlsStream<TcpStream>> {
    let handshake = TlsAcceptor::from(tls).accept(stream);
    match timeout(limit, handshake).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            log::debug!("no TLS with {peer}: {error}");
            None
        }
        Err(_) => {
            log::debug!("no TLS with {peer}: the handshake took too long");
            None
        }
    }
}
