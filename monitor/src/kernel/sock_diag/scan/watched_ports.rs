//! The sockets of one network namespace that the listeners watch.

use std::collections::BTreeSet;

use super::{Scan, ScannedSocket};
use crate::{
    config::listeners::ListenerConfig,
    kernel::{
        clock,
        host::netns::NetNs,
        sock_diag::{SockDiag, SockDiagError, inet_diag::DiagSocket, port_filter::PortFilter},
    },
};
use monitor_core::{
    event::ListeningSocket,
    facts::{ConnId, Role},
};

/// What the listeners watch, for one scan.
pub(super) struct WatchedPorts<'a> {
    pub(super) listeners: &'a [ListenerConfig],
    filter: PortFilter,
}

/// The listening sockets of a namespace.
pub(super) struct Listening {
    /// The watched ports with one.
    pub(super) ports: BTreeSet<u16>,
    /// Sockets on any port.
    all: u64,
}

impl Listening {
    /// Whether a namespace with so many TCP sockets has no others.
    pub(super) fn are_all(&self, sockets: Option<u64>) -> bool {
        sockets == Some(self.all)
    }
}

impl<'a> WatchedPorts<'a> {
    pub(super) fn new(listeners: &'a [ListenerConfig]) -> Self {
        Self {
            listeners,
            filter: PortFilter::of(listeners),
        }
    }

    /// Finds the listening sockets of the calling thread's namespace, and adds it to the scan.
    pub(super) fn listening(
        &self,
        scan: &mut Scan,
        netns: &NetNs,
        sock_diag: &mut SockDiag,
    ) -> Result<Listening, SockDiagError> {
        let is_server = |local| {
            let watching = ListenerConfig::watching(self.listeners, local, 0);
            matches!(watching, Some((_, Role::Server)))
        };
        let (mut sockets, mut all) = (Vec::new(), 0);
        scan.dump(|| {
            sockets.clear();
            all = 0;
            let is_wanted = |local| {
                all += 1;
                is_server(local)
            };
            sock_diag.dump_listening(is_wanted, |socket| sockets.push(socket))
        })?;
        scan.namespaces += 1;
        let netns = u32::try_from(netns.id().inode).unwrap_or(u32::MAX);
        scan.listening.extend(sockets.iter().filter_map(|socket| {
            let port = socket.local.port();
            Some(ListeningSocket {
                conn: ConnId(socket.cookie),
                listener: ListenerConfig::watching(self.listeners, port, 0)?.0,
                netns,
                port,
            })
        }));
        Ok(Listening {
            ports: sockets.iter().map(|socket| socket.local.port()).collect(),
            all,
        })
    }

    /// Dumps the connections of the namespace in which `listening` was found.
    pub(super) fn connections(
        &self,
        scan: &mut Scan,
        listening: &Listening,
        sock_diag: &mut SockDiag,
        mut visit: impl FnMut(&ScannedSocket<'_>),
    ) -> Result<(), SockDiagError> {
        let begun = clock::of_thread();
        let wanted = |local, peer| ListenerConfig::watching(self.listeners, local, peer).is_some();
        scan.dump(|| {
            let show = |socket| visit(&self.classify(&socket, &listening.ports));
            sock_diag.dump(&self.filter, wanted, show)
        })?;
        let cost = clock::of_thread().saturating_sub(begun);
        scan.shortest_dump = Some(scan.shortest_dump.map_or(cost, |least| least.min(cost)));
        scan.dumped += 1;
        Ok(())
    }

    /// `served` are the watched ports on which something listens in the socket's namespace.
    pub(super) fn classify<'s>(
        &self,
        socket: &'s DiagSocket,
        served: &BTreeSet<u16>,
    ) -> ScannedSocket<'s> {
        let (local, peer) = (socket.local.port(), socket.peer.port());
        let watched = if local > peer && !served.contains(&local) {
            ListenerConfig::watching_outgoing(self.listeners, peer)
        } else {
            ListenerConfig::watching(self.listeners, local, peer)
        };
        ScannedSocket { socket, watched }
    }
}
