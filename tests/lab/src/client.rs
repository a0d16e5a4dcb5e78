use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use tokio::{net::TcpSocket, task::AbortHandle};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, http::Uri},
};

use crate::{
    ConnectionView, LabError, Namespace,
    connection::{Conduct, Connection},
};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A client's behaviour after the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Reads, and answers pings with pongs. On the path `/quiet` this is an idle client.
    Responsive,
    /// Never reads again: its kernel acknowledges, but pings get no answer.
    Deaf,
    /// Responsive, and sends a binary message of `size` bytes every interval.
    Talkative { every: Duration, size: usize },
    /// Responsive, and sends a ping every interval.
    Pinging { every: Duration },
}

/// A WebSocket client with its own source address. Dropping it closes its socket without a close
/// frame, like a crashed process.
#[derive(Debug)]
pub struct Client {
    local: SocketAddr,
    connected_at: Instant,
    connection: Connection,
    task: AbortHandle,
}

impl Client {
    /// Connects from `from` inside `namespace` to `url` (`ws://IP:PORT/PATH`, no names) and
    /// completes the handshake, all within five seconds.
    ///
    /// # Errors
    /// [`LabError::Url`], [`LabError::Io`] if TCP fails, [`LabError::Handshake`] if the upgrade
    /// fails, [`LabError::Timeout`] without an answer.
    pub fn connect(
        namespace: &Namespace,
        from: IpAddr,
        url: &str,
        manner: Manner,
    ) -> Result<Self, LabError> {
        let server = socket_addr(url)?;
        let handshake = handshake(from, server, url.to_owned(), manner.conduct());
        let (local, connection, conversation) = namespace
            .block_on(async { tokio::time::timeout(CONNECT_LIMIT, handshake).await })?
            .map_err(|_| LabError::Timeout {
                what: format!("the handshake with {server}"),
                waited: CONNECT_LIMIT,
            })??;
        let connected_at = connection.view().since;
        let task = namespace.spawn(conversation)?.abort_handle();
        Ok(Self {
            local,
            connected_at,
            connection,
            task,
        })
    }

    /// Its own address: the server's `peer`.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// When the 101 arrived.
    pub fn connected_at(&self) -> Instant {
        self.connected_at
    }

    /// The state of the connection as the client sees it.
    pub fn view(&self) -> ConnectionView {
        self.connection.view()
    }

    /// Sends `message`, which may be a close frame, whatever the client's manner.
    ///
    /// # Errors
    /// [`LabError::Closed`] if the client knows that the connection is over.
    pub fn send(&self, message: Message) -> Result<(), LabError> {
        self.connection.send(message)
    }

    /// Stops reading for good, like a hung process: from now on [`Manner::Deaf`].
    ///
    /// # Errors
    /// [`LabError::Closed`] if the client knows that the connection is over.
    pub fn go_deaf(&self) -> Result<(), LabError> {
        self.connection.stop_reading()
    }

    /// Sends a FIN without a close frame, and keeps the socket.
    ///
    /// # Errors
    /// [`LabError::Closed`] if the client knows that the connection is over.
    pub fn hang_up(&self) -> Result<(), LabError> {
        self.connection.hang_up()
    }

    /// Closes the socket with a RST.
    ///
    /// # Errors
    /// [`LabError::Closed`] if the client knows that the connection is over.
    pub fn reset(&self) -> Result<(), LabError> {
        self.connection.reset()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Manner {
    fn conduct(self) -> Conduct {
        let sends = match self {
            Self::Responsive | Self::Deaf => None,
            Self::Talkative { every, size } => {
                Some((every, Message::Binary(vec![0x77; size].into())))
            }
            Self::Pinging { every } => Some((every, Message::Ping("wsmon lab".into()))),
        };
        Conduct {
            reads: self != Self::Deaf,
            echoes: false,
            sends,
        }
    }
}

async fn handshake(
    from: IpAddr,
    server: SocketAddr,
    url: String,
    conduct: Conduct,
) -> Result<(SocketAddr, Connection, impl Future<Output = ()> + Send), LabError> {
    let connect = async {
        let socket = match server {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.bind(SocketAddr::new(from, 0))?;
        let stream = socket.connect(server).await?;
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        Ok::<_, io::Error>((stream, local))
    };
    let (stream, local) = connect
        .await
        .map_err(LabError::io(format!("connect from {from} to {server}")))?;
    let (socket, _response) =
        client_async(url, stream)
            .await
            .map_err(|source| LabError::Handshake {
                peer: server,
                source: Box::new(source),
            })?;
    let (connection, conversation) = Connection::new(socket, server, conduct);
    Ok((local, connection, conversation))
}

fn socket_addr(url: &str) -> Result<SocketAddr, LabError> {
    let uri: Option<Uri> = url.parse().ok();
    uri.filter(|uri| uri.scheme_str() == Some("ws"))
        .and_then(|uri| uri.authority()?.as_str().parse().ok())
        .ok_or_else(|| LabError::Url(url.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_needs_a_literal_address_and_a_port() {
        let addr = |url| socket_addr(url).unwrap();
        assert_eq!(
            addr("ws://10.77.2.10:8080/quiet").to_string(),
            "10.77.2.10:8080"
        );
        assert_eq!(addr("ws://[fd77:2::10]:80/").to_string(), "[fd77:2::10]:80");
        for url in [
            "ws://localhost:80/",
            "http://10.0.0.1:80/",
            "ws://10.0.0.1/",
            "?",
        ] {
            assert!(socket_addr(url).is_err(), "{url}");
        }
    }
}
