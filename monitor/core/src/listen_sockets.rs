//! The listening sockets of this host, tracked to detect when the last one of a port is gone.

use std::collections::{HashMap, HashSet};

use super::{
    event::ListeningSocket,
    facts::{ConnId, ListenerId},
    time::Ktime,
};

#[derive(Debug, Default)]
pub(super) struct ListenSockets {
    /// Every listening socket, and since when it is known.
    sockets: HashMap<ConnId, (Ktime, Port)>,
    /// The number of sockets per port: processes may share a port (`SO_REUSEPORT`).
    counts: HashMap<Port, usize>,
    /// Sockets that ended since the last scan, which may still have seen them.
    ended: HashSet<ConnId>,
}

/// A port of one network namespace: several containers may use the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Port {
    listener: ListenerId,
    netns: u32,
    port: u16,
}

impl ListenSockets {
    /// A socket began to listen.
    pub(super) fn began(&mut self, at: Ktime, socket: &ListeningSocket) {
        let port = Port::of(socket);
        if self.sockets.insert(socket.conn, (at, port)).is_none() {
            *self.counts.entry(port).or_default() += 1;
        }
    }

    /// A socket stopped listening. Returns true if its port has no other.
    pub(super) fn ended(&mut self, socket: &ListeningSocket) -> bool {
        self.ended.insert(socket.conn);
        match self.sockets.remove(&socket.conn) {
            Some((_, port)) => self.take(port),
            // It was never reported. Sockets known from other records still listen.
            None => !self.counts.contains_key(&Port::of(socket)),
        }
    }

    /// A scan that began at `at` found these sockets; `complete` if there are no others. Returns
    /// the listeners whose last socket ended unnoticed, because a record was lost.
    pub(super) fn observe(
        &mut self,
        at: Ktime,
        found: &[ListeningSocket],
        complete: bool,
    ) -> Vec<ListenerId> {
        let ended = std::mem::take(&mut self.ended);
        for socket in found.iter().filter(|s| !ended.contains(&s.conn)) {
            self.began(at, socket);
        }
        if !complete {
            return Vec::new();
        }
        let missing = |(conn, (since, port)): (&ConnId, &(Ktime, Port))| {
            let found = found.iter().any(|socket| socket.conn == *conn);
            // A socket that began after the scan is not missing.
            (!found && *since <= at).then_some((*conn, *port))
        };
        let missing: Vec<_> = self.sockets.iter().filter_map(missing).collect();
        let gone = missing.into_iter().filter_map(|(conn, port)| {
            self.sockets.remove(&conn);
            self.take(port).then_some(port.listener)
        });
        gone.collect()
    }

    /// The number of listening sockets of a listener, over all of its ports and network namespaces.
    pub(super) fn count(&self, listener: ListenerId) -> u64 {
        let counts = self.counts.iter();
        let own = counts.filter(|(port, _)| port.listener == listener);
        own.map(|(_, count)| *count as u64).sum()
    }

    /// Removes one socket. Returns true if it was the last one.
    fn take(&mut self, port: Port) -> bool {
        let Some(count) = self.counts.get_mut(&port) else {
            return false;
        };
        *count -= 1;
        let is_last = *count == 0;
        if is_last {
            self.counts.remove(&port);
        }
        is_last
    }
}

impl Port {
    fn of(socket: &ListeningSocket) -> Self {
        Self {
            listener: socket.listener,
            netns: socket.netns,
            port: socket.port,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Ktime = Ktime(5);

    fn socket(conn: u64, netns: u32, port: u16) -> ListeningSocket {
        ListeningSocket {
            conn: ConnId(conn),
            listener: ListenerId(0),
            netns,
            port,
        }
    }

    #[test]
    fn a_server_is_gone_with_the_last_socket_of_its_port() {
        let mut listen_sockets = ListenSockets::default();
        let [one, two] = [socket(1, 7, 80), socket(2, 7, 80)];
        listen_sockets.began(AT, &one);
        listen_sockets.began(AT, &two);
        assert_eq!(listen_sockets.count(ListenerId(0)), 2);
        assert!(!listen_sockets.ended(&one));
        assert_eq!(listen_sockets.count(ListenerId(0)), 1);
        assert!(listen_sockets.ended(&two));
        assert_eq!(listen_sockets.count(ListenerId(0)), 0);
        listen_sockets.began(AT, &one);
    }

    #[test]
    fn a_socket_in_another_container_or_on_another_port_does_not_count() {
        let mut listen_sockets = ListenSockets::default();
        for there in [socket(1, 7, 80), socket(2, 8, 80), socket(3, 7, 81)] {
            listen_sockets.began(AT, &there);
        }
        assert!(listen_sockets.ended(&socket(1, 7, 80)));
    }

    #[test]
    fn the_end_of_an_unknown_socket_counts_if_there_is_no_other() {
        let mut listen_sockets = ListenSockets::default();
        assert!(listen_sockets.ended(&socket(1, 7, 80)));
        listen_sockets.began(AT, &socket(2, 7, 80));
        assert!(!listen_sockets.ended(&socket(1, 7, 80)));
    }

    #[test]
    fn a_complete_scan_finds_missed_ends_and_spares_later_sockets() {
        let mut listen_sockets = ListenSockets::default();
        let [early, late, other] = [socket(1, 7, 80), socket(2, 7, 81), socket(3, 7, 82)];
        listen_sockets.began(AT, &early);
        listen_sockets.began(Ktime(20), &late);
        let scan_at = Ktime(10);
        let found = std::slice::from_ref(&other);
        assert_eq!(listen_sockets.observe(scan_at, found, false), []);
        assert_eq!(
            listen_sockets.observe(scan_at, found, true),
            [ListenerId(0)]
        );
        assert!(listen_sockets.ended(&late));
        assert!(listen_sockets.ended(&other));
    }

    #[test]
    fn a_socket_that_ended_during_the_scan_does_not_come_back() {
        let mut listen_sockets = ListenSockets::default();
        let [old, new] = [socket(1, 7, 80), socket(2, 7, 80)];
        listen_sockets.began(AT, &old);
        listen_sockets.ended(&old);
        listen_sockets.began(AT, &new);
        listen_sockets.observe(AT, &[old, new], true);
        assert!(listen_sockets.ended(&new));
    }
}
