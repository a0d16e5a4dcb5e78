//! Scans the TCP sockets of this host, in every network namespace.
//!
//! The kernel keeps the connections of all namespaces in one hash table, and a dump of one namespace walks
//! all of it. Listening sockets are in a small table of their own. So a pass over the listening sockets is
//! cheap in any number of namespaces, and connections are dumped only where some may matter.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use super::{
    Dump, SockDiag, SockDiagError, inet_diag::DiagSocket, seed, socket_finder::FindError,
    socket_query::SocketKey,
};
use crate::{
    config::listeners::ListenerConfig,
    kernel::{
        clock,
        host::{
            netns::{self, NetNs, NetNsError, NetNsId, NetNsList, OutOfFiles},
            owner::OwnedSocket,
            sockstat::tcp_sockets,
        },
    },
};
use monitor_core::{
    event::{ListeningSocket, ReceiveQueue, SendQueue},
    facts::{ConnId, Facts, ListenerId, Role},
};

pub mod known;
pub mod locations;
mod unplaced;
mod watched_ports;

use watched_ports::WatchedPorts;

/// The result of a scan, except the connections.
#[derive(Debug, Default)]
pub struct Scan {
    /// The listening sockets on watched ports of this host.
    pub listening: Vec<ListeningSocket>,
    /// Network namespaces that were entered.
    pub namespaces: usize,
    /// Those of them whose connections were dumped.
    pub dumped: usize,
    /// Those whose connections were queried one by one, and the number of queries.
    pub queried: usize,
    pub queries: usize,
    /// Those whose connections were not read. No connection that is searched for can be in them.
    pub skipped: usize,
    /// Network namespaces that could not be scanned. Their older connections are unknown.
    pub refused: Vec<RefusedNamespace>,
    /// Processes whose namespace is hidden from us; see [`NetNsList::refused`].
    pub hidden: usize,
    /// Why there may be more namespaces; see [`NetNsList::cut`].
    pub cut: Option<OutOfFiles>,
    /// Sockets on watched ports that could not be parsed.
    pub unparsed: u64,
    /// Dumps that were interrupted and then repeated.
    pub interrupted: usize,
    pub elapsed: Duration,
    /// CPU time of reading the sockets.
    pub cost: Duration,
    /// CPU time of the cheapest dump: about that of walking over all connections of the host.
    pub shortest_dump: Option<Duration>,
}

impl Scan {
    /// Whether no socket can have been missed.
    pub fn is_complete(&self) -> bool {
        self.cut.is_none() && self.refused.is_empty() && self.unparsed == 0 && self.interrupted == 0
    }

    /// Of the namespaces in this list, which is returned.
    fn of(list: NetNsList) -> (Self, Vec<NetNs>) {
        let scan = Self {
            hidden: list.refused,
            cut: list.cut,
            ..Self::default()
        };
        (scan, list.found)
    }

    /// Adds what a scan of the connections of some of these namespaces read.
    pub fn add_connections(&mut self, other: Self) {
        self.dumped += other.dumped;
        self.refused.extend(other.refused);
        self.unparsed += other.unparsed;
        self.interrupted += other.interrupted;
        self.cost += other.cost;
    }

    /// Calls `read` inside each of `namespaces`. One that fails is refused.
    fn walk<'a>(
        &mut self,
        namespaces: &[&'a NetNs],
        mut read: impl FnMut(&mut Self, &'a NetNs, &mut SockDiag) -> Result<(), SockDiagError> + Send,
    ) -> Result<(), NetNsError> {
        let (started, cost) = (Instant::now(), self.cost);
        netns::in_each(namespaces, |namespace, entered| {
            let result = entered.map_err(FindError::from).and_then(|()| {
                let mut sock_diag = SockDiag::open()?;
                Ok(read(self, namespace, &mut sock_diag)?)
            });
            if let Err(error) = result {
                self.refused.push(RefusedNamespace {
                    name: namespace.name().to_owned(),
                    error,
                });
            }
            // The thread was started for this walk.
            self.cost = cost + clock::of_thread();
            ControlFlow::<()>::Continue(())
        })?;
        self.elapsed += started.elapsed();
        Ok(())
    }

    /// Does a dump, once more if it was interrupted.
    fn dump(
        &mut self,
        mut dump: impl FnMut() -> Result<Dump, SockDiagError>,
    ) -> Result<(), SockDiagError> {
        let mut read = dump()?;
        if read.interrupted {
            self.interrupted += 1;
            read = dump()?;
        }
        self.unparsed += read.unparsed;
        Ok(())
    }
}

#[derive(Debug)]
pub struct RefusedNamespace {
    pub name: String,
    pub error: FindError,
}

/// A network namespace in which older connections may be.
#[derive(Debug)]
pub struct SurveyedNamespace {
    pub netns: NetNs,
    /// Whether something listens on a watched port.
    pub is_served: bool,
    /// Whether it has TCP sockets that don't listen.
    pub has_connections: bool,
}

/// A listening socket on any port of this host.
#[derive(Clone, Debug)]
pub struct HostListener {
    pub socket: DiagSocket,
    pub netns: NetNsId,
}

impl From<&HostListener> for OwnedSocket {
    fn from(listener: &HostListener) -> Self {
        Self {
            inode: listener.socket.inode,
            cgroup_id: listener.socket.cgroup_id,
            netns: Some(listener.netns),
        }
    }
}

/// One connection on a watched port.
#[derive(Clone, Copy, Debug)]
pub struct ScannedSocket<'a> {
    socket: &'a DiagSocket,
    /// `None` if no listener watches it, although its port is watched.
    watched: Option<(ListenerId, Role)>,
}

