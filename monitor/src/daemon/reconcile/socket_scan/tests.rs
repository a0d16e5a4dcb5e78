//! Scans of real sockets in network namespaces. Those of other tests come and go meanwhile.

use std::{io::Write, net::TcpStream, time::Instant};

use rustix::net::sockopt::{set_socket_linger, socket_cookie};

use super::*;
use crate::{
    config::listeners::PortRange,
    kernel::testing::{Connection, Namespace, wait_for, without_proc, without_threads},
};
use monitor_core::{
    ListenerId, ListenerRules,
    facts::{Protocol, Role},
};

#[test]
fn a_target_found_twice_or_an_unknown_socket_is_not_missing() {
    let targets = sorted([3, 1, 3, 2].map(ConnId));
    let mut search = TargetSearch::new(&targets);
    for conn in [3, 3, 7] {
        search.mark_found(ConnId(conn));
    }
    assert_eq!(search.missing(), [1, 2].map(ConnId));
}

/// Scans in a row, each with what the last one left.
struct Scanner {
    listeners: [ListenerConfig; 1],
    known: Vec<Facts>,
    memory: ScanMemory,
    send_queues: SendQueues,
    may_search_everywhere: bool,
}

impl Scanner {
    fn new(known: &[&Connection]) -> Self {
        let port = |it: &&Connection| it.server.local_addr().unwrap().port();
        Self {
            listeners: [ListenerConfig {
                rules: ListenerRules::new("web", None),
                ports: known
                    .iter()
                    .map(port)
                    .map(|port| PortRange(port..=port))
                    .collect(),
                remote: false,
            }],
            known: known.iter().map(|it| facts(&it.server)).collect(),
            memory: ScanMemory::default(),
            send_queues: SendQueues::default(),
            may_search_everywhere: true,
        }
    }

    /// A scan that searches everywhere, or only if it must.
    fn scan(&mut self, everywhere: bool) -> ScannedSockets {
        let scanned = self.try_scan(everywhere).unwrap();
        self.send_queues = scanned.send_queues.clone();
        scanned
    }

    fn try_scan(&mut self, everywhere: bool) -> Result<ScannedSockets, NetNsError> {
        let known = self.known.clone();
        let lookup = move |conn| known.iter().find(|facts| facts.conn == conn).cloned();
        let targets = ScanTargets {
            seeds: sorted([]),
            // No socket has this cookie.
            requests: sorted(everywhere.then_some(ConnId(0))),
            known: self.known.iter().map(|facts| facts.conn).collect(),
            lookup: Some(Box::new(lookup)),
            may_search_everywhere: self.may_search_everywhere,
            send_queues: self.send_queues.clone(),
        };
        scan_host(&self.listeners, targets, &mut self.memory)
    }

    /// Scans until a scan is complete.
    fn complete_scan(&mut self, everywhere: bool) -> ScannedSockets {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let scanned = self.scan(everywhere);
            if scanned.complete {
                return scanned;
            }
            assert_eq!(scanned.gone, [], "an incomplete scan proves nothing");
            assert!(Instant::now() < deadline, "{:?}", scanned.omissions);
        }
    }

    /// A complete scan that knows no location and need not search everywhere.
    fn first_scan(&mut self) -> ScannedSockets {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            self.memory = ScanMemory::default();
            let scanned = self.scan(false);
            if scanned.complete {
                return scanned;
            }
            assert!(Instant::now() < deadline, "{:?}", scanned.omissions);
        }
    }

    /// Scans, which search everywhere only if they must, until one gives up connections.
    fn gone(&mut self) -> Vec<ConnId> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let gone = self.scan(false).gone;
            if !gone.is_empty() {
                return gone;
            }
            assert!(Instant::now() < deadline, "it is never given up");
        }
    }
}

fn conn(socket: &TcpStream) -> ConnId {
    ConnId(socket_cookie(socket).unwrap())
}

fn facts(server: &TcpStream) -> Facts {
    let [local, peer] = [server.local_addr(), server.peer_addr()].map(Result::unwrap);
    Facts::new(
        Ktime(1),
        conn(server),
        ListenerId(0),
        Role::Server,
        Protocol::WebSocket,
        local,
        peer,
    )
}

/// The client's RST closes the server's socket at once.
fn abort(connection: Connection) {
    set_socket_linger(&connection.client, Some(Duration::ZERO)).unwrap();
    drop(connection);
}

