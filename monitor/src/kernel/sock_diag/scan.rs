//! Scans the TCP sockets of this host, in every network namespace.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::{
    Dump, SockDiag, SockDiagError, inet_diag::DiagSocket, port_filter::PortFilter, seed,
    socket_finder::FindError,
};
use crate::{
    config::listeners::ListenerConfig,
    kernel::host::{
        netns::{self, NetNs, NetNsError, NetNsId},
        owner::OwnedSocket,
    },
};
use monitor_core::{
    event::{ListeningSocket, ReceiveQueue, SendQueue},
    facts::{ConnId, Facts, ListenerId, Role},
};

/// The result of a scan, except the connections.
#[derive(Debug, Default)]
pub struct Scan {
    /// The listening sockets on watched ports of this host.
    pub listening: Vec<ListeningSocket>,
    /// Network namespaces that were scanned.
    pub namespaces: usize,
    /// Network namespaces that could not be scanned. Their older connections are unknown.
    pub refused: Vec<RefusedNamespace>,
    /// Processes whose namespace is hidden from us; see [`netns::NetNsList::refused`].
    pub hidden: usize,
    /// Sockets on watched ports that could not be parsed.
    pub unparsed: u64,
    /// Namespaces whose dump was interrupted and then repeated.
    pub interrupted: usize,
    pub elapsed: Duration,
}

impl Scan {
    /// Whether no socket can have been missed.
    pub fn is_complete(&self) -> bool {
        self.refused.is_empty() && self.unparsed == 0 && self.interrupted == 0
    }
}

#[derive(Debug)]
pub struct RefusedNamespace {
    pub name: String,
    pub error: FindError,
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
pub fn listening(listeners: &[ListenerConfig]) -> Result<Scan, NetNsError> {
    let mut listening = Vec::new();
    let dump = |sock_diag: &mut SockDiag, sockets: &mut _| {
        let of_listening = dump_listening(sock_diag, listeners, sockets)?;
        Ok([of_listening, Dump::default()])
    };
    let scan = walk(dump, |netns, sockets| {
        listening.extend(watched(listeners, netns, &sockets));
    })?;
    Ok(Scan { listening, ..scan })
}

/// Finds the listening sockets on all ports, in all network namespaces. [`Scan::listening`] is empty.
///
/// Fails only if the namespaces cannot even be listed.
pub fn all_listening() -> Result<(Vec<HostListener>, Scan), NetNsError> {
    let mut listening = Vec::new();
    let dump = |sock_diag: &mut SockDiag, sockets: &mut Vec<_>| {
        let dump = sock_diag.dump_listening(|_| true, |socket| sockets.push(socket))?;
        Ok([dump, Dump::default()])
    };
    let scan = walk(dump, |netns, sockets| {
        let found = sockets.into_iter();
        listening.extend(found.map(|socket| HostListener { socket, netns }));
    })?;
    Ok((listening, scan))
}

/// Finds the listening sockets, and calls `visit` with each connection on a watched port, in all
/// network namespaces. A connection may be passed more than once. If both ends are on this host, each
/// end is passed separately.
///
/// Fails only if the namespaces cannot even be listed.
pub fn connections(
    listeners: &[ListenerConfig],
    mut visit: impl FnMut(&ScannedSocket<'_>),
) -> Result<Scan, NetNsError> {
    let filter = PortFilter::of(listeners);
    let mut listening = Vec::new();
    let dump = |sock_diag: &mut SockDiag, sockets: &mut Vec<DiagSocket>| {
        let of_listening = dump_listening(sock_diag, listeners, sockets)?;
        let served: BTreeSet<u16> = sockets.iter().map(|s| s.local.port()).collect();
        let wanted = |local, peer| ListenerConfig::watching(listeners, local, peer).is_some();
        let of_connections = sock_diag.dump(&filter, wanted, |socket| {
            let (local, peer) = (socket.local.port(), socket.peer.port());
            let watched = if local > peer && !served.contains(&local) {
                ListenerConfig::watching_outgoing(listeners, peer)
            } else {
                ListenerConfig::watching(listeners, local, peer)
            };
            visit(&ScannedSocket {
                socket: &socket,
                watched,
            });
        })?;
        Ok([of_listening, of_connections])
    };
    let scan = walk(dump, |netns, sockets| {
        listening.extend(watched(listeners, netns, &sockets));
    })?;
    Ok(Scan { listening, ..scan })
}

/// The listening sockets of a namespace that a listener watches.
fn watched(
    listeners: &[ListenerConfig],
    netns: NetNsId,
    sockets: &[DiagSocket],
) -> impl Iterator<Item = ListeningSocket> {
    let netns = u32::try_from(netns.inode).unwrap_or(u32::MAX);
    sockets.iter().filter_map(move |socket| {
        let port = socket.local.port();
        Some(ListeningSocket {
            conn: ConnId(socket.cookie),
            listener: ListenerConfig::watching(listeners, port, 0)?.0,
            netns,
            port,
        })
    })
}

/// Scans each namespace, and repeats a dump that was interrupted. `dump` fills the given list of
/// listening sockets, which `take` receives for each namespace.
fn walk(
    mut dump: impl FnMut(&mut SockDiag, &mut Vec<DiagSocket>) -> Result<[Dump; 2], SockDiagError>,
    mut take: impl FnMut(NetNsId, Vec<DiagSocket>),
) -> Result<Scan, NetNsError> {
    let started = Instant::now();
    let namespaces = netns::enumerate()?;
    let mut scan = Scan {
        hidden: namespaces.refused,
        ..Scan::default()
    };
    for namespace in &namespaces.found {
        let mut sockets = Vec::new();
        let mut read_all = || -> Result<[Dump; 2], FindError> {
            let mut sock_diag = netns::in_namespace(namespace, SockDiag::open)??;
            let mut dumps = dump(&mut sock_diag, &mut sockets)?;
            if dumps.iter().any(|dump| dump.interrupted) {
                scan.interrupted += 1;
                sockets.clear();
                dumps = dump(&mut sock_diag, &mut sockets)?;
            }
            Ok(dumps)
        };
        match read_all() {
            Ok(dumps) => {
                scan.namespaces += 1;
                scan.unparsed += dumps.iter().map(|dump| dump.unparsed).sum::<u64>();
                take(namespace.id(), sockets);
            }
            Err(error) => scan.refused.push(refused(namespace, error)),
        }
    }
    scan.elapsed = started.elapsed();
    Ok(scan)
}

fn refused(namespace: &NetNs, error: FindError) -> RefusedNamespace {
    RefusedNamespace {
        name: namespace.name().to_owned(),
        error,
    }
}

fn dump_listening(
    sock_diag: &mut SockDiag,
    listeners: &[ListenerConfig],
    listening: &mut Vec<DiagSocket>,
) -> Result<Dump, SockDiagError> {
    let is_server = |local| {
        let watching = ListenerConfig::watching(listeners, local, 0);
        matches!(watching, Some((_, Role::Server)))
    };
    sock_diag.dump_listening(is_server, |socket| listening.push(socket))
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

    /// The connections on a port of this host's servers, and their unread bytes.
    fn scanned(port: u16) -> (Vec<ConnId>, Vec<ReceiveQueue>) {
        let (mut found_conns, mut unread) = (Vec::new(), Vec::new());
        let scan = connections(&[listener(port)], |found| {
            found_conns.push(found.conn());
            unread.extend(found.receive_queue());
        });
        assert!(scan.unwrap().is_complete());
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
            let scan = connections(&[listener(PORT)], |socket| found = socket.send_queue());
            assert!(scan.unwrap().is_complete());
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