impl ScannedSocket<'_> {
    pub fn conn(&self) -> ConnId {
        ConnId(self.socket.cookie)
    }

    /// With which it can be queried in its namespace.
    pub fn key(&self) -> SocketKey {
        SocketKey::from(self.socket)
    }

    /// Its facts for the core; `None` for a connection that this host seems to have opened from a
    /// watched port, by the rule of the kernel programs.
    pub fn facts(&self) -> Option<Facts> {
        let (listener, role) = self.watched?;
        Some(seed::facts(self.socket, listener, role))
    }

    /// The bytes its application has not read, if any.
    pub fn receive_queue(&self) -> Option<ReceiveQueue> {
        let received = self.socket.info.as_ref()?.bytes_received;
        // A FIN occupies a sequence number in the queue's length (`tcp_diag_get_info` in
        // net/ipv4/tcp_diag.c), and was received like a byte (`tcp_rcv_nxt_update` in
        // net/ipv4/tcp_input.c).
        let queue = self.socket.receive_queue;
        let fin = u32::from(self.socket.state.has_received_fin());
        let bytes = queue.saturating_sub(fin);
        (bytes > 0).then_some(ReceiveQueue {
            conn: self.conn(),
            bytes,
            read: received.saturating_sub(queue.into()),
        })
    }

    /// The bytes that its application has written and the peer has not acknowledged, if any.
    pub fn send_queue(&self) -> Option<SendQueue> {
        let (listener, _) = self.watched?;
        let info = self.socket.info.as_ref()?;
        let bytes = self.socket.send_queue;
        (bytes > 0).then_some(SendQueue {
            conn: self.conn(),
            listener,
            bytes,
            // With an open window, something on this host keeps TCP from sending.
            is_held: info.unacked_segments == 0 && info.peer_window == Some(0),
            acked: info.bytes_acked,
        })
    }
}

/// Finds the listening sockets on the watched ports, in all network namespaces.
///
/// Fails only if the namespaces cannot even be listed.
pub fn survey(listeners: &[ListenerConfig]) -> Result<(Vec<SurveyedNamespace>, Scan), NetNsError> {
    let ports = WatchedPorts::new(listeners);
    let (mut scan, found) = Scan::of(netns::enumerate()?);
    let mut entered = Vec::new();
    let all: Vec<_> = found.iter().collect();
    scan.walk(&all, |scan, netns, sock_diag| {
        let before = tcp_sockets();
        let listening = ports.listening(scan, netns, sock_diag)?;
        let has_connections = !listening.are_all(before) || !listening.are_all(tcp_sockets());
        entered.push((netns.id(), !listening.ports.is_empty(), has_connections));
        Ok(())
    })?;
    let mut entered = entered.into_iter().peekable();
    let surveyed = found.into_iter().filter_map(|netns| {
        // In the same order, without those that were refused.
        let (_, is_served, has_connections) = entered.next_if(|(id, ..)| *id == netns.id())?;
        Some(SurveyedNamespace {
            netns,
            is_served,
            has_connections,
        })
    });
    Ok((surveyed.collect(), scan))
}

/// Finds the listening sockets on all ports, in all network namespaces. [`Scan::listening`] is empty.
///
/// Fails only if the namespaces cannot even be listed.
pub fn all_listening() -> Result<(Vec<HostListener>, Scan), NetNsError> {
    let mut listening = Vec::new();
    let (mut scan, found) = Scan::of(netns::enumerate()?);
    let all: Vec<_> = found.iter().collect();
    scan.walk(&all, |scan, netns, sock_diag| {
        let mut sockets = Vec::new();
        scan.dump(|| {
            sockets.clear();
            sock_diag.dump_listening(|_| true, |socket| sockets.push(socket))
        })?;
        scan.namespaces += 1;
        let netns = netns.id();
        let sockets = sockets.into_iter();
        listening.extend(sockets.map(|socket| HostListener { socket, netns }));
        Ok(())
    })?;
    Ok((listening, scan))
}