#[test]
#[ignore = "needs root: makes a network namespace"]
fn a_socket_that_two_searches_miss_is_gone_however_they_search() {
    let namespace = Namespace::new();
    for first in [true, false] {
        let [open, closed] = [(), ()].map(|()| namespace.connect("127.0.0.1:0", "127.0.0.1:0"));
        let mut scanner = Scanner::new(&[&open, &closed]);
        let dead = conn(&closed.server);
        let found = scanner.complete_scan(true);
        assert_eq!((found.gone, found.missed), (vec![], vec![]));
        abort(closed);
        let missed = scanner.complete_scan(first);
        assert_eq!((missed.gone, missed.missed), (vec![], vec![dead]));
        assert_eq!(scanner.gone(), [dead], "first missed everywhere: {first}");
    }
}

#[test]
#[ignore = "needs root: makes a network namespace"]
fn a_missed_connection_is_not_sought_everywhere_before_that_is_allowed() {
    let namespace = Namespace::new();
    let connection = namespace.connect("127.0.0.1:0", "127.0.0.1:0");
    let mut scanner = Scanner::new(&[&connection]);
    scanner.may_search_everywhere = false;
    // Nothing listens on its port.
    for everywhere in [false, false, true] {
        let scanned = scanner.complete_scan(everywhere);
        assert_eq!((scanned.missed.len(), scanned.gone), (1, vec![]));
    }
    scanner.may_search_everywhere = true;
    assert_eq!(scanner.complete_scan(false).missed, []);
}

/// The namespaces cannot be listed, or not be entered.
#[test]
#[ignore = "needs root: makes a network namespace, changes the root directory of a thread"]
fn after_a_scan_that_fails_the_next_one_knows_where_the_connections_are() {
    type FailingScan = fn(&mut Scanner, bool) -> Result<ScannedSockets, NetNsError>;
    let unlisted: FailingScan = |scanner, everywhere| without_proc(|| scanner.try_scan(everywhere));
    let not_entered: FailingScan =
        |scanner, everywhere| without_threads(|| scanner.try_scan(everywhere));
    let namespace = Namespace::new();
    for (scan, reason) in [
        (unlisted, "cannot list network namespaces"),
        (not_entered, "cannot start a thread"),
    ] {
        let fails = |scanner: &mut Scanner, everywhere| {
            let error = scan(scanner, everywhere).unwrap_err().to_string();
            assert!(error.starts_with(reason), "{error}");
        };
        let [open, closed] = [(), ()].map(|()| namespace.connect("127.0.0.1:0", "127.0.0.1:0"));
        let mut scanner = Scanner::new(&[&open, &closed]);
        assert_eq!(scanner.complete_scan(true).missed, []);
        fails(&mut scanner, false);

        // Nothing listens on their ports, so a scan that has forgotten their namespace does not find them.
        assert_eq!(scanner.complete_scan(false).missed, []);
        let dead = conn(&closed.server);
        abort(closed);
        assert_eq!(scanner.complete_scan(true).missed, [dead]);
        fails(&mut scanner, true);
        // The search before the failed scan counts, so one more is enough.
        assert_eq!(scanner.complete_scan(true).gone, [dead]);
    }
}

#[test]
#[ignore = "needs root: makes a network namespace"]
fn the_queues_of_a_connection_that_was_not_sought_stay_as_they_were() {
    let namespace = Namespace::new();
    let mut connection = namespace.connect("127.0.0.1:0", "127.0.0.1:0");
    connection.server.set_nonblocking(true).unwrap();
    let mut scanner = Scanner::new(&[&connection]);
    let of = conn(&connection.server);
    let unsent = |queues: &SendQueues| queues.unsent(of).map(|unsent| unsent.bytes);
    // Nothing listens on its port, so only a search everywhere finds it.
    let first = scanner.first_scan();
    assert_eq!(first.missed, [of]);
    assert_eq!(unsent(&first.send_queues), None);
    // Once the window is closed, nothing leaves the queue any more.
    let bytes = wait_for("a closed window", || {
        while connection.server.write(&[0; 4096]).is_ok() {}
        let second = scanner.complete_scan(true);
        assert_eq!(second.missed, []);
        let unsent = second.send_queues.unsent(of);
        unsent
            .filter(|unsent| unsent.held_since.is_some())
            .map(|unsent| unsent.bytes)
    });
    assert!(bytes > 0);
    let third = scanner.first_scan();
    assert_eq!(third.missed, [of]);
    assert_eq!(unsent(&third.send_queues), Some(bytes));
}
