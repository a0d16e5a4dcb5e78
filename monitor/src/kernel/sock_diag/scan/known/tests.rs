//! Scans of real sockets in network namespaces. Those of other tests come and go meanwhile.

use std::{
    net::{TcpListener, TcpStream},
    thread,
};

use rustix::net::sockopt::{set_socket_linger, socket_cookie};

use super::*;
use crate::{
    config::listeners::PortRange,
    kernel::{
        sock_diag::scan,
        testing::{Connection, Namespace, key_of, refuse_new_threads, with_cookie},
    },
};
use monitor_core::{
    Ktime, ListenerRules,
    facts::{ListenerId, Protocol, Role},
};

fn listener(port: u16, remote: bool) -> ListenerConfig {
    ListenerConfig {
        rules: ListenerRules::new("l", None),
        ports: vec![PortRange(port..=port)],
        remote,
    }
}

fn conn(socket: &TcpStream) -> ConnId {
    ConnId(socket_cookie(socket).unwrap())
}

fn facts(socket: &TcpStream, role: Role) -> Facts {
    let [local, peer] = [socket.local_addr(), socket.peer_addr()].map(Result::unwrap);
    let protocol = Protocol::WebSocket;
    Facts::new(
        Ktime(1),
        conn(socket),
        ListenerId(0),
        role,
        protocol,
        local,
        peer,
    )
}

/// Scans for these connections as the daemon does, from one scan to the next.
struct Scanner {
    listeners: Vec<ListenerConfig>,
    known: Vec<Facts>,
    locations: Locations,
}

impl Scanner {
    fn new(listener: ListenerConfig, known: impl IntoIterator<Item = Facts>) -> Self {
        let mut known: Vec<_> = known.into_iter().collect();
        known.sort_by_key(|facts| facts.conn);
        Self {
            listeners: vec![listener],
            known,
            locations: Locations::default(),
        }
    }

    /// The scan, the fate of each connection, and how many were passed.
    fn scan(&mut self) -> (Scan, Vec<Fate>, usize) {
        self.scan_for(false)
    }

    fn scan_for(&mut self, everywhere: bool) -> (Scan, Vec<Fate>, usize) {
        let conns: Vec<_> = self.known.iter().map(|facts| facts.conn).collect();
        let lookup = |conn| self.known.iter().find(|facts| facts.conn == conn).cloned();
        let known = KnownConnections {
            conns: &conns,
            lookup: &lookup,
            everywhere,
        };
        let mut passed = 0;
        let visit =
            |socket: &ScannedSocket<'_>| passed += usize::from(conns.contains(&socket.conn()));
        let (scan, fates) =
            known_connections(&self.listeners, &known, &mut self.locations, visit).unwrap();
        (scan, fates, passed)
    }
}

/// A server on a port, with connections.
struct Server {
    _listener: TcpListener,
    connections: Vec<Connection>,
}

impl Server {
    fn new(namespace: &Namespace, port: u16, connections: usize) -> Self {
        namespace.enter(|| {
            let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
            let connect = || {
                let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
                let (server, _) = listener.accept().unwrap();
                // Dropped, the client sends a RST, which ends the server's socket at once.
                set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
                Connection { client, server }
            };
            let connections = (0..connections).map(|_| connect()).collect();
            Self {
                connections,
                _listener: listener,
            }
        })
    }

    fn facts(&self) -> impl Iterator<Item = Facts> {
        let sockets = self.connections.iter();
        sockets.map(|connection| facts(&connection.server, Role::Server))
    }
}

