//! Accepts connections, and ends their TLS handshakes.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::serve::Listener;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::either::Either;

use super::access::Access;

/// Handshakes at the same time. Further connections wait in the kernel.
const HANDSHAKES: usize = 128;
/// Less than the 10 s that Prometheus has for a scrape.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A listening socket, with TLS while the rules have it.
pub(super) struct TlsListener {
    socket: TcpListener,
    access: Arc<Access>,
    handshakes: JoinSet<Option<(TlsStream<TcpStream>, SocketAddr)>>,
}

impl TlsListener {
    pub(super) fn new(socket: TcpListener, access: Arc<Access>) -> Self {
        Self {
            socket,
            access,
            handshakes: JoinSet::new(),
        }
    }
}

impl Listener for TlsListener {
    type Io = Either<TcpStream, TlsStream<TcpStream>>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let has_room = self.handshakes.len() < HANDSHAKES;
            tokio::select! {
                (stream, peer) = Listener::accept(&mut self.socket), if has_room => {
                    let Some(tls) = self.access.rules().tls.clone() else {
                        return (Either::Left(stream), peer);
                    };
                    self.handshakes.spawn(shake_hands(tls, stream, peer));
                }
                Some(ended) = self.handshakes.join_next() => {
                    if let Ok(Some((stream, peer))) = ended {
                        return (Either::Right(stream), peer);
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

async fn shake_hands(
    tls: Arc<ServerConfig>,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<(TlsStream<TcpStream>, SocketAddr)> {
    let handshake = TlsAcceptor::from(tls).accept(stream);
    match timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => Some((stream, peer)),
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
