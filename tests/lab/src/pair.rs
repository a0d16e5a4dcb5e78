//! Connections by the hundred thousand: both ends in one process, without parser, task or buffer.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};
use wire::{REQUEST, RESPONSE};

use crate::LabError;

/// Over loopback a packet arrives before the call that sent it returns, unless the machine is very
/// busy: then the reader waits.
const TIMEOUT: Duration = Duration::from_secs(20);

/// With four bytes, like the counter that libraries put into their pings.
const PING: [u8; 6] = *b"\x89\x04ping";
const PONG: [u8; 10] = *b"\x8a\x84\0\0\0\0ping";
const CLIENT_PING: [u8; 10] = *b"\x89\x84\0\0\0\0ping";

/// An upgraded WebSocket connection over kernel sockets. The calling thread acts as both peers in
/// turn, so a connection costs this process eight bytes.
#[derive(Debug)]
pub struct Pair {
    client: TcpStream,
    server: TcpStream,
}

impl Pair {
    /// Connects from `from`, address and port, to `listener`, and completes the handshake. No other
    /// client may be waiting for `listener`. With an explicit port the kernel need not search for a
    /// free one, which takes ever longer with many connections.
    ///
    /// # Errors
    /// [`LabError::Io`]: a kernel error, or an unexpected answer.
    pub fn open(listener: &TcpListener, from: SocketAddr) -> Result<Self, LabError> {
        Self::try_open(listener, from).map_err(LabError::io(format!("open a pair from {from}")))
    }

    fn try_open(listener: &TcpListener, from: SocketAddr) -> io::Result<Self> {
        let family = match from {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let client = socket(family, SocketType::STREAM, None)?;
        // Many connections end at the same moment: a RST leaves nothing behind.
        sockopt::set_socket_linger(&client, Some(Duration::ZERO))?;
        bind(&client, &from)?;
        connect(&client, &listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        let mut pair = Self {
            client: client.into(),
            server,
        };
        for end in [&pair.client, &pair.server] {
            end.set_nodelay(true)?;
            end.set_read_timeout(Some(TIMEOUT))?;
        }
        pair.client.write_all(REQUEST)?;
        pair.server.read_exact(&mut [0; REQUEST.len()])?;
        pair.server.write_all(RESPONSE)?;
        pair.client.read_exact(&mut [0; RESPONSE.len()])?;
        Ok(pair)
    }

    /// The server pings, the client answers, and the server reads the answer.
    ///
    /// # Errors
    /// [`LabError::Io`].
    pub fn ping(&mut self) -> Result<(), LabError> {
        self.try_ping().map_err(LabError::io("ping"))
    }

    /// Like [`ping`](Self::ping), but no packet is in flight when this returns: the answer is
    /// acknowledged at once instead of up to 40 ms later.
    ///
    /// # Errors
    /// [`LabError::Io`].
    pub fn last_ping(&mut self) -> Result<(), LabError> {
        sockopt::set_tcp_quickack(&self.server, true)
            .map_err(io::Error::from)
            .and_then(|()| self.try_ping())
            .and_then(|()| Ok(sockopt::set_tcp_quickack(&self.server, true)?))
            .map_err(LabError::io("ping"))
    }

    /// The client sends a ping that the server never reads.
    ///
    /// # Errors
    /// [`LabError::Io`].
    pub fn leave_unread(&mut self) -> Result<(), LabError> {
        self.client
            .write_all(&CLIENT_PING)
            .map_err(LabError::io("send a ping"))
    }

    /// The client's address: the server's `peer`.
    ///
    /// # Errors
    /// [`LabError::Io`].
    pub fn peer(&self) -> Result<SocketAddr, LabError> {
        self.client
            .local_addr()
            .map_err(LabError::io("read a socket's address"))
    }

    /// The client's and the server's socket.
    pub fn into_ends(self) -> (TcpStream, TcpStream) {
        (self.client, self.server)
    }

    fn try_ping(&mut self) -> io::Result<()> {
        self.server.write_all(&PING)?;
        self.client.read_exact(&mut [0; PING.len()])?;
        self.client.write_all(&PONG)?;
        self.server.read_exact(&mut [0; PONG.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> Pair {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Pair::open(&listener, "127.0.0.2:0".parse().unwrap()).unwrap()
    }

    #[test]
    fn a_pair_pings_from_the_given_address() {
        let mut pair = pair();
        pair.ping().unwrap();
        pair.last_ping().unwrap();
        assert_eq!(pair.peer().unwrap().ip().to_string(), "127.0.0.2");
    }

    #[test]
    fn what_the_server_does_not_read_waits_for_it() {
        let mut pair = pair();
        pair.leave_unread().unwrap();
        let mut waiting = [0; CLIENT_PING.len()];
        pair.server.read_exact(&mut waiting).unwrap();
        assert_eq!(waiting, CLIENT_PING);
    }

    #[test]
    fn nothing_is_left_unread() {
        let mut pair = pair();
        pair.ping().unwrap();
        for end in [&pair.client, &pair.server] {
            end.set_nonblocking(true).unwrap();
            let error = end.peek(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
    }
}