/// Among 40 namespaces with 2,000 sockets.
#[test]
#[ignore = "needs root: makes network namespaces"]
fn connections_are_read_only_in_namespaces_that_have_a_known_one() {
    const WATCHED: u16 = 18_251;
    const OTHER: u16 = 18_252;
    let namespaces: Vec<_> = (0..40).map(|_| Namespace::new()).collect();
    let (served, others) = namespaces.split_at(4);
    let of_others: Vec<_> = others.iter().map(|it| Server::new(it, OTHER, 25)).collect();
    let mut servers: Vec<_> = served
        .iter()
        .map(|it| Server::new(it, WATCHED, 25))
        .collect();
    let known = servers.iter().flat_map(Server::facts);
    let mut scanner = Scanner::new(listener(WATCHED, false), known);
    for _ in 0..3 {
        let (scan, fates, passed) = scanner.scan();
        assert_eq!(scan.dumped + scan.queried, 4);
        assert_eq!(scan.listening.len(), 4);
        assert!(scan.skipped >= others.len(), "{scan:?}");
        assert_eq!(fates, [Fate::Found; 100]);
        assert!(passed >= 100);
    }

    // Queries find the same, and what has ended is absent at once.
    scanner.locations.dump = Duration::from_secs(1);
    let keys = |server: &Server| {
        let sockets = server.connections.iter();
        sockets
            .map(|connection| key_of(&connection.server))
            .collect()
    };
    for (namespace, server) in served.iter().zip(&servers) {
        scanner.locations.set(namespace.netns().id(), keys(server));
    }
    drop(servers.pop());
    drop(of_others);
    let (scan, fates, passed) = scanner.scan();
    assert_eq!((scan.dumped, scan.queried, scan.queries), (0, 4, 100));
    let of = |fate| fates.iter().filter(|it| **it == fate).count();
    assert_eq!((of(Fate::Found), of(Fate::Absent), passed), (75, 25, 75));
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn new_connections_are_found_where_their_listener_is() {
    const PORT: u16 = 18_253;
    let namespaces = [Namespace::new(), Namespace::new()];
    let servers = namespaces.each_ref().map(|it| Server::new(it, PORT, 1));
    let mut scanner = Scanner::new(listener(PORT, false), servers[0].facts());
    assert_eq!(scanner.scan().1, [Fate::Found]);

    scanner.locations.dump = Duration::from_secs(1);
    scanner.known.extend(servers[1].facts());
    scanner.known.sort_by_key(|facts| facts.conn);
    let (scan, fates, _) = scanner.scan();
    assert_eq!(fates, [Fate::Found; 2]);
    assert_eq!((scan.dumped + scan.queried, scan.listening.len()), (2, 2));
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn a_connection_without_its_listener_is_found_by_a_search_everywhere_and_then_known() {
    const PORT: u16 = 18_254;
    let namespace = Namespace::new();
    let connection = namespace.connect("127.0.0.1:18254", "127.0.0.1:18254");
    let known = facts(&connection.server, Role::Server);
    let mut scanner = Scanner::new(listener(PORT, false), [known]);
    assert_eq!(scanner.scan().1, [Fate::Unlocated]);
    let (scan, fates, _) = scanner.scan_for(true);
    assert_eq!(fates, [Fate::Found]);
    assert!(scan.dumped >= 1);
    let (scan, fates, _) = scanner.scan();
    assert_eq!((fates, scan.dumped + scan.queried), (vec![Fate::Found], 1));
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn a_connection_that_this_host_opened_is_found_without_a_listener() {
    const PORT: u16 = 18_255;
    let namespace = Namespace::new();
    let connection = namespace.connect("127.0.0.1:18255", "127.0.0.1:18255");
    let known = facts(&connection.client, Role::Client);
    let mut scanner = Scanner::new(listener(PORT, true), [known]);
    assert_eq!(scanner.scan().1, [Fate::Found]);
    let (scan, fates, _) = scanner.scan();
    assert_eq!((fates, scan.dumped + scan.queried), (vec![Fate::Found], 1));
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn a_socket_that_is_bound_to_an_interface_is_queried_with_it() {
    const PORT: u16 = 18_256;
    let namespace = Namespace::new();
    let scoped = namespace.add_link_local("fe80::1");
    let address = format!("[fe80::1%{scoped}]:{PORT}");
    let connection = namespace.connect(&address, &address);
    let known = facts(&connection.server, Role::Server);
    let mut scanner = Scanner::new(listener(PORT, false), [known]);
    let (netns, mut keys) = (namespace.netns(), Vec::new());
    scan::connections(&scanner.listeners, &[&netns], |socket| {
        keys.push(socket.key());
    })
    .unwrap();
    scanner.locations.dump = Duration::from_secs(1);
    scanner.locations.set(netns.id(), keys);
    let (scan, fates, _) = scanner.scan();
    assert_eq!((fates, scan.queried), (vec![Fate::Found], 1));
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn an_address_of_a_namespace_that_is_gone_leads_to_no_namespace() {
    const PORT: u16 = 18_257;
    let namespace = Namespace::new();
    let scoped = namespace.add_link_local("fe80::1");
    let address = format!("[fe80::1%{scoped}]:{PORT}");
    let (_listener, server, _client) = namespace.enter(|| {
        let listener = TcpListener::bind(&address).unwrap();
        let client = TcpStream::connect(&address).unwrap();
        let (server, _) = listener.accept().unwrap();
        (listener, server, client)
    });
    let mut scanner = Scanner::new(listener(PORT, false), [facts(&server, Role::Server)]);
    let gone = NetNsId { dev: 0, inode: 0 };
    scanner.locations.dump = Duration::from_secs(1);
    scanner
        .locations
        .set(gone, vec![with_cookie(&key_of(&server), 1)]);
    // A query without the interface would not find it.
    scanner.locations.dump = Duration::ZERO;
    assert_eq!(scanner.scan().1, [Fate::Found]);
}

/// The first walk dumps the namespace with many connections. The second one, which would query the other, fails.
#[test]
#[ignore = "needs root: makes network namespaces"]
fn a_second_walk_that_fails_keeps_the_locations_that_it_would_have_read() {
    const PORT: u16 = 18_258;
    let namespaces = [Namespace::new(), Namespace::new(), Namespace::new()];
    let address = format!("127.0.0.1:{PORT}");
    let connections = namespaces
        .each_ref()
        .map(|it| it.connect(&address, &address));
    let [dumped, queried, unplaced] = connections.each_ref().map(|it| key_of(&it.server));
    let [dumped_in, queried_in, _] = namespaces.each_ref().map(|it| it.netns().id());
    let of_servers = connections.iter().map(|it| facts(&it.server, Role::Server));
    let mut scanner = Scanner::new(listener(PORT, false), of_servers);
    scanner.locations.set(dumped_in, vec![dumped]);
    scanner.locations.dump = Duration::from_secs(1);
    scanner.locations.set(queried_in, vec![queried]);
    assert_eq!(scanner.locations.namespaces[&dumped_in], Located::Many);

    let conns: Vec<_> = scanner.known.iter().map(|facts| facts.conn).collect();
    // Called between the walks, for the connection without a location.
    let lookup = |conn| {
        assert_eq!(conn, ConnId(unplaced.cookie()));
        refuse_new_threads();
        None
    };
    let known = KnownConnections {
        conns: &conns,
        lookup: &lookup,
        everywhere: false,
    };
    let Scanner {
        listeners,
        locations,
        ..
    } = &mut scanner;
    let scan = || known_connections(listeners, &known, locations, |_| {}).map(drop);
    let failed = thread::scope(|scope| scope.spawn(scan).join()).unwrap();
    assert!(
        matches!(failed, Err(NetNsError::Thread { .. })),
        "{failed:?}"
    );
    let few = |key| Located::Few(vec![key]);
    let expected = [(dumped_in, few(dumped)), (queried_in, few(queried))];
    assert_eq!(scanner.locations.namespaces, HashMap::from(expected));
}
