//! The server on tokio-tungstenite and rustls: see `testdata/peers/README.md`.

use std::{
    collections::HashMap,
    future::pending,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::{AbortHandle, JoinSet},
    time::{Instant, Interval, interval_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, accept_async,
    tungstenite::{Error, Message},
};

use super::Certificate;
use crate::{LabError, Namespace, connection::lock};

/// Ends with all its connections when it is dropped.
#[derive(Debug)]
pub(super) struct RustlsServer(AbortHandle);

/// What was sent to members of the room, by the clients' addresses.
type Room = Arc<Mutex<HashMap<SocketAddr, UnboundedSender<Message>>>>;

impl RustlsServer {
    /// # Errors
    /// [`LabError::Io`] if it cannot listen.
    pub(super) fn start(
        namespace: &Namespace,
        addr: SocketAddr,
        certificate: &Certificate,
        ping_every: Option<Duration>,
    ) -> Result<Self, LabError> {
        let acceptor = acceptor(certificate)?;
        let listener = namespace
            .block_on(TcpListener::bind(addr))?
            .map_err(LabError::io(format!("listen on {addr}")))?;
        let serving = namespace.spawn(accept(listener, acceptor, ping_every))?;
        Ok(Self(serving.abort_handle()))
    }
}

impl Drop for RustlsServer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn acceptor(certificate: &Certificate) -> Result<TlsAcceptor, LabError> {
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(certificate.chain()).and_then(Iterator::collect);
    let key = PrivateKeyDer::from_pem_file(certificate.key());
    let provider = rustls::crypto::ring::default_provider();
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain?, key?)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Owns the tasks of all connections, so that aborting this task ends them all.
async fn accept(listener: TcpListener, acceptor: TlsAcceptor, ping_every: Option<Duration>) {
    let room = Room::default();
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, peer)) = accepted else {
                    continue; // the peer gave up in the queue
                };
                let (acceptor, room) = (acceptor.clone(), Arc::clone(&room));
                tasks.spawn(async move {
                    let _ = stream.set_nodelay(true);
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return; // not a client: it got its alert
                    };
                    if let Ok(socket) = accept_async(stream).await {
                        let (outbox, inbox) = unbounded_channel();
                        let connection = Connection { socket, peer, ticks: None, outbox, room };
                        // An error is a client that is gone.
                        let _ = connection.serve(inbox, ping_every).await;
                    }
                });
            }
            Some(_) = tasks.join_next() => {}
        }
    }
}

struct Connection {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    peer: SocketAddr,
    ticks: Option<Interval>,
    outbox: UnboundedSender<Message>,
    room: Room,
}

impl Connection {
    async fn serve(
        mut self,
        mut inbox: UnboundedReceiver<Message>,
        ping_every: Option<Duration>,
    ) -> Result<(), Error> {
        let mut pings = ping_every.map(every);
        loop {
            tokio::select! {
                received = self.socket.next() => match received {
                    Some(message) => self.respond(message?).await?,
                    None => return Ok(()),
                },
                Some(message) = inbox.recv() => self.socket.send(message).await?,
                () = next(&mut pings) => self.socket.send(Message::Ping("".into())).await?,
                () = next(&mut self.ticks) => self.socket.send(Message::text("tick")).await?,
            }
        }
    }

    async fn respond(&mut self, message: Message) -> Result<(), Error> {
        if !message.is_text() {
            // Others than data are answered by the library.
            return match message.is_binary() {
                true => self.socket.send(message).await,
                false => Ok(()),
            };
        }
        let text = message.to_text()?;
        let mut words = text.splitn(3, ' ');
        let kind = words.next().unwrap_or_default();
        let count = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        match kind {
            "burst" => {
                for _ in 0..count {
                    self.socket.send(message.clone()).await?;
                }
            }
            "all" => {
                let mut room = lock(&self.room);
                room.insert(self.peer, self.outbox.clone());
                // A member that is gone is removed by its own task.
                room.values()
                    .for_each(|member| drop(member.send(message.clone())));
            }
            "tick" => self.ticks = Some(every(Duration::from_millis(count))),
            _ => self.socket.send(message).await?,
        }
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        lock(&self.room).remove(&self.peer);
    }
}

fn every(period: Duration) -> Interval {
    interval_at(Instant::now() + period, period)
}

/// Waits for ever if there is no interval.
async fn next(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => pending().await,
    }
}