/// Finds the listening sockets in `namespaces`, and calls `visit` with each connection there on a watched
/// port. A connection may be passed more than once. If both ends are on this host, each end is passed
/// separately.
///
/// Fails only if the thread for it cannot be started.
pub fn connections(
    listeners: &[ListenerConfig],
    namespaces: &[&NetNs],
    mut visit: impl FnMut(&ScannedSocket<'_>) + Send,
) -> Result<Scan, NetNsError> {
    let ports = WatchedPorts::new(listeners);
    let mut scan = Scan::default();
    scan.walk(namespaces, |scan, netns, sock_diag| {
        let listening = ports.listening(scan, netns, sock_diag)?;
        ports.connections(scan, &listening, sock_diag, &mut visit)
    })?;
    Ok(scan)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::Shutdown,
    };

    use rustix::net::sockopt::socket_cookie;

    use super::*;
    use crate::{
        config::listeners::PortRange,
        kernel::testing::{Namespace, wait_for},
    };
    use monitor_core::ListenerRules;

    fn listener(port: u16) -> ListenerConfig {
        ListenerConfig {
            rules: ListenerRules::new("l", None),
            ports: vec![PortRange(port..=port)],
            remote: false,
        }
    }

    fn everywhere(listeners: &[ListenerConfig], visit: impl FnMut(&ScannedSocket<'_>) + Send) {
        let (surveyed, survey) = survey(listeners).unwrap();
        let namespaces = surveyed.iter().filter(|it| it.has_connections);
        let namespaces: Vec<_> = namespaces.map(|it| &it.netns).collect();
        let scan = connections(listeners, &namespaces, visit).unwrap();
        assert!(survey.is_complete() && scan.is_complete());
        assert_eq!(scan.dumped, namespaces.len());
    }

    /// The connections on a port of this host's servers, and their unread bytes.
    fn scanned(port: u16) -> (Vec<ConnId>, Vec<ReceiveQueue>) {
        let (mut found_conns, mut unread) = (Vec::new(), Vec::new());
        everywhere(&[listener(port)], |found| {
            found_conns.push(found.conn());
            unread.extend(found.receive_queue());
        });
        (found_conns, unread)
    }

    /// Of both families, and on an address that is valid only with its interface.
    #[test]
    #[ignore = "needs root: makes network namespaces"]
    fn unread_bytes_are_reported_with_the_position_of_the_reader() {
        let namespace = Namespace::new();
        let scoped = namespace.add_link_local("fe80::1");
        for (port, address) in [
            (18_201, "127.0.0.1:18201".to_owned()),
            (18_202, "[::1]:18202".to_owned()),
            (18_203, format!("[fe80::1%{scoped}]:18203")),
        ] {
            let mut connection = namespace.connect(&address, &address);
            let conn = ConnId(socket_cookie(&connection.server).unwrap());
            assert_eq!(scanned(port), (vec![conn], vec![]), "{address}");

            connection.client.write_all(b"hello").unwrap();
            connection.server.read_exact(&mut [0; 2]).unwrap();
            // The FIN counts in the queue and is not a byte.
            connection.client.shutdown(Shutdown::Write).unwrap();
            let expected = ReceiveQueue {
                conn,
                bytes: 3,
                read: 2,
            };
            wait_for("three bytes unread", || {
                (scanned(port) == (vec![conn], vec![expected])).then_some(())
            });

            connection.server.read_exact(&mut [0; 3]).unwrap();
            assert_eq!(scanned(port), (vec![conn], vec![]), "{address}");
        }
    }

    #[test]
    #[ignore = "needs root: makes network namespaces"]
    fn written_bytes_are_held_while_the_peer_does_not_read() {
        const PORT: u16 = 18_204;
        let namespace = Namespace::new();
        let address = format!("127.0.0.1:{PORT}");
        let mut connection = namespace.connect(&address, &address);
        let conn = ConnId(socket_cookie(&connection.server).unwrap());
        let queue = || {
            let mut found = None;
            everywhere(&[listener(PORT)], |socket| found = socket.send_queue());
            found
        };
        assert_eq!(queue(), None);
        connection.server.set_nonblocking(true).unwrap();
        let mut written = 0;
        let held = wait_for("a closed window", || {
            while let Ok(bytes) = connection.server.write(&[0; 4096]) {
                written += bytes as u64;
            }
            queue().filter(|queue| queue.is_held)
        });
        assert_eq!(held.conn, conn);
        assert_eq!(held.listener, ListenerId(0));
        assert_eq!(held.acked + u64::from(held.bytes), written);

        connection.client.set_nonblocking(true).unwrap();
        wait_for("an empty queue", || {
            while let Ok(1..) = connection.client.read(&mut [0; 4096]) {}
            queue().is_none().then_some(())
        });
    }
}
