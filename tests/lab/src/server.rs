use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        http::StatusCode,
    },
};

use crate::{
    ConnectionView, Direction, FrameCounts, LabError, Namespace, Opcode, Script,
    connection::{Conduct, Connection, lock},
};

const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
const ACCEPT_RETRY: Duration = Duration::from_millis(10);

/// A WebSocket server that records its own actions, so that a monitor can be compared with it.
///
/// Each connection does what its request path selects: see [`Script`]. Dropping the server closes
/// every connection.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    connections: Arc<Mutex<Vec<Connection>>>,
    accepting: AbortHandle,
}

/// The server's actions since its start, over all connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Handshakes answered with 101.
    pub opened: u64,
    /// How many of these the server knows to be over.
    pub closed: u64,
    pub frames: FrameCounts,
}

impl Counts {
    pub fn pings_sent(&self) -> u64 {
        self.frames.get(Direction::Tx, Opcode::Ping)
    }

    pub fn pongs_received(&self) -> u64 {
        self.frames.get(Direction::Rx, Opcode::Pong)
    }
}

impl Server {
    /// Listens on `listen` inside `namespace`. Port 0 picks a free one, and `[::]` accepts IPv4
    /// peers as well.
    ///
    /// # Errors
    /// [`LabError::Io`] if the address cannot be bound.
    /// [`LabError::Io`] when the address cannot be bound.
    pub fn start(namespace: &Namespace, listen: SocketAddr) -> Result<Self, LabError> {
        let (listener, addr) = namespace
            .block_on(async move {
                let listener = TcpListener::bind(listen).await?;
                let addr = listener.local_addr()?;
                Ok((listener, addr))
            })?
            .map_err(LabError::io(format!("listen on {listen}")))?;
        let connections = Arc::default();
        let accepting = namespace
            .spawn(accept(listener, Arc::clone(&connections)))?
            .abort_handle();
        Ok(Self {
            addr,
            connections,
            accepting,
        })
    }

    /// The address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The URL of `path` on this server, for [`Client::connect`](crate::Client::connect).
    pub fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.addr)
    }

    /// The server's actions so far.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for connection in lock(&self.connections).iter() {
            let view = connection.view();
            counts.opened += 1;
            counts.closed += u64::from(!view.open);
            counts.frames.add_all(&view.frames);
        }
        counts
    }

    /// The application's view of its latest connection with `peer`; `None` if there never was one.
    /// A dual-stack server identifies an IPv4 peer by its IPv4 address.
    pub fn connection(&self, peer: SocketAddr) -> Option<ConnectionView> {
        self.find(peer).map(|connection| connection.view())
    }

    /// Peers that completed a handshake, in this order.
    pub fn peers(&self) -> Vec<SocketAddr> {
        lock(&self.connections)
            .iter()
            .map(Connection::peer)
            .collect()
    }

    /// Makes the application resume reading from `peer` on `/deaf`.
    ///
    /// # Errors
    /// [`LabError::UnknownPeer`], or [`LabError::Closed`] if the server knows that the connection
    /// is over.
    pub fn read_on(&self, peer: SocketAddr) -> Result<(), LabError> {
        self.find(peer)
            .ok_or(LabError::UnknownPeer(peer))?
            .read_on()
    }

    /// Sends `message`, which may be a close frame, to `peer`. This only queues the message;
    /// [`connection`](Self::connection) shows the result.
    ///
    /// # Errors
    /// [`LabError::UnknownPeer`], or [`LabError::Closed`] if the server knows that the connection
    /// is over.
    pub fn send(&self, peer: SocketAddr, message: Message) -> Result<(), LabError> {
        self.find(peer)
            .ok_or(LabError::UnknownPeer(peer))?
            .send(message)
    }

    fn find(&self, peer: SocketAddr) -> Option<Connection> {
        lock(&self.connections)
            .iter()
            .rfind(|connection| connection.peer() == peer)
            .cloned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Owns the tasks of all connections, so that aborting this task ends them all.
async fn accept(listener: TcpListener, connections: Arc<Mutex<Vec<Connection>>>) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    tasks.spawn(serve(stream, canonical(peer), Arc::clone(&connections)));
                }
                // A peer gave up in the queue, or no file descriptor is left: retry soon.
                Err(_) => tokio::time::sleep(ACCEPT_RETRY).await,
            },
            Some(_) = tasks.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, connections: Arc<Mutex<Vec<Connection>>>) {
    let mut script = None;
    #[expect(clippy::result_large_err, reason = "the signature is tungstenite's")]
    let choose = |request: &Request, response: Response| match request.uri().to_string().parse() {
        Ok(chosen) => {
            script = Some(chosen);
            Ok(response)
        }
        Err(complaint) => Err(not_found(complaint)),
    };
    // A heartbeat must leave at once instead of waiting for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let handshake = tokio::time::timeout(HANDSHAKE_LIMIT, accept_hdr_async(stream, choose)).await;
    let (Ok(Ok(socket)), Some(script)) = (handshake, script) else {
        return; // not a connection: the client got its error
    };
    let (connection, conversation) = Connection::new(socket, peer, conduct(script));
    lock(&connections).push(connection);
    conversation.await;
}

fn conduct(script: Script) -> Conduct {
    let sends = match script {
        Script::Quiet | Script::Deaf | Script::Echo => None,
        Script::Heartbeat { every } => Some((every, Message::Ping("wsmon lab".into()))),
        Script::Stream { every, size } => Some((every, Message::Binary(vec![0x77; size].into()))),
    };
    Conduct {
        reads: script != Script::Deaf,
        echoes: script == Script::Echo,
        sends,
    }
}

fn not_found(complaint: String) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(complaint));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}
