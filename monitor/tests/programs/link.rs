//! A connection between a hand-written peer and a socket of this kernel, with a native twin.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    ops::Range,
    time::Duration,
};

use monitor_common::{
    Direction,
    connection_totals::ConnectionTotals,
    listener::ListenerLimits,
    replay::Connection,
    snapshot::{origin, role},
    stats::ListenerStats,
};
use monitor_core::ConnId;
use rustix::net::sockopt::{set_socket_linger, socket_cookie};
use wire::{REQUEST, RESPONSE};

use super::{
    kernel::Seen,
    tun::{Family, MAX_PAYLOAD, Packet, Peer, Tun},
};

/// Processes the same packets natively.
pub(super) struct Native {
    connection: Connection,
    pub(super) stats: ListenerStats,
    now: u64,
    pub(super) seen: Vec<Seen>,
}

impl Native {
    fn new() -> Self {
        let mut connection = Connection::EMPTY;
        connection.flow.snapshot.role = role::SERVER;
        Self {
            connection,
            stats: ListenerStats::EMPTY,
            now: 1,
            seen: Vec::new(),
        }
    }

    pub(super) fn adopted() -> Self {
        let mut native = Self::new();
        native.connection.flow.snapshot.origin = origin::ADOPTED;
        native.connection.flow.join_mid_stream(Direction::Rx);
        native
    }

    pub(super) fn totals(&self) -> &ConnectionTotals {
        &self.connection.totals
    }

    pub(super) fn take(&mut self, direction: Direction, packet: &Packet) {
        self.now += 1;
        self.connection.take(
            direction,
            &packet.segment,
            &packet.payload,
            self.now,
            &ListenerLimits { idle_limit_ns: 0 },
            &mut self.stats,
            |frame| self.seen.push(Seen::from(*frame)),
        );
    }
}

/// A listening socket.
pub(super) fn listen(family: Family, port: u16) -> TcpListener {
    // Another test may be starting a process, which briefly holds a copy of the previous listener.
    let addr = SocketAddr::new(family.kernel(), port);
    let bound = || TcpListener::bind(addr).ok();
    lab::wait_for("the port", Duration::from_secs(10), bound).unwrap()
}

/// A connection between a hand-written peer and a socket of this kernel, with a native twin.
pub(super) struct Link {
    pub(super) peer: Peer,
    /// `None` once closed.
    socket: Option<TcpStream>,
    pub(super) cookie: u64,
    pub(super) native: Native,
    /// Counts of the native run at the last comparison.
    pub(super) compared: ListenerStats,
    /// The peer's next sequence number in [`Link::peer_sends_more`].
    pub(super) next: u32,
    /// Number of segments with payload so far.
    pub(super) taken: usize,
}

impl Link {
    pub(super) fn open(tun: &mut Tun, family: Family, port: u16, peer_port: u16, isn: u32) -> Self {
        let listener = listen(family, port);
        let (peer, socket) = Peer::connect(tun, family, &listener, peer_port, isn);
        Self::new(peer, socket)
    }

    /// A connection that `peer` has opened, with its socket.
    pub(super) fn new(peer: Peer, socket: TcpStream) -> Self {
        // Dropping it sends a reset at once.
        set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
        let isn = peer.isn;
        Self {
            peer,
            cookie: socket_cookie(&socket).unwrap(),
            socket: Some(socket),
            native: Native::new(),
            compared: ListenerStats::EMPTY,
            next: isn,
            taken: 0,
        }
    }

    pub(super) fn upgraded(tun: &mut Tun, family: Family, port: u16, peer_port: u16) -> Self {
        // Sequence numbers wrap in the first frames.
        let mut link = Self::open(tun, family, port, peer_port, u32::MAX - 100);
        link.peer_sends_more(tun, REQUEST);
        link.socket_sends(tun, RESPONSE);
        link
    }

    pub(super) fn conn(&self) -> ConnId {
        ConnId(self.cookie)
    }

    /// Reads `len` bytes that the socket received.
    pub(super) fn read(&mut self, len: usize) -> Vec<u8> {
        let mut received = vec![0; len];
        let socket = self.socket.as_mut().expect("open");
        socket.read_exact(&mut received).unwrap();
        received
    }

    /// Closes the socket with a reset.
    pub(super) fn ended(mut self) -> Self {
        self.socket = None;
        let Native {
            connection, stats, ..
        } = &mut self.native;
        connection.end(stats);
        self
    }

    /// Sends a part of `stream`, whose first byte has the peer's initial sequence number.
    pub(super) fn peer_sends(&mut self, tun: &mut Tun, range: Range<usize>, stream: &[u8]) {
        let seq = self.peer.isn.wrapping_add(range.start as u32);
        let packet = self.peer.data(seq, &stream[range]);
        self.peer_sends_packet(tun, &packet);
    }

    pub(super) fn peer_sends_more(&mut self, tun: &mut Tun, bytes: &[u8]) {
        for bytes in bytes.chunks(MAX_PAYLOAD) {
            let packet = self.peer.data(self.next, bytes);
            self.next = self.next.wrapping_add(bytes.len() as u32);
            self.peer_sends_packet(tun, &packet);
        }
    }

    pub(super) fn peer_sends_packet(&mut self, tun: &mut Tun, packet: &[u8]) {
        tun.write(packet);
        self.has_taken(tun, packet);
    }

    /// Passes the native run a packet of the peer that the socket has received, and the resulting
    /// packets.
    pub(super) fn has_taken(&mut self, tun: &mut Tun, packet: &[u8]) {
        let packet = Packet::parse(packet).expect("our own packet");
        self.native.take(Direction::Rx, &packet);
        self.taken += 1;
        for response in self.peer.received(tun) {
            self.native.take(Direction::Tx, &response);
        }
    }

    /// The socket sends `bytes`, which are acknowledged before anything else is sent.
    pub(super) fn socket_sends(&mut self, tun: &mut Tun, bytes: &[u8]) {
        self.socket
            .as_mut()
            .expect("open")
            .write_all(bytes)
            .unwrap();
        for packet in self.peer.receive(tun, bytes.len()) {
            self.taken += usize::from(!packet.payload.is_empty());
            self.native.take(Direction::Tx, &packet);
        }
        let ack = self.peer.acknowledgement();
        tun.write(&ack);
        let ack = Packet::parse(&ack).expect("our own packet");
        self.native.take(Direction::Rx, &ack);
    }
}
